//! Which calls are ordered by themselves.

use std::thread::{self, ThreadId};

/// The handle that stands for a stream of whichever thread uses it: what `candle_core::Device::new_cuda` has.
const PER_THREAD: usize = 2;

/// Calls of one queue come one after the other, and may so share what they work in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Queue {
    stream: usize,
    /// For a handle that means another stream in each thread.
    thread: Option<ThreadId>,
}

impl Queue {
    /// That of a stream's handle, as this thread uses it.
    pub(crate) fn of(stream: usize) -> Self {
        Self { stream, thread: (stream == PER_THREAD).then(|| thread::current().id()) }
    }

    /// Whether every thread finds the same one behind its handle.
    pub(crate) fn is_shared(self) -> bool {
        self.thread.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_that_means_a_stream_of_each_thread_is_another_queue_in_each() {
        let there = thread::spawn(|| [PER_THREAD, 0x7f00].map(Queue::of)).join().unwrap();
        assert_ne!(there[0], Queue::of(PER_THREAD), "two streams, whose calls may not share scratch");
        assert_eq!(there[1], Queue::of(0x7f00), "one stream, whoever uses it");
        assert!(there[1].is_shared() && !there[0].is_shared());
        assert_eq!(Queue::of(PER_THREAD), Queue::of(PER_THREAD));
    }
}
