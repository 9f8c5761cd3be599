//! What stored zero points tell about their encoding.
//!
//! A field that holds `2^bits − 1` is *saturated*. In v1 that is a zero point of 0, or follows from one, and every
//! word on which the dialects disagree holds such a field; so words without one need no dialect.
//!
//! A word is looked at as its writer saw it: as 32 bits, padding aside. The *top field* of a word is the last one
//! that begins in it. At 2, 4 and 8 bits words are whole fields. At 3 bits, codes 10 and 21 of a block straddle
//! two words; AutoGPTQ ORs each half into its own word and masks the upper one, so −1 at code 9 spills over the
//! two bits of code 10 in word 0 and no further. A straddling code therefore counts in the word where it begins,
//! as its top field, with the bits that it has there.
//!
//! Planar codes of several planes have no such words, and all writers agree on them: they are never counted.

use super::ZeroPoints;
use super::step::ones;
use crate::format::packing::{BLOCK, locate, low_byte, pack};
use crate::format::{Bits, Packing};

/// What the stored fields of [`ZeroPoints`] show. Padding past the last column never counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ZeroScan {
    /// The stored value, where all fields hold the same one.
    pub uniform: Option<u32>,
    /// Words on which v1 dialects disagree: a field below the top field is saturated. A saturated top field that
    /// stands alone is a zero of 0 in every dialect.
    ///
    /// At 3 bits the two readable dialects are the same ([`ZeroDialect::differ`](super::ZeroDialect::differ)),
    /// and only AutoGPTQ's habit disagrees.
    pub saturated_words: usize,
    /// Group, column of the word in `qzeros`, and value of the first of them.
    pub first_saturated: Option<(usize, usize, u32)>,
    /// Those of them that end in two or more saturated fields up to the top: what AutoGPTQ leaves of a word with a
    /// zero of 0.
    pub flooded_words: usize,
    /// Group, column of the word in `qzeros`, and value of the first of them.
    pub first_flooded: Option<(usize, usize, u32)>,
}

impl ZeroScan {
    pub(super) fn of(zeros: &ZeroPoints) -> Self {
        let tests = RowTests::new(zeros);
        let mut scan = Self::default();
        let mut different = 0;
        for (group, row) in zeros.words().chunks_exact(zeros.words_per_group()).enumerate() {
            let mut saturated = 0;
            tests.for_each(row, |test, word| {
                different |= test.difference(word);
                saturated |= test.saturated(word);
            });
            // Most rows of most layers hold nothing to count.
            if saturated != 0 {
                scan.count(group, row, &tests);
            }
        }
        scan.uniform = (different == 0).then_some(tests.first);
        scan
    }

    fn count(&mut self, group: usize, row: &[u32], tests: &RowTests) {
        let (mut saturated, mut flooded) = (0, 0);
        tests.for_each(row, |test, word| {
            saturated += usize::from(test.is_saturated(word));
            flooded += usize::from(test.is_flooded(word));
        });
        self.saturated_words += saturated;
        self.flooded_words += flooded;

        let first = |found: fn(WordTest, u32) -> bool| {
            let column = (0..row.len()).find(|&column| found(tests.of_word(column), row[column]))?;
            Some((group, column, row[column]))
        };
        if self.first_saturated.is_none() {
            self.first_saturated = first(WordTest::is_saturated);
        }
        if flooded > 0 && self.first_flooded.is_none() {
            self.first_flooded = first(WordTest::is_flooded);
        }
    }
}

/// What to ask of each word of a row.
struct RowTests {
    /// The first stored field of all.
    first: u32,
    /// The tests of words without padding, which repeat along the row.
    cycle: Vec<WordTest>,
    /// How many words have no padding: all, or all but one.
    whole: usize,
    /// The test of the other one.
    last: WordTest,
}

impl RowTests {
    fn new(zeros: &ZeroPoints) -> Self {
        let (bits, packing, width) = (zeros.bits, zeros.packing, zeros.words_per_group());
        let first = locate(bits, packing, 0).read(zeros.words());
        let cycle = WordTest::cycle(bits, packing, first);
        // Whole blocks have no padding, and without them the product cannot overflow.
        let last_bits = zeros.columns % BLOCK * bits.get() % 32;
        let whole = if last_bits == 0 { width } else { width - 1 };
        let last = WordTest::cut(bits, last_bits, cycle[whole % cycle.len()].uniform);
        Self { first, cycle, whole, last }
    }

