//! The three steps.

use gptq_core::backend::{Backend, LayerId, LayerSource, Linear, Options, Outcome};
use gptq_core::device::Device;
use gptq_core::format::ZeroEncoding;
use gptq_core::{QuantLinear, Result};

use crate::linear::DenseLinear;

/// The backend, opened for one model.
struct DenseGemm {
    scratch_bytes: usize,
}

pub(crate) fn open(_: &Device, _: &Options) -> Result<Box<dyn Backend>> {
    Ok(Box::new(DenseGemm { scratch_bytes: 0 }))
}

impl Backend for DenseGemm {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Outcome::Done)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut ready: Vec<(LayerId, Box<dyn Linear>)> = Vec::with_capacity(layers.upcoming().len());
        while let Some((id, layer)) = layers.next_layer() {
            let linear = DenseLinear::new(&layer);
            self.scratch_bytes = self.scratch_bytes.max(linear.scratch_bytes());
            ready.push((id, Box::new(linear)));
        }
        Ok(ready)
    }

    fn set_max_input_length(&mut self, _rows: usize) -> Result<Outcome> {
        Ok(Outcome::NotNeeded("rows are run in pieces of fixed size".into()))
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }
}
