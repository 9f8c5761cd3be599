//! A matrix cut into strips of columns, which threads write side by side.

#![allow(unsafe_code, reason = "strips of one matrix interleave in memory, which no slice can say")]

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use rayon::prelude::*;

/// Some columns of a row-major matrix, and no other thread's.
pub(crate) struct Strip<'a, T> {
    start: *mut T,
    rows: usize,
    stride: usize,
    columns: Range<usize>,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: a strip is a mutable borrow of elements that belong to no other strip.
unsafe impl<T: Send> Send for Strip<'_, T> {}

impl<T> Strip<'_, T> {
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
        // SAFETY: `strips` checked that the matrix has `rows` rows of `stride` elements and that the columns end
        // within one; the borrow of `self` keeps two slices of one strip apart, and strips do not overlap.
        unsafe {
            let start = self.start.add(row * self.stride + self.columns.start);
            slice::from_raw_parts_mut(start, self.columns.len())
        }
    }
}

/// Where a matrix begins.
struct Start<T>(*mut T);

// SAFETY: it is only ever turned into strips, which do not overlap.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    // A method, so that closures borrow the whole, which is `Sync`, and not its field, which is not.
    fn pointer(&self) -> *mut T {
        self.0
    }
}

/// Cuts a matrix `[rows, n]` into `strips` strips of columns, as equal as whole tiles allow, and calls `work` for each
/// on all threads of the pool.
///
/// # Panics
/// If the matrix is not a whole number of rows, or `n`, `tile` or `strips` is 0.
pub(crate) fn for_each_strip<T: Send>(
    matrix: &mut [T],
    n: usize,
    tile: usize,
    strips: usize,
    work: impl Fn(Strip<'_, T>) + Send + Sync,
) {
    assert!(matrix.len().is_multiple_of(n), "whole rows of {n}");
    let rows = matrix.len() / n;
    let start = Start(matrix.as_mut_ptr());
    let tiles = n.div_ceil(tile);
    let edge = |strip: usize| n.min(strip * tiles / strips * tile);
    (0..strips).into_par_iter().with_max_len(1).for_each(|strip| {
        let columns = edge(strip)..edge(strip + 1);
        work(Strip { start: start.pointer(), rows, stride: n, columns, matrix: PhantomData });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

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
