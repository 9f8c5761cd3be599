//! Work that is divided among threads, and memory that is divided with it.

#![allow(unsafe_code, reason = "strips of one matrix interleave in memory, which no slice can say")]

mod helpers;

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `work` once for each number below `count`, on this thread and on as many others of its pool as there are.
///
/// Each thread begins with a stretch of its own and then helps with the others', so that what is near one another in memory
/// is mostly read by one thread, and whoever begins late finds less to do.
pub(crate) fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads().min(count);
    if threads < 2 {
        (0..count).for_each(work);
        return;
    }
    let stretch = |thread: usize| thread * count / threads..(thread + 1) * count / threads;
    let next: Vec<AtomicUsize> = (0..threads).map(|thread| AtomicUsize::new(stretch(thread).start)).collect();
    let run = |thread: usize| {
        for other in (0..threads).map(|turn| (thread + turn) % threads) {
            let (next, end) = (&next[other], stretch(other).end);
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= end {
                    break;
                }
                work(task);
            }
        }
    };
    let run = &run;
    if helpers::share(threads - 1, run) {
        return;
    }
    rayon::in_place_scope(|scope| {
        for thread in 1..threads {
            scope.spawn(move |_| run(thread));
        }
        run(0);
    });
}

/// Where a slice begins.
struct Start<T>(*mut T);

// SAFETY: it is only ever turned into parts that do not overlap, each of which one call has.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    // A method, so that closures borrow the whole, which is `Sync`, and not its field, which is not.
    fn pointer(&self) -> *mut T {
        self.0
    }
}

/// [`for_each`] of the pieces of `whole` that are `len` long; what is left over belongs to none.
///
/// # Panics
/// If `len` is 0.
pub(crate) fn for_each_chunk<T: Send>(whole: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let start = Start(whole.as_mut_ptr());
    for_each(whole.len() / len, |chunk| {
        // SAFETY: `for_each` calls once for each number, and pieces of different numbers do not overlap.
        work(chunk, unsafe { slice::from_raw_parts_mut(start.pointer().add(chunk * len), len) });
    });
}

/// Some columns of a row-major matrix, and no other thread's.
pub(crate) struct ColumnsOf<'a, T> {
    start: *mut T,
    rows: usize,
    stride: usize,
    columns: Range<usize>,
    matrix: PhantomData<&'a mut [T]>,
}

impl<T> ColumnsOf<'_, T> {
    /// The columns of the matrix.
    pub(crate) fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The part of a row that is in these columns.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `for_each_strip` checked that the matrix has `rows` rows of `stride` elements and that the columns end
        // within one; the borrow of `self` keeps two slices of one strip apart, and strips do not overlap.
        unsafe {
            let start = self.start.add(row * self.stride + self.columns.start);
            slice::from_raw_parts_mut(start, self.columns.len())
        }
    }
}

/// [`for_each`] of `strips` strips of columns of a matrix `[rows, n]`, as equal as whole tiles allow.
///
/// # Panics
/// If the matrix is not a whole number of rows, or `n`, `tile` or `strips` is 0.
pub(crate) fn for_each_strip<T: Send>(
    matrix: &mut [T],
    n: usize,
    tile: usize,
    strips: usize,
    work: impl Fn(ColumnsOf<'_, T>) + Sync,
) {
    assert!(matrix.len().is_multiple_of(n), "whole rows of {n}");
    let rows = matrix.len() / n;
    let start = Start(matrix.as_mut_ptr());
    let tiles = n.div_ceil(tile);
    let edge = |strip: usize| n.min(strip * tiles / strips * tile);
    for_each(strips, |strip| {
        let columns = edge(strip)..edge(strip + 1);
        work(ColumnsOf { start: start.pointer(), rows, stride: n, columns, matrix: PhantomData });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(threads: usize, work: impl FnOnce() + Send) {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work);
    }

    #[test]
    fn every_task_runs_once_however_many_threads_there_are() {
        for threads in [1, 2, 3, 8] {
            for count in [0, 1, 2, 7, 100] {
                let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                on(threads, || for_each(count, |task| _ = calls[task].fetch_add(1, Ordering::Relaxed)));
                assert!(calls.into_iter().all(|calls| calls.into_inner() == 1), "{threads} threads, {count}");
            }
        }
    }

    /// Calls from outside of the pool, which its threads help with.
    #[test]
    fn every_task_runs_once_however_many_threads_call_at_once() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for call in 0..500 {
                        let calls: Vec<AtomicUsize> = (0..call % 50).map(|_| AtomicUsize::new(0)).collect();
                        for_each(calls.len(), |task| _ = calls[task].fetch_add(1, Ordering::Relaxed));
                        assert!(calls.into_iter().all(|calls| calls.into_inner() == 1), "call {call}");
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_of_another_thread_reaches_the_caller_and_ends_nothing_else() {
        if rayon::current_num_threads() < 2 {
            return;
        }
        let caller = std::thread::current().id();
        for _ in 0..3 {
            let begun = AtomicUsize::new(0);
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for_each(8, |_| {
                    if std::thread::current().id() == caller {
                        // Until another has begun.
                        while begun.load(Ordering::Relaxed) == 0 {
                            std::thread::yield_now();
                        }
                    } else {
                        begun.store(1, Ordering::Relaxed);
                        panic!("of a helper");
                    }
                });
            }));
            let panic = caught.expect_err("the panic is lost");
            assert_eq!(panic.downcast_ref(), Some(&"of a helper"));
        }
        let calls = AtomicUsize::new(0);
        for_each(8, |_| _ = calls.fetch_add(1, Ordering::Relaxed));
        assert_eq!(calls.into_inner(), 8);
    }

    #[test]
    fn chunks_cover_all_but_what_is_left_over() {
        let mut whole = vec![0; 10];
        for_each_chunk(&mut whole, 3, |chunk, part| part.fill(chunk + 1));
        assert_eq!(whole, [1, 1, 1, 2, 2, 2, 3, 3, 3, 0]);
    }

    #[test]
    fn strips_cover_a_matrix_once() {
        let mut matrix = vec![0; 3 * 10];
        for_each_strip(&mut matrix, 10, 2, 3, |mut strip| {
            for row in 0..3 {
                for (column, value) in strip.columns().zip(strip.row(row)) {
                    *value += row * 10 + column + 1;
                }
            }
        });
        assert_eq!(matrix, (1..=30).collect::<Vec<_>>());
    }
}
