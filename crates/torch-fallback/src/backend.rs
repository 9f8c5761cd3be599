//! The three steps.

use gptq_core::backend::{Backend, LayerId, LayerSource, Linear, Options, Outcome};
use gptq_core::device::Device;
use gptq_core::format::ZeroEncoding;
use gptq_core::{QuantLinear, Result};

use crate::linear::TorchLinear;

/// The backend, opened for one model on the CPU.
#[derive(Default)]
pub(crate) struct TorchBackend {
    scratch_bytes: usize,
}

impl TorchBackend {
    pub(crate) fn open(_device: &Device, _options: &Options) -> Result<Box<dyn Backend>> {
        Ok(Box::new(Self::default()))
    }
}

impl Backend for TorchBackend {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Outcome::Done)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut ready: Vec<(LayerId, Box<dyn Linear>)> = Vec::with_capacity(layers.upcoming().len());
        while let Some((id, layer)) = layers.next_layer() {
            let linear = TorchLinear::new(layer);
            self.scratch_bytes = self.scratch_bytes.max(linear.scratch_bytes());
            ready.push((id, Box::new(linear)));
        }
        Ok(ready)
    }

    fn set_max_input_length(&mut self, _rows: usize) -> Result<Outcome> {
        Ok(Outcome::NotNeeded(
            "rows are run in pieces of fixed size; no buffer depends on their number".into(),
        ))
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }
}
