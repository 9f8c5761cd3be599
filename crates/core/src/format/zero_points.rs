//! How zero points are stored, and how to change that without losing one.
//!
//! The formula of a layer needs `zero`. v2 stores `zero`; v1 stores `zero − 1`, a habit of the first GPTQ kernels.
//! As `zero` is 0 to `2^bits − 1`, v1 has to put a zero of 0 somewhere, and its writers do not agree where: that is
//! what [`ZeroDialect`] names. The readings differ in few words, and [`ZeroPoints::scan`] finds them.
//!
//! Conversion is arithmetic modulo `2^bits` on each field, so it can be undone to the last bit. Whole words are
//! converted: padding fields past the last column are stepped like the others, are never read, and come back
//! unchanged.
//!
//! Converting is a decision, and the work waits until someone asks for words in the new encoding. Whoever reads zero
//! points, and not words, reads them from the words that are there; a model whose kernels do that converts for
//! nothing.

mod scan;
mod step;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::{Serialize, Serializer};

pub use scan::ZeroScan;

use self::step::Step;
use super::packing::{allows, locate, low_byte, unpack_range, unpack_stepped, words_for};
use super::{Bits, Packing};
use crate::shared::Shared;

/// How a writer of v1 takes 1 from packed zero points. The dialects differ only where a zero point is 0.
///
/// A third habit cannot be read at all: AutoGPTQ ORs the −1 of a zero of 0 unmasked over all later fields of its
/// word. [`ZeroScan::flooded_words`] counts the words that look like it. Files hold no other dialects, so that the
/// enum is exhaustive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroDialect {
    /// Each field by itself, modulo `2^bits`: a zero of 0 is stored as `2^bits − 1`. Written by GPTQModel at 3 bits
    /// and by writers that mask.
    FieldWrap,
    /// Each word as one 32-bit integer, from which 1 in every field is subtracted: a zero of 0 borrows from the
    /// next field. Written by GPTQModel since 0.9.0, at 2, 4 and 8 bits.
    ///
    /// The same writer works field by field at the other widths, so there this dialect *is*
    /// [`FieldWrap`](Self::FieldWrap), and one answer serves a model of mixed widths. See [`Self::differ`].
    WordBorrow,
}

impl ZeroDialect {
    /// Whether the two dialects can read a word differently at this width: at 2, 4 and 8 bits.
    pub const fn differ(bits: Bits) -> bool {
        step::ones(bits).is_some()
    }
}

impl fmt::Display for ZeroDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FieldWrap => "per field",
            Self::WordBorrow => "per word",
        })
    }
}

/// How zero points are stored. Files hold no other encodings, so that the enum is exhaustive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ZeroEncoding {
    /// `zero − 1`. Format `gptq`.
    V1(ZeroDialect),
    /// `zero`. Formats `gptq_v2` and `gptq_p`.
    V2,
}

impl fmt::Display for ZeroEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V1(dialect) => write!(f, "v1 (minus one, {dialect})"),
            Self::V2 => f.write_str("v2 (direct)"),
        }
    }
}

/// One of `v1_field_wrap`, `v1_word_borrow` and `v2`.
impl Serialize for ZeroEncoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::V1(ZeroDialect::FieldWrap) => "v1_field_wrap",
            Self::V1(ZeroDialect::WordBorrow) => "v1_word_borrow",
            Self::V2 => "v2",
        })
    }
}

/// The zero points of a layer: `qzeros [G, ceil(N·bits/32)]`, packed along N, and how they are encoded.
///
/// The encoding travels with the words, so that they cannot be converted twice. Cloning copies no words.
#[derive(Clone, Debug)]
pub struct ZeroPoints {
    stored: Shared<u32>,
    stored_as: ZeroEncoding,
    groups: usize,
    columns: usize,
    bits: Bits,
    packing: Packing,
    encoding: ZeroEncoding,
    /// The words in `encoding`, where that is not how they are stored, from when they are first asked for. Clones
    /// share them.
    converted: Arc<OnceLock<Box<[u32]>>>,
}

