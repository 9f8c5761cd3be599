//! The loops of every kernel, written once over what a vector can do.
//!
//! An instruction set implements [`Simd`] and instantiates [`fused`], [`unpack`] and [`multiply`] inside functions
//! that carry its `target_feature`; everything here is inlined into those.
//!
//! Rows come in blocks of 32, which fill whole words at every width. A block is multiplied in `STEPS` steps: a step is
//! one row (weights in f32), two rows at once (pairs of bf16), or four (quadruples of bytes).

#![allow(unsafe_code, reason = "vector loads and stores; see the contract of `Simd`")]
#![allow(unsafe_op_in_unsafe_fn, reason = "the whole module runs under the one contract of `Simd`")]
#![allow(
    clippy::needless_range_loop,
    reason = "sums are a matrix of registers, indexed by constants once unrolled"
)]
#![allow(clippy::needless_pass_by_value, reason = "totals are lent mutably")]

use gptq_core::format::packing::{BLOCK, Pieces};

use super::{Run, RunOfX, Totals, X, X_ROWS};

/// A format that only [`unpack`] reads, by its table of pieces.
pub(super) const BY_PIECES: usize = 0;

/// How many rows of words ahead [`unpack`] asks for.
const AHEAD: usize = 16;

/// How many words a block takes in a column.
const fn words_of<const BITS: usize>() -> usize {
    BITS * BLOCK / 32
}

/// What the kernels ask of an instruction set.
///
/// # Safety
/// Every function runs only on a processor that has the implementation's features, inlined into a function that
/// carries them. Pointers are valid for `LANES` elements, or for what they say, without any alignment.
pub(super) trait Simd {
    /// Columns in a vector.
    const LANES: usize;
    /// Steps in a block of rows.
    const STEPS: usize;
    /// Words of x in a step.
    const X_STEP: usize;
    /// Words of x in a block: those of its steps, and what [`Simd::start`] reads behind them.
    const X_BLOCK: usize;
    /// Whether sums are in units of x other than 1.
    const UNITS: bool;
    /// The weights of one step, without their scale.
    type Weight: Copy;
    /// The x of one step, in every lane.
    type X: Copy;
    /// Sums of products on their way, for each column.
    type Sum: Copy;
    /// A number in f32 for each column.
    type Float: Copy;

    /// One step of a block of continuous codes.
    unsafe fn step<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> Self::Weight;
    /// One step of a block whose codes stand as `pieces` say.
    unsafe fn step_by_pieces(
        from: *const u32,
        stride: usize,
        pieces: &[Pieces; BLOCK],
        bits: usize,
        step: usize,
    ) -> Self::Weight;
    unsafe fn load_weight(from: *const u32) -> Self::Weight;
    unsafe fn store_weight(to: *mut u32, weight: Self::Weight);

    /// The sum before the first product of a block of x: what makes of codes codes less `2^(bits - 1)`.
    unsafe fn start(block: *const u32) -> Self::Sum;
    /// The same for row `row` of the words of every block, in a format of whole codes.
    unsafe fn start_row<const BITS: usize>(x: *const u32, blocks: usize, row: usize) -> Self::Sum;
    /// The same for a whole run.
    unsafe fn start_run(run: &RunOfX) -> Self::Sum;
    unsafe fn broadcast(x: *const u32) -> Self::X;
    unsafe fn multiply_add(sum: Self::Sum, weight: Self::Weight, x: Self::X) -> Self::Sum;
    /// The sum as numbers, in units of [`RunOfX::unit`].
    unsafe fn settle(sum: Self::Sum) -> Self::Float;