    fn of_word(&self, column: usize) -> WordTest {
        if column < self.whole { self.cycle[column % self.cycle.len()] } else { self.last }
    }

    /// Calls `see` for every word, in no particular order.
    #[inline]
    fn for_each(&self, row: &[u32], mut see: impl FnMut(WordTest, u32)) {
        let (words, last) = row.split_at(self.whole);
        match self.cycle.as_slice() {
            // The same test on every word in one plain loop, which vectorizes.
            [test] => words.iter().for_each(|&word| see(*test, word)),
            tests => {
                for (i, &test) in tests.iter().enumerate() {
                    words.iter().skip(i).step_by(tests.len()).for_each(|&word| see(test, word));
                }
            }
        }
        last.iter().for_each(|&word| see(self.last, word));
    }
}

/// What to ask of one word of a row. All questions are about the word shifted up over its padding, so that its top
/// field ends at bit 31.
#[derive(Clone, Copy)]
struct WordTest {
    /// The word, were all fields equal to the first one.
    uniform: u32,
    /// Bits of padding at the top.
    padding: usize,
    /// All bits but the highest of each field below the top field that lies in this word as a whole.
    low: u32,
    /// The lowest bits of these fields.
    ones: u32,
    /// The highest bits of these fields.
    high: u32,
    /// The bits of the top field and the field below it.
    top_two: u32,
}

impl WordTest {
    /// The tests that repeat along a row: one for each word of a block, or a single one where all words are alike.
    fn cycle(bits: Bits, packing: Packing, first: u32) -> Vec<Self> {
        let uniform = pack(&[low_byte(first); BLOCK], bits, packing);
        let whole_fields = ones(bits).is_some();
        let of_word = |(word, uniform): (usize, u32)| match packing {
            Packing::Planar if !whole_fields => Self::uniform_only(uniform),
            // A field that straddles the end of this word has as many bits here as are left over.
            _ => match 32 * (word + 1) % bits.get() {
                0 => Self::new(bits, bits.get(), uniform, 0),
                top => Self::new(bits, top, uniform, 0),
            },
        };
        let alike = if whole_fields { 1 } else { bits.get() };
        uniform.into_iter().take(alike).enumerate().map(of_word).collect()
    }

    /// The test for a last word with `valid` bits of fields, where a word without padding would hold `uniform`.
    fn cut(bits: Bits, valid: usize, uniform: u32) -> Self {
        Self::new(bits, bits.get(), uniform, (32 - valid) % 32)
    }

    /// The test for a word whose top field has `top` bits in it.
    fn new(bits: Bits, top: usize, uniform: u32, padding: usize) -> Self {
        let mut ones = 0;
        let mut end = 32 - top;
        while end >= bits.get() {
            end -= bits.get();
            ones |= 1 << end;
        }
        let low = ones * (bits.max_code() >> 1);
        let high = ones << (bits.get() - 1);
        Self { uniform, padding, low, ones, high, top_two: !(u32::MAX >> (top + bits.get())) }
    }

    /// The test for a word without fields of its own.
    fn uniform_only(uniform: u32) -> Self {
        Self { uniform, padding: 0, low: 0, ones: 0, high: 0, top_two: 0 }
    }

    /// The bits in which the word differs from a uniform one.
    fn difference(self, word: u32) -> u32 {
        (word ^ self.uniform) << self.padding
    }

    /// The highest bits of the saturated fields below the top field.
    fn saturated(self, word: u32) -> u32 {
        let word = word << self.padding;
        // Adding 1 to the lower bits of a field carries into its highest bit where all of them are set.
        ((word & self.low) + self.ones) & word & self.high
    }

    fn is_saturated(self, word: u32) -> bool {
        self.saturated(word) != 0
    }

    fn is_flooded(self, word: u32) -> bool {
        self.is_saturated(word) && word << self.padding >= self.top_two
    }
}
