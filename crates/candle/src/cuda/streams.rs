//! Contexts on the streams of candle's devices.
#![expect(unsafe_code, reason = "lends candle's streams to gptq-cuda")]

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::CudaDevice;
use candle_core::{DeviceLocation, bail};
use gptq_core::device::Context;
use gptq_core::post_init::FinalizedModel;
use gptq_cuda::{CudaStream, Gpu};

use super::queue::Queue;
use crate::contexts::Idle;

/// Contexts on streams of candle's, and the GPU that they are of.
#[derive(Default)]
pub(crate) struct Streams {
    gpu: Mutex<Option<Gpu>>,
    idle: Idle<Lent>,
}

/// A context on a stream of candle's.
struct Lent {
    context: Context,
    queue: Queue,
    /// Keeps the stream alive; so it is dropped behind the context.
    _device: CudaDevice,
}

impl Streams {
    /// The GPU of `device`, which is the one that `model` was finalized for.
    ///
    /// # Errors
    /// Where it is another, or cannot be opened.
    pub(crate) fn gpu(&self, device: &CudaDevice, model: &FinalizedModel) -> candle_core::Result<Gpu> {
        let DeviceLocation::Cuda { gpu_id } = device.location() else { bail!("x is on no GPU") };
        let expected = model.device();
        if *expected != gptq_core::device::Device::Cuda(gpu_id) {
            bail!("x is on cuda:{gpu_id}, and the model was finalized for {expected}");
        }
        let mut gpu = self.gpu.lock().unwrap_or_else(PoisonError::into_inner);
        match &*gpu {
            Some(gpu) => Ok(gpu.clone()),
            None => {
                let opened = Gpu::open(gpu_id).map_err(candle_core::Error::wrap)?;
                Ok(gpu.insert(opened).clone())
            }
        }
    }

    /// Makes a call with a context on the stream of `device` that no other call uses.
    pub(crate) fn with<T>(
        &self,
        device: &CudaDevice,
        model: &FinalizedModel,
        call: impl FnOnce(&mut Context) -> gptq_core::Result<T>,
    ) -> candle_core::Result<T> {
        let queue = Queue::of(device.cuda_stream().cu_stream() as usize);
        let mut lent = match self.idle.take(|lent| lent.queue == queue) {
            Some(lent) => lent,
            None => {
                let gpu = self.gpu(device, model)?;
                // SAFETY: `gpu` is the one of `device`, a clone of which is kept beside the context.
                let stream = Box::new(unsafe { stream_of(device, &gpu) });
                let context = Context::on_stream(&gpu, stream, model.scratch_bytes())
                    .map_err(candle_core::Error::wrap)?;
                Lent { context, queue, _device: device.clone() }
            }
        };
        let result = call(&mut lent.context);
        self.idle.put(lent);
        result.map_err(candle_core::Error::wrap)
    }
}

/// The stream of `device`, lent.
///
/// # Safety
/// `device` is on `gpu`, and a clone of it is kept as long as the value.
pub(crate) unsafe fn stream_of(device: &CudaDevice, gpu: &Gpu) -> CudaStream {
    let raw = device.cuda_stream().cu_stream();
    // SAFETY: candle's devices are of the primary context, and the caller keeps this one.
    unsafe { CudaStream::from_raw(gpu, raw.cast()) }
}
