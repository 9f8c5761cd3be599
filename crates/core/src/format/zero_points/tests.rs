use proptest::prelude::*;

use super::ZeroDialect::{FieldWrap, WordBorrow};
use super::ZeroEncoding::{V1, V2};
use super::*;
use crate::format::packing::{BLOCK, pack};

const ENCODINGS: [ZeroEncoding; 3] = [V1(FieldWrap), V1(WordBorrow), V2];

fn bits(bits: u64) -> Bits {
    Bits::new(bits).unwrap()
}

/// One group of continuous zero points.
fn row(width: u64, columns: usize, words: &[u32], encoding: ZeroEncoding) -> ZeroPoints {
    let words = Shared::from(words.to_vec());
    ZeroPoints::new(words, 1, columns, bits(width), Packing::Continuous, encoding).unwrap()
}

fn read(zeros: &ZeroPoints, group: usize) -> Vec<u8> {
    let mut out = vec![0xAA; zeros.columns()];
    zeros.unpack_group(group, 0..zeros.columns(), &mut out);
    out
}

fn converted(zeros: &ZeroPoints, to: ZeroEncoding) -> Vec<u32> {
    let mut zeros = zeros.clone();
    zeros.convert(to);
    zeros.words().to_vec()
}

#[test]
fn symmetric_words_are_known_in_both_encodings() {
    use Packing::{Continuous, Planar};
    let repeat = |word: u32, count: usize| vec![word; count];
    let planar = |low: usize, top: &[u32]| [vec![0; low], top.to_vec()].concat();
    let three = (vec![0xDB6D_B6DB, 0xB6DB_6DB6, 0x6DB6_DB6D], vec![0x2492_4924, 0x4924_9249, 0x9249_2492]);
    for (width, packing, v1, v2) in [
        (2, Continuous, Some(repeat(0x5555_5555, 2)), repeat(0xAAAA_AAAA, 2)),
        (3, Continuous, Some(three.0), three.1),
        (4, Continuous, Some(repeat(0x7777_7777, 4)), repeat(0x8888_8888, 4)),
        (8, Continuous, Some(repeat(0x7F7F_7F7F, 8)), repeat(0x8080_8080, 8)),
        (3, Planar, Some(vec![u32::MAX, u32::MAX, 0]), planar(2, &[u32::MAX])),
        (5, Planar, None, planar(4, &[u32::MAX])),
        (6, Planar, None, planar(4, &[0xAAAA_AAAA; 2])),
        (7, Planar, None, planar(6, &[u32::MAX])),
    ] {
        let bits = bits(width);
        let new = |words: &[u32], encoding| {
            ZeroPoints::new(words.to_vec().into(), 1, 32, bits, packing, encoding).unwrap()
        };
        let direct = new(&v2, V2);
        assert!(direct.is_symmetric(), "{width} bits, {packing}");
        assert_eq!(direct.scan(), ZeroScan { uniform: Some(bits.symmetric_zero()), ..ZeroScan::default() });
        for encoding in [V1(FieldWrap), V1(WordBorrow)] {
            let words = converted(&direct, encoding);
            if let Some(v1) = &v1 {
                assert_eq!(&words, v1, "{width} bits, {packing}, {encoding}");
            }
            let stored = new(&words, encoding);
            assert_eq!(converted(&stored, V2), v2, "{width} bits, {packing}, {encoding}");
            assert!(stored.is_symmetric(), "{width} bits, {packing}, {encoding}");
            assert_eq!(stored.scan().uniform, Some(bits.symmetric_zero() - 1));
            assert!(!new(&words, V2).is_symmetric(), "read in the wrong encoding");
        }
    }
}

