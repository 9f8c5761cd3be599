//! The loops of every kernel, written once over what a vector can do.
//!
//! An instruction set implements [`Simd`] and instantiates [`fused`], [`unpack`] and [`multiply`] inside functions
//! that carry its `target_feature`; everything here is inlined into those.
//!
//! Rows come in blocks of 32, which fill whole words at every width. A block is multiplied in `STEPS` steps: one
//! step is one row (weights in f32), or two rows at once (weights in pairs of bf16).

#![allow(unsafe_code, reason = "vector loads and stores; see the contract of `Simd`")]
#![allow(unsafe_op_in_unsafe_fn, reason = "the whole module runs under the one contract of `Simd`")]
#![allow(
    clippy::needless_range_loop,
    reason = "sums are a matrix of registers, indexed by constants once unrolled"
)]
#![allow(clippy::needless_pass_by_value, reason = "totals are lent mutably")]

use gptq_core::format::packing::{BLOCK, Pieces};

use super::{Run, Totals, X, X_ROWS};

/// A format that only [`unpack`] reads, by its table of pieces.
pub(super) const BY_PIECES: usize = 0;

/// How many planes a streaming kernel makes of the weights of a step: with few rows of x a further multiplication
/// costs less than putting a weight together.
#[inline(always)]
const fn planes<S: Simd, const BITS: usize>(rows: usize) -> usize {
    if BITS == 8 && rows < 4 { S::BYTE_PLANES } else { 1 }
}

/// The rows of words to ask for at a step that is a multiple of 4: each row once in a block.
#[inline(always)]
const fn words_ahead<S: Simd, const BITS: usize>(step: usize, planes: usize) -> std::ops::Range<usize> {
    let steps = S::STEPS * planes;
    step * BITS / steps..(step + 4) * BITS / steps
}

/// How many words a block takes in a column.
const fn words_of<const BITS: usize>() -> usize {
    BITS * BLOCK / 32
}

/// What the kernels ask of an instruction set.
///
/// # Safety
/// Every function runs only on a processor that has the implementation's features, inlined into a function that
/// carries them. Pointers are valid for `LANES` elements, without any alignment.
pub(super) trait Simd {
    /// Columns in a vector.
    const LANES: usize;
    /// Steps in a block of rows.
    const STEPS: usize;
    /// The weights of one step, without their scale.
    type Weight: Copy;
    /// A sum in f32 for each column.
    type Sum: Copy;

    /// Into how many planes [`Simd::plane`] splits the weights of a step of eight-bit codes. They are multiplied with
    /// the same x.
    const BYTE_PLANES: usize;
    /// One plane of a step, `STEP` counted in planes.
    unsafe fn plane<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> Self::Weight;
    /// One step of a block of continuous codes: codes minus `2^(BITS - 1)`.
    unsafe fn step<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> Self::Weight;
    /// Four planes from the `FIRST` on.
    unsafe fn quad<const BITS: usize, const FIRST: usize>(
        from: *const u32,
        stride: usize,
    ) -> [Self::Weight; 4];
    /// One step of a block whose codes stand as `pieces` say.
    unsafe fn step_by_pieces(
        from: *const u32,
        stride: usize,
        pieces: &[Pieces; BLOCK],
        bits: usize,
        step: usize,
    ) -> Self::Weight;
    /// The weight minus what its zero point differs from `2^(bits - 1)`, where that is exact in a weight.
    unsafe fn center(weight: Self::Weight, offset: Self::Sum) -> Self::Weight;
    /// The sum of `x · weight` minus what [`Simd::center`] left: `offset` times the sum of x.
    unsafe fn correct(sum: Self::Sum, offset: Self::Sum, x_sum: f32) -> Self::Sum;

    /// The x of one step in every lane.
    unsafe fn broadcast(x: *const u32) -> Self::Weight;
    unsafe fn multiply_add(sum: Self::Sum, weight: Self::Weight, x: Self::Weight) -> Self::Sum;
    unsafe fn load_weight(from: *const u32) -> Self::Weight;
    unsafe fn store_weight(to: *mut u32, weight: Self::Weight);

    unsafe fn zero() -> Self::Sum;
    unsafe fn load(from: *const f32) -> Self::Sum;
    unsafe fn store(to: *mut f32, sum: Self::Sum);
    /// `total + scale · sum`.
    unsafe fn scale_add(total: Self::Sum, scale: Self::Sum, sum: Self::Sum) -> Self::Sum;
    /// Asks for the cache line of an address, which need not be valid.
    unsafe fn prefetch(address: *const u32);
}

