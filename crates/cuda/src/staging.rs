//! Uploads through pinned memory, which the GPU copies from at the full rate of the bus.
//!
//! What a program has, a mapped file most often, is pageable. The driver copies that through a small buffer of its own,
//! on one thread. Here several threads copy pieces into a ring of pinned slots, and each slot is on its way to the
//! device while the next are filled. Pinning the mapped pages themselves costs more than it saves.
#![expect(unsafe_code, reason = "pinned memory, shared with the device")]

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUevent, CUevent_flags, CUstream};
use gptq_core::Result;
use memmap2::MmapMut;

use crate::gpu::Gpu;
use crate::status::{During, device_error};

/// A huge page: the unit in which memory is pinned quickly.
const SLOT_BYTES: usize = 2 << 20;
/// 64 MB: eight threads fill it at the rate at which the bus empties it.
const SLOTS: usize = 32;
const THREADS: usize = 8;
/// Below this the driver's own way is as fast, and nothing needs to be pinned.
const WORTH_STAGING: usize = 1 << 20;

/// The ring. Pinned at the first upload that is worth it.
pub(crate) struct Staging {
    ring: Mutex<Ring>,
    returned: Condvar,
}

#[derive(Default)]
struct Ring {
    /// The one that was returned longest ago comes first.
    slots: VecDeque<Slot>,
    memory: Option<Pinned>,
}

/// A piece of the ring. Who has it is the only one that writes to it.
struct Slot {
    memory: *mut u8,
    /// Recorded behind the last copy out of the slot.
    copied: CUevent,
}

// SAFETY: whoever has the slot is the only one with its memory; an event may be used by any thread.
unsafe impl Send for Slot {}

impl Staging {
    pub(crate) fn new() -> Self {
        Self { ring: Mutex::default(), returned: Condvar::new() }
    }

