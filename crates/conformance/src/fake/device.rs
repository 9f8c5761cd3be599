//! Memory with a capacity, and a record of who uses it.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{
    Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};

use gptq_core::device::{Device, DeviceBuffer, Memory, Stream};
use gptq_core::{Error, Result};

use super::stream::{Access, FakeStream};

/// The kind of the device: `fake` in `fake:0`.
pub const KIND: &str = "fake";
/// How many fake devices a process has.
pub const DEVICES: usize = 16;
/// What is read where nothing was written yet: NaN in every type of activation.
pub const POISON: u8 = 0xFF;
/// What a device has until someone says otherwise.
const CAPACITY_BYTES: usize = 256 << 20;

/// A fake device. Its settings and its memory belong to the process.
pub struct FakeDevice {
    ordinal: usize,
    capacity_bytes: AtomicUsize,
    allocated_bytes: AtomicUsize,
}

/// The fake device of an ordinal; `None` where it is not less than [`DEVICES`].
pub fn device(ordinal: usize) -> Option<&'static FakeDevice> {
    static ALL: LazyLock<[FakeDevice; DEVICES]> = LazyLock::new(|| {
        std::array::from_fn(|ordinal| FakeDevice {
            ordinal,
            capacity_bytes: AtomicUsize::new(CAPACITY_BYTES),
            allocated_bytes: AtomicUsize::new(0),
        })
    });
    ALL.get(ordinal)
}

impl FakeDevice {
    /// Its name: `fake:0`.
    pub fn device(&self) -> Device {
        Device::Other(KIND.into(), self.ordinal)
    }

    /// Sets how many bytes it has. What is allocated stays, even where it is more.
    pub fn set_capacity_bytes(&self, bytes: usize) {
        self.capacity_bytes.store(bytes, Ordering::SeqCst);
    }

    /// Bytes that buffers hold, those included that only queued jobs still keep alive.
    pub fn allocated_bytes(&self) -> usize {
        self.allocated_bytes.load(Ordering::SeqCst)
    }

    fn available_bytes(&self) -> usize {
        self.capacity_bytes.load(Ordering::SeqCst).saturating_sub(self.allocated_bytes())
    }

    fn reserve(&self, bytes: usize) -> Result<()> {
        let capacity = self.capacity_bytes.load(Ordering::SeqCst);
        let grow = |allocated: usize| allocated.checked_add(bytes).filter(|&sum| sum <= capacity);
        match self.allocated_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, grow) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::OutOfMemory {
                device: self.device(),
                what: "a buffer".into(),
                needed: bytes,
                available: Some(self.available_bytes()),
                remedy: "raise the fake device's capacity".into(),
            }),
        }
    }
}

impl fmt::Debug for FakeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes allocated", self.device(), self.allocated_bytes())
    }
}

/// How to allocate on a fake device.
#[derive(Clone, Copy, Debug)]
pub struct FakeMemory {
    device: &'static FakeDevice,
}

impl FakeMemory {
    /// The memory of a device.
    pub fn new(device: &'static FakeDevice) -> Self {
        Self { device }
    }

    /// As [`Memory::allocate`], with the concrete type.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn buffer(&self, bytes: usize) -> Result<FakeBuffer> {
        self.device.reserve(bytes)?;
        let poison = u64::from_ne_bytes([POISON; 8]);
        let cells = Cells {
            device: self.device,
            len: bytes,
            words: RwLock::new(vec![poison; bytes.div_ceil(8)]),
            claims: Mutex::default(),
        };
        Ok(FakeBuffer { cells: Arc::new(cells) })
    }

    /// A buffer that holds `bytes`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn buffer_of(&self, bytes: &[u8]) -> Result<FakeBuffer> {
        let buffer = self.buffer(bytes.len())?;
        buffer.cells.write().bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(buffer)
    }

    fn error(&self, operation: &str, message: String) -> Error {
        Error::Device { device: self.device.device(), operation: operation.into(), message }
    }
}

