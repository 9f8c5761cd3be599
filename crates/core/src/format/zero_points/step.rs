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

    /// Steps every field of rows of `width` words.
    pub(super) fn words(
        self,
        words: &[u32],
        width: usize,
        bits: Bits,
        packing: Packing,
        dialect: ZeroDialect,
    ) -> Vec<u32> {
        let Some(ones) = ones(bits) else {
            // Here both dialects work per field.
            return match packing {
                Packing::Continuous => self.three_bits(words, width),
                Packing::Planar => self.planar(words, bits),
            };
        };
        let high = ones << (bits.get() - 1);
        let each = words.iter();
        match (dialect, self) {
            (ZeroDialect::WordBorrow, Self::Up) => each.map(|word| word.wrapping_add(ones)).collect(),
            (ZeroDialect::WordBorrow, Self::Down) => each.map(|word| word.wrapping_sub(ones)).collect(),
            // The top bit of each field is kept out of the sum, where a carry would leave the field, and then
            // added without its carry: exclusive or.
            (ZeroDialect::FieldWrap, Self::Up) => each.map(|x| ((x & !high) + ones) ^ (x & high)).collect(),
            (ZeroDialect::FieldWrap, Self::Down) => each.map(|x| ((x | high) - ones) ^ (!x & high)).collect(),
        }
    }

    /// The same trick on blocks of three words. A row may end within a block; what is missing of its last field
    /// is padding, and the lower bits of a sum do not depend on the upper ones.
    fn three_bits(self, words: &[u32], width: usize) -> Vec<u32> {
        let (ones, high) = (ONES_OF_THREE_BITS, ONES_OF_THREE_BITS << 2);
        let mut stepped = words.to_vec();
        for block in stepped.chunks_mut(width.max(1)).flat_map(|row| row.chunks_mut(3)) {
            let x = block.iter().rev().fold(0, |x, &word| (x << 32) | u128::from(word));
            let x = match self {
                Self::Up => ((x & !high) + ones) ^ (x & high),
                Self::Down => ((x | high) - ones) ^ (!x & high),
            };
            for (i, word) in block.iter_mut().enumerate() {
                *word = ((x >> (32 * i)) & 0xFFFF_FFFF) as u32;
            }
        }
        stepped
    }

    /// Code by code: no file stores v1 in planes of several widths, so nobody waits for this. Rows are whole
    /// blocks, so all of them together are one sequence.
    fn planar(self, words: &[u32], bits: Bits) -> Vec<u32> {
        let mut codes = unpack(words, bits, Packing::Planar, words.len() / bits.get() * BLOCK);
        for code in &mut codes {
            *code = low_byte(self.code((*code).into(), bits));
        }
        pack(&codes, bits, Packing::Planar)
    }
}
