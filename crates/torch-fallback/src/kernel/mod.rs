//! The inner kernels, and which of them a processor runs.
//!
//! A [`Family`] is one way of multiplying: weights in f32, or in pairs of bf16. Its kernels work on a [`Run`]: at
//! most [`RUN_ROWS`] rows of one group in a strip of columns. They sum `x · (code - zero)` within the run, scale
//! the sum once, and add it to the totals of the strip, all in f32. Summing in two levels keeps the error of an
//! f32 sum near that of its parts, whatever K is (Higham, Accuracy and Stability of Numerical Algorithms, 4.2).
//!
//! Codes are centred on `2^(bits - 1)`, the zero point of a symmetric layer. What a zero point differs from that
//! is its *offset*; a symmetric layer has none, and its kernels do nothing about it.

/// Instantiates the loops of [`simd`] for an instruction set, inside functions that carry its features.
#[cfg(target_arch = "x86_64")]
macro_rules! instances {
    (
        $features:literal, $simd:ident: $fused:ident, $unpack:ident, $multiply:ident;
        fused [$($rows:literal x $vectors:literal $narrow:literal),*];
        tile [$tile:literal];
        rows [$($panel_rows:literal)*] $most_rows:literal
    ) => {
        fn $fused(bits: usize, rows: usize) -> Option<Fused> {
            #[target_feature(enable = $features)]
            unsafe fn kernel<const BITS: usize, const MR: usize, const NV: usize, const NARROW: usize>(
                run: &Run<'_>,
                x: X<'_>,
                totals: Totals<'_>,
            ) {
                simd::fused::<$simd, BITS, MR, NV, NARROW>(run, x, totals);
            }
            fn by_rows<const BITS: usize>(rows: usize) -> Option<Fused> {
                match rows {
                    $($rows => Some(Fused {
                        tile: $narrow * $simd::LANES,
                        run: kernel::<BITS, $rows, $vectors, $narrow>,
                    }),)*
                    _ => None,
                }
            }
            match bits {
                2 => by_rows::<2>(rows),
                3 => by_rows::<3>(rows),
                4 => by_rows::<4>(rows),
                8 => by_rows::<8>(rows),
                _ => None,
            }
        }

        fn $unpack(bits: usize) -> Unpack {
            #[target_feature(enable = $features)]
            unsafe fn kernel<const BITS: usize>(run: &Run<'_>, panel: &mut [u32]) {
                simd::unpack::<$simd, BITS, $tile>(run, panel);
            }
            match bits {
                2 => kernel::<2>,
                3 => kernel::<3>,
                4 => kernel::<4>,
                8 => kernel::<8>,
                _ => kernel::<{ simd::BY_PIECES }>,
            }
        }

        fn $multiply(rows: usize) -> Multiply {
            #[target_feature(enable = $features)]
            unsafe fn kernel<const MR: usize>(run: &Run<'_>, panel: &[u32], x: X<'_>, totals: Totals<'_>) {
                simd::multiply::<$simd, MR, $tile>(run, panel, x, totals);
            }
            match rows {
                $($panel_rows => kernel::<$panel_rows>,)*
                _ => kernel::<$most_rows>,
            }
        }
    };
}

/// [`simd::Simd::quad`] from `step`: `FIRST + 1` is no constant that a function could pass on.
#[cfg(target_arch = "x86_64")]
macro_rules! quad {
    ($weight:ty) => {
        #[inline(always)]
        unsafe fn quad<const BITS: usize, const FIRST: usize>(
            from: *const u32,
            stride: usize,
        ) -> [$weight; 4] {
            macro_rules! four {
                ($step:literal) => {
                    [
                        Self::plane::<BITS, $step>(from, stride),
                        Self::plane::<BITS, { $step + 1 }>(from, stride),
                        Self::plane::<BITS, { $step + 2 }>(from, stride),
                        Self::plane::<BITS, { $step + 3 }>(from, stride),
                    ]
                };
            }
            match FIRST {
                0 => four!(0),
                4 => four!(4),
                8 => four!(8),
                12 => four!(12),
                16 => four!(16),
                20 => four!(20),
                24 => four!(24),
                _ => four!(28),
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod isa;
#[cfg(target_arch = "x86_64")]
mod simd;

use gptq_core::format::packing::{BLOCK, Pieces};

pub(crate) use isa::Isa;

/// The most rows that are summed before the sum is scaled.
pub(crate) const RUN_ROWS: usize = 128;
/// Rows of a layer that stand together in a packed row of x: a constant, so that kernels find the rows of x at
/// constant distances.
pub(crate) const X_ROWS: usize = 128;
/// The widest tile, in columns.
pub(crate) const MAX_TILE: usize = 64;
/// Words in the largest panel: a run of f32 weights, 32 columns wide.
pub(crate) const PANEL_WORDS: usize = RUN_ROWS * 32;

/// A run of rows of one group, in a strip of columns.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// From the first word of the strip's first column on.
    pub(crate) words: &'a [u32],
    /// Words between two words of a column: N.
    pub(crate) stride: usize,
    /// The run's rows, in blocks of 32.
    pub(crate) blocks: usize,
    /// The strip's columns.
    pub(crate) columns: usize,
    /// One for each column.
    pub(crate) scales: &'a [f32],
    /// One for each column: `zero - 2^(bits - 1)`. Empty where all are 0.
    pub(crate) offsets: &'a [f32],
    /// How many rows of words ahead a kernel asks for. Words of one column lie far apart, where no hardware looks
    /// ahead.
    pub(crate) ahead: usize,
    /// The width of a code.
    pub(crate) bits: usize,
    /// Where the codes of a block stand.
    pub(crate) pieces: &'a [Pieces; BLOCK],
}

impl Run<'_> {
    /// What every pointer that a kernel makes of this run rests on.
    fn check(&self, tile: usize, block_words: usize) {
        let rows = self.blocks * block_words;
        assert!(self.columns.is_multiple_of(tile), "whole tiles");
        assert!(
            self.columns == 0 || rows == 0 || self.words.len() >= (rows - 1) * self.stride + self.columns
        );
        assert!(self.scales.len() == self.columns, "a scale for each column");
        assert!(self.offsets.is_empty() || self.offsets.len() == self.columns, "an offset for each column");
    }
}

/// Some rows of x in the order in which a kernel reads them.
#[derive(Clone, Copy)]
pub(crate) struct X<'a> {
    /// `[rows, steps of X_ROWS]`, from the run's first step on: an f32, or a pair of bf16.
    pub(crate) words: &'a [u32],
    /// The sum of each row over the run; read only where there are offsets.
    pub(crate) sums: &'a [f32],
}

impl X<'_> {
    fn check(&self, blocks: usize, steps: usize, rows: usize) {
        assert!(
            blocks * BLOCK <= X_ROWS && self.words.len() >= ((rows - 1) * (X_ROWS / BLOCK) + blocks) * steps
        );
        assert!(self.sums.len() >= rows, "a sum for each row of x");
    }
}

