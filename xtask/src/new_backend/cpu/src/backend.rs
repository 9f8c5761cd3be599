//! The three steps that make a model ready.

use gptq_core::backend::{Backend, LayerId, LayerSource, Linear, Options, Outcome};
use gptq_core::device::Device;
use gptq_core::format::ZeroEncoding;
use gptq_core::{QuantLinear, Result};

use crate::linear::MyBackendLinear;

/// What the layers of one model share.
struct MyBackend {
    scratch_bytes: usize,
}

pub(crate) fn open(_device: &Device, _options: &Options) -> Result<Box<dyn Backend>> {
    Ok(Box::new(MyBackend { scratch_bytes: 0 }))
}

impl Backend for MyBackend {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Outcome::Done)
    }

    fn init_buffers(
        &mut self,
        layers: &mut LayerSource<'_>,
    ) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut ready: Vec<(LayerId, Box<dyn Linear>)> = Vec::new();
        while let Some((id, layer)) = layers.next_layer() {
            let linear = MyBackendLinear::new(&layer);
            self.scratch_bytes = self.scratch_bytes.max(linear.scratch_bytes());
            ready.push((id, Box::new(linear)));
        }
        Ok(ready)
    }

    fn set_max_input_length(&mut self, _rows: usize) -> Result<Outcome> {
        Ok(Outcome::NotNeeded("rows are run one at a time".into()))
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }
}
