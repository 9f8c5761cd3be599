//! Attention of a few queries to a long cache: each row of the cache is read where it lies, and once.

// As in `dense`.
#![allow(clippy::needless_range_loop)]

use super::dense::{X_ROWS, dots, split};
use super::elementwise::softmax;
use super::isa::{Isa, LANES, Stored, vectorized};

/// The keys or the values of one head in some rows of a cache.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a, T> {
    /// From the head's first element in the first row on.
    pub(crate) elements: &'a [T],
    /// Elements from one row of the cache to the next.
    pub(crate) stride: usize,
    /// Elements of the head in a row.
    pub(crate) width: usize,
    /// How many rows.
    pub(crate) rows: usize,
}

impl<'a, T> Head<'a, T> {
    #[inline(always)]
    fn row(&self, row: usize) -> &'a [T] {
        &self.elements[row * self.stride..][..self.width]
    }
}

/// `out[g] = softmax(scale · q[g] · keysᵀ) · values`, for queries `[G, width]` that share keys and values. `scores` is
/// room for `G · rows` numbers.
pub(crate) fn attend<T: Stored>(
    q: &[f32],
    keys: Head<'_, T>,
    values: Head<'_, T>,
    scale: f32,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (width, rows) = (keys.width, keys.rows);
    let queries = q.chunks(X_ROWS * width).zip(out.chunks_mut(X_ROWS * width));
    for ((q, out), scores) in queries.zip(scores.chunks_mut(X_ROWS * rows)) {
        score(q, keys, scores);
        for row in scores.chunks_mut(rows) {
            softmax(row, scale);
        }
        mix(scores, values, out);
    }
}

vectorized! {
    /// `scores[g, s] = q[g] · keys[s]`, for at most [`X_ROWS`] queries.
    pub(crate) fn score<T: Stored>(q: &[f32], keys: Head<'_, T>, scores: &mut [f32]) = score_body
}

#[inline(always)]
fn score_body<I: Isa, T: Stored>(q: &[f32], keys: Head<'_, T>, scores: &mut [f32]) {
    match q.len() / keys.width {
        1 => score_rows::<I, T, 1>(q, keys, scores),
        2 => score_rows::<I, T, 2>(q, keys, scores),
        3 => score_rows::<I, T, 3>(q, keys, scores),
        _ => score_rows::<I, T, X_ROWS>(q, keys, scores),
    }
}

#[inline(always)]
fn score_rows<I: Isa, T: Stored, const G: usize>(q: &[f32], keys: Head<'_, T>, scores: &mut [f32]) {
    let Head { width, rows, .. } = keys;
    let q = split::<G>(q, width);
    for s in 0..rows {
        let products = dots::<I, T, G>(keys.row(s), q, 0);
        for g in 0..G {
            scores[g * rows + s] = products[g];
        }
    }
}

vectorized! {
    /// `out[g] = Σ weights[g, s] · values[s]`, for at most [`X_ROWS`] rows of weights.
    pub(crate) fn mix<T: Stored>(weights: &[f32], values: Head<'_, T>, out: &mut [f32]) = mix_body
}

#[inline(always)]
fn mix_body<I: Isa, T: Stored>(weights: &[f32], values: Head<'_, T>, out: &mut [f32]) {
    match out.len() / values.width {
        1 => mix_rows::<I, T, 1>(weights, values, out),
        2 => mix_rows::<I, T, 2>(weights, values, out),
        3 => mix_rows::<I, T, 3>(weights, values, out),
        _ => mix_rows::<I, T, X_ROWS>(weights, values, out),
    }
}

#[inline(always)]
fn mix_rows<I: Isa, T: Stored, const G: usize>(weights: &[f32], values: Head<'_, T>, out: &mut [f32]) {
    let Head { width, rows, .. } = values;
    let whole = width / (2 * LANES) * (2 * LANES);
    for at in (0..whole).step_by(2 * LANES) {
        let mut sums = [[[0.0f32; LANES]; 2]; G];
        for s in 0..rows {
            let (halves, _) = values.row(s)[at..][..2 * LANES].as_chunks::<LANES>();
            for half in 0..2 {
                let values = T::load::<I>(&halves[half]);
                for g in 0..G {
                    let weight = weights[g * rows + s];
                    for lane in 0..LANES {
                        sums[g][half][lane] = I::mul_add(weight, values[lane], sums[g][half][lane]);
                    }
                }
            }
        }
        for g in 0..G {
            out[g * width + at..][..2 * LANES].copy_from_slice(sums[g].as_flattened());
        }
    }
    for at in whole..width {
        for g in 0..G {
            let mut total = 0.0;
            for s in 0..rows {
                total += weights[g * rows + s] * values.row(s)[at].widen();
            }
            out[g * width + at] = total;
        }
    }
}
