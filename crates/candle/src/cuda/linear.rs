//! A packed layer called with tensors of candle's.
#![expect(unsafe_code, reason = "lends candle's memory to gptq-cuda")]

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage};
use candle_core::{Layout, Shape, Storage, Tensor, bail};
use gptq_core::post_init::Layer;
use gptq_core::tensor::{DType, Element, TensorMut, TensorRef, bf16, f16};
use gptq_cuda::CudaBuffer;

use crate::contexts::Contexts;
use crate::packed::output_shape;

/// `y = x · W` in the order of x's stream. x is read where it lies; y is memory of candle's.
pub(crate) fn forward(
    layer: &Layer,
    contexts: &Contexts,
    x: &CudaStorage,
    layout: &Layout,
) -> candle_core::Result<(CudaStorage, Shape)> {
    match crate::weights::core_dtype(x.dtype())? {
        DType::F32 => forward_as::<f32>(layer, contexts, x, layout),
        DType::F16 => forward_as::<f16>(layer, contexts, x, layout),
        DType::BF16 => forward_as::<bf16>(layer, contexts, x, layout),
    }
}

fn forward_as<T: Element + CudaDType + DeviceRepr>(
    layer: &Layer,
    contexts: &Contexts,
    storage: &CudaStorage,
    layout: &Layout,
) -> candle_core::Result<(CudaStorage, Shape)> {
    let (rows, shape) = output_shape(layer, layout)?;
    let info = layer.info();
    let (k, n) = (info.in_features, info.out_features);
    let device = storage.device();
    let gpu = contexts.gpu(device)?;
    let x = storage.as_cuda_slice::<T>()?;
    let first = match layout.contiguous_offsets() {
        Some((first, end)) if end <= x.len() => first,
        _ => bail!("x of layer `{}` is not contiguous", layer.name()),
    };
    // SAFETY: every element is written below, or the value is dropped.
    let mut y = unsafe { device.alloc::<T>(rows * n) }?;
    {
        let stream = device.cuda_stream();
        // Both live to the end of the block: candle notes then that the stream uses the memory.
        let (x_address, _reading) = x.device_ptr(&stream);
        let y_bytes = y.len() * size_of::<T>();
        let (y_address, _writing) = y.device_ptr_mut(&stream);
        // SAFETY: memory of the primary context that holds so many bytes. The call below uses it on the stream of
        // `device` alone, in whose order candle writes x before, and frees or reuses both after.
        let x = unsafe { CudaBuffer::from_raw(&gpu, x_address, x.len() * size_of::<T>()) };
        // SAFETY: as above; nobody else has it.
        let mut y = unsafe { CudaBuffer::from_raw(&gpu, y_address, y_bytes) };
        contexts.lent.with(device, contexts.model(), |context| {
            let x = TensorRef::on_device(T::DTYPE, [rows, k], &x, first * size_of::<T>())?;
            layer.forward(&x, &mut TensorMut::on_device(T::DTYPE, [rows, n], &mut y, 0)?, context)
        })?;
    }
    Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), shape))
}

/// Where a contiguous tensor begins, for kernels that are queued on the stream of its device.
pub(crate) fn address(tensor: &Tensor) -> candle_core::Result<u64> {
    fn of<T: CudaDType + DeviceRepr>(storage: &CudaStorage, first: usize) -> candle_core::Result<u64> {
        let slice = storage.as_cuda_slice::<T>()?;
        Ok(address_of_slice(slice, storage.device()) + (first * size_of::<T>()) as u64)
    }
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(storage), Some((first, _))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("a tensor of shape {:?} is not on a GPU, or not contiguous", tensor.dims());
    };
    match crate::weights::core_dtype(tensor.dtype())? {
        DType::F32 => of::<f32>(storage, first),
        DType::F16 => of::<f16>(storage, first),
        DType::BF16 => of::<bf16>(storage, first),
    }
}

/// The same of memory of candle's without a shape.
pub(crate) fn address_of_slice<T: DeviceRepr>(slice: &CudaSlice<T>, device: &CudaDevice) -> u64 {
    slice.device_ptr(&device.cuda_stream()).0
}
