//! Layers made for tests: what they are, and the values in them.

use std::fmt;
use std::sync::Arc;

use gptq_core::format::{Bits, GroupSize, Packing, ZeroDialect, ZeroEncoding};
use gptq_core::tensor::{DType, Floats};
use gptq_core::{Part, QuantLinear, QuantLinearParts, Result};

use crate::element::{self, round};
use crate::layout;
use crate::random::SplitMix64;

/// What kind of `g_idx` a layer is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "these are the kinds that files hold")]
pub enum GIdx {
    /// No tensor.
    Absent,
    /// `g_idx[k] = k / group_size`, of several groups.
    Trivial,
    /// Zeros where there are several groups: what old writers leave. Groups are consecutive.
    AllZero,
    /// Zeros where there is one group.
    SingleGroup,
    /// The trivial index in random order: every group has as many rows as before.
    ActOrder,
    /// Act-order in which the first group has rows that others lack.
    RaggedActOrder,
}

impl GIdx {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Absent, Self::Trivial, Self::AllZero, Self::SingleGroup, Self::ActOrder, Self::RaggedActOrder];
}

impl fmt::Display for GIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Trivial => "trivial",
            Self::AllZero => "all zero",
            Self::SingleGroup => "of a single group",
            Self::ActOrder => "in act-order",
            Self::RaggedActOrder => "in ragged act-order",
        })
    }
}

/// What a layer is: everything that decides how its tensors look, and the seed of the values in them.
///
/// Two cases that differ only in `zero_encoding`, in `bias`, or in a kind of `g_idx` that changes no row's group hold
/// the same codes, zero points and scales.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal that ends in ..Case::PLAIN")]
pub struct Case {
    /// The width of a code.
    pub bits: Bits,
    /// The order of bits in the packed words.
    pub packing: Packing,
    /// Rows that share a scale.
    pub group_size: GroupSize,
    /// Whether every zero point is `2^(bits − 1)`. Otherwise they are anything, with 0, the largest code and 1 side
    /// by side in every group.
    pub sym: bool,
    /// The kind of `g_idx`.
    pub g_idx: GIdx,
    /// K.
    pub in_features: usize,
    /// N.
    pub out_features: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// The type of the scales and of the bias.
    pub scale_dtype: DType,
    /// How zero points are stored.
    pub zero_encoding: ZeroEncoding,
    /// The seed of the values.
    pub seed: u64,
}

impl Case {
    /// 8 bits, one group for each column, symmetric, `[64, 64]`, no g_idx, no bias, f16 scales, direct zeros.
    pub const PLAIN: Self = Self {
        bits: Bits::ALL[6],
        packing: Packing::Continuous,
        group_size: GroupSize::PerColumn,
        sym: true,
        g_idx: GIdx::Absent,
        in_features: 64,
        out_features: 64,
        bias: false,
        scale_dtype: DType::F16,
        zero_encoding: ZeroEncoding::V2,
        seed: 0,
    };

    /// G: how many groups there are.
    pub fn groups(&self) -> usize {
        self.group_size.groups(self.in_features)
    }

    /// Whether the last group has fewer rows than the others.
    pub fn short_last_group(&self) -> bool {
        let rows = self.group_size.rows(self.in_features);
        self.groups() > 1 && !self.in_features.is_multiple_of(rows)
    }

    /// Whether files can hold such a layer, so that it reads back as this case and as no other.
    pub fn is_legal(&self) -> bool {
        let Self { bits, packing, in_features: k, out_features: n, .. } = *self;
        let whole_blocks = k.is_multiple_of(32) && n.is_multiple_of(32);
        let packed = match packing {
            Packing::Continuous => matches!(bits.get(), 2 | 3 | 4 | 8),
            // The planar format has direct zeros only.
            Packing::Planar => whole_blocks && self.zero_encoding == ZeroEncoding::V2,
        };
        let index = match self.g_idx {
            // Without an index, K is as many codes as the words hold.
            GIdx::Absent => (k * bits.get()).div_ceil(32) * 32 / bits.get() == k,
            GIdx::SingleGroup => self.groups() == 1,
            GIdx::Trivial | GIdx::AllZero | GIdx::ActOrder | GIdx::RaggedActOrder => self.groups() > 1,
        };
        k > 0 && n > 0 && packed && index
    }

    /// Makes the layer and keeps what is in it.
    ///
    /// # Errors
    /// As [`QuantLinear::new`], where the case [is not legal](Self::is_legal).
    pub fn build(&self, name: &str) -> Result<Built> {
        let values = Values::generate(self);
        let layer = values.pack(self, name)?;
        Ok(Built { case: *self, layer, values })
    }

