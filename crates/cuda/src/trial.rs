//! First calls, made before anyone waits for them.

use gptq_core::LayerInfo;
use gptq_core::backend::Linear;
use gptq_core::device::{Context, Stream as _};
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, Result};

use crate::{CudaStream, Gpu};

/// A layer that is tried, and how.
#[expect(clippy::exhaustive_structs, reason = "what a caller knows, and nothing else")]
pub struct Trial<'l> {
    /// What the layer is.
    pub info: &'l LayerInfo,
    /// The layer.
    pub linear: &'l dyn Linear,
    /// The type of x.
    pub dtype: DType,
    /// Numbers of rows of x; none are tried where it is empty.
    pub rows: Vec<usize>,
}

/// Calls layers of every shape and type once for each number of rows, in a context with so many bytes of scratch: x is
/// zeros, and nobody reads the results. cuBLASLt chooses algorithms and loads their kernels at first calls, which takes
/// milliseconds.
///
/// Where there is too little memory for it nothing is tried: only the time of first calls depends on it.
///
/// # Errors
/// Of the calls.
pub fn try_calls<'l>(
    gpu: &Gpu,
    scratch_bytes: usize,
    trials: impl IntoIterator<Item = Trial<'l>>,
) -> Result<()> {
    match call_each(gpu, scratch_bytes, trials) {
        Err(Error::OutOfMemory { .. }) => Ok(()),
        other => other,
    }
}

fn call_each<'l>(gpu: &Gpu, scratch_bytes: usize, trials: impl IntoIterator<Item = Trial<'l>>) -> Result<()> {
    let mut tried = Vec::new();
    let filling = CudaStream::new(gpu)?;
    let mut context = Context::on_stream(gpu, Box::new(CudaStream::new(gpu)?), scratch_bytes)?;
    for Trial { info, linear, dtype, rows } in trials {
        let (k, n) = (info.in_features, info.out_features);
        let kind = (k, n, info.bias, dtype);
        let Some(most) = rows.iter().copied().max().filter(|_| !tried.contains(&kind)) else { continue };
        tried.push(kind);
        let mut x = gpu.allocate_buffer(most * k * dtype.size_bytes())?;
        let mut out = gpu.allocate_buffer(most * n * dtype.size_bytes())?;
        filling.fill(&mut x, 0)?;
        filling.synchronize()?;
        for rows in rows {
            let x = TensorRef::on_device(dtype, [rows, k], &x, 0)?;
            let mut out = TensorMut::on_device(dtype, [rows, n], &mut out, 0)?;
            linear.forward(&x, &mut out, &mut context)?;
        }
        // Before their memory goes.
        context.synchronize()?;
    }
    Ok(())
}
