use proptest::prelude::*;

use super::*;

/// Every width and order that files hold.
fn layouts() -> Vec<(Bits, Packing)> {
    let all = Bits::ALL.into_iter().flat_map(|bits| [(bits, Packing::Continuous), (bits, Packing::Planar)]);
    all.filter(|&(bits, packing)| packing.supports(bits)).collect()
}

fn layout() -> impl Strategy<Value = (Bits, Packing)> {
    prop::sample::select(layouts())
}

/// The nearest count that this order has.
fn cut(packing: Packing, count: usize) -> usize {
    if packing == Packing::Planar { count.next_multiple_of(BLOCK) } else { count }
}

fn bits(bits: u64) -> Bits {
    Bits::new(bits).unwrap()
}

#[test]
fn worked_examples_of_one_block_pack_to_known_words() {
    use Packing::{Continuous, Planar};
    let counting = |modulus: u8| (0..32u8).map(move |i| i % modulus).collect::<Vec<u8>>();
    let nibbles = [0x7654_3210, 0xFEDC_BA98, 0x7654_3210, 0xFEDC_BA98];
    let and = |more: &[u32]| [&nibbles, more].concat();
    let bytes = (0..8u32).map(|i| 0x0302_0100 + 0x0404_0404 * i).collect::<Vec<u32>>();
    for (width, packing, codes, words) in [
        (2, Continuous, counting(4), vec![0xE4E4_E4E4; 2]),
        (3, Continuous, counting(8), vec![0x88FA_C688, 0xC688_FAC6, 0xFAC6_88FA]),
        (4, Continuous, counting(16), nibbles.to_vec()),
        (8, Continuous, counting(32), bytes),
        (3, Planar, counting(8), vec![0xE4E4_E4E4, 0xE4E4_E4E4, 0xF0F0_F0F0]),
        (5, Planar, counting(32), and(&[0xFFFF_0000])),
        (6, Planar, counting(32), and(&[0x0000_0000, 0x5555_5555])),
        (7, Planar, counting(32), and(&[0x0000_0000, 0x5555_5555, 0x0000_0000])),
    ] {
        assert_eq!(pack(&codes, bits(width), packing), words, "{width} bits, {packing}");
        assert_eq!(unpack(&words, bits(width), packing, 32), codes, "{width} bits, {packing}");
    }
}

#[test]
fn at_three_bits_codes_10_and_21_straddle_words() {
    let at = |index| locate(bits(3), Packing::Continuous, index);
    let piece = |word, shift, mask, left| Piece { word, shift, mask, left };
    assert_eq!(*at(10), [piece(0, 30, 0b11, 0), piece(1, 0, 0b1, 2)]);
    assert_eq!(*at(21), [piece(1, 31, 0b1, 0), piece(2, 0, 0b11, 1)]);
    assert_eq!(*at(32 + 10), [piece(3, 30, 0b11, 0), piece(4, 0, 0b1, 2)]);
    assert!((0..32).filter(|i| ![10, 21].contains(i)).all(|i| at(i).len() == 1));
}

#[test]
fn a_planar_code_has_one_field_in_each_plane() {
    let at = |index| locate(bits(7), Packing::Planar, index);
    let piece = |word, shift, mask, left| Piece { word, shift, mask, left };
    assert_eq!(*at(17), [piece(2, 4, 0xF, 0), piece(5, 2, 0b11, 4), piece(6, 17, 0b1, 6)]);
    assert_eq!(*at(32 + 17), [piece(9, 4, 0xF, 0), piece(12, 2, 0b11, 4), piece(13, 17, 0b1, 6)]);
    for width in Bits::ALL {
        let planes = planes(width);
        assert_eq!(planes.iter().sum::<u32>() as usize, width.get(), "planes of {width} bits");
        assert!(planes.iter().all(|plane| 32 % plane == 0), "planes of {width} bits divide a word");
    }
}

#[test]
fn the_fields_of_a_block_cover_every_bit_once() {
    for (bits, packing) in layouts() {
        let mut covered = vec![0u32; bits.get()];
        for index in 0..BLOCK {
            for piece in locate(bits, packing, index).iter() {
                let field = piece.mask << piece.shift;
                assert_eq!(covered[piece.word] & field, 0, "{bits} bits, {packing}: code {index} overlaps");
                covered[piece.word] |= field;
            }
        }
        assert!(covered.iter().all(|&word| word == u32::MAX), "{bits} bits, {packing}: {covered:08X?}");
    }
}

#[test]
fn planar_and_continuous_agree_where_a_width_divides_a_word() {
    for bits in Bits::ALL {
        let same = (0..64).all(|i| locate(bits, Packing::Planar, i) == locate(bits, Packing::Continuous, i));
        assert_eq!(same, matches!(bits.get(), 2 | 4 | 8), "{bits} bits");
    }
}

#[test]
fn only_pairs_and_counts_that_files_can_hold_are_allowed() {
    for bits in Bits::ALL {
        let continuous = matches!(bits.get(), 2 | 3 | 4 | 8);
        assert_eq!(allows(bits, Packing::Continuous, 33), continuous, "{bits} bits");
        assert!(allows(bits, Packing::Planar, 64), "{bits} bits");
        assert!(!allows(bits, Packing::Planar, 33), "{bits} bits: a planar block cannot be cut");
    }
}

#[test]
fn a_cut_sequence_takes_as_many_words_as_its_bits_need() {
    assert_eq!(words_for(bits(3), 32), 3);
    assert_eq!(words_for(bits(3), 10), 1, "30 bits");
    assert_eq!(words_for(bits(3), 11), 2, "33 bits");
    assert_eq!(words_for(bits(4), 40), 5);
    assert_eq!(words_for(bits(4), 0), 0);
    assert_eq!(words_for(bits(8), usize::MAX), usize::MAX / 4 + 1, "a count from a lying file");
    assert_eq!(pack(&[7; 11], bits(3), Packing::Continuous), [u32::MAX, 1], "padding is zero");
}

