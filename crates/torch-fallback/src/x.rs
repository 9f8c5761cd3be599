//! x in the order in which the kernels read it, and results as they are given back.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use gptq_core::format::packing::BLOCK;
use gptq_core::tensor::Element;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::kernel::{Families, Family, RUN_ROWS, RunOfX, X, X_ROWS};
use crate::tasks::for_each_strip;

/// Fewer values are packed on one thread: others take longer to be told.
const SERIAL_VALUES: usize = 1 << 12;
/// The same for values that are packed as they are.
const SERIAL_BF16: usize = 1 << 15;

/// A type of x, a slice at a time.
pub(crate) trait Slices: Element {
    /// [`Element::widen`] of all.
    fn widen_all(family: &Family, from: &[Self], to: &mut [f32]);
    /// [`Element::narrow`] of all.
    fn narrow_all(family: &Family, from: &[f32], to: &mut [Self]);
    /// The slice, where it is one of bf16.
    fn as_bf16(_slice: &[Self]) -> Option<&[bf16]> {
        None
    }
}

impl Slices for f32 {
    fn widen_all(_family: &Family, from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn narrow_all(_family: &Family, from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

impl Slices for f16 {
    fn widen_all(family: &Family, from: &[f16], to: &mut [f32]) {
        family.widen(from, to);
    }
    fn narrow_all(_family: &Family, from: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(from);
    }
}

impl Slices for bf16 {
    fn widen_all(_family: &Family, from: &[bf16], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }
    fn narrow_all(family: &Family, from: &[f32], to: &mut [bf16]) {
        family.narrow(from, to);
    }
    fn as_bf16(slice: &[bf16]) -> Option<&[bf16]> {
        Some(slice)
    }
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
        let chunk_words = rows * self.words_of_chunk(family.x_block);
        let as_it_is = T::as_bf16(x).zip(family.pack_bf16(format));
        let all = AtomicBool::new(true);
        // A row of x at a time: in act-order its values are read from all over the row.
        let pack = |first: usize, packed: &mut [u32]| {
            for row in 0..rows {
                for (chunk, packed) in packed.chunks_exact_mut(chunk_words).enumerate() {
                    let (words, runs) = packed.split_at_mut(rows * width);
                    let runs: &mut [RunOfX] = bytemuck::cast_slice_mut(runs);
                    let words = words[row * width..][..width].chunks_exact_mut(words_of_run);
                    for (run, words) in words.enumerate() {
                        let start = (first + chunk) * X_ROWS + run * self.run_rows;
                        if start >= self.k {
                            break;
                        }
                        let range = start..self.k.min(start + self.run_rows);
                        let run = &mut runs[run * rows + row];
                        if let Some((x, pack)) = &as_it_is {
                            let mut values = [bf16::ZERO; RUN_ROWS];
                            pack(self.bf16(&x[row * self.k..][..self.k], range, &mut values), words, run);
                        } else {
                            let mut values = [0.0; RUN_ROWS];
                            let values = &mut values[..range.len()];
                            self.values(family, &x[row * self.k..][..self.k], range, values);
                            if !family.pack(format, values, words, run) {
                                all.store(false, Ordering::Relaxed);
                            }
                        }
                    }
                }
            }
        };
        let packed = &mut packed[..rows * self.words(family.x_block)];
        if x.len() < if as_it_is.is_some() { SERIAL_BF16 } else { SERIAL_VALUES } {
            pack(0, packed);
        } else {
            let chunks = self.k.div_ceil(X_ROWS);
            // Few pieces: in act-order a row goes to a core's cache once for each.
            let pieces = (2 * rayon::current_num_threads()).min(chunks);
            for_each_strip(packed, chunks * chunk_words, chunk_words, pieces, |mut piece| {
                pack(piece.columns().start / chunk_words, piece.row(0));
            });
        }
        all.into_inner()
    }

    /// The values of some rows in bf16, in their order in the packed words.
    fn bf16<'a>(self, x: &'a [bf16], rows: Range<usize>, values: &'a mut [bf16; RUN_ROWS]) -> &'a [bf16] {
        let Some(order) = self.order else { return &x[rows] };
        let values = &mut values[..rows.len()];
        for (value, row) in values.iter_mut().zip(&order[rows]) {
            *value = x[*row as usize];
        }
        values
    }

    /// The values of some rows, in their order in the packed words.
    fn values<T: Slices>(self, family: &Family, x: &[T], rows: Range<usize>, values: &mut [f32]) {
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
    use crate::kernel::Isa;
    use gptq_core::tensor::DType;

    #[test]
    fn bf16_is_rounded_as_by_half() {
        let odd = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-40, -1.0];
        let spread = (0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761)));
        let ties = (0..256u32).map(|i| f32::from_bits(0x3F80_8000 + (i << 16)));
        let values: Vec<f32> = odd.into_iter().chain(spread).chain(ties).collect();
        let mut narrowed = vec![bf16::ZERO; values.len()];
        for isa in [Isa::Avx2, Isa::Avx512] {
            let Some(families) = isa.families(DType::BF16, 4, 1) else { continue };
            families.first.narrow(&values, &mut narrowed);
            for (value, found) in values.iter().zip(&narrowed) {
                let expected = bf16::from_f32(*value);
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                assert!(same, "{isa}: {value:e} gave {found}, expected {expected}");
            }
        }
    }
}