impl ZeroPoints {
    /// Zero points of `groups` groups and `columns` columns, stored as `encoding` says.
    ///
    /// `None` unless there is at least one of each, the packing [`allows`] a row of `columns` codes, and there are
    /// `groups · words_for(bits, columns)` words.
    pub fn new(
        words: Shared<u32>,
        groups: usize,
        columns: usize,
        bits: Bits,
        packing: Packing,
        encoding: ZeroEncoding,
    ) -> Option<Self> {
        let expected = groups.checked_mul(words_for(bits, columns))?;
        let fits = expected > 0 && words.len() == expected && allows(bits, packing, columns);
        fits.then(|| Self {
            stored: words,
            stored_as: encoding,
            groups,
            columns,
            bits,
            packing,
            encoding,
            converted: Arc::default(),
        })
    }

    /// How [`Self::words`] are encoded.
    pub fn encoding(&self) -> ZeroEncoding {
        self.encoding
    }

    /// The packed words `[G, words_per_group]`, row-major, in [`Self::encoding`].
    ///
    /// After [`Self::convert`] the first call makes them, and they are kept with this layer and its clones. A caller
    /// who only passes them on does without that memory by [`Self::write_words`].
    pub fn words(&self) -> &[u32] {
        if self.encoding == self.stored_as {
            return &self.stored;
        }
        self.converted.get_or_init(|| {
            let mut words = vec![0; self.stored.len()];
            self.write_words(&mut words);
            words.into()
        })
    }

    /// The words, where they are stored in `encoding`.
    pub(crate) fn stored_in(&self, encoding: ZeroEncoding) -> Option<&[u32]> {
        (self.stored_as == encoding).then_some(&self.stored[..])
    }

    /// Writes [`Self::words`] to where the caller wants them, and keeps nothing: a staging buffer, for example.
    ///
    /// # Panics
    /// If `out` is not `G · words_per_group` words long.
    pub fn write_words(&self, out: &mut [u32]) {
        assert_eq!(out.len(), self.stored.len(), "as many words as are stored");
        let width = self.words_per_group();
        let (up, down) = match (self.stored_as, self.encoding) {
            (from, to) if from == to => (None, None),
            (ZeroEncoding::V1(from), ZeroEncoding::V1(to)) => (Some(from), Some(to)),
            (ZeroEncoding::V1(from), ZeroEncoding::V2) => (Some(from), None),
            (ZeroEncoding::V2, ZeroEncoding::V1(to)) => (None, Some(to)),
            (ZeroEncoding::V2, ZeroEncoding::V2) => (None, None),
        };
        let (bits, packing) = (self.bits, self.packing);
        for (out, stored) in out.chunks_exact_mut(width).zip(self.stored.chunks_exact(width)) {
            match (up, down) {
                (None, None) => out.copy_from_slice(stored),
                (Some(up), None) => Step::Up.row(stored, out, bits, packing, up),
                (None, Some(down)) => Step::Down.row(stored, out, bits, packing, down),
                (Some(up), Some(down)) => {
                    Step::Up.row(stored, out, bits, packing, up);
                    let direct = out.to_vec();
                    Step::Down.row(&direct, out, bits, packing, down);
                }
            }
        }
    }

    /// Words in a row: `ceil(N · bits / 32)`.
    pub fn words_per_group(&self) -> usize {
        words_for(self.bits, self.columns)
    }

    /// How many groups there are: G.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// How many columns there are: N.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many bytes the words take in memory that is not a mapped file, those that were converted among them.
    pub fn resident_bytes(&self) -> usize {
        self.stored.resident_bytes() + self.converted.get().map_or(0, |words| size_of_val(&words[..]))
    }