#[test]
fn bits_above_the_width_do_not_spill_into_a_neighbour() {
    for (bits, packing) in layouts() {
        let wide = pack(&[0xFF, 0].repeat(16), bits, packing);
        assert_eq!(
            unpack(&wide, bits, packing, 32),
            [low_byte(bits.max_code()), 0].repeat(16),
            "{bits} {packing}"
        );
    }
}

#[test]
#[should_panic(expected = "whole blocks")]
fn a_cut_planar_sequence_is_refused_where_it_is_packed() {
    pack(&[0; 33], bits(5), Packing::Planar);
}

#[test]
fn rows_of_the_smallest_matrix_come_back() {
    for (bits, packing) in layouts() {
        let codes: Vec<u8> = (0..32 * 32).map(|i| low_byte((i * 7 + i / 32) & bits.max_code())).collect();
        let qweight = pack_matrix(&codes, 32, 32, bits, packing);
        assert_eq!(qweight.len(), bits.get() * 32);
        for (k, expected) in codes.chunks(32).enumerate() {
            let mut row = [0; 32];
            unpack_row(&qweight, 32, bits, packing, k, 0..32, &mut row);
            assert_eq!(row, expected, "{bits} bits, {packing}, row {k}");
        }
    }
}

/// The block as one long integer, a bit at a time. Shares nothing with [`locate`].
fn from_bits(words: &[u32], bits: Bits, index: usize) -> u32 {
    let all: Vec<u32> = words.iter().flat_map(|word| (0..32).map(move |bit| word >> bit & 1)).collect();
    let code = &all[index * bits.get()..][..bits.get()];
    code.iter().rev().fold(0, |code, bit| code << 1 | bit)
}

/// A planar code from the words of each plane in turn, by division. Shares nothing with [`locate`].
fn from_planes(words: &[u32], bits: Bits, index: usize) -> u32 {
    let mut plane = &words[index / 32 * bits.get()..];
    let (mut code, mut weight) = (0, 1);
    for &width in planes(bits) {
        let per_word = 32 / width as usize;
        let word = plane[index % 32 / per_word];
        let field = (0..index % per_word).fold(word, |word, _| word / 2u32.pow(width)) % 2u32.pow(width);
        code += field * weight;
        weight *= 2u32.pow(width);
        plane = &plane[width as usize..];
    }
    code
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn codes_come_back_at_every_width_order_and_length(
        (bits, packing) in layout(),
        codes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut codes = codes;
        codes.resize(cut(packing, codes.len()), 0);
        for code in &mut codes {
            *code &= low_byte(bits.max_code());
        }
        let words = pack(&codes, bits, packing);
        prop_assert_eq!(words.len(), words_for(bits, codes.len()));
        prop_assert_eq!(unpack(&words, bits, packing, codes.len()), codes);
    }

    #[test]
    fn whole_blocks_of_any_words_come_back(
        (bits, packing) in layout(),
        words in prop::collection::vec(any::<u32>(), 24),
    ) {
        let words = &words[..24 / bits.get() * bits.get()];
        let codes = unpack(words, bits, packing, words.len() / bits.get() * BLOCK);
        prop_assert_eq!(pack(&codes, bits, packing), words);
    }

    #[test]
    fn locate_agrees_with_readers_that_know_nothing_of_it(
        bits in prop::sample::select(Bits::ALL.to_vec()),
        words in prop::collection::vec(any::<u32>(), 16),
        index in 0usize..64,
    ) {
        let continuous = locate(bits, Packing::Continuous, index).read(&words);
        prop_assert_eq!(continuous, from_bits(&words, bits, index));
        let planar = locate(bits, Packing::Planar, index).read(&words);
        prop_assert_eq!(planar, from_planes(&words, bits, index));
    }

    #[test]
    fn a_range_is_a_slice_of_the_whole(
        (bits, packing) in layout(),
        words in prop::collection::vec(any::<u32>(), 16),
        ends in (0usize..=64, 0usize..=64),
    ) {
        let range = ends.0.min(ends.1)..ends.0.max(ends.1);
        let whole = unpack(&words, bits, packing, 64);
        let mut out = vec![0xAA; range.len()];
        unpack_range(&words, bits, packing, range.clone(), &mut out);
        prop_assert_eq!(&out, &whole[range.clone()]);
        for (code, index) in out.iter().zip(range) {
            prop_assert_eq!(u32::from(*code), locate(bits, packing, index).read(&words));
        }
    }

    #[test]
    fn a_column_of_a_matrix_is_a_sequence_of_its_own(
        (bits, packing) in layout(),
        (k, n) in (1usize..70, 1usize..20),
        seed in prop::collection::vec(any::<u8>(), 96 * 20),
        column in any::<prop::sample::Index>(),
    ) {
        let k = cut(packing, k);
        let codes: Vec<u8> = seed[..k * n].iter().map(|code| code & low_byte(bits.max_code())).collect();
        let qweight = pack_matrix(&codes, k, n, bits, packing);

        let column = column.index(n);
        let of_column = |values: &[u8]| values.iter().skip(column).step_by(n).copied().collect::<Vec<u8>>();
        let words: Vec<u32> = qweight.iter().skip(column).step_by(n).copied().collect();
        prop_assert_eq!(words, pack(&of_column(&codes), bits, packing));

        for row in 0..k {
            let mut out = vec![0xAA; n - column];
            unpack_row(&qweight, n, bits, packing, row, column..n, &mut out);
            prop_assert_eq!(&out, &codes[row * n..][column..n]);
        }
    }
}
