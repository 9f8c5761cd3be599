//! Rows of a plain matrix, as they are stored, times a few rows of x.

// Loops over indices, and no closures: a closure that the compiler does not inline is compiled for every processor.
#![allow(clippy::needless_range_loop)]

use super::isa::{Isa, LANES, Stored, vectorized};

/// Rows of x that one pass over the weights serves.
pub(crate) const X_ROWS: usize = 4;
/// How far ahead weights are asked for, in bytes. They are read in order, but the hardware looks ahead only as far as the
/// page ends.
const AHEAD: usize = 8 << 10;
/// Vectors that are summed side by side: enough to hide how long one sum takes.
const SUMS: usize = 4;

vectorized! {
    /// `out[m, n] = x[m] · w[n]` for the rows of `w` `[N, K]` and the at most [`X_ROWS`] rows of `x` `[M, K]`; row m of
    /// `out` begins at `m · stride`.
    pub(crate) fn multiply_rows<T: Stored>(w: &[T], x: &[f32], k: usize, out: &mut [f32], stride: usize) = body
}

#[inline(always)]
fn body<I: Isa, T: Stored>(w: &[T], x: &[f32], k: usize, out: &mut [f32], stride: usize) {
    match x.len() / k.max(1) {
        1 => rows::<I, T, 1>(w, x, k, out, stride),
        2 => rows::<I, T, 2>(w, x, k, out, stride),
        3 => rows::<I, T, 3>(w, x, k, out, stride),
        _ => rows::<I, T, X_ROWS>(w, x, k, out, stride),
    }
}

#[inline(always)]
fn rows<I: Isa, T: Stored, const M: usize>(w: &[T], x: &[f32], k: usize, out: &mut [f32], stride: usize) {
    let x = split::<M>(x, k);
    for (n, row) in w.chunks_exact(k).enumerate() {
        let products = dots::<I, T, M>(row, x, AHEAD);
        for m in 0..M {
            out[m * stride + n] = products[m];
        }
    }
}

/// The first `M` rows of `x [M, k]`.
#[inline(always)]
pub(super) fn split<const M: usize>(x: &[f32], k: usize) -> [&[f32]; M] {
    let mut rows = [&x[..0]; M];
    for m in 0..M {
        rows[m] = &x[m * k..][..k];
    }
    rows
}

/// `w · x[m]` for each row of x, all as long as `w`. Asks for what stands `ahead` bytes behind what it reads of `w`.
#[inline(always)]
pub(super) fn dots<I: Isa, T: Stored, const M: usize>(w: &[T], x: [&[f32]; M], ahead: usize) -> [f32; M] {
    let mut sums = [[[0.0f32; LANES]; SUMS]; M];
    let (chunks, rest) = w.as_chunks::<{ SUMS * LANES }>();
    for (at, chunk) in chunks.iter().enumerate() {
        let (vectors, _) = chunk.as_chunks::<LANES>();
        for part in 0..SUMS {
            if ahead > 0 && (part * LANES * size_of::<T>()).is_multiple_of(64) {
                I::prefetch(&vectors[part], ahead);
            }
            let w = T::load::<I>(&vectors[part]);
            for m in 0..M {
                add_products::<I>(w, &x[m][(at * SUMS + part) * LANES..], &mut sums[m][part]);
            }
        }
    }
    let done = w.len() - rest.len();
    let (vectors, rest) = rest.as_chunks::<LANES>();
    let mut products = [0.0; M];
    for m in 0..M {
        for (at, vector) in vectors.iter().enumerate() {
            add_products::<I>(T::load::<I>(vector), &x[m][done + at * LANES..], &mut sums[m][0]);
        }
        let mut total = [0.0; LANES];
        for part in 0..SUMS {
            for lane in 0..LANES {
                total[lane] += sums[m][part][lane];
            }
        }
        products[m] = I::sum(total);
        for (w, x) in rest.iter().zip(&x[m][w.len() - rest.len()..]) {
            products[m] += w.widen() * x;
        }
    }
    products
}

/// Adds the products of a vector to sums.
#[inline(always)]
fn add_products<I: Isa>(w: [f32; LANES], x: &[f32], sums: &mut [f32; LANES]) {
    let x = &x[..LANES];
    for lane in 0..LANES {
        sums[lane] = I::mul_add(w[lane], x[lane], sums[lane]);
    }
}
