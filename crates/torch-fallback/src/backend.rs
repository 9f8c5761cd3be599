//! The three steps.

use gptq_core::backend::{Backend, LayerId, LayerSource, Linear, Options, Outcome};
use gptq_core::device::Device;
use gptq_core::format::ZeroEncoding;
use gptq_core::{Error, QuantLinear, Result};

use crate::kernel::Isa;
use crate::linear::TorchLinear;
use crate::{DENSE_BYTES, DENSE_ROWS, ID, ISA, SORTED_COPY, refuse};

/// Options that this half of the backend has not.
const FOR_GPUS: [&str; 2] = [DENSE_ROWS, DENSE_BYTES];

/// The backend, opened for one model on the CPU.
pub(crate) struct TorchBackend {
    isa: Isa,
    sorted_copy: bool,
    scratch_bytes: usize,
}

impl TorchBackend {
    pub(crate) fn open(options: &Options) -> Result<Box<dyn Backend>> {
        refuse(options, &FOR_GPUS, &Device::Cpu)?;
        Ok(Box::new(Self { isa: isa(options)?, sorted_copy: sorted_copy(options)?, scratch_bytes: 0 }))
    }

    /// A layer by itself.
    pub(crate) fn linear(mut layer: QuantLinear, options: &Options) -> Result<Box<dyn Linear>> {
        refuse(options, &FOR_GPUS, &Device::Cpu)?;
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Box::new(TorchLinear::new(layer, isa(options)?, sorted_copy(options)?)))
    }
}

fn sorted_copy(options: &Options) -> Result<bool> {
    Ok(options.read(ID, SORTED_COPY)?.unwrap_or(true))
}

/// The instruction set that the options name, or the processor's best.
fn isa(options: &Options) -> Result<Isa> {
    match options.read::<Isa>(ID, ISA)? {
        None => Ok(Isa::detect()),
        Some(isa) if isa.is_available() => Ok(isa),
        Some(isa) => Err(Error::Option {
            key: format!("{ID}.{ISA}"),
            problem: format!("this processor has no {isa}; it has {}", Isa::detect()),
        }),
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
            let linear = TorchLinear::new(layer, self.isa, self.sorted_copy);
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