    /// A layer of the same kind whose codes are random bits, made about as fast as memory is written: for shapes of
    /// real models, where [`Case::build`] takes minutes. What is in it is read back with
    /// [`Dense::of_layer`](crate::oracle::Dense::of_layer).
    ///
    /// # Errors
    /// As [`Case::build`].
    pub fn noise(&self, name: &str) -> Result<QuantLinear> {
        let mut values = Values::outline(self);
        values.fill_scales_and_bias(self);
        let mut random = SplitMix64::new(self.seed, "noise");
        let words = (self.in_features * self.bits.get()).div_ceil(32) * self.out_features;
        let mut qweight = Vec::with_capacity(words + 1);
        while qweight.len() < words {
            let [a, b, c, d, e, f, g, h] = random.bits().to_le_bytes();
            qweight.extend([u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]);
        }
        qweight.truncate(words);
        values.assemble(self, name, qweight)
    }

    /// A layer of the same kind with nothing in its weights: enough to ask who would run it, at a fraction of the
    /// cost.
    ///
    /// # Errors
    /// As [`Case::build`].
    pub fn outline(&self) -> Result<QuantLinear> {
        Values::outline(self).pack(self, "outline")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bits, packing, group_size, g_idx, in_features, out_features, scale_dtype, .. } = self;
        let sym = if self.sym { "symmetric" } else { "asymmetric" };
        let bias = if self.bias { "with bias" } else { "no bias" };
        write!(
            f,
            "{bits} bits {packing}, group size {group_size}, {sym}, g_idx {g_idx}, K = {in_features}, \
             N = {out_features}, {bias}, scales {scale_dtype}, zeros {}, seed {}",
            self.zero_encoding, self.seed
        )
    }
}

/// A layer made for a test, and what is in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Built {
    /// What it is.
    pub case: Case,
    /// The packed layer.
    pub layer: QuantLinear,
    /// What was packed.
    pub values: Values,
}

/// What is in a layer, before anything is packed or encoded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Values {
    /// `[K, N]`.
    pub codes: Vec<u8>,
    /// `[G, N]`.
    pub zeros: Vec<u8>,
    /// `[G, N]`, each a value of the scales' type.
    pub scales: Vec<f64>,
    /// `[K]`: the group of each row.
    pub groups_of_rows: Vec<usize>,
    /// `[N]`, each a value of the bias' type.
    pub bias: Option<Vec<f64>>,
    /// N.
    pub out_features: usize,
}

impl Values {
    /// Weights roughly centred on zero, scales from 0.005 to 0.02, a bias of the outputs' size.
    fn generate(case: &Case) -> Self {
        let mut values = Self::outline(case);
        let (n, max) = (case.out_features, case.bits.max_code());

        let mut random = SplitMix64::new(case.seed, "codes");
        let full = f64::from(max) + 1.0;
        for (codes, group) in values.codes.chunks_exact_mut(n).zip(&values.groups_of_rows) {
            for (code, zero) in codes.iter_mut().zip(&values.zeros[group * n..]) {
                // Mostly near the zero point, one in eight anywhere.
                let spread = match random.below(8) {
                    0 => f64::from(*zero) + (random.unit() - 0.5) * 2.0 * full,
                    _ => f64::from(*zero) + (random.unit() + random.unit() - 1.0) * full * 0.5,
                };
                *code = code_of(spread, max);
            }
        }
        values.fill_scales_and_bias(case);
        values
    }

    fn fill_scales_and_bias(&mut self, case: &Case) {
        let mut random = SplitMix64::new(case.seed, "scales");
        for scale in &mut self.scales {
            *scale = round(case.scale_dtype, 0.005 + 0.015 * random.unit());
        }
        let mut random = SplitMix64::new(case.seed, "bias");
        if let Some(bias) = &mut self.bias {
            bias.fill_with(|| round(case.scale_dtype, random.normal()));
        }
    }

    /// Zero points and groups; codes and bias are 0, scales are 1.
    fn outline(case: &Case) -> Self {
        let (k, n, groups) = (case.in_features, case.out_features, case.groups());
        let max = case.bits.max_code();
        let mut random = SplitMix64::new(case.seed, "zeros");
        let mut zeros = vec![1 << (case.bits.get() - 1); groups * n];
        if !case.sym {
            for (group, zeros) in zeros.chunks_exact_mut(n).enumerate() {
                zeros.fill_with(|| code_of(random.unit() * (f64::from(max) + 1.0) - 0.5, max));
                // What the dialects of v1 disagree on: a zero of 0 borrows from the field above it.
                for (offset, zero) in [0, max, 0, 0, 1].into_iter().enumerate() {
                    zeros[(5 * group + offset) % n] = code_of(zero.into(), max);
                }
            }
        }
        Self {
            codes: vec![0; k * n],
            zeros,
            scales: vec![1.0; groups * n],
            groups_of_rows: groups_of_rows(case),
            bias: case.bias.then(|| vec![0.0; n]),
            out_features: n,
        }
    }