#[test]
fn each_dialect_reads_its_own_word_and_misreads_the_others() {
    let zeros = [5, 0, 3, 9, 15, 0, 0, 7];
    let (v2, field, word, destroyed) = (0x700F_9305, 0x6FFE_82F4, 0x5EFE_81F4, 0xFFFF_FFF4);
    let direct = row(4, 8, &[v2], V2);
    assert_eq!(converted(&direct, V1(FieldWrap)), [field]);
    assert_eq!(converted(&direct, V1(WordBorrow)), [word]);

    for (stored, per_field, per_word) in [
        (field, zeros, [5, 0, 4, 9, 15, 0, 1, 8]),
        (word, [5, 0, 2, 9, 15, 0, 15, 6], zeros),
        (destroyed, [5, 0, 0, 0, 0, 0, 0, 0], [5, 0, 1, 1, 1, 1, 1, 1]),
    ] {
        assert_eq!(read(&row(4, 8, &[stored], V1(FieldWrap)), 0), per_field, "{stored:08X} per field");
        assert_eq!(read(&row(4, 8, &[stored], V1(WordBorrow)), 0), per_word, "{stored:08X} per word");
    }
    assert_eq!(read(&direct, 0), zeros);
}

#[test]
fn words_that_gptqmodel_converts_are_converted_alike() {
    assert_eq!(converted(&row(4, 8, &[0x7777_777F], V1(WordBorrow)), V2), [0x8888_8890]);
    assert_eq!(converted(&row(2, 16, &[0x0110_013C], V1(WordBorrow)), V2), [0x5665_5691]);
    // Per field, a stored 15 is a zero of 0 and leaves its neighbour alone.
    assert_eq!(converted(&row(4, 8, &[0x7777_777F], V1(FieldWrap)), V2), [0x8888_8880]);
}

#[test]
fn the_smallest_and_the_largest_zero_survive_side_by_side() {
    for width in [2, 3, 4, 8] {
        let max = low_byte(bits(width).max_code());
        for zeros in [[0, max], [max, 0]] {
            let zeros = zeros.repeat(BLOCK / 2);
            let words = pack(&zeros, bits(width), Packing::Continuous);
            for encoding in ENCODINGS {
                let mut points = row(width, BLOCK, &words, V2);
                points.convert(encoding);
                assert_eq!(read(&points, 0), zeros, "{width} bits, {encoding}");
                points.convert(V2);
                assert_eq!(points.words(), words, "{width} bits, {encoding}");
            }
        }
    }
}

#[test]
fn a_second_conversion_does_nothing() {
    let mut zeros = row(4, 8, &[0x7777_777F], V1(FieldWrap));
    let before = zeros.clone();
    assert!(zeros.convert(V2));
    assert!(!zeros.convert(V2));
    assert_eq!((zeros.words(), zeros.encoding()), (&[0x8888_8880][..], V2));
    assert_eq!(
        (before.words(), before.encoding()),
        (&[0x7777_777F][..], V1(FieldWrap)),
        "a clone keeps its words"
    );
    assert!(zeros.convert(V1(WordBorrow)));
    assert!(zeros.convert(V1(FieldWrap)));
    assert_eq!(zeros.words(), before.words());
    assert_eq!(zeros.resident_bytes(), 4);
}

#[test]
fn the_dialects_are_one_where_fields_do_not_divide_a_word() {
    for width in Bits::ALL {
        let packing = if width.get() == 3 { Packing::Continuous } else { Packing::Planar };
        let words: Vec<u32> = vec![0; width.get()];
        let zeros = ZeroPoints::new(words.into(), 1, 32, width, packing, V2).unwrap();
        let same = converted(&zeros, V1(FieldWrap)) == converted(&zeros, V1(WordBorrow));
        assert_eq!(same, !ZeroDialect::differ(width), "{width} bits");
    }
}

#[test]
fn three_bit_zeros_of_gptqmodel_before_version_7_are_restored() {
    // What it wrote for symmetric zero points (4), twice: a row begins with the first constant again.
    let stored = [0x0000_0000, 0xB6DB_6DB7, 0x4924_9249, 0x0000_0000].repeat(2);
    let zeros =
        ZeroPoints::new(stored.into(), 2, 42, Bits::THREE, Packing::Continuous, V1(FieldWrap)).unwrap();
    let restored = zeros.restored_three_bits().unwrap();
    assert_eq!(read(&restored, 0), [4; 42]);
    assert_eq!(read(&restored, 1), [4; 42]);
    assert!(restored.is_symmetric() && !zeros.is_symmetric());
    assert!(row(4, 8, &[0x7777_7777], V1(FieldWrap)).restored_three_bits().is_none(), "only at 3 bits");
}

