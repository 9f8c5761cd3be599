//! One call of a layer, with x and y in host memory wherever it runs.

use std::time::Instant;

use gptq_core::device::{Context, Memory};
use gptq_core::post_init::{FinalizedModel, Layer};
use gptq_core::tensor::{TensorMut, TensorRef};

use crate::failure::Result;
use crate::tensor_file::Matrix;

/// Runs `layer` of `model`, and returns the seconds of the call alone: from its start until the result is there.
pub(crate) fn call(
    model: &FinalizedModel,
    layer: &Layer,
    x: &Matrix,
    y: &mut Matrix,
    context: &mut Context,
) -> Result<f64> {
    match model.memory() {
        None => on_host(layer, x, y, context),
        Some(memory) => on_device(layer, &**memory, x, y, context),
    }
}

fn on_host(layer: &Layer, x: &Matrix, y: &mut Matrix, context: &mut Context) -> Result<f64> {
    let lent = TensorRef::from_bytes(x.dtype(), x.shape(), x.bytes())?;
    let (dtype, shape) = (y.dtype(), y.shape());
    let mut out = TensorMut::from_bytes(dtype, shape, y.bytes_mut())?;
    let started = Instant::now();
    layer.forward(&lent, &mut out, context)?;
    context.synchronize()?;
    Ok(started.elapsed().as_secs_f64())
}

fn on_device(
    layer: &Layer,
    memory: &dyn Memory,
    x: &Matrix,
    y: &mut Matrix,
    context: &mut Context,
) -> Result<f64> {
    // Not every device can allocate nothing, and there may be no rows.
    let mut x_buffer = memory.allocate(x.bytes().len().max(1))?;
    let mut y_buffer = memory.allocate(y.bytes().len().max(1))?;
    memory.upload(x.bytes(), &mut *x_buffer, 0)?;
    // What is in y stays there where a layer leaves it unwritten.
    memory.upload(y.bytes(), &mut *y_buffer, 0)?;
    let lent = TensorRef::on_device(x.dtype(), x.shape(), &*x_buffer, 0)?;
    let mut out = TensorMut::on_device(y.dtype(), y.shape(), &mut *y_buffer, 0)?;
    let started = Instant::now();
    layer.forward(&lent, &mut out, context)?;
    context.synchronize()?;
    let seconds = started.elapsed().as_secs_f64();
    memory.download(&*y_buffer, 0, y.bytes_mut())?;
    Ok(seconds)
}
