//! Opening, finalizing and running, for tests.

use std::path::Path;

use gptq_core::Result;
use gptq_core::backend::{BACKEND, PlanRequest, Registry};
use gptq_core::checkpoint::{Checkpoint, OpenOptions};
use gptq_core::device::{Device, Memory};
use gptq_core::post_init::{FinalizedModel, Layer, PostInitOptions, post_init};
use gptq_core::tensor::{DType, Element, TensorMut, TensorRef};
use half::{bf16, f16};

/// Opens a checkpoint that has to open.
pub fn open(dir: &Path) -> Checkpoint {
    open_with(dir, &OpenOptions::default())
}

/// Opens a checkpoint that has to open with these options.
pub fn open_with(dir: &Path, options: &OpenOptions) -> Checkpoint {
    Checkpoint::open_with(dir, options)
        .unwrap_or_else(|error| panic!("{} does not open: {error}", dir.display()))
}

/// Finalizes it on the backend `torch` on the CPU.
pub fn finalize(checkpoint: Checkpoint) -> FinalizedModel {
    let name = checkpoint.dir().map(Path::to_path_buf).unwrap_or_default();
    let mut request = PlanRequest::new(BACKEND::Torch, Device::Cpu);
    request.registry = Registry::empty().with(gptq_torch_fallback::REGISTRATION);
    let finalized =
        request.plan(&checkpoint).and_then(|plan| post_init(checkpoint, plan, PostInitOptions::default()));
    finalized.unwrap_or_else(|error| panic!("{} is not finalized: {error}", name.display()))
}

/// The output of a layer for `x [rows, K]`, with x and the output narrowed to `dtype`.
pub fn forward(model: &FinalizedModel, layer: &str, x: &[f32], rows: usize, dtype: DType) -> Vec<f32> {
    match dtype {
        DType::F32 => forward_as::<f32>(model, layer, x, rows),
        DType::F16 => forward_as::<f16>(model, layer, x, rows),
        DType::BF16 => forward_as::<bf16>(model, layer, x, rows),
    }
}

fn forward_as<T: Element>(model: &FinalizedModel, name: &str, x: &[f32], rows: usize) -> Vec<f32> {
    let layer = model.layer(name).unwrap_or_else(|error| panic!("{error}"));
    let n = layer.info().out_features;
    let x: Vec<T> = x.iter().map(|&value| T::narrow(value)).collect();
    // Not zero: whoever leaves an element unwritten is found.
    let mut out = vec![T::narrow(f32::NAN); rows * n];
    let ran = match model.memory() {
        None => on_host(model, layer, &x, &mut out, rows),
        Some(memory) => on_device(model, &**memory, layer, &x, &mut out, rows),
    };
    ran.unwrap_or_else(|error| panic!("{name}: {error}"));
    out.into_iter().map(Element::widen).collect()
}

fn on_host<T: Element>(
    model: &FinalizedModel,
    layer: &Layer,
    x: &[T],
    out: &mut [T],
    rows: usize,
) -> Result<()> {
    let (k, n) = (layer.info().in_features, layer.info().out_features);
    let x = TensorRef::host(x, [rows, k])?;
    let mut out = TensorMut::host(out, [rows, n])?;
    layer.forward(&x, &mut out, &mut model.context()?)
}

fn on_device<T: Element>(
    model: &FinalizedModel,
    memory: &dyn Memory,
    layer: &Layer,
    x: &[T],
    out: &mut [T],
    rows: usize,
) -> Result<()> {
    let (k, n) = (layer.info().in_features, layer.info().out_features);
    let mut x_buffer = memory.allocate(size_of_val(x))?;
    let mut out_buffer = memory.allocate(size_of_val(out))?;
    memory.upload(bytemuck::cast_slice(x), &mut *x_buffer, 0)?;
    memory.upload(bytemuck::cast_slice(out), &mut *out_buffer, 0)?;
    let mut context = model.context()?;
    layer.forward(
        &TensorRef::on_device(T::DTYPE, [rows, k], &*x_buffer, 0)?,
        &mut TensorMut::on_device(T::DTYPE, [rows, n], &mut *out_buffer, 0)?,
        &mut context,
    )?;
    context.synchronize()?;
    memory.download(&*out_buffer, 0, bytemuck::cast_slice_mut(out))
}

/// The Frobenius norm of the difference, relative to that of `expected`. NaN where a value is.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "outputs of one size");
    let pairs = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    let (difference, size) = pairs.fold((0.0, 0.0), |(difference, size), (found, expected)| {
        (difference + (found - expected).powi(2), size + expected.powi(2))
    });
    (difference / size).sqrt()
}

/// The bits of floats: equal where the floats are the same to the last bit.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
