//! The inner kernels, and which of them a processor runs.
//!
//! A [`Family`] is one way of multiplying: weights in f32, in pairs of bf16, or in quadruples of bytes. Its kernels work
//! on a [`Run`]: at most [`RUN_ROWS`] rows of one group in a strip of columns. They sum `x · (code - zero)` within the
//! run, scale the sum once, and add it to the totals of the strip in f32. Summing in two levels keeps the error of an
//! f32 sum near that of its parts, whatever K is (Higham, Accuracy and Stability of Numerical Algorithms, 4.2).
//!
//! Codes are centred on `2^(bits - 1)`, the zero point of a symmetric layer. What a zero point differs from that
//! is its *offset*; a symmetric layer has none, and its kernels do nothing about it.

/// Instantiates the loops of [`simd`] for an instruction set, inside functions that carry its features.
#[cfg(target_arch = "x86_64")]
macro_rules! instances {
    (
        $features:literal, $simd:ident: $fused:ident, $fused_run:ident, $unpack:ident, $multiply:ident;
        bits [$($bits:literal)*];
        fused [$($rows:literal x $vectors:literal),*];
        runs [$($run_rows:literal x $run_vectors:literal),*];
        tile [$tile:literal];
        rows [$($panel_rows:literal)*] $most_rows:literal
    ) => {
        fn $fused(bits: usize, rows: usize) -> Option<Fuse> {
            #[target_feature(enable = $features)]
            unsafe fn kernel<const BITS: usize, const MR: usize, const NV: usize>(
                run: &Run<'_>,
                x: X<'_>,
                totals: Totals<'_>,
            ) {
                simd::fused::<$simd, BITS, MR, NV>(run, x, totals);
            }
            fn by_rows<const BITS: usize>(rows: usize) -> Option<Fuse> {
                match rows {
                    $($rows => Some(kernel::<BITS, $rows, $vectors>),)*
                    _ => None,
                }
            }
            match bits {
                $($bits => by_rows::<$bits>(rows),)*
                _ => None,
            }
        }

        fn $fused_run(bits: usize, rows: usize) -> Option<Fuse> {
            #[target_feature(enable = $features)]
            unsafe fn kernel<const BITS: usize, const MR: usize, const NV: usize>(
                run: &Run<'_>,
                x: X<'_>,
                totals: Totals<'_>,
            ) {
                simd::fused_run::<$simd, BITS, MR, NV>(run, x, totals);
            }
            fn by_rows<const BITS: usize>(rows: usize) -> Option<Fuse> {
                match rows {
                    $($run_rows => Some(kernel::<BITS, $run_rows, $run_vectors>),)*
                    _ => None,
                }
            }
            match bits {
                $($bits => by_rows::<$bits>(rows),)*
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

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod isa;
#[cfg(target_arch = "x86_64")]
mod simd;

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use gptq_core::format::packing::{BLOCK, Pieces};
use half::{bf16, f16};

pub(crate) use isa::{Families, Isa};

/// The most rows that are summed before the sum is scaled.
pub(crate) const RUN_ROWS: usize = 128;
/// Rows of a layer that stand together in a packed row of x: a constant, so that kernels find the rows of x at
/// constant distances.
pub(crate) const X_ROWS: usize = 128;
/// The widest vector, in columns.
pub(crate) const MAX_LANES: usize = 16;
/// The widest panel, in columns.
pub(crate) const MAX_TILE: usize = 32;
/// Words in a panel: two thirds of a first-level cache, and more than any tile of a run takes.
pub(crate) const PANEL_WORDS: usize = 8 << 10;
/// The most words of x in a block of 32 rows: f32 values.
pub(crate) const MAX_X_BLOCK: usize = BLOCK;

/// Values in bf16, to the nearest, ties to even, without a branch: for the vectors that the caller is compiled for.
#[inline(always)]
fn narrow_all(from: &[f32], to: &mut [bf16]) {
    for (to, from) in to.iter_mut().zip(from) {
        let bits = from.to_bits();
        // Half of what is cut off, less what makes a tie go to the even neighbour. Of what is no number a bit must remain.
        let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
        let kept = if from.is_nan() { bits | 0x0040_0000 } else { rounded };
        *to = bf16::from_bits((kept >> 16 & 0xFFFF) as u16);
    }
}

/// Asks for memory that is read soon, where the processor can be asked.
pub(crate) fn ask_for<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(64usize.div_ceil(size_of::<T>().max(1))) {
        // SAFETY: asking for an address does nothing to memory.
        #[allow(unsafe_code, unused_unsafe, reason = "older compilers have it unsafe")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

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
    /// The width of a code.
    pub(crate) bits: usize,
    /// Where the codes of a block stand.
    pub(crate) pieces: &'a [Pieces; BLOCK],
}

impl<'a> Run<'a> {
    /// Some of its columns.
    pub(crate) fn narrow(&self, columns: Range<usize>) -> Run<'a> {
        Run {
            words: &self.words[columns.start..],
            columns: columns.len(),
            scales: &self.scales[columns.clone()],
            offsets: if self.offsets.is_empty() { &[] } else { &self.offsets[columns] },
            ..*self
        }
    }

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
    /// `[rows, X_ROWS / 32 blocks]`, from the run's first block on, each of as many words as the family says.
    pub(crate) words: &'a [u32],
    /// Words between two rows.
    pub(crate) stride: usize,
    /// One for each row.
    pub(crate) runs: &'a [RunOfX],
}

/// What holds for a row of x in a whole run.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RunOfX {
    /// Its sum, in units.
    pub(crate) sum: f32,
    /// What the numbers of this run are multiples of: 1 where they are x itself.
    pub(crate) unit: f32,
    /// What sums start from, where a family does not centre its codes: see [`simd::Simd::start_run`].
    pub(crate) starts: [i32; 3],
}

impl X<'_> {
    /// The rows from `row` on.
    fn from(self, row: usize) -> Self {
        let words = row * self.stride;
        Self { words: &self.words[words..], runs: &self.runs[row..], ..self }
    }

    fn check(&self, blocks: usize, words_of_block: usize, rows: usize) {
        assert!(
            self.stride == X_ROWS / BLOCK * words_of_block
                && blocks * BLOCK <= X_ROWS
                && self.words.len() >= (rows - 1) * self.stride + blocks * words_of_block
        );
        assert!(self.runs.len() >= rows, "a run for each row of x");
    }
}

/// Sums of a strip of columns, `[rows, stride]`.
pub(crate) struct Totals<'a> {
    /// Over all runs so far.
    pub(crate) values: &'a mut [f32],
    /// Of the run that a kernel is in which passes over it more than once; 0 before and after. Empty for the others.
    pub(crate) sums: &'a mut [f32],
    pub(crate) stride: usize,
}

