//! x in the order in which the kernels read it.

use gptq_core::format::packing::BLOCK;
use gptq_core::tensor::Element;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::kernel::X_ROWS;

/// Below this many words, packing on one thread is faster than waking another.
const SERIAL_WORDS: usize = 1 << 15;

/// A type of x that is a sum of bf16 values.
pub(crate) trait Split: Element {
    /// Into how many bf16 values one splits.
    const PARTS: usize;
    /// One part. The sum of all parts is the value, exactly.
    fn part(self, part: usize) -> bf16;
}

impl Split for bf16 {
    const PARTS: usize = 1;
    fn part(self, _part: usize) -> bf16 {
        self
    }
}

impl Split for f16 {
    /// 11 significant bits are 8 and the 3 that are left.
    const PARTS: usize = 2;
    fn part(self, part: usize) -> bf16 {
        self.to_f32().part(part)
    }
}

impl Split for f32 {
    /// 24 significant bits are three times 8.
    const PARTS: usize = 3;
    fn part(self, part: usize) -> bf16 {
        let (mut rest, mut high) = (self, self.to_bits() & 0xFFFF_0000);
        for _ in 0..part {
            // Cut off towards zero, so that the rest is exact. Of an infinity or a NaN the first part is all.
            rest = if self.is_finite() { rest - f32::from_bits(high) } else { 0.0 };
            high = rest.to_bits() & 0xFFFF_0000;
        }
        bf16::from_f32(f32::from_bits(high))
    }
}

/// Where the rows of a layer stand in x.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// K.
    pub(crate) k: usize,
    /// Where row `i` of the packed words stands in x. `None`: at `i`.
    pub(crate) order: Option<&'a [u32]>,
}

impl Rows<'_> {
    /// The values of a block of rows.
    fn block<T: Element>(self, x: &[T], block: usize) -> [T; BLOCK] {
        let first = block * BLOCK;
        match self.order {
            None => std::array::from_fn(|i| x[first + i]),
            Some(order) => {
                let order = &order[first..first + BLOCK];
                std::array::from_fn(|i| x[order[i] as usize])
            }
        }
    }

    /// Packs each row of x into `words`, laid out as [`crate::kernel::X`] says: for each [`X_ROWS`] rows of the layer
    /// `[rows, steps]`. `pack` turns a block into `steps` words.
    fn pack<T: Element>(
        self,
        x: &[T],
        parts: usize,
        steps: usize,
        words: &mut [u32],
        pack: impl Fn(&[T; BLOCK], usize, &mut [u32]) + Sync,
    ) {
        let rows = x.len() / self.k * parts;
        let width = X_ROWS / BLOCK * steps;
        let serial = if words.len() < SERIAL_WORDS { usize::MAX } else { 1 };
        words.par_chunks_mut(rows * width).enumerate().with_min_len(serial).for_each(|(chunk, words)| {
            let first = chunk * (X_ROWS / BLOCK);
            let blocks = (self.k / BLOCK - first).min(X_ROWS / BLOCK);
            for (row, words) in words.chunks_exact_mut(width).enumerate() {
                let x = &x[row / parts * self.k..][..self.k];
                for (block, words) in words.chunks_exact_mut(steps).take(blocks).enumerate() {
                    pack(&self.block(x, first + block), row % parts, words);
                }
            }
        });
    }

    /// Packs x as f32.
    pub(crate) fn pack_floats<T: Element>(self, x: &[T], words: &mut [u32]) {
        self.pack(x, 1, BLOCK, words, |block, _, words| {
            for (word, x) in words.iter_mut().zip(block) {
                *word = x.widen().to_bits();
            }
        });
    }

    /// Packs x as pairs of bf16, each part of a row of x as a row of its own.
    pub(crate) fn pack_pairs<T: Split>(self, x: &[T], pairs: &[(u8, u8); BLOCK / 2], words: &mut [u32]) {
        self.pack(x, T::PARTS, BLOCK / 2, words, |block, part, words| {
            let parts: [u16; BLOCK] = std::array::from_fn(|i| block[i].part(part).to_bits());
            for (word, (low, high)) in words.iter_mut().zip(pairs) {
                let at = |row: u8| u32::from(parts[usize::from(row) % BLOCK]);
                *word = at(*low) | at(*high) << 16;
            }
        });
    }
}

/// The sum of each row of packed pairs over each run of `run_rows` of the `k` rows of the layer: `[run, rows]`.
pub(crate) fn sum_pairs(words: &[u32], rows: usize, k: usize, run_rows: usize, sums: &mut [f32]) {
    let width = X_ROWS / 2;
    for (run, sums) in sums.chunks_mut(rows).enumerate() {
        let first = run * run_rows / BLOCK;
        let blocks = (run_rows / BLOCK).min(k / BLOCK - first);
        let chunk = &words[first / (X_ROWS / BLOCK) * rows * width..];
        for (row, sum) in sums.iter_mut().enumerate() {
            let start = row * width + first % (X_ROWS / BLOCK) * (BLOCK / 2);
            let pairs = &chunk[start..][..blocks * (BLOCK / 2)];
            *sum = pairs
                .iter()
                .map(|pair| f32::from_bits(pair << 16) + f32::from_bits(pair & 0xFFFF_0000))
                .sum();
        }
    }
}