#[test]
fn converted_words_are_made_when_asked_for_and_shared_by_clones() {
    let mut zeros = row(4, 8, &[0x7777_777F], V1(FieldWrap));
    zeros.convert(V2);
    let clone = zeros.clone();
    assert_eq!((zeros.zero(0, 0), zeros.zero(0, 1)), (0, 8), "read from the words that are there");
    assert_eq!(zeros.resident_bytes(), 4, "nothing was made yet");
    let mut elsewhere = [0];
    zeros.write_words(&mut elsewhere);
    assert_eq!(
        (elsewhere, zeros.resident_bytes()),
        ([0x8888_8880], 4),
        "nor is it by a caller who takes them along"
    );
    assert_eq!(zeros.words(), elsewhere);
    assert_eq!((zeros.resident_bytes(), clone.resident_bytes()), (8, 8));
    assert!(std::ptr::eq(zeros.words(), clone.words()));
}

#[test]
fn words_that_do_not_fit_the_shape_are_refused() {
    let new = |words: usize, groups, columns, width, packing| {
        ZeroPoints::new(vec![0; words].into(), groups, columns, bits(width), packing, V2).is_some()
    };
    assert!(new(10, 2, 40, 4, Packing::Continuous));
    assert!(!new(9, 2, 40, 4, Packing::Continuous), "truncated");
    assert!(!new(11, 2, 40, 4, Packing::Continuous), "too long");
    assert!(new(4, 2, 11, 3, Packing::Continuous), "a row begins with a word of its own");
    assert!(!new(10, 2, 40, 4, Packing::Planar), "planar rows are whole blocks");
    assert!(!new(5, 1, 32, 5, Packing::Continuous), "no such layout");
    assert!(!new(0, 0, 32, 4, Packing::Continuous), "no groups");
    assert!(!new(0, 2, 0, 4, Packing::Continuous), "no columns");
    assert!(!new(0, usize::MAX, usize::MAX, 4, Packing::Continuous), "a shape that overflows");
}