impl Totals<'_> {
    fn check_values(&self, columns: usize, rows: usize) {
        assert!(columns <= self.stride && self.values.len() >= (rows - 1) * self.stride + columns);
    }

    fn check(&self, columns: usize, rows: usize) {
        self.check_values(columns, rows);
        assert!(self.sums.len() >= (rows - 1) * self.stride + columns);
    }
}

/// Multiplies few rows of x with a strip, reading each word once from memory. Columns are a multiple of [`Fused::tile`].
#[derive(Clone, Copy)]
pub(crate) struct Fused {
    pub(crate) tile: usize,
    kernel: Fuse,
}

/// Multiplies more rows of x than a kernel takes: they are divided into groups of about equal size, which pass one after
/// another over the same words. Columns are a multiple of [`Grouped::tile`].
#[derive(Clone, Copy)]
pub(crate) struct Grouped {
    pub(crate) tile: usize,
    /// Rows in a group, how many such groups there are, and their kernel.
    groups: [(usize, usize, Fuse); 2],
}

/// Rows of words that lie a multiple of so many words apart take the same places of a first-level cache.
const CACHE_WAY: usize = 4096 / size_of::<u32>();
/// The fewest rows of x that multiply a whole run at once: with fewer, memory decides, and several passes are faster.
const RUN_AT_ONCE_ROWS: usize = 5;

