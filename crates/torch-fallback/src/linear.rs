//! `forward`, and which path it takes.

use gptq_core::backend::Linear;
use gptq_core::device::{Context, Device};
use gptq_core::post_init::check_forward;
use gptq_core::tensor::{DType, Element, TensorMut, TensorRef};
use gptq_core::{Error, QuantLinear, Result};
use half::{bf16, f16};

use crate::fast::Fast;
use crate::kernel::Isa;
use crate::plain::Plain;
use crate::x::Slices;

/// A layer that runs from its packed words.
pub(crate) struct TorchLinear {
    layer: QuantLinear,
    isa: Isa,
    fast: Option<Fast>,
}

impl TorchLinear {
    pub(crate) fn new(layer: QuantLinear, isa: Isa, sorted_copy: bool) -> Self {
        let fast = Fast::new(&layer, isa, sorted_copy);
        Self { layer, isa, fast }
    }

    pub(crate) fn scratch_bytes(&self) -> usize {
        match &self.fast {
            Some(fast) => fast.scratch_bytes(&self.layer),
            None => Plain { layer: &self.layer }.scratch_bytes(),
        }
    }

    fn forward_as<T: Slices>(&self, x: &[T], out: &mut [T], scratch: &mut [u8]) -> Result<()> {
        match &self.fast {
            Some(fast) => fast.forward(&self.layer, self.isa, x, out, scratch),
            None => Plain { layer: &self.layer }.forward(x, out, scratch),
        }
    }
}

impl Linear for TorchLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        // Kernels and the plain path count on it, and an engine that holds a layer by itself has not asked.
        check_forward(self.layer.info(), &Device::Cpu, &DType::ALL, x, out, context)?;
        let scratch: &mut [u8] = bytemuck::cast_slice_mut(context.host_floats()?);
        match x.dtype() {
            DType::F32 => typed::<f32>(x, out).map(|(x, out)| self.forward_as(x, out, scratch)),
            DType::F16 => typed::<f16>(x, out).map(|(x, out)| self.forward_as(x, out, scratch)),
            DType::BF16 => typed::<bf16>(x, out).map(|(x, out)| self.forward_as(x, out, scratch)),
        }
        .unwrap_or_else(|| {
            Err(Error::DtypeMismatch {
                what: format!("out of layer `{}`", self.layer.name()),
                found: out.dtype(),
                expected: format!("{} in host memory, as x", x.dtype()),
            })
        })
    }

    fn resident_bytes(&self) -> usize {
        self.fast.as_ref().map_or(0, Fast::resident_bytes)
    }
}

fn typed<'a, T: Element>(x: &TensorRef<'a>, out: &'a mut TensorMut<'_>) -> Option<(&'a [T], &'a mut [T])> {
    Some((x.as_host()?, out.as_host()?))
}
