//! A GPU that is open: its context, its memory, and what copies to it.
#![expect(unsafe_code, reason = "calls into the driver's C interface")]

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdeviceptr, CUresult, CUstream};
use gptq_core::backend::{LayerSource, Rejection};
use gptq_core::device::{Device, DeviceBuffer, Memory, Stream};
use gptq_core::{Error, Result};

use crate::buffer::CudaBuffer;
use crate::driver::{self, DeviceInfo};
use crate::staging::Staging;
use crate::status::{During, describe, device_error};
use crate::stream::CudaStream;

/// A GPU, opened. Clones share it; it closes with the last of them, and of the buffers, streams and kernels made from it.
///
/// Opening the same ordinal twice gives two that share nothing but the driver's primary context, understand one another's
/// buffers and streams, and free nothing while the other records a graph.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
}

struct Shared {
    info: DeviceInfo,
    device: CUdevice,
    context: CUcontext,
    /// Uploads and downloads run here, beside all work.
    copies: CUstream,
    staging: Staging,
    /// Memory that was dropped when it could not be freed; see [`Gpu::free`].
    condemned: Mutex<Vec<CUdeviceptr>>,
    captures: Arc<Captures>,
}

/// Held for reading by every capture in progress on a GPU. Whoever would disturb one tries to hold it for writing.
type Captures = RwLock<()>;

/// Those of the GPU of this ordinal, which all that open it in this process share.
fn captures_of(ordinal: usize) -> Arc<Captures> {
    static OF_ALL: Mutex<BTreeMap<usize, Arc<Captures>>> = Mutex::new(BTreeMap::new());
    Arc::clone(OF_ALL.lock().unwrap_or_else(PoisonError::into_inner).entry(ordinal).or_default())
}

// SAFETY: a context and a stream of the driver may be used by any thread, and by several at once.
unsafe impl Send for Shared {}
// SAFETY: as above; what else is in it is behind locks.
unsafe impl Sync for Shared {}