type Widen = unsafe fn(&[f16], &mut [f32]);
type Narrow = unsafe fn(&[f32], &mut [bf16]);
type Pack = unsafe fn(&[f32], &mut [u32], &mut RunOfX) -> bool;
type PackBf16 = unsafe fn(&[bf16], &mut [u32], &mut RunOfX);
type Fuse = unsafe fn(&Run<'_>, X<'_>, Totals<'_>);
type Unpack = unsafe fn(&Run<'_>, &mut [u32]);
type Multiply = unsafe fn(&Run<'_>, &[u32], X<'_>, Totals<'_>);

/// How one instruction set multiplies. Only [`Isa::families`] gives one, and only where the processor has what its
/// functions are compiled for.
pub(crate) struct Family {
    /// Steps in a block of 32 rows: words of a panel for each column.
    pub(crate) steps: usize,
    /// Words of x in a block of 32 rows.
    pub(crate) x_block: usize,
    /// Columns of a panel.
    pub(crate) tile: usize,
    /// The most rows of x that a kernel takes.
    pub(crate) rows: usize,
    widen: Widen,
    narrow: Narrow,
    pack: fn(usize) -> Pack,
    /// The same for x in bf16, where that is not packed by way of f32.
    pack_bf16: Option<fn(usize) -> PackBf16>,
    /// The most rows of x that are multiplied in groups, and of a group.
    grouped_rows: usize,
    group_rows: usize,
    /// Columns of a vector.
    lanes: usize,
    /// For `(bits, rows of x)`, where such a kernel is made.
    fused: fn(usize, usize) -> Option<Fuse>,
    /// The same for whole runs.
    fused_run: fn(usize, usize) -> Option<Fuse>,
    unpack: fn(usize) -> Unpack,
    multiply: fn(usize) -> Multiply,
}

impl Family {
    /// `from` in f32, exactly.
    pub(crate) fn widen(&self, from: &[f16], to: &mut [f32]) {
        assert_eq!(from.len(), to.len(), "a number for each");
        // SAFETY: the processor has what the function is compiled for, as with all of a family.
        #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        unsafe {
            (self.widen)(from, to);
        }
    }

    /// `from` in bf16: to the nearest, ties to even.
    pub(crate) fn narrow(&self, from: &[f32], to: &mut [bf16]) {
        assert_eq!(from.len(), to.len(), "a number for each");
        // SAFETY: as in `widen`.
        #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        unsafe {
            (self.narrow)(from, to);
        }
    }

    /// Packs a run of a row of x: whole blocks of `values`, in the order of the layer's rows. `false` where this family
    /// cannot: then `words` and `run` hold nothing.
    ///
    /// `bits` is 0 for a format that is read by its pieces, here and below.
    pub(crate) fn pack(&self, bits: usize, values: &[f32], words: &mut [u32], run: &mut RunOfX) -> bool {
        let blocks = values.len() / BLOCK;
        assert!(values.len().is_multiple_of(BLOCK) && words.len() >= blocks * self.x_block, "whole blocks");
        // SAFETY: as in `widen`; its bounds were just checked.
        #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        unsafe {
            (self.pack)(bits)(values, words, run)
        }
    }

    /// The same for x in bf16, of which any can be packed. `None` where the family packs it by way of f32.
    pub(crate) fn pack_bf16(&self, bits: usize) -> Option<impl Fn(&[bf16], &mut [u32], &mut RunOfX)> {
        let (pack, x_block) = (self.pack_bf16?(bits), self.x_block);
        Some(move |values: &[bf16], words: &mut [u32], run: &mut RunOfX| {
            let blocks = values.len() / BLOCK;
            assert!(values.len().is_multiple_of(BLOCK) && words.len() >= blocks * x_block, "whole blocks");
            // SAFETY: as in `widen`; its bounds were just checked.
            #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline")]
            unsafe {
                pack(values, words, run);
            }
        })
    }

    /// The kernel for few rows of x and rows of words that are `stride` words apart, or `None` where there is none.
    pub(crate) fn fused(&self, bits: usize, rows: usize, stride: usize) -> Option<Fused> {
        let in_passes = (self.fused)(bits, rows)?;
        // As many rows of words as a run has leave none of their like in a cache where they take the same places.
        let at_once = rows >= RUN_AT_ONCE_ROWS && !stride.is_multiple_of(CACHE_WAY);
        let run = if at_once { (self.fused_run)(bits, rows) } else { None };
        Some(Fused { tile: self.lanes, kernel: run.unwrap_or(in_passes) })
    }

    /// The kernels for more rows of x, in groups, or `None` where panels are faster.
    pub(crate) fn grouped(&self, bits: usize, rows: usize) -> Option<Grouped> {
        if rows == 0 || rows > self.grouped_rows {
            return None;
        }
        let groups = rows.div_ceil(self.group_rows);
        let large = rows.div_ceil(groups);
        // Groups of `large` rows, and of one less.
        let larger = rows - groups * (large - 1);
        let kernel = (self.fused_run)(bits, large)?;
        let smaller_kernel = if larger < groups { (self.fused_run)(bits, large - 1)? } else { kernel };
        Some(Grouped {
            tile: self.lanes,
            groups: [(large, larger, kernel), (large - 1, groups - larger, smaller_kernel)],
        })
    }

    /// Unpacks a run of one tile into `panel`.
    pub(crate) fn unpack(&self, bits: usize, run: &Run<'_>, panel: &mut [u32]) {
        // SAFETY: as in `widen`; bounds are asserted inside.
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
    pub(crate) fn run(&self, run: &Run<'_>, x: X<'_>, totals: Totals<'_>) {
        // SAFETY: as in `Family::widen`; bounds are asserted inside.
        #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline")]
        unsafe {
            (self.kernel)(run, x, totals);
        }
    }
}

impl Grouped {
    /// Adds the products of the run to `totals`. Its words are read from memory once: they should fit a core's caches.
    pub(crate) fn run(&self, run: &Run<'_>, x: X<'_>, totals: Totals<'_>) {
        let Totals { values, stride, .. } = totals;
        let mut row = 0;
        for (rows, count, kernel) in self.groups {
            for _ in 0..count {
                let totals = Totals { values: &mut values[row * stride..], sums: &mut [], stride };
                // SAFETY: as in `Family::widen`; bounds are asserted inside.
                #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline")]
                unsafe {
                    kernel(run, x.from(row), totals);
                }
                row += rows;
            }
        }
    }
}
