//! Threads of the pool that wait a moment for more work.
//!
//! A call of a layer takes a tenth of a millisecond, and a thread that sleeps needs a tenth of that to begin; a model calls
//! layers one after another. So whoever has helped stays awake for [`LINGER`], and does what others give the pool
//! meanwhile. And nobody waits for a helper that has not begun: what it would have done is done by then.
//!
//! One call at a time is helped, from threads outside the pool; others are answered `false` and use the pool as it is.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a helper stays awake without work: some layers' worth of what a model does between two of them.
const LINGER: Duration = Duration::from_micros(100);
/// How long a thread helps at most, also while calls come: the pool may have given it the request while it waits for a part
/// of other work, which goes on only when this has returned. The next call asks for a helper again. Should that have to wake a
/// thread, it begins some 20 microseconds late, once in so long.
const STAY: Duration = Duration::from_millis(4);
/// Looks for work between two looks at the pool's own, and at the clock.
const LOOKS: usize = 32;
/// How often whoever called looks whether helpers have ended, before it lets others run.
const SPINS: usize = 1 << 14;

/// What is done, with a number for each thread that does it.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// Where work is left for helpers.
struct Desk {
    /// Whether a call is at it.
    taken: AtomicBool,
    /// The number of calls so far in the upper bits, whether the last can be joined, and how many have joined and not left.
    state: AtomicU64,
    work: UnsafeCell<Option<*const Work<'static>>>,
    /// Helpers that have been asked for and have not gone.
    helpers: AtomicUsize,
    /// What a helper panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The bits of [`Desk::state`].
const JOINED: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const CALL: u64 = 1 << 17;

// SAFETY: `work` is written by the call that has `taken` the desk while it is closed and nobody has joined, and read only by
// those who have joined.
unsafe impl Sync for Desk {}

static DESK: Desk = Desk {
    taken: AtomicBool::new(false),
    state: AtomicU64::new(0),
    work: UnsafeCell::new(None),
    helpers: AtomicUsize::new(0),
    panic: Mutex::new(None),
};

thread_local! {
    /// Whether this thread is helping: the pool may give it a second request for a helper while it waits.
    static HELPING: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work` with 0 on this thread, and with other numbers on threads of the pool: `helpers` are asked for, but how many
/// join is not known. None may, or more than that, where an earlier call has left more; and who joins after another has
/// left can get the same number. Returns when all that began have ended. `false` where it did nothing.
pub(super) fn share(helpers: usize, work: &Work<'_>) -> bool {
    if rayon::current_thread_index().is_some() || DESK.taken.swap(true, Ordering::Acquire) {
        return false;
    }
    let at_desk = AtDesk::open(work);
    let there = DESK.helpers.load(Ordering::SeqCst);
    for _ in there..helpers {
        DESK.helpers.fetch_add(1, Ordering::SeqCst);
        rayon::spawn(help);
    }
    work(0);
    drop(at_desk);
    true
}

/// The call that has taken the desk.
struct AtDesk;

impl AtDesk {
    fn open(work: &Work<'_>) -> Self {
        let work: *const Work<'_> = work;
        // SAFETY: only the lifetime changes; whoever joins leaves before `drop` returns, and `work` outlives `self`.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        // SAFETY: the last call has been left by all who joined it, and nobody joins before the next line.
        unsafe { *DESK.work.get() = Some(work) };
        // Closed, and nobody in it.
        let calls = DESK.state.load(Ordering::Relaxed);
        DESK.state.store((calls + CALL) | OPEN, Ordering::SeqCst);
        Self
    }
}

impl Drop for AtDesk {
    /// Closes, and waits for those who joined. Also when what this thread does panics: they read what it has borrowed.
    fn drop(&mut self) {
        let mut joined = DESK.state.fetch_and(!OPEN, Ordering::Acquire) & JOINED;
        for spin in 0.. {
            if joined == 0 {
                break;
            }
            if spin < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
            joined = DESK.state.load(Ordering::Acquire) & JOINED;
        }
        let panic = DESK.panic.lock().ok().and_then(|mut panic| panic.take());
        DESK.taken.store(false, Ordering::Release);
        if let Some(panic) = panic
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// Helps whoever calls, until nobody has for a while, or others of the pool may have waited for this thread long enough.
fn help() {
    if HELPING.replace(true) {
        DESK.helpers.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    let mut last_call = 0;
    let begun = Instant::now();
    let (mut until, end) = (begun + LINGER, begun + STAY);
    loop {
        let joined = (0..LOOKS).any(|_| join(&mut last_call));
        if !joined {
            rayon::yield_now();
        }
        let now = Instant::now();
        if joined {
            until = now + LINGER;
        }
        if now < until.min(end) {
            continue;
        }
        DESK.helpers.fetch_sub(1, Ordering::SeqCst);
        // A call that came in between counted on this thread. Later ones ask for another.
        if !join(&mut last_call) || now >= end {
            break;
        }
        DESK.helpers.fetch_add(1, Ordering::SeqCst);
    }
    HELPING.set(false);
}

/// Does what is left at the desk, if this thread has not yet.
fn join(last_call: &mut u64) -> bool {
    let state = DESK.state.load(Ordering::SeqCst);
    let call = state / CALL;
    if state & OPEN == 0 || call == *last_call {
        std::hint::spin_loop();
        return false;
    }
    let joined = DESK.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
    if joined.is_err() {
        return false;
    }
    *last_call = call;
    let number = usize::try_from(state & JOINED).unwrap_or(0) + 1;
    // SAFETY: this thread has joined: the call waits for it to leave, and has written what it does before it opened.
    if let Some(work) = unsafe { *DESK.work.get() } {
        // SAFETY: as above.
        let work = unsafe { &*work };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(number)))
            && let Ok(mut place) = DESK.panic.lock()
        {
            *place = Some(panic);
        }
    }
    DESK.state.fetch_sub(1, Ordering::Release);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_leaves_although_calls_go_on() {
        let left = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !left.load(Ordering::Relaxed) {
                    share(0, &|_| std::hint::spin_loop());
                }
            });
            DESK.helpers.fetch_add(1, Ordering::SeqCst);
            help();
            left.store(true, Ordering::Relaxed);
        });
        assert!(!HELPING.get(), "it may be asked again");
    }
}