impl Gpu {
    /// Opens the GPU of this ordinal. Takes a quarter of a second where the process has not used it yet.
    ///
    /// # Errors
    /// As [`probe`](crate::probe), and [`Rejection::Other`] where the driver makes no context, most often since other
    /// processes hold all the memory.
    pub fn open(ordinal: usize) -> Result<Self, Rejection> {
        let info = driver::probe(ordinal)?;
        let device = driver::handle(ordinal)?;
        let refuse = |error: DriverError| {
            Rejection::other(
                format!("cuda:{ordinal} cannot be opened: {}", describe(error)),
                "see with nvidia-smi which processes use it, and how much memory is free",
            )
        };
        // SAFETY: the handle comes from the driver. What is retained is released in `Shared::drop`.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(refuse)?;
        let mut shared = Shared {
            info,
            device,
            context,
            copies: ptr::null_mut(),
            staging: Staging::new(),
            condemned: Mutex::default(),
            captures: captures_of(ordinal),
        };
        let current = Current::set(context).map_err(refuse)?;
        shared.copies = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(refuse)?;
        drop(current);
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the driver says of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    /// A buffer of its own type; [`Memory::allocate`] boxes it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`].
    pub fn allocate_buffer(&self, bytes: usize) -> Result<CudaBuffer> {
        let address = self.allocate_address(bytes)?;
        Ok(CudaBuffer::owning(self.clone(), address, bytes))
    }

    /// Allocates the memory of all layers of a model, one behind the other: `ends` has where each of `layers` ends in it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] that names the first layer which does not fit; [`Error::Device`].
    pub fn allocate_model(&self, layers: &LayerSource<'_>, ends: &[usize]) -> Result<CudaBuffer> {
        let total = ends.last().copied().unwrap_or(0);
        self.allocate_buffer(total).map_err(|error| match error {
            Error::OutOfMemory { device, needed, available, remedy, .. } => {
                let fits = ends.iter().filter(|&&end| end <= available.unwrap_or(0)).count();
                let name = layers.upcoming().nth(fits.min(ends.len().saturating_sub(1)));
                let name = name.map(|layer| layer.name().to_owned()).unwrap_or_default();
                let what = format!(
                    "the model, of whose {} layers `{name}` is the first that does not fit,",
                    ends.len()
                );
                Error::OutOfMemory { device, what, needed, available, remedy }
            }
            other => other,
        })
    }

    /// Waits until all work of all streams is done.
    ///
    /// # Errors
    /// [`Error::Device`], also for work that failed after it was queued.
    pub fn synchronize(&self) -> Result<()> {
        let _current = self.current()?;
        result::ctx::synchronize().during(self.ordinal(), "work on the device")
    }

    pub(crate) fn ordinal(&self) -> usize {
        self.shared.info.ordinal
    }

    pub(crate) fn copies(&self) -> CUstream {
        self.shared.copies
    }

    pub(crate) fn same_device(&self, other: &Self) -> bool {
        self.ordinal() == other.ordinal()
    }

    /// Makes the context the calling thread's, until the value is dropped.
    pub(crate) fn current(&self) -> Result<Current> {
        Current::set(self.shared.context).during(self.ordinal(), "making its context current")
    }

    /// Announces a capture: until the value is dropped, nothing is freed, as that would break it.
    pub(crate) fn capturing(&self) -> RwLockReadGuard<'_, ()> {
        self.shared.captures.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn allocate_address(&self, bytes: usize) -> Result<CUdeviceptr> {
        // The driver refuses to allocate nothing.
        if bytes == 0 {
            return Ok(0);
        }
        let _current = self.current()?;
        self.sweep();
        // SAFETY: a context is current; whoever takes the address is its only owner.
        match unsafe { result::malloc_sync(bytes) } {
            Err(error) if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(Error::OutOfMemory {
                device: self.device(),
                what: "a device buffer".into(),
                needed: bytes,
                available: self.available_bytes(),
                remedy:
                    "free memory of other processes (nvidia-smi shows them), or choose a smaller model, or a \
                         shorter max_input_length"
                        .into(),
            }),
            other => other.during(self.ordinal(), format!("allocating {bytes} bytes")),
        }
    }

    /// Frees memory that [`allocate_buffer`](Self::allocate_buffer) gave, after all work that may use it. While a graph
    /// is captured nothing may wait for the device; the memory is then freed by a later call.
    pub(crate) fn free(&self, address: CUdeviceptr) {
        if address != 0 {
            self.condemned().push(address);
        }
        if let Ok(_current) = self.current() {
            self.sweep();
        }
    }

    /// Frees what is condemned, if nothing is being captured. The context is current.
    fn sweep(&self) {
        let _alone = match self.shared.captures.try_write() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let mut condemned = self.condemned();
        if condemned.is_empty() {
            return;
        }
        match result::ctx::synchronize() {
            // An engine captures on a stream of its own: it cannot announce that, but the driver knows.
            Err(error) if is_capturing(error) => return,
            // Work that failed has its error reported where it is waited for; its memory is freed all the same.
            Ok(()) | Err(_) => {}
        }
        for address in mem::take(&mut *condemned) {
            // SAFETY: the address was allocated here and its one owner was dropped; the device is idle.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn condemned(&self) -> std::sync::MutexGuard<'_, Vec<CUdeviceptr>> {
        self.shared.condemned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The concrete buffer, where it is this device's.
    fn own<'a>(&self, buffer: &'a dyn DeviceBuffer) -> Result<&'a CudaBuffer> {
        let buffer = CudaBuffer::of(buffer)?;
        if self.same_device(buffer.gpu()) {
            return Ok(buffer);
        }
        Err(Error::DeviceMismatch {
            what: "a buffer".into(),
            found: buffer.device(),
            expected: self.device(),
        })
    }
}

fn is_capturing(error: DriverError) -> bool {
    matches!(
        error.0,
        CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
            | CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED
            | CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
            | CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
    )
}

impl Memory for Gpu {
    fn device(&self) -> Device {
        Device::Cuda(self.ordinal())
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn DeviceBuffer>> {
        Ok(Box::new(self.allocate_buffer(bytes)?))
    }

    fn upload(&self, from: &[u8], to: &mut dyn DeviceBuffer, offset_bytes: usize) -> Result<()> {
        let address = self.own(to)?.range(offset_bytes, from.len(), "an upload")?;
        self.shared.staging.upload(self, from, address)
    }

    fn download(&self, from: &dyn DeviceBuffer, offset_bytes: usize, to: &mut [u8]) -> Result<()> {
        let address = self.own(from)?.range(offset_bytes, to.len(), "a download")?;
        if to.is_empty() {
            return Ok(());
        }
        let _current = self.current()?;
        // SAFETY: the buffer holds the range, which was checked; `to` outlives the copy, which is waited for.
        let queued = unsafe { result::memcpy_dtoh_async(to, address, self.copies()) };
        // SAFETY: the stream lives as long as `self`. It is waited for even where queueing failed.
        let done = unsafe { result::stream::synchronize(self.copies()) };
        queued.and(done).during(self.ordinal(), "a download")
    }

    fn stream(&self) -> Result<Box<dyn Stream>> {
        Ok(Box::new(CudaStream::new(self)?))
    }

    fn available_bytes(&self) -> Option<usize> {
        let _current = self.current().ok()?;
        result::mem_get_info().ok().map(|(free, _)| free)
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{} ({})", self.ordinal(), self.shared.info.name)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Ok(_current) = Current::set(self.context) {
            // Errors of work that nobody waited for have nowhere to go.
            let _ = result::ctx::synchronize();
            self.staging.release();
            for address in mem::take(self.condemned.get_mut().unwrap_or_else(PoisonError::into_inner)) {
                // SAFETY: the address was allocated here and its one owner was dropped; the device is idle.
                let _ = unsafe { result::free_sync(address) };
            }
            if !self.copies.is_null() {
                // SAFETY: made in `open`, idle, and nobody has it any more.
                let _ = unsafe { result::stream::destroy(self.copies) };
            }
        }
        // SAFETY: retained once in `open`.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A context that is current for this thread. Dropped, the one before is current again, or none: a thread must not be
/// left with a context that goes away with its [`Gpu`].
pub(crate) struct Current {
    /// None where it was current before. May be null.
    before: Option<CUcontext>,
}

impl Current {
    fn set(context: CUcontext) -> Result<Self, DriverError> {
        let before = result::ctx::get_current()?;
        if before == Some(context) {
            return Ok(Self { before: None });
        }
        // SAFETY: the context is retained by whoever calls, for longer than this value lives.
        unsafe { result::ctx::set_current(context) }?;
        Ok(Self { before: Some(before.unwrap_or(ptr::null_mut())) })
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: it was this thread's before, so its owner keeps it; null is none.
            let _ = unsafe { sys::cuCtxSetCurrent(before) };
        }
    }
}

/// An error of this device.
pub(crate) fn failed(gpu: &Gpu, operation: impl Into<String>, message: impl Into<String>) -> Error {
    device_error(gpu.ordinal(), operation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_known_to_all_that_open_its_gpu_and_to_no_other() {
        assert!(Arc::ptr_eq(&captures_of(7001), &captures_of(7001)), "opened twice, a GPU has two locks");
        assert!(!Arc::ptr_eq(&captures_of(7001), &captures_of(7002)), "two GPUs have one lock");
    }
}