/// Sums of a strip of columns, `[rows, stride]`.
pub(crate) struct Totals<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) stride: usize,
}

impl Totals<'_> {
    fn check(&self, columns: usize, rows: usize) {
        assert!(columns <= self.stride && self.values.len() >= (rows - 1) * self.stride + columns);
    }
}

/// Multiplies rows of x with a strip, reading each word once. Columns are a multiple of [`Fused::tile`].
#[derive(Clone, Copy)]
pub(crate) struct Fused {
    pub(crate) tile: usize,
    run: unsafe fn(&Run<'_>, X<'_>, Totals<'_>),
}

type Unpack = unsafe fn(&Run<'_>, &mut [u32]);
type Multiply = unsafe fn(&Run<'_>, &[u32], X<'_>, Totals<'_>);

/// How one instruction set multiplies.
pub(crate) struct Family {
    /// Words of x in a block of 32 rows: 32 where a word is an f32, 16 where it is a pair of bf16.
    pub(crate) steps: usize,
    /// Columns of a panel.
    pub(crate) tile: usize,
    /// The most rows of x that a kernel takes.
    pub(crate) rows: usize,
    /// For `(bits, rows of x)`, where such a kernel is made.
    fused: fn(usize, usize) -> Option<Fused>,
    unpack: fn(usize) -> Unpack,
    multiply: fn(usize) -> Multiply,
}

impl Family {
    /// The kernel for `rows` rows of x that needs no panel, or `None` where there is none.
    ///
    /// `bits` is 0 for a format that is read by its pieces.
    pub(crate) fn fused(&self, bits: usize, rows: usize) -> Option<Fused> {
        (self.fused)(bits, rows)
    }

    /// Unpacks a run of one tile into `panel`.
    pub(crate) fn unpack(&self, bits: usize, run: &Run<'_>, panel: &mut [u32]) {
        // SAFETY: a family is only reachable through `Isa::family`, which names those that the processor has;
        // bounds are asserted inside.
        #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        unsafe {
            (self.unpack)(bits)(run, panel);
        }
    }

    /// Multiplies `rows` rows of x, at most [`Family::rows`], with a panel that holds `run`.
    pub(crate) fn multiply(&self, rows: usize, run: &Run<'_>, panel: &[u32], x: X<'_>, totals: Totals<'_>) {
        assert!((1..=self.rows).contains(&rows), "a kernel takes 1 to {} rows of x", self.rows);
        // SAFETY: as in `unpack`.
        #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        unsafe {
            (self.multiply)(rows)(run, panel, x, totals);
        }
    }
}

impl Fused {
    /// Adds the products of the run to `totals`.
    pub(crate) fn run(self, run: &Run<'_>, x: X<'_>, totals: Totals<'_>) {
        // SAFETY: as in `Family::unpack`.
        #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        unsafe {
            (self.run)(run, x, totals);
        }
    }
}

/// The two rows of each step of a block, in the order in which the kernels for pairs of bf16 read them: two codes
/// that stand 16 bits apart in some lane, so that one shift serves both. `bits` as in [`Family::fused`].
pub(crate) fn pair_order(bits: usize) -> [(u8, u8); BLOCK / 2] {
    let mut order = [(0, 0); BLOCK / 2];
    let codes: u8 = match bits {
        2 => 16,
        4 => 8,
        8 => 4,
        3 => {
            // The last four straddle halves or words, or have no partner in theirs.
            return [
                (0, 6),
                (1, 7),
                (2, 8),
                (3, 9),
                (11, 16),
                (12, 17),
                (13, 18),
                (14, 19),
                (22, 27),
                (23, 28),
                (24, 29),
                (25, 30),
                (15, 20),
                (4, 31),
                (5, 26),
                (10, 21),
            ];
        }
        _ => 32,
    };
    for (pair, step) in order.iter_mut().zip(0u8..) {
        let half = codes / 2;
        let low = step / half * codes + step % half;
        *pair = (low, low + half);
    }
    order
}