    /// Copies `from` to `address`, which has room for it, and returns when it has arrived.
    pub(crate) fn upload(&self, gpu: &Gpu, from: &[u8], address: u64) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        let _current = gpu.current()?;
        let queued = if from.len() < WORTH_STAGING {
            // SAFETY: the caller checked the range; `from` outlives the copy, which is waited for below.
            unsafe { result::memcpy_htod_async(address, from, gpu.copies()) }
                .during(gpu.ordinal(), "an upload")
        } else {
            self.ensure_pinned(gpu).and_then(|()| self.upload_staged(gpu, from, address))
        };
        // SAFETY: the stream lives as long as `gpu`. It is waited for even where queueing failed.
        let done = unsafe { result::stream::synchronize(gpu.copies()) };
        queued.and(done.during(gpu.ordinal(), "an upload"))
    }

    /// Queues the copies of all pieces.
    fn upload_staged(&self, gpu: &Gpu, from: &[u8], address: u64) -> Result<()> {
        let pieces: Vec<&[u8]> = from.chunks(SLOT_BYTES).collect();
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = THREADS.min(cores).min(pieces.len());
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let _current = gpu.current()?;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(piece) = pieces.get(index) else { return Ok(()) };
                let to = address + (index * SLOT_BYTES) as u64;
                self.upload_piece(gpu, piece, to)
                    .inspect_err(|_| next.store(pieces.len(), Ordering::Relaxed))?;
            }
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mine = work();
            others.into_iter().fold(mine, |done, other| {
                done.and(
                    other.join().unwrap_or_else(|_| {
                        Err(device_error(gpu.ordinal(), "an upload", "a thread panicked"))
                    }),
                )
            })
        })
    }

    fn upload_piece(&self, gpu: &Gpu, piece: &[u8], address: u64) -> Result<()> {
        let slot = self.take();
        // SAFETY: the event is alive. It was recorded behind the last copy out of this slot, or never.
        let free = unsafe { result::event::synchronize(slot.copied) };
        let queued = free.and_then(|()| slot.send(piece, address, gpu.copies()));
        self.give_back(slot);
        queued.during(gpu.ordinal(), "an upload")
    }

    fn take(&self) -> Slot {
        let mut ring = self.lock();
        loop {
            match ring.slots.pop_front() {
                Some(slot) => return slot,
                None => ring = self.returned.wait(ring).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn give_back(&self, slot: Slot) {
        self.lock().slots.push_back(slot);
        self.returned.notify_one();
    }

    /// The context is current.
    fn ensure_pinned(&self, gpu: &Gpu) -> Result<()> {
        let mut ring = self.lock();
        if ring.memory.is_some() {
            return Ok(());
        }
        let pinned = Pinned::new(SLOTS * SLOT_BYTES, gpu.ordinal())?;
        for index in 0..SLOTS {
            let copied = result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING);
            match copied.during(gpu.ordinal(), "making an event") {
                Ok(copied) => {
                    // SAFETY: the slot is within the pinned range.
                    let memory = unsafe { pinned.start.add(index * SLOT_BYTES) };
                    ring.slots.push_back(Slot { memory, copied });
                }
                Err(error) => {
                    ring.slots.drain(..).for_each(Slot::destroy);
                    pinned.release();
                    return Err(error);
                }
            }
        }
        ring.memory = Some(pinned);
        Ok(())
    }

    /// Unpins. The context is current and nothing is being copied.
    pub(crate) fn release(&self) {
        let mut ring = self.lock();
        ring.slots.drain(..).for_each(Slot::destroy);
        if let Some(pinned) = ring.memory.take() {
            pinned.release();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Fills the slot and queues its copy to the device. `piece` fits.
    fn send(&self, piece: &[u8], address: u64, copies: CUstream) -> Result<(), result::DriverError> {
        let bytes = piece.len().min(SLOT_BYTES);
        // SAFETY: the slot has SLOT_BYTES bytes that nobody else writes to, and the device has read what was in them.
        unsafe { ptr::copy_nonoverlapping(piece.as_ptr(), self.memory, bytes) };
        // SAFETY: the slot stays pinned until the stream was waited for; the caller checked the device's range.
        unsafe { sys::cuMemcpyHtoDAsync_v2(address, self.memory.cast(), bytes, copies) }.result()?;
        // SAFETY: both are alive.
        unsafe { result::event::record(self.copied, copies) }
    }

    fn destroy(self) {
        // SAFETY: made in `ensure_pinned`, and nobody has it any more.
        let _ = unsafe { result::event::destroy(self.copied) };
    }
}

/// Host memory that the device can copy from.
struct Pinned {
    /// Aligned to SLOT_BYTES, and so to huge pages.
    start: *mut u8,
    /// Holds the range.
    _mapping: MmapMut,
}

// SAFETY: it only owns the range.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(bytes: usize, ordinal: usize) -> Result<Self> {
        let refuse =
            |message: String| device_error(ordinal, format!("pinning {bytes} bytes of host memory"), message);
        let mut mapping = MmapMut::map_anon(bytes + SLOT_BYTES).map_err(|error| refuse(error.to_string()))?;
        #[cfg(target_os = "linux")]
        {
            // Small pages do as well, but take longer to pin.
            let _ = mapping.advise(memmap2::Advice::HugePage);
        }
        let unaligned = mapping.as_mut_ptr();
        // SAFETY: the mapping is longer than `bytes` by one slot, so the aligned start and its range are within it.
        let start = unsafe { unaligned.add(unaligned.align_offset(SLOT_BYTES)) };
        // SAFETY: the range is mapped, and stays so until `release` has unpinned it.
        unsafe { sys::cuMemHostRegister_v2(start.cast(), bytes, 0) }
            .result()
            .during(ordinal, format!("pinning {bytes} bytes of host memory"))?;
        Ok(Self { start, _mapping: mapping })
    }

    /// The context is current and nothing is being copied.
    fn release(self) {
        // SAFETY: pinned in `new`, once.
        let _ = unsafe { sys::cuMemHostUnregister(self.start.cast()) };
    }
}
