//! In which encoding zero points stand, and on what evidence.

use gptq_core::checkpoint::{Declared, SettledBy, ZeroEvidence, ZeroVersion};
use gptq_core::format::ZeroDialect;
use serde::Serialize;

use crate::output::{Page, count};

/// The evidence, with the encoding in words.
#[derive(Serialize)]
pub(super) struct ZeroPoints<'a> {
    /// `minus one` or `direct`.
    stored: &'static str,
    /// The same by its number.
    read_as: ZeroVersion,
    settled_by: SettledBy,
    declared: &'a [Declared],
    /// Layers whose stored fields are all those of a symmetric layer, minus one.
    symmetric_minus_one: usize,
    /// Layers whose stored fields are all those of a symmetric layer, direct.
    symmetric_direct: usize,
    asymmetric: usize,
    mean_code_minus_zero: Option<f64>,
    saturated_words: usize,
    dialect: Option<ZeroDialect>,
    /// 3-bit layers stored in the way of GPTQModel before version 7.
    restored_three_bits: usize,
}

impl<'a> ZeroPoints<'a> {
    pub(super) fn new(evidence: &'a ZeroEvidence) -> Self {
        let stored = match evidence.read_as {
            ZeroVersion::V1 => "minus one",
            ZeroVersion::V2 => "direct",
            _ => "in an encoding of its own",
        };
        Self {
            stored,
            read_as: evidence.read_as,
            settled_by: evidence.settled_by,
            declared: &evidence.declared,
            symmetric_minus_one: evidence.symmetric_v1,
            symmetric_direct: evidence.symmetric_v2,
            asymmetric: evidence.asymmetric,
            mean_code_minus_zero: evidence.mean_code_minus_zero,
            saturated_words: evidence.saturated_words,
            dialect: evidence.dialect,
            restored_three_bits: evidence.restored_three_bits,
        }
    }

    /// Writes the encoding, what says so, and what the data shows.
    pub(super) fn write(&self, page: &mut Page) {
        let meaning = match self.read_as {
            ZeroVersion::V1 => " (v1, file format gptq): the words hold zero - 1",
            ZeroVersion::V2 => " (v2, file formats gptq_v2 and gptq_p): the words hold zero",
            _ => "",
        };
        let declared: Vec<String> = self.declared.iter().map(ToString::to_string).collect();
        let mut fields = vec![
            ("stored", format!("{}{meaning}", self.stored)),
            (
                "declared",
                match declared.as_slice() {
                    [] => "by no file: gptq is the default".into(),
                    declared => declared.join("\n"),
                },
            ),
            ("settled by", self.settled_by().into()),
            ("symmetric", self.symmetric()),
            ("asymmetric", self.asymmetric()),
        ];
        if self.saturated_words > 0 {
            fields.push(("zeros of 0", self.dialect()));
        }
        if self.restored_three_bits > 0 {
            let layers = count(self.restored_three_bits, "layer");
            fields.push((
                "3 bits",
                format!("{layers} stored in the way of GPTQModel before version 7, and restored"),
            ));
        }
        page.fields(&fields);
    }

    fn settled_by(&self) -> &'static str {
        match self.settled_by {
            SettledBy::Configuration => "the configuration, which nothing contradicts",
            SettledBy::Data => "the data, where configuration files disagree",
            SettledBy::Option => "--assume-format",
            _ => "another rule",
        }
    }

    fn symmetric(&self) -> String {
        match (self.symmetric_minus_one, self.symmetric_direct) {
            (0, 0) => "no layer: the data is not conclusive by itself".into(),
            (minus_one, 0) => {
                format!(
                    "{} with 2^(bits-1) - 1 in every field: conclusive for minus one",
                    count(minus_one, "layer")
                )
            }
            (0, direct) => {
                format!("{} with 2^(bits-1) in every field: conclusive for direct", count(direct, "layer"))
            }
            (minus_one, direct) => format!(
                "{} with 2^(bits-1) - 1 in every field (minus one), {} with 2^(bits-1) (direct): the data contradicts \
                 itself",
                count(minus_one, "layer"),
                count(direct, "layer")
            ),
        }
    }

    fn asymmetric(&self) -> String {
        let layers = match self.asymmetric {
            0 => return "no layer".into(),
            number => count(number, "layer"),
        };
        match self.mean_code_minus_zero {
            Some(mean) => format!(
                "{layers}; the mean of code - zero is {mean:+.3} (near 0 in the right reading, near 1 or -1 in the \
                 wrong one)"
            ),
            None => layers,
        }
    }

    fn dialect(&self) -> String {
        let words = count(self.saturated_words, "word");
        let read = match self.dialect {
            Some(ZeroDialect::FieldWrap) => "each field by itself (--zeros-dialect field)",
            Some(ZeroDialect::WordBorrow) => "the whole word, with borrows (--zeros-dialect word)",
            None => "in no dialect",
        };
        format!("in {words} of qzeros; writers store them differently, and they are read as {read}")
    }
}
