//! Queues of work: owned, or lent by an engine.
#![expect(
    unsafe_code,
    reason = "calls into the driver's C interface; the door for engines that own their stream"
)]

use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::result;
use cudarc::driver::sys::CUstream;
use gptq_core::Result;
use gptq_core::device::{Device, DeviceBuffer, Stream};

use crate::buffer::{CudaBuffer, foreign};
use crate::gpu::{Gpu, failed};
use crate::status::During;

/// A stream of a GPU. It waits for no other, not even for the default stream.
pub struct CudaStream {
    gpu: Gpu,
    raw: CUstream,
    owned: bool,
    /// Whether launches may begin before the one in front of them has ended.
    allows_overlap: bool,
    /// Whether one did.
    overlapped: AtomicBool,
}

// SAFETY: a stream of the driver may be used by any thread.
unsafe impl Send for CudaStream {}

impl CudaStream {
    /// A new stream.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device).
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let _current = gpu.current()?;
        let raw = result::stream::create(result::stream::StreamKind::NonBlocking)
            .during(gpu.ordinal(), "making a stream")?;
        Ok(Self::with(gpu, raw, true))
    }

    fn with(gpu: &Gpu, raw: CUstream, owned: bool) -> Self {
        Self { gpu: gpu.clone(), raw, owned, allows_overlap: true, overlapped: AtomicBool::new(false) }
    }

    /// The same stream, on which every launch waits for the one before, also where
    /// [`overlaps_previous`](crate::Launch::overlaps_previous) is asked for. To see what the overlap is worth, and for
    /// those who look for a fault.
    #[must_use]
    pub fn without_overlap(mut self) -> Self {
        self.allows_overlap = false;
        self
    }

    /// Whether a launch on this stream was one that may overlap the one before.
    pub fn has_overlapped(&self) -> bool {
        self.overlapped.load(Ordering::Relaxed)
    }

    /// Whether a launch that asks for it overlaps the one before; the stream remembers that one did.
    pub(crate) fn overlaps(&self, asked: bool) -> bool {
        let overlaps = asked && self.allows_overlap;
        if overlaps {
            self.overlapped.store(true, Ordering::Relaxed);
        }
        overlaps
    }

    /// An engine's stream, a `CUstream` or `cudaStream_t`, as a stream of core. Dropping it leaves the stream alone.
    ///
    /// # Safety
    /// As long as the value lives, `raw` is a stream of the primary context of `gpu` (as all of the CUDA runtime are),
    /// or null: the default stream.
    pub unsafe fn from_raw(gpu: &Gpu, raw: *mut c_void) -> Self {
        Self::with(gpu, raw.cast(), false)
    }

    /// The stream behind core's trait.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device) where it is another crate's.
    pub fn of(stream: &dyn Stream) -> Result<&Self> {
        stream.as_any().downcast_ref().ok_or_else(|| foreign("a stream", stream.device()))
    }

    /// The driver's `CUstream`, for libraries that take one. Valid as long as `self` is.
    pub fn as_raw(&self) -> *mut c_void {
        self.raw.cast()
    }

    /// The GPU that it is of.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub(crate) fn raw(&self) -> CUstream {
        self.raw
    }

    /// Queues setting every byte of `buffer`. For kernels that count on zeros.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device).
    pub fn fill(&self, buffer: &mut CudaBuffer, byte: u8) -> Result<()> {
        let bytes = buffer.len_bytes();
        if bytes == 0 {
            return Ok(());
        }
        if !self.gpu.same_device(buffer.gpu()) {
            let message = format!("the buffer is on {}", buffer.device());
            return Err(failed(&self.gpu, "filling a buffer", message));
        }
        let _current = self.gpu.current()?;
        // SAFETY: the buffer holds the range and stays allocated until queued work is done; see CudaBuffer.
        unsafe { result::memset_d8_async(buffer.address(), byte, bytes, self.raw) }
            .during(self.gpu.ordinal(), "filling a buffer")
    }
}

impl Stream for CudaStream {
    fn device(&self) -> Device {
        Device::Cuda(self.gpu.ordinal())
    }

    fn synchronize(&self) -> Result<()> {
        let _current = self.gpu.current()?;
        // SAFETY: the stream is alive: owned, or so promised to `from_raw`.
        unsafe { result::stream::synchronize(self.raw) }.during(self.gpu.ordinal(), "work on a stream")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for CudaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.owned { "owned" } else { "lent" };
        write!(f, "stream {:?} of cuda:{}, {kind}", self.raw, self.gpu.ordinal())
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if let Ok(_current) = self.gpu.current() {
            // SAFETY: made in `new`, and nobody has it any more. The driver finishes what is queued.
            let _ = unsafe { result::stream::destroy(self.raw) };
        }
    }
}
