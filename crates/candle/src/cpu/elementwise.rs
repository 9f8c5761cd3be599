//! Norms, activations and softmax, one row at a time.

use super::isa::{Isa, LANES, vectorized};

vectorized! {
    /// `out = x / sqrt(mean(x²) + eps) · weight`, one row.
    pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_body
}

#[inline(always)]
fn rms_norm_body<I: Isa>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut squares = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            squares[lane] = I::mul_add(chunk[lane], chunk[lane], squares[lane]);
        }
    }
    let total = I::sum(squares) + rest.iter().map(|x| x * x).sum::<f32>();
    let scale = 1.0 / (total / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

vectorized! {
    /// `out = gate / (1 + e^-gate) · up`.
    pub(crate) fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_body
}

#[inline(always)]
fn silu_mul_body<I: Isa>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp::<I>(-gate)) * up;
    }
}

vectorized! {
    /// `out = a + b`.
    pub(crate) fn add(a: &[f32], b: &[f32], out: &mut [f32]) = add_body
}

#[inline(always)]
fn add_body<I: Isa>(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a + b;
    }
}

vectorized! {
    /// Softmax of `scale · row` in place.
    pub(crate) fn softmax(row: &mut [f32], scale: f32) = softmax_body
}

#[inline(always)]
fn softmax_body<I: Isa>(row: &mut [f32], scale: f32) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            largest[lane] = largest[lane].max(chunk[lane]);
        }
    }
    let mut most = f32::NEG_INFINITY;
    for value in largest.iter().chain(rest) {
        most = most.max(*value);
    }
    let mut sums = [0.0; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp::<I>((chunk[lane] - most) * scale);
            sums[lane] += chunk[lane];
        }
    }
    let mut total = I::sum(sums);
    for value in rest {
        *value = exp::<I>((*value - most) * scale);
        total += *value;
    }
    let scale = 1.0 / total;
    for value in row {
        *value *= scale;
    }
}

/// e^x, to within two units in the last place; 0 below -87, and at most e^88.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, where n is rounded by adding a number that leaves no bits below one; e^r by its
/// series; 2^n by writing n into the exponent. No branch, so that it vectorizes.
#[inline(always)]
pub(super) fn exp<I: Isa>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23
    const LN2_HIGH: f32 = 0.693_145_75; // its last 12 bits are 0: a product with n is exact
    const LN2_LOW: f32 = 1.428_606_8e-6;
    let clamped = x.clamp(-88.0, 88.0);
    let shifted = I::mul_add(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = I::mul_add(n, -LN2_LOW, I::mul_add(n, -LN2_HIGH, clamped));
    let mut power = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        power = I::mul_add(power, r, factor);
    }
    // The low bits of `shifted` hold n.
    let two_to_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { power * two_to_n }
}
