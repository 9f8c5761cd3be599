//! Packed words, one bit at a time.
//!
//! Written from the description of the format alone and shared by the packer of [`crate::case`] and the reader of
//! [`crate::oracle`]: a mistake in `gptq_core::format::packing` cannot hide here. Slow, and so plain that it can be
//! checked by eye.

use gptq_core::format::{Bits, Packing};

/// Where bit `bit` of code `index` stands in a packed sequence: a word, and a bit of that word.
///
/// Continuous: code `i` is bits `[i·b, i·b + b)` of one little-endian string of bits.
/// Planar: in each block of 32 codes, the low bits of all codes come first, then the next ones. The planes are 8, 4,
/// 2 or 1 bits wide, widest first, as the binary digits of b say. A plane is a string of bits of its own.
pub(crate) fn place(bits: Bits, packing: Packing, index: usize, bit: usize) -> (usize, usize) {
    let b = bits.get();
    match packing {
        Packing::Continuous => ((index * b + bit) / 32, (index * b + bit) % 32),
        Packing::Planar => {
            let (block, i) = (index / 32, index % 32);
            let (mut plane, mut width) = (0, 8);
            // Skip widths that b has not, and planes that end before the bit.
            while width > 1 && (b & width == 0 || bit >= plane + width) {
                if b & width != 0 {
                    plane += width;
                }
                width /= 2;
            }
            let at = i * width + (bit - plane);
            (block * b + plane + at / 32, at % 32)
        }
    }
}

/// Reads code `index`; `word(w)` is word `w` of its sequence.
pub(crate) fn read(bits: Bits, packing: Packing, index: usize, word: impl Fn(usize) -> u32) -> u8 {
    let mut code = 0;
    for bit in 0..bits.get() {
        let (at, shift) = place(bits, packing, index, bit);
        if (word(at) >> shift) & 1 == 1 {
            code |= 1 << bit;
        }
    }
    code
}

/// Packs `codes`. Padding after the last code is filled with ones: nobody may read it.
pub(crate) fn pack(bits: Bits, packing: Packing, codes: &[u8]) -> Vec<u32> {
    let mut words = vec![0u32; (codes.len() * bits.get()).div_ceil(32)];
    for (index, code) in codes.iter().enumerate() {
        for bit in 0..bits.get() {
            let (at, shift) = place(bits, packing, index, bit);
            if let Some(word) = words.get_mut(at) {
                *word |= u32::from((code >> bit) & 1) << shift;
            }
        }
    }
    let used = (codes.len() * bits.get()) % 32;
    if let Some(last) = words.last_mut()
        && used > 0
    {
        *last |= u32::MAX << used;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(bits: u64, packing: Packing, code: impl Fn(u8) -> u8) -> Vec<u32> {
        let codes: Vec<u8> = (0..32).map(code).collect();
        pack(Bits::new(bits).unwrap(), packing, &codes)
    }

    #[test]
    fn blocks_match_the_tables_of_the_format() {
        use Packing::{Continuous, Planar};
        assert_eq!(block(2, Continuous, |i| i % 4), [0xE4E4_E4E4; 2]);
        assert_eq!(block(3, Continuous, |i| i % 8), [0x88FA_C688, 0xC688_FAC6, 0xFAC6_88FA]);
        assert_eq!(block(4, Continuous, |i| i % 16), [0x7654_3210, 0xFEDC_BA98, 0x7654_3210, 0xFEDC_BA98]);
        assert_eq!(block(8, Continuous, |i| i)[..2], [0x0302_0100, 0x0706_0504]);
        assert_eq!(block(3, Planar, |i| i % 8), [0xE4E4_E4E4, 0xE4E4_E4E4, 0xF0F0_F0F0]);
        let low = [0x7654_3210, 0xFEDC_BA98, 0x7654_3210, 0xFEDC_BA98];
        assert_eq!(block(5, Planar, |i| i), [&low[..], &[0xFFFF_0000]].concat());
        assert_eq!(block(6, Planar, |i| i), [&low[..], &[0, 0x5555_5555]].concat());
        assert_eq!(block(7, Planar, |i| i), [&low[..], &[0, 0x5555_5555, 0]].concat());
        for bits in [2, 4, 8] {
            let code = |i: u8| i.wrapping_mul(7) & ((1u32 << bits) - 1).to_le_bytes()[0];
            assert_eq!(block(bits, Planar, code), block(bits, Continuous, code), "{bits} bits");
        }
    }

    #[test]
    fn a_code_reads_as_it_was_packed_and_padding_is_ones() {
        for bits in Bits::ALL {
            for packing in [Packing::Continuous, Packing::Planar] {
                let count = if packing == Packing::Planar { 64 } else { 41 };
                let codes: Vec<u8> =
                    (0u8..count).map(|i| i.wrapping_mul(29) & bits.max_code().to_le_bytes()[0]).collect();
                let words = pack(bits, packing, &codes);
                for (index, code) in codes.iter().enumerate() {
                    assert_eq!(read(bits, packing, index, |w| words[w]), *code, "{bits} {packing} {index}");
                }
                let used = codes.len() * bits.get() % 32;
                assert!(used == 0 || words.last().unwrap() >> used == u32::MAX >> used, "{bits} {packing}");
            }
        }
    }
}