#[test]
fn encodings_print_as_they_are_explained() {
    let text = ENCODINGS.map(|encoding| encoding.to_string());
    assert_eq!(text, ["v1 (minus one, per field)", "v1 (minus one, per word)", "v2 (direct)"]);
    assert_eq!(serde_json::to_string(&ENCODINGS).unwrap(), r#"["v1_field_wrap","v1_word_borrow","v2"]"#);
}

// ---- scan ----------------------------------------------------------------------------------------------------

#[test]
fn only_a_saturated_field_below_the_top_one_needs_a_dialect() {
    let scan = |words: &[u32]| row(4, 8 * words.len(), words, V1(FieldWrap)).scan();
    assert_eq!(scan(&[0xF123_4567]), ZeroScan::default(), "the top field alone");
    let inside = scan(&[0x0123_4567, 0x1F23_4567, 0xFFF3_4567]);
    assert_eq!((inside.saturated_words, inside.first_saturated), (2, Some((0, 1, 0x1F23_4567))));
    assert_eq!((inside.flooded_words, inside.first_flooded), (1, Some((0, 2, 0xFFF3_4567))));
    assert_eq!(inside.uniform, None);
    assert_eq!(scan(&[0xF1FF_4567]).flooded_words, 0, "a run that stops below the top");
    assert_eq!(scan(&[u32::MAX; 2]).uniform, Some(15));
}

#[test]
fn what_is_first_is_found_in_its_group() {
    let words = vec![0, 0, 0, 0x00F0_0000, 0xFF00_0000, 0];
    let zeros = ZeroPoints::new(words.into(), 3, 16, bits(4), Packing::Continuous, V1(FieldWrap)).unwrap();
    let scan = zeros.scan();
    assert_eq!(scan.first_saturated, Some((1, 1, 0x00F0_0000)));
    assert_eq!(scan.first_flooded, Some((2, 0, 0xFF00_0000)));
}

#[test]
fn padding_counts_for_nothing() {
    // Four columns: the upper half of the word is padding, and the top field is at bits 12 to 15.
    let scan = |word| row(4, 4, &[word], V1(FieldWrap)).scan();
    assert_eq!(scan(0xFFFF_7777), ZeroScan { uniform: Some(7), ..ZeroScan::default() });
    assert_eq!(scan(0xFFFF_F777), ZeroScan::default(), "the top field stands alone");
    assert_eq!(scan(0x0000_7F77).saturated_words, 1);
    assert_eq!(scan(0x0000_FF77).flooded_words, 1);
    assert!(row(4, 4, &[0x1234_8888], V2).is_symmetric());
}

#[test]
fn at_three_bits_a_flood_ends_with_the_word_and_not_with_the_code() {
    let scan = |words: [u32; 3]| row(3, 32, &words, V1(FieldWrap)).scan();
    // Code 9 spills over the two bits of code 10 that stand in word 0; its third bit, in word 1, is its own.
    assert_eq!(scan([0xF800_0000, 0, 0]).first_flooded, Some((0, 0, 0xF800_0000)));
    // Code 20 spills over one bit of code 21; code 30 over all of code 31.
    assert_eq!(scan([0, 0xF000_0000, 0]).first_flooded, Some((0, 1, 0xF000_0000)));
    assert_eq!(scan([0, 0, 0xFC00_0000]).first_flooded, Some((0, 2, 0xFC00_0000)));
    // Codes 10, 21 and 31 alone are the top fields of their words.
    assert_eq!(scan([0xC000_0000, 0x8000_0001, 0xE000_0003]), ZeroScan::default());
    // Code 0 lies below, and floods nothing.
    let low = scan([0x0000_0007, 0, 0]);
    assert_eq!((low.saturated_words, low.flooded_words), (1, 0));
}

#[test]
fn planar_codes_of_several_planes_never_need_a_dialect() {
    let zeros = ZeroPoints::new(vec![u32::MAX; 6].into(), 1, 32, bits(6), Packing::Planar, V2).unwrap();
    assert_eq!(zeros.scan(), ZeroScan { uniform: Some(63), ..ZeroScan::default() });
}

// ---- every width, order and dialect against code that goes field by field ------------------------------------

/// The stored field of a column.
fn stored(zeros: &ZeroPoints, group: usize, column: usize) -> u32 {
    let width = zeros.words_per_group();
    locate(zeros.bits, zeros.packing, column).read(&zeros.words()[group * width..][..width])
}

/// Logical zero points of a group, one field after another, with an explicit carry for the dialect that has one.
fn reference(zeros: &ZeroPoints, group: usize) -> Vec<u32> {
    let fields = 2u32.pow(u32::try_from(zeros.bits.get()).unwrap());
    let mut carry = 0;
    let mut logical = |column| match zeros.encoding {
        V2 => stored(zeros, group, column),
        V1(WordBorrow) if 32 % zeros.bits.get() == 0 => {
            let first_of_word = (column * zeros.bits.get()).is_multiple_of(32);
            let sum = stored(zeros, group, column) + 1 + if first_of_word { 0 } else { carry };
            carry = sum / fields;
            sum % fields
        }
        V1(_) => (stored(zeros, group, column) + 1) % fields,
    };
    (0..zeros.columns).map(&mut logical).collect()
}

/// The scan, one field after another.
fn reference_scan(zeros: &ZeroPoints) -> ZeroScan {
    let (bits, max, width) = (zeros.bits, zeros.bits.max_code(), zeros.words_per_group());
    let mut scan = ZeroScan { uniform: Some(stored(zeros, 0, 0)), ..ZeroScan::default() };
    for group in 0..zeros.groups {
        let row = &zeros.words()[group * width..][..width];
        for (column, &word) in row.iter().enumerate() {
            let begins_here = |n: &usize| locate(bits, zeros.packing, *n)[0].word == column;
            let fields: Vec<usize> = (0..zeros.columns).filter(begins_here).collect();
            let planes = zeros.packing == Packing::Planar && 32 % bits.get() != 0;
            let Some((&top, below)) = fields.split_last().filter(|_| !planes) else { continue };
            let saturated = |n: usize| stored(zeros, group, n) == max;
            if below.iter().any(|&n| saturated(n)) {
                scan.saturated_words += 1;
                scan.first_saturated.get_or_insert((group, column, word));
            }
            let here = locate(bits, zeros.packing, top)[0];
            if here.read(word) == here.mask && below.last().is_some_and(|&n| saturated(n)) {
                scan.flooded_words += 1;
                scan.first_flooded.get_or_insert((group, column, word));
            }
        }
        let first = scan.uniform;
        scan.uniform = first.filter(|&first| (0..zeros.columns).all(|n| stored(zeros, group, n) == first));
    }
    scan
}

/// Words of all sorts, among them many with saturated fields and floods.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (any::<u32>(), any::<u32>()).prop_map(|(a, b)| a | b),
        (any::<u32>(), 0u32..32).prop_map(|(word, from)| word | u32::MAX << from),
        prop::sample::select(vec![0, u32::MAX]),
    ]
}

