//! x in the order in which the kernels read it, and results as they are given back.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use gptq_core::format::packing::BLOCK;
use gptq_core::tensor::Element;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::kernel::{Families, Family, RUN_ROWS, RunOfX, X, X_ROWS};
use crate::tasks::for_each_chunk;

/// Fewer values are packed on one thread: others take longer to be told.
const SERIAL_VALUES: usize = 1 << 12;

/// A type of x, a slice at a time.
pub(crate) trait Slices: Element {
    /// [`Element::widen`] of all.
    fn widen_all(family: &Family, from: &[Self], to: &mut [f32]);
    /// [`Element::narrow`] of all.
    fn narrow_all(from: &[f32], to: &mut [Self]);
}

impl Slices for f32 {
    fn widen_all(_family: &Family, from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn narrow_all(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

impl Slices for f16 {
    fn widen_all(family: &Family, from: &[f16], to: &mut [f32]) {
        family.widen(from, to);
    }
    fn narrow_all(from: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(from);
    }
}

impl Slices for bf16 {
    fn widen_all(_family: &Family, from: &[bf16], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }
    fn narrow_all(from: &[f32], to: &mut [bf16]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = narrow(*from);
        }
    }
}

/// To the nearest, ties to even, without a branch: a loop of it vectorizes.
fn narrow(value: f32) -> bf16 {
    let bits = value.to_bits();
    // Half of what is cut off, less what makes a tie go to the even neighbour. Of what is no number a bit must remain.
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    let kept = if value.is_nan() { bits | 0x0040_0000 } else { rounded };
    bf16::from_bits((kept >> 16 & 0xFFFF) as u16)
}

/// Where the rows of a layer stand in x.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// K, a multiple of 32.
    pub(crate) k: usize,
    /// Where row `i` of the packed words stands in x. `None`: at `i`.
    pub(crate) order: Option<&'a [u32]>,
    /// Rows in a run, which divide [`X_ROWS`].
    pub(crate) run_rows: usize,
}

/// Words of a [`RunOfX`].
const RUN_WORDS: usize = size_of::<RunOfX>() / size_of::<u32>();

impl Rows<'_> {
    /// Words that a row of x takes, packed for a family with blocks of `x_block` words.
    pub(crate) fn words(&self, x_block: usize) -> usize {
        self.k.div_ceil(X_ROWS) * self.words_of_chunk(x_block)
    }

    /// The same for [`X_ROWS`] rows of the layer.
    fn words_of_chunk(&self, x_block: usize) -> usize {
        X_ROWS / BLOCK * x_block + X_ROWS / self.run_rows * RUN_WORDS
    }

    /// Packs each row of x into `packed`, for the first of `families` that takes all of it.
    pub(crate) fn pack<'p, T: Slices>(
        self,
        families: Families,
        format: usize,
        x: &[T],
        packed: &'p mut [u32],
    ) -> Packed<'p> {
        let mut family = families.first;
        if !self.pack_for(family, format, x, &mut *packed) {
            family = families.otherwise;
            self.pack_for(family, format, x, &mut *packed);
        }
        let rows = x.len() / self.k;
        Packed {
            family,
            words: packed,
            chunk_words: rows * self.words_of_chunk(family.x_block),
            rows,
            width: X_ROWS / BLOCK * family.x_block,
            words_of_run: self.run_rows / BLOCK * family.x_block,
        }
    }

    /// `false` where some of x is nothing that the family can pack.
    fn pack_for<T: Slices>(self, family: &Family, format: usize, x: &[T], packed: &mut [u32]) -> bool {
        let rows = x.len() / self.k;
        let width = X_ROWS / BLOCK * family.x_block;
        let words_of_run = self.run_rows / BLOCK * family.x_block;
        let all = AtomicBool::new(true);
        let pack = |chunk: usize, packed: &mut [u32]| {
            let (words, runs) = packed.split_at_mut(rows * width);
            let runs: &mut [RunOfX] = bytemuck::cast_slice_mut(runs);
            for (row, (words, x)) in words.chunks_exact_mut(width).zip(x.chunks_exact(self.k)).enumerate() {
                for (run, words) in words.chunks_exact_mut(words_of_run).enumerate() {
                    let first = chunk * X_ROWS + run * self.run_rows;
                    if first >= self.k {
                        break;
                    }
                    let mut values = [0.0; RUN_ROWS];
                    let values = &mut values[..self.run_rows.min(self.k - first)];
                    self.values(family, x, first, values);
                    if !family.pack(format, values, words, &mut runs[run * rows + row]) {
                        all.store(false, Ordering::Relaxed);
                    }
                }
            }
        };
        let chunk_words = rows * self.words_of_chunk(family.x_block);
        let packed = &mut packed[..rows * self.words(family.x_block)];
        if x.len() < SERIAL_VALUES {
            packed.chunks_exact_mut(chunk_words).enumerate().for_each(|(chunk, packed)| pack(chunk, packed));
        } else {
            for_each_chunk(packed, chunk_words, pack);
        }
        all.into_inner()
    }

    /// The values of some rows, in their order in the packed words.
    fn values<T: Slices>(self, family: &Family, x: &[T], first: usize, values: &mut [f32]) {
        let rows = first..first + values.len();
        match self.order {
            None => T::widen_all(family, &x[rows], values),
            Some(order) => {
                for (value, row) in values.iter_mut().zip(&order[rows]) {
                    *value = x[*row as usize].widen();
                }
            }
        }
    }
}

/// Packed rows of x: for each [`X_ROWS`] rows of the layer the words of all rows of x, and then, for each run, what
/// holds for each of them.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    /// Whose kernels read it.
    pub(crate) family: &'static Family,
    /// How many rows there are.
    pub(crate) rows: usize,
    words: &'a [u32],
    /// Words for [`X_ROWS`] rows of the layer.
    chunk_words: usize,
    /// Words of a row of x there.
    width: usize,
    words_of_run: usize,
}

impl<'a> Packed<'a> {
    /// Some rows of x in a run, for one kernel call.
    pub(crate) fn run(&self, run: usize, rows: Range<usize>) -> X<'a> {
        let runs_of_chunk = self.width / self.words_of_run;
        let (chunk, run) = (run / runs_of_chunk, run % runs_of_chunk);
        let (words, runs) =
            self.words[chunk * self.chunk_words..][..self.chunk_words].split_at(self.rows * self.width);
        let first = rows.start * self.width + run * self.words_of_run;
        X {
            words: &words[first..rows.end * self.width],
            stride: self.width,
            runs: &bytemuck::cast_slice(runs)[run * self.rows..][rows],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_rounded_as_by_half() {
        let odd = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-40, -1.0];
        let spread = (0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761)));
        let ties = (0..256u32).map(|i| f32::from_bits(0x3F80_8000 + (i << 16)));
        for value in odd.into_iter().chain(spread).chain(ties) {
            let (found, expected) = (narrow(value), bf16::from_f32(value));
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{value:e} gave {found}, expected {expected}");
        }
    }
}
