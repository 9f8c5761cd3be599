//! Adding 1 to every field of packed words, and taking it away again.

use super::ZeroDialect;
use crate::format::packing::{BLOCK, low_byte, pack, unpack};
use crate::format::{Bits, Packing};

/// 1 in every field, at the widths that divide 32: 2, 4 and 8 bits.
pub(super) const fn ones(bits: Bits) -> Option<u32> {
    match bits.get() {
        2 => Some(0x5555_5555),
        4 => Some(0x1111_1111),
        8 => Some(0x0101_0101),
        _ => None,
    }
}

/// 1 in each of the 32 fields of a block of 3-bit codes, read as one little-endian integer of 96 bits.
const ONES_OF_THREE_BITS: u128 = 0x2492_4924_9249_2492_4924_9249;

/// What GPTQModel subtracted from the three words of a block of 3-bit codes before version 7, where
/// [`ONES_OF_THREE_BITS`] would have been right.
const MISPLACED_ONES_OF_THREE_BITS: [u32; 3] = [0x2492_4924, 0x9249_2492, 0x4924_9249];

/// Gives rows of `width` words back what GPTQModel before version 7 took from 3-bit zero points: v2.
pub(super) fn restore_three_bits(words: &[u32], width: usize) -> Vec<u32> {
    let rows = words.chunks(width.max(1));
    rows.flat_map(|row| row.iter().zip(MISPLACED_ONES_OF_THREE_BITS.iter().cycle()))
        .map(|(word, ones)| word.wrapping_add(*ones))
        .collect()
}

/// The direction of a conversion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Add 1: v1 to v2.
    Up,
    /// Take 1 away: v2 to v1.
    Down,
}

impl Step {
    /// Steps one code, modulo `2^bits`.
    pub(super) const fn code(self, code: u32, bits: Bits) -> u32 {
        let stepped = match self {
            Self::Up => code.wrapping_add(1),
            Self::Down => code.wrapping_sub(1),
        };
        stepped & bits.max_code()
    }

    /// Steps every field of a row of words, from `stored` to `out`.
    pub(super) fn row(
        self,
        stored: &[u32],
        out: &mut [u32],
        bits: Bits,
        packing: Packing,
        dialect: ZeroDialect,
    ) {
        let Some(ones) = ones(bits) else {
            // Here both dialects work per field.
            out.copy_from_slice(stored);
            return match packing {
                Packing::Continuous => self.three_bits(out),
                Packing::Planar => self.planar(out, bits),
            };
        };
        let high = ones << (bits.get() - 1);
        // One plain loop for each, which vectorizes.
        fn each(stored: &[u32], out: &mut [u32], step: impl Fn(u32) -> u32) {
            stored.iter().zip(out).for_each(|(&word, out)| *out = step(word));
        }
        match (dialect, self) {
            (ZeroDialect::WordBorrow, Self::Up) => each(stored, out, |x| x.wrapping_add(ones)),
            (ZeroDialect::WordBorrow, Self::Down) => each(stored, out, |x| x.wrapping_sub(ones)),
            // The top bit of each field is kept out of the sum, where a carry would leave the field, and then
            // added without its carry: exclusive or.
            (ZeroDialect::FieldWrap, Self::Up) => each(stored, out, |x| ((x & !high) + ones) ^ (x & high)),
            (ZeroDialect::FieldWrap, Self::Down) => each(stored, out, |x| ((x | high) - ones) ^ (!x & high)),
        }
    }

    /// The same trick on blocks of three words. A row may end within a block; what is missing of its last field
    /// is padding, and the lower bits of a sum do not depend on the upper ones.
    fn three_bits(self, row: &mut [u32]) {
        let (ones, high) = (ONES_OF_THREE_BITS, ONES_OF_THREE_BITS << 2);
        for block in row.chunks_mut(3) {
            let x = block.iter().rev().fold(0, |x, &word| (x << 32) | u128::from(word));
            let x = match self {
                Self::Up => ((x & !high) + ones) ^ (x & high),
                Self::Down => ((x | high) - ones) ^ (!x & high),
            };
            for (i, word) in block.iter_mut().enumerate() {
                *word = ((x >> (32 * i)) & 0xFFFF_FFFF) as u32;
            }
        }
    }

    /// Code by code: no file stores v1 in planes of several widths, so nobody waits for this. A row is whole blocks.
    fn planar(self, row: &mut [u32], bits: Bits) {
        let mut codes = unpack(row, bits, Packing::Planar, row.len() / bits.get() * BLOCK);
        for code in &mut codes {
            *code = low_byte(self.code((*code).into(), bits));
        }
        row.copy_from_slice(&pack(&codes, bits, Packing::Planar));
    }
}