/// Zero points of every width, order, encoding and shape, over any words.
fn zero_points() -> impl Strategy<Value = ZeroPoints> {
    let layout = prop::sample::select(Bits::ALL.to_vec()).prop_flat_map(|bits| {
        let packings = [Packing::Continuous, Packing::Planar].into_iter().filter(move |p| p.supports(bits));
        (Just(bits), prop::sample::select(packings.collect::<Vec<_>>()))
    });
    (layout, 1usize..4, 1usize..100, prop::sample::select(ENCODINGS.to_vec()), any::<bool>()).prop_flat_map(
        |((bits, packing), groups, columns, encoding, alike)| {
            let columns = if packing == Packing::Planar { columns.next_multiple_of(BLOCK) } else { columns };
            let count = groups * words_for(bits, columns);
            let field = (any::<u8>(), Just(alike)).prop_map(move |(field, alike)| {
                let row = pack(&vec![field; columns], bits, packing);
                alike.then(|| row.repeat(groups))
            });
            (prop::collection::vec(word(), count), field).prop_map(move |(words, alike)| {
                let words = Shared::from(alike.unwrap_or(words));
                ZeroPoints::new(words, groups, columns, bits, packing, encoding).unwrap()
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn conversion_and_back_gives_the_same_words(
        zeros in zero_points(),
        to in prop::sample::select(ENCODINGS.to_vec()),
    ) {
        let mut there = zeros.clone();
        prop_assert_eq!(there.convert(to), to != zeros.encoding());
        prop_assert_eq!(there.encoding(), to);
        for group in 0..zeros.groups() {
            prop_assert_eq!(read(&there, group), read(&zeros, group), "conversion changed a zero point");
        }
        there.convert(zeros.encoding());
        prop_assert_eq!(there.words(), zeros.words(), "padding and all");
    }

    #[test]
    fn every_reader_agrees_with_the_one_that_goes_field_by_field(
        zeros in zero_points(),
        ends in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let ends = (ends.0.index(zeros.columns() + 1), ends.1.index(zeros.columns() + 1));
        let range = ends.0.min(ends.1)..ends.0.max(ends.1);
        let mut direct = zeros.clone();
        direct.convert(V2);
        for group in 0..zeros.groups() {
            let expected = reference(&zeros, group);
            for (column, &zero) in expected.iter().enumerate() {
                prop_assert_eq!(zeros.zero(group, column), zero);
                prop_assert_eq!(stored(&direct, group, column), zero);
            }
            let mut out = vec![0xAA; range.len()];
            zeros.unpack_group(group, range.clone(), &mut out);
            prop_assert_eq!(out.into_iter().map(u32::from).collect::<Vec<_>>(), &expected[range.clone()]);
        }
        let symmetric = zeros.bits.symmetric_zero();
        let all = (0..zeros.groups()).all(|group| reference(&zeros, group).iter().all(|&zero| zero == symmetric));
        prop_assert_eq!(zeros.is_symmetric(), all);
    }

    #[test]
    fn the_scan_sees_what_a_look_at_each_field_sees(zeros in zero_points()) {
        prop_assert_eq!(zeros.scan(), reference_scan(&zeros));
    }

    /// The scan's claim: where it counts no word, nobody has to choose a dialect.
    #[test]
    fn dialects_disagree_on_the_counted_words_and_no_others(word in word(), fields in 1usize..=16) {
        for (width, fields_in_a_word) in [(2, 16), (4, 8), (8, 4)] {
            let zeros = |dialect| row(width, fields.min(fields_in_a_word), &[word], V1(dialect));
            let disagree = read(&zeros(FieldWrap), 0) != read(&zeros(WordBorrow), 0);
            prop_assert_eq!(zeros(FieldWrap).scan().saturated_words > 0, disagree);
        }
    }
}