impl Memory for FakeMemory {
    fn device(&self) -> Device {
        self.device.device()
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn DeviceBuffer>> {
        Ok(Box::new(self.buffer(bytes)?))
    }

    fn upload(&self, from: &[u8], to: &mut dyn DeviceBuffer, offset_bytes: usize) -> Result<()> {
        let cells = FakeBuffer::of(to, "upload")?.cells();
        if cells.is_claimed(|_| true) {
            let message = "queued work uses the buffer, and its stream was not synchronised".into();
            return Err(self.error("upload", message));
        }
        let len = cells.len;
        let end = offset_bytes.checked_add(from.len()).filter(|&end| end <= len);
        match end {
            Some(end) => {
                cells.write().bytes_mut()[offset_bytes..end].copy_from_slice(from);
                Ok(())
            }
            None => {
                let message =
                    format!("{} bytes from byte {offset_bytes} leave a buffer of {len}", from.len());
                Err(self.error("upload", message))
            }
        }
    }

    fn download(&self, from: &dyn DeviceBuffer, offset_bytes: usize, to: &mut [u8]) -> Result<()> {
        let cells = FakeBuffer::of(from, "download")?.cells();
        let end = offset_bytes.checked_add(to.len()).filter(|&end| end <= cells.len);
        let Some(end) = end else {
            let message =
                format!("{} bytes from byte {offset_bytes} leave a buffer of {}", to.len(), cells.len);
            return Err(self.error("download", message));
        };
        if cells.is_claimed(|claim| claim.access != Access::Read) {
            to.fill(POISON);
        } else {
            to.copy_from_slice(&cells.read().bytes()[offset_bytes..end]);
        }
        Ok(())
    }

    fn stream(&self) -> Result<Box<dyn Stream>> {
        Ok(Box::new(FakeStream::new(self.device)?))
    }

    fn available_bytes(&self) -> Option<usize> {
        Some(self.device.available_bytes())
    }
}

/// A buffer on a fake device.
#[derive(Debug)]
pub struct FakeBuffer {
    cells: Arc<Cells>,
}

impl FakeBuffer {
    /// The fake buffer behind the trait.
    ///
    /// # Errors
    /// [`Error::Device`] where it is a buffer of another kind of device.
    pub fn of<'a>(buffer: &'a dyn DeviceBuffer, operation: &str) -> Result<&'a Self> {
        buffer.as_any().downcast_ref().ok_or_else(|| Error::Device {
            device: buffer.device(),
            operation: operation.into(),
            message: "the buffer is not one of the fake device".into(),
        })
    }

    /// What the buffer holds, for a job. It lives until the job is done, even where the buffer does not.
    pub fn cells(&self) -> Arc<Cells> {
        Arc::clone(&self.cells)
    }
}

impl DeviceBuffer for FakeBuffer {
    fn device(&self) -> Device {
        self.cells.device.device()
    }

    fn len_bytes(&self) -> usize {
        self.cells.len
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// The contents of a buffer. Freed when the buffer and all jobs that use it are gone.
pub struct Cells {
    device: &'static FakeDevice,
    len: usize,
    words: RwLock<Vec<u64>>,
    claims: Mutex<Vec<Claim>>,
}

/// Work of a stream on a buffer, queued since the stream was last synchronised.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Claim {
    pub(super) stream: u64,
    pub(super) access: Access,
}

impl Cells {
    /// Its bytes, for reading. Waits for jobs that write.
    pub fn read(&self) -> Reading<'_> {
        Reading(self.words.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its bytes, for writing. Waits for jobs that use it.
    pub fn write(&self) -> Writing<'_> {
        Writing(self.words.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its bytes, for writing; `None` where another job is using them at this moment.
    pub fn try_write(&self) -> Option<Writing<'_>> {
        match self.words.try_write() {
            Ok(words) => Some(Writing(words)),
            Err(TryLockError::Poisoned(words)) => Some(Writing(words.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Notes that `stream` uses it from now on. Whether that races with another stream's work.
    pub(super) fn claim(&self, claim: Claim) -> bool {
        let mut claims = self.lock_claims();
        let races = claims.iter().any(|other| {
            let both = [other.access, claim.access];
            other.stream != claim.stream && both != [Access::Read; 2] && both != [Access::Ordered; 2]
        });
        if !claims.contains(&claim) {
            claims.push(claim);
        }
        races
    }

    /// Forgets what `stream` did: it was waited for.
    pub(super) fn release(&self, stream: u64) {
        self.lock_claims().retain(|claim| claim.stream != stream);
    }

    fn is_claimed(&self, by: impl Fn(&Claim) -> bool) -> bool {
        self.lock_claims().iter().any(by)
    }

    fn lock_claims(&self) -> MutexGuard<'_, Vec<Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        self.device.allocated_bytes.fetch_sub(self.len, Ordering::SeqCst);
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes on {}", self.len, self.device.device())
    }
}

/// The bytes of a buffer while a job reads them.
pub struct Reading<'a>(RwLockReadGuard<'a, Vec<u64>>);

/// The bytes of a buffer while a job writes them.
pub struct Writing<'a>(RwLockWriteGuard<'a, Vec<u64>>);

impl Reading<'_> {
    /// The bytes, aligned to 8, and up to seven more after the buffer's end.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Writing<'_> {
    /// The bytes, aligned to 8, and up to seven more after the buffer's end.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
