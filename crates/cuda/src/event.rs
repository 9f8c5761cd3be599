//! Points in a stream, to measure the time between two.
#![expect(unsafe_code, reason = "calls into the driver's C interface")]

use cudarc::driver::result;
use cudarc::driver::sys::{CUevent, CUevent_flags};
use gptq_core::Result;

use crate::gpu::Gpu;
use crate::status::During;
use crate::stream::CudaStream;

/// A point in a stream's work, with its time.
pub struct CudaEvent {
    gpu: Gpu,
    raw: CUevent,
}

// SAFETY: an event of the driver may be used by any thread.
unsafe impl Send for CudaEvent {}

impl CudaEvent {
    /// Marks the end of what is queued on `stream` now.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device).
    pub fn record(stream: &CudaStream) -> Result<Self> {
        let gpu = stream.gpu();
        let _current = gpu.current()?;
        let raw = result::event::create(CUevent_flags::CU_EVENT_DEFAULT)
            .during(gpu.ordinal(), "making an event")?;
        let event = Self { gpu: gpu.clone(), raw };
        // SAFETY: both are alive.
        unsafe { result::event::record(raw, stream.raw()) }.during(gpu.ordinal(), "recording an event")?;
        Ok(event)
    }

    /// Milliseconds from `earlier` to this; waits for both.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device), also for work that failed after it was queued.
    pub fn milliseconds_since(&self, earlier: &Self) -> Result<f32> {
        let _current = self.gpu.current()?;
        for event in [earlier, self] {
            // SAFETY: it is alive.
            unsafe { result::event::synchronize(event.raw) }
                .during(self.gpu.ordinal(), "work before an event")?;
        }
        // SAFETY: both are alive and were recorded with their time.
        unsafe { result::event::elapsed(earlier.raw, self.raw) }.during(self.gpu.ordinal(), "measuring time")
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        if let Ok(_current) = self.gpu.current() {
            // SAFETY: made in `record`, and nobody has it any more.
            let _ = unsafe { result::event::destroy(self.raw) };
        }
    }
}