    /// The zero point of a group and column, 0 to `2^bits − 1`, whatever the encoding.
    ///
    /// # Panics
    /// If there is no such group or column.
    pub fn zero(&self, group: usize, column: usize) -> u32 {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        let row = self.row(group);
        let pieces = locate(self.bits, self.packing, column);
        match (self.stored_as, step::ones(self.bits)) {
            (ZeroEncoding::V2, _) => pieces.read(row),
            (ZeroEncoding::V1(ZeroDialect::WordBorrow), Some(ones)) => {
                pieces.iter().fold(0, |zero, piece| zero | piece.read(row[piece.word].wrapping_add(ones)))
            }
            (ZeroEncoding::V1(_), _) => Step::Up.code(pieces.read(row), self.bits),
        }
    }

    /// The zero points of a group in a range of columns, whatever the encoding, into `out`.
    ///
    /// # Panics
    /// If there is no such group, `columns` ends past N, or `out` is not as long as `columns`.
    pub fn unpack_group(&self, group: usize, columns: Range<usize>, out: &mut [u8]) {
        assert!(columns.end <= self.columns, "columns {columns:?} of {}", self.columns);
        assert_eq!(out.len(), columns.len(), "one byte of `out` for each column");
        let row = self.row(group);
        match (self.stored_as, step::ones(self.bits)) {
            (ZeroEncoding::V2, _) => unpack_range(row, self.bits, self.packing, columns, out),
            (ZeroEncoding::V1(ZeroDialect::WordBorrow), Some(ones)) => {
                unpack_stepped(row, self.bits, columns.start, out, |word| word.wrapping_add(ones));
            }
            (ZeroEncoding::V1(_), _) => {
                unpack_range(row, self.bits, self.packing, columns, out);
                let max = low_byte(self.bits.max_code());
                out.iter_mut().for_each(|zero| *zero = zero.wrapping_add(1) & max);
            }
        }
    }

    /// Changes the encoding: from now on [`Self::words`] are in `to`. `false`, and nothing done, where they are already.
    ///
    /// Lossless in every direction: converting back gives the same words. A clone made before keeps its encoding.
    pub fn convert(&mut self, to: ZeroEncoding) -> bool {
        if to == self.encoding {
            return false;
        }
        self.encoding = to;
        self.converted = Arc::default();
        true
    }

    /// Reads the words as another encoding, without changing any.
    ///
    /// Only for zero points as they were stored, before any conversion.
    pub(crate) fn reinterpret(&mut self, encoding: ZeroEncoding) {
        debug_assert_eq!(self.encoding, self.stored_as, "a converted encoding is known, and not a reading");
        self.stored_as = encoding;
        self.encoding = encoding;
    }

    /// The same zero points in v2, if GPTQModel before version 7 stored them: at 3 bits it subtracted a constant
    /// whose ones are not in the fields, whole word by whole word. `None` at other widths.
    pub(crate) fn restored_three_bits(&self) -> Option<Self> {
        let here = self.bits == Bits::THREE && self.packing == Packing::Continuous;
        here.then(|| Self {
            stored: step::restore_three_bits(self.words(), self.words_per_group()).into(),
            stored_as: ZeroEncoding::V2,
            encoding: ZeroEncoding::V2,
            converted: Arc::default(),
            ..*self
        })
    }

    /// What the stored fields tell about their encoding, whatever [`Self::encoding`] says. One pass over the words.
    pub fn scan(&self) -> ZeroScan {
        ZeroScan::of(self)
    }

    /// Whether every zero point is `2^(bits − 1)`, as kernels without a zero operand take for granted.
    pub fn is_symmetric(&self) -> bool {
        self.is_symmetric_by(&self.scan())
    }

    /// [`Self::is_symmetric`] for a caller who has the scan of these words already.
    pub(crate) fn is_symmetric_by(&self, scan: &ZeroScan) -> bool {
        let symmetric = self.bits.symmetric_zero();
        let stored = match self.encoding {
            ZeroEncoding::V1(_) => symmetric - 1,
            ZeroEncoding::V2 => symmetric,
        };
        scan.uniform == Some(stored)
    }

    /// The words of a group, as they are stored.
    fn row(&self, group: usize) -> &[u32] {
        let width = self.words_per_group();
        &self.stored[group * width..][..width]
    }
}

#[cfg(test)]
mod tests;
