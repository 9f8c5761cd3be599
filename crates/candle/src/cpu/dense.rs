//! Rows of a plain matrix, as they are stored, times a few rows of x.

use super::isa::{Isa, LANES, Stored, vectorized};

/// Rows of x that one pass over the weights serves.
pub(crate) const X_ROWS: usize = 4;
/// Rows of weights that are read side by side: enough streams to keep memory busy.
const W_ROWS: usize = 4;

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
    let x: [&[f32]; M] = std::array::from_fn(|m| &x[m * k..][..k]);
    let mut n = 0;
    for four in w.chunks_exact(W_ROWS * k) {
        let four: [&[T]; W_ROWS] = std::array::from_fn(|row| &four[row * k..][..k]);
        let sums = dots::<I, T, M, W_ROWS>(four, x, k);
        for (m, sums) in sums.into_iter().enumerate() {
            out[m * stride + n..][..W_ROWS].copy_from_slice(&sums);
        }
        n += W_ROWS;
    }
    for row in w[n * k..].chunks_exact(k) {
        let sums = dots::<I, T, M, 1>([row], x, k);
        for (m, [sum]) in sums.into_iter().enumerate() {
            out[m * stride + n] = sum;
        }
        n += 1;
    }
}

/// Every row of `w` times every row of `x`, each of length `k`.
#[inline(always)]
pub(super) fn dots<I: Isa, T: Stored, const M: usize, const N: usize>(
    w: [&[T]; N],
    x: [&[f32]; M],
    k: usize,
) -> [[f32; N]; M] {
    let mut sums = [[[0.0f32; LANES]; N]; M];
    let whole = k / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        for n in 0..N {
            let Some(w) = w[n][at..].first_chunk() else { continue };
            let w = T::load::<I>(w);
            for m in 0..M {
                let x = &x[m][at..at + LANES];
                for lane in 0..LANES {
                    sums[m][n][lane] = I::mul_add(w[lane], x[lane], sums[m][n][lane]);
                }
            }
        }
    }
    let mut totals = [[0.0; N]; M];
    for m in 0..M {
        for n in 0..N {
            let rest = w[n][whole..].iter().zip(&x[m][whole..]);
            totals[m][n] = sum(sums[m][n]) + rest.map(|(w, x)| w.widen() * x).sum::<f32>();
        }
    }
    totals
}

/// The sum of the lanes, pairwise.
#[inline(always)]
pub(super) fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}