    fn pack(&self, case: &Case, name: &str) -> Result<QuantLinear> {
        let Case { bits, packing, in_features: k, out_features: n, .. } = *case;
        let word_rows = (k * bits.get()).div_ceil(32);
        let mut qweight = vec![0u32; word_rows * n];
        if self.codes.iter().any(|&code| code != 0) {
            for column in 0..n {
                let codes: Vec<u8> = self.codes.iter().skip(column).step_by(n).copied().collect();
                for (row, word) in layout::pack(bits, packing, &codes).into_iter().enumerate() {
                    qweight[row * n + column] = word;
                }
            }
        }
        self.assemble(case, name, qweight)
    }

    fn assemble(&self, case: &Case, name: &str, qweight: Vec<u32>) -> Result<QuantLinear> {
        let Case { bits, packing, in_features: k, out_features: n, .. } = *case;
        let word_rows = (k * bits.get()).div_ceil(32);
        let zero_words = (n * bits.get()).div_ceil(32);
        let qzeros: Vec<u32> =
            self.zeros.chunks_exact(n).flat_map(|zeros| encode_zeros(case, zeros)).collect();
        let g_idx = match case.g_idx {
            GIdx::Absent => None,
            GIdx::AllZero => Some(vec![0; k]),
            _ => Some(
                self.groups_of_rows.iter().map(|&group| i32::try_from(group).unwrap_or(i32::MAX)).collect(),
            ),
        };
        QuantLinear::new(QuantLinearParts {
            name: Arc::from(name),
            bits,
            packing,
            group_size: case.group_size,
            zero_encoding: case.zero_encoding,
            qweight: Part::in_memory(vec![word_rows, n], qweight.into()),
            qzeros: Part::in_memory(vec![case.groups(), zero_words], qzeros.into()),
            scales: Part::in_memory(vec![case.groups(), n], floats(case.scale_dtype, &self.scales)),
            g_idx: g_idx.map(|rows| Part::in_memory(vec![k], rows.into())),
            bias: self.bias.as_ref().map(|bias| Part::in_memory(vec![n], floats(case.scale_dtype, bias))),
        })
    }
}

/// The packed zero points of one group, in the encoding of the case.
fn encode_zeros(case: &Case, zeros: &[u8]) -> Vec<u32> {
    let Case { bits, packing, .. } = *case;
    let max = bits.max_code();
    // Whole words are borrowed from only at the widths that divide 32; the same writer works per field elsewhere.
    let whole_words = matches!(bits.get(), 2 | 4 | 8);
    match case.zero_encoding {
        ZeroEncoding::V2 => layout::pack(bits, packing, zeros),
        ZeroEncoding::V1(ZeroDialect::WordBorrow) if whole_words => {
            let ones = (0..32).step_by(bits.get()).fold(0, |ones, shift| ones | 1u32 << shift);
            layout::pack(bits, packing, zeros).into_iter().map(|word| word.wrapping_sub(ones)).collect()
        }
        ZeroEncoding::V1(_) => {
            let mask = max.to_le_bytes()[0];
            let less: Vec<u8> = zeros.iter().map(|zero| zero.wrapping_sub(1) & mask).collect();
            layout::pack(bits, packing, &less)
        }
    }
}

/// The group of each row, as the case's `g_idx` means it.
fn groups_of_rows(case: &Case) -> Vec<usize> {
    let rows = case.group_size.rows(case.in_features);
    let mut groups: Vec<usize> = (0..case.in_features).map(|k| k / rows).collect();
    if matches!(case.g_idx, GIdx::ActOrder | GIdx::RaggedActOrder) {
        SplitMix64::new(case.seed, "g_idx").shuffle(&mut groups);
    }
    if case.g_idx == GIdx::RaggedActOrder {
        groups.iter_mut().filter(|group| **group != 0).take(3).for_each(|group| *group = 0);
    }
    groups
}

/// The code nearest to a number.
#[expect(clippy::cast_possible_truncation, reason = "the number is clamped to what a code can be")]
fn code_of(number: f64, max: u32) -> u8 {
    number.round().clamp(0.0, f64::from(max)) as u8
}

fn floats(dtype: DType, values: &[f64]) -> Floats {
    match dtype {
        DType::F32 => values.iter().map(|&value| element::to_f32(value)).collect::<Vec<_>>().into(),
        DType::F16 => values.iter().map(|&value| element::to_f16(value)).collect::<Vec<_>>().into(),
        DType::BF16 => values.iter().map(|&value| element::to_bf16(value)).collect::<Vec<_>>().into(),
    }
}