    unsafe fn load(from: *const f32) -> Self::Float;
    unsafe fn store(to: *mut f32, value: Self::Float);
    unsafe fn splat(value: f32) -> Self::Float;
    unsafe fn add(a: Self::Float, b: Self::Float) -> Self::Float;
    unsafe fn multiply(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a + b · c`.
    unsafe fn add_product(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// `a - b · c`.
    unsafe fn less_product(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// Asks for the cache line of an address, which need not be valid.
    unsafe fn prefetch(address: *const u32);
}

/// Runs `$body` for each of at most 32 steps, with `$step` a constant.
macro_rules! for_each_step {
    ($steps:expr, $step:ident => $body:block) => {
        for_each_step!(@ $steps, $step $body 0 1 2 3 4 5 6 7);
        if $steps > 8 {
            for_each_step!(@ $steps, $step $body 8 9 10 11 12 13 14 15);
        }
        if $steps > 16 {
            for_each_step!(@ $steps, $step $body 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
        }
    };
    (@ $steps:expr, $step:ident $body:block $($value:literal)*) => {$(
        if $value < $steps {
            const $step: usize = $value;
            $body
        }
    )*};
}

/// Runs `$body` for each of at most twelve rows or vectors, with `$i` a constant: a loop of this size the compiler may
/// leave rolled, and then keeps no sum in a register.
macro_rules! for_each {
    ($end:expr, $i:ident => $body:block) => {
        for_each!(@ $end, $i $body 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $end:expr, $i:ident $body:block $($value:literal)*) => {$(
        if $value < $end {
            const $i: usize = $value;
            $body
        }
    )*};
}

mod fused;

pub(super) use fused::{fused, fused_run};

/// Words from one row of x to the next.
const fn words_of_row<S: Simd>() -> usize {
    X_ROWS / BLOCK * S::X_BLOCK
}

#[inline(always)]
unsafe fn settle<S: Simd, const MR: usize, const NV: usize>(
    sums: &[[S::Sum; NV]; MR],
) -> [[S::Float; NV]; MR] {
    let mut settled = [[S::splat(0.0); NV]; MR];
    for_each!(MR, ROW => {
        for_each!(NV, V => {
            settled[ROW][V] = S::settle(sums[ROW][V]);
        });
    });
    settled
}

/// Adds the products of a step of a block.
#[inline(always)]
unsafe fn add_step<S: Simd, const BITS: usize, const STEP: usize, const MR: usize, const NV: usize>(
    sums: &mut [[S::Sum; NV]; MR],
    words: *const u32,
    stride: usize,
    x_at: *const u32,
) {
    let mut weights = [S::step::<BITS, STEP>(words, stride); NV];
    for v in 1..NV {
        weights[v] = S::step::<BITS, STEP>(words.add(v * S::LANES), stride);
    }
    for row in 0..MR {
        let x = S::broadcast(x_at.add(row * words_of_row::<S>() + STEP * S::X_STEP));
        for v in 0..NV {
            sums[row][v] = S::multiply_add(sums[row][v], weights[v], x);
        }
    }
}

/// Adds the scaled sum of a run to the total of its columns.
#[inline(always)]
unsafe fn add_to_total<S: Simd, const OFFSETS: bool>(
    total: *mut f32,
    scale: S::Float,
    offset: S::Float,
    x: *const RunOfX,
    mut sum: S::Float,
) {
    if OFFSETS {
        sum = S::less_product(sum, offset, S::splat((*x).sum));
    }
    if S::UNITS {
        sum = S::multiply(sum, S::splat((*x).unit));
    }
    S::store(total, S::add_product(S::load(total), scale, sum));
}

/// [`add_to_total`] for all sums of a tile.
#[inline(always)]
unsafe fn add_to_totals<S: Simd, const MR: usize, const NV: usize>(
    totals: *mut f32,
    stride: usize,
    run: &Run<'_>,
    column: usize,
    x: X<'_>,
    sums: &[[S::Float; NV]; MR],
) {
    if run.offsets.is_empty() {
        add_scaled::<S, MR, NV, false>(totals, stride, run, column, x, sums);
    } else {
        add_scaled::<S, MR, NV, true>(totals, stride, run, column, x, sums);
    }
}

#[inline(always)]
unsafe fn add_scaled<S: Simd, const MR: usize, const NV: usize, const OFFSETS: bool>(
    totals: *mut f32,
    stride: usize,
    run: &Run<'_>,
    column: usize,
    x: X<'_>,
    sums: &[[S::Float; NV]; MR],
) {
    let mut scales = [S::splat(0.0); NV];
    let mut offsets = [S::splat(0.0); NV];
    for v in 0..NV {
        scales[v] = S::load(run.scales.as_ptr().add(column + v * S::LANES));
        if OFFSETS {
            offsets[v] = S::load(run.offsets.as_ptr().add(column + v * S::LANES));
        }
    }
    for_each!(MR, ROW => {
        for_each!(NV, V => {
            let total = totals.add(ROW * stride + V * S::LANES);
            let x = x.runs.as_ptr().add(ROW);
            add_to_total::<S, OFFSETS>(total, scales[V], offsets[V], x, sums[ROW][V]);
        });
    });
}

/// The weights of a tile of `NV` vectors of columns into `panel`: `[step, NV · LANES]`.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd, const BITS: usize, const NV: usize>(run: &Run<'_>, panel: &mut [u32]) {
    assert_eq!(run.columns, NV * S::LANES, "a panel is one tile wide");
    assert!(panel.len() >= run.blocks * S::STEPS * NV * S::LANES, "the panel holds the run");
    let bits = if BITS == BY_PIECES { run.bits } else { BITS };
    run.check(S::LANES * NV, bits);
    for v in 0..NV {
        let mut words = run.words.as_ptr().add(v * S::LANES);
        let mut to = panel.as_mut_ptr().add(v * S::LANES);
        for _ in 0..run.blocks {
            for word in AHEAD..AHEAD + bits {
                S::prefetch(words.wrapping_add(word * run.stride));
            }
            if BITS == BY_PIECES {
                for step in 0..S::STEPS {
                    let weight = S::step_by_pieces(words, run.stride, run.pieces, bits, step);
                    S::store_weight(to.add(step * NV * S::LANES), weight);
                }
            } else {
                for_each_step!(S::STEPS, STEP => {
                    let weight = S::step::<BITS, STEP>(words, run.stride);
                    S::store_weight(to.add(STEP * NV * S::LANES), weight);
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
    assert!(panel.len() >= run.blocks * S::STEPS * NV * S::LANES, "the panel holds the run");
    assert!(run.columns == NV * S::LANES && run.scales.len() == run.columns, "a scale for each column");
    assert!(run.offsets.is_empty() || run.offsets.len() == run.columns, "an offset for each column");
    x.check(run.blocks, S::X_BLOCK, MR);
    totals.check_values(run.columns, MR);
    for row in 0..MR {
        for v in 0..NV {
            S::prefetch(totals.values.as_ptr().add(row * totals.stride + v * S::LANES).cast());
        }
    }
    let mut sums = [[S::start_run(&x.runs[0]); NV]; MR];
    for row in 1..MR {
        sums[row] = [S::start_run(&x.runs[row]); NV];
    }
    let (mut weights_at, mut block_at) = (panel.as_ptr(), x.words.as_ptr());
    for _ in 0..run.blocks {
        let mut x_at = block_at;
        for _ in 0..S::STEPS {
            let mut weights = [S::load_weight(weights_at); NV];
            for v in 1..NV {
                weights[v] = S::load_weight(weights_at.add(v * S::LANES));
            }
            for row in 0..MR {
                let x = S::broadcast(x_at.add(row * words_of_row::<S>()));
                for v in 0..NV {
                    sums[row][v] = S::multiply_add(sums[row][v], weights[v], x);
                }
            }
            weights_at = weights_at.add(NV * S::LANES);
            x_at = x_at.add(S::X_STEP);
        }
        block_at = block_at.add(S::X_BLOCK);
    }
    let settled = settle::<S, MR, NV>(&sums);
    add_to_totals::<S, MR, NV>(totals.values.as_mut_ptr(), totals.stride, run, 0, x, &settled);
}