/// Runs `$body` for each step of a block, with `$step` a constant.
macro_rules! for_each_step {
    ($steps:expr, $step:ident => $body:block) => {
        for_each_step!(@ $step $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        if $steps == 32 {
            for_each_step!(@ $step $body 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
        }
    };
    (@ $step:ident $body:block $($value:literal)*) => {$({
        const $step: usize = $value;
        $body
    })*};
}

/// Runs `$body` for each of at most eight vectors, with `$v` a constant: a loop of this size the compiler may leave
/// rolled, and then keeps no sum in a register.
macro_rules! for_each_vector {
    ($end:expr, $v:ident => $body:block) => {
        for_each_vector!(@ $end, $v $body 0 1 2 3 4 5 6 7)
    };
    (@ $end:expr, $v:ident $body:block $($value:literal)*) => {$(
        if $value < $end {
            const $v: usize = $value;
            $body
        }
    )*};
}

/// Runs `$body` for each quadruple of steps of a block, with the first of them a constant.
macro_rules! for_each_quad {
    ($steps:expr, $first:ident => $body:block) => {
        for_each_step!(@ $first $body 0 4 8 12);
        if $steps == 32 {
            for_each_step!(@ $first $body 16 20 24 28);
        }
    };
}

/// `MR` rows of x times a strip of columns, each word used as it is read.
#[inline(always)]
pub(super) unsafe fn fused<
    S: Simd,
    const BITS: usize,
    const MR: usize,
    const NV: usize,
    const NARROW: usize,
>(
    run: &Run<'_>,
    x: X<'_>,
    totals: Totals<'_>,
) {
    run.check(S::LANES * NARROW, words_of::<BITS>());
    x.check(run.blocks, S::STEPS, MR);
    totals.check(run.columns, MR);
    let stride = totals.stride;
    let mut column = 0;
    while column < run.columns {
        let totals = totals.values.as_mut_ptr().add(column);
        let wide = run.columns - column >= S::LANES * NV;
        column += match (wide, run.offsets.is_empty()) {
            (true, true) => tile::<S, BITS, MR, NV, false>(run, column, x, totals, stride),
            (true, false) => tile::<S, BITS, MR, NV, true>(run, column, x, totals, stride),
            (false, true) => tile::<S, BITS, MR, NARROW, false>(run, column, x, totals, stride),
            (false, false) => tile::<S, BITS, MR, NARROW, true>(run, column, x, totals, stride),
        };
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const BITS: usize, const MR: usize, const NV: usize, const OFFSETS: bool>(
    run: &Run<'_>,
    column: usize,
    x: X<'_>,
    totals: *mut f32,
    stride: usize,
) -> usize {
    let mut offsets = [S::zero(); NV];
    if OFFSETS {
        for v in 0..NV {
            offsets[v] = S::load(run.offsets.as_ptr().add(column + v * S::LANES));
        }
    }
    let mut sums = [[S::zero(); NV]; MR];
    let mut words = run.words.as_ptr().add(column);
    let mut x_at = x.words.as_ptr();
    let row_of_x = X_ROWS / BLOCK * S::STEPS;
    let planes = planes::<S, BITS>(MR);
    for _ in 0..run.blocks {
        if NV >= 8 {
            // Many columns of each row of words: four steps of one vector, then of the next.
            for_each_quad!(S::STEPS * planes, FIRST => {
                let mut x = [[S::broadcast(x_at); 4]; MR];
                for row in 0..MR {
                    for i in 0..4 {
                        x[row][i] = S::broadcast(x_at.add(row * row_of_x + (FIRST + i) / planes));
                    }
                }
                for_each_vector!(NV, V => {
                    let words = words.add(V * S::LANES);
                    for word in words_ahead::<S, BITS>(FIRST, planes) {
                        S::prefetch(words.wrapping_add((word + run.ahead) * run.stride));
                    }
                    let weights = S::quad::<BITS, FIRST>(words, run.stride);
                    for i in 0..4 {
                        let weight = if OFFSETS { S::center(weights[i], offsets[V]) } else { weights[i] };
                        for row in 0..MR {
                            sums[row][V] = S::multiply_add(sums[row][V], weight, x[row][i]);
                        }
                    }
                });
            });
        } else {
            for_each_step!(S::STEPS * planes, STEP => {
                let mut weights = [S::broadcast(x_at); NV];
                if STEP.is_multiple_of(4) {
                    for word in words_ahead::<S, BITS>(STEP, planes) {
                        for v in 0..NV {
                            S::prefetch(words.wrapping_add((word + run.ahead) * run.stride + v * S::LANES));
                        }
                    }
                }
                for v in 0..NV {
                    let words = words.add(v * S::LANES);
                    let weight = if planes == 1 {
                        S::step::<BITS, STEP>(words, run.stride)
                    } else {
                        S::plane::<BITS, STEP>(words, run.stride)
                    };
                    weights[v] = if OFFSETS { S::center(weight, offsets[v]) } else { weight };
                }
                for row in 0..MR {
                    let x = S::broadcast(x_at.add(row * row_of_x + STEP / planes));
                    for v in 0..NV {
                        sums[row][v] = S::multiply_add(sums[row][v], weights[v], x);
                    }
                }
            });
        }
        words = words.add(words_of::<BITS>() * run.stride);
        x_at = x_at.add(S::STEPS);
    }
    for v in 0..NV {
        let scale = S::load(run.scales.as_ptr().add(column + v * S::LANES));
        for row in 0..MR {
            let mut sum = sums[row][v];
            if OFFSETS {
                sum = S::correct(sum, offsets[v], *x.sums.as_ptr().add(row));
            }
            let total = totals.add(row * stride + v * S::LANES);
            S::store(total, S::scale_add(S::load(total), scale, sum));
        }
    }
    S::LANES * NV
}

/// The weights of a tile of `NV` vectors of columns into `panel`: `[step, NV · LANES]`.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd, const BITS: usize, const NV: usize>(run: &Run<'_>, panel: &mut [u32]) {
    assert_eq!(run.columns, NV * S::LANES, "a panel is one tile wide");
    assert!(panel.len() >= run.blocks * S::STEPS * NV * S::LANES, "the panel holds the run");
    let bits = if BITS == BY_PIECES { run.bits } else { BITS };
    run.check(S::LANES * NV, bits);
    for v in 0..NV {
        let offset =
            if run.offsets.is_empty() { S::zero() } else { S::load(run.offsets.as_ptr().add(v * S::LANES)) };
        let mut words = run.words.as_ptr().add(v * S::LANES);
        let mut to = panel.as_mut_ptr().add(v * S::LANES);
        for _ in 0..run.blocks {
            for word in 0..bits {
                S::prefetch(words.wrapping_add((word + run.ahead) * run.stride));
            }
            if BITS == BY_PIECES {
                for step in 0..S::STEPS {
                    let weight = S::step_by_pieces(words, run.stride, run.pieces, bits, step);
                    S::store_weight(to.add(step * NV * S::LANES), S::center(weight, offset));
                }
            } else {
                for_each_step!(S::STEPS, STEP => {
                    let weight = S::step::<BITS, STEP>(words, run.stride);
                    S::store_weight(to.add(STEP * NV * S::LANES), S::center(weight, offset));
                });
            }
            words = words.add(bits * run.stride);
            to = to.add(S::STEPS * NV * S::LANES);
        }
    }
}

/// `MR` rows of x times an unpacked tile.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd, const MR: usize, const NV: usize>(
    run: &Run<'_>,
    panel: &[u32],
    x: X<'_>,
    totals: Totals<'_>,
) {
    let steps = run.blocks * S::STEPS;
    assert!(panel.len() >= steps * NV * S::LANES, "the panel holds the run");
    assert!(run.columns == NV * S::LANES && run.scales.len() == run.columns, "a scale for each column");
    assert!(run.offsets.is_empty() || run.offsets.len() == run.columns, "an offset for each column");
    x.check(run.blocks, S::STEPS, MR);
    totals.check(run.columns, MR);
    for row in 0..MR {
        S::prefetch(totals.values.as_ptr().add(row * totals.stride).cast());
        S::prefetch(totals.values.as_ptr().add(row * totals.stride + (NV - 1) * S::LANES).cast());
    }
    let mut sums = [[S::zero(); NV]; MR];
    let (mut weights_at, mut x_at) = (panel.as_ptr(), x.words.as_ptr());
    for _ in 0..steps {
        let mut weights = [S::broadcast(x_at); NV];
        for v in 0..NV {
            weights[v] = S::load_weight(weights_at.add(v * S::LANES));
        }
        for row in 0..MR {
            let x = S::broadcast(x_at.add(row * (X_ROWS / BLOCK * S::STEPS)));
            for v in 0..NV {
                sums[row][v] = S::multiply_add(sums[row][v], weights[v], x);
            }
        }
        weights_at = weights_at.add(NV * S::LANES);
        x_at = x_at.add(1);
    }
    for v in 0..NV {
        let scale = S::load(run.scales.as_ptr().add(v * S::LANES));
        for row in 0..MR {
            let mut sum = sums[row][v];
            if !run.offsets.is_empty() {
                let offset = S::load(run.offsets.as_ptr().add(v * S::LANES));
                sum = S::correct(sum, offset, *x.sums.as_ptr().add(row));
            }
            let total = totals.values.as_mut_ptr().add(row * totals.stride + v * S::LANES);
            S::store(total, S::scale_add(S::load(total), scale, sum));
        }
    }
}
