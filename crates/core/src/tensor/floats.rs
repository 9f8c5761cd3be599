//! Values that own a share of where they lie.

use std::ops::Range;

use super::{DType, Element, bf16, f16};
use crate::shared::Shared;

/// Floating-point values that own a share of where they lie: the scales or the bias of a layer.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "one variant for each DType")]
pub enum Floats {
    /// IEEE binary32.
    F32(Shared<f32>),
    /// IEEE binary16.
    F16(Shared<f16>),
    /// The upper half of binary32.
    BF16(Shared<bf16>),
}

impl Floats {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::BF16(_) => DType::BF16,
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::BF16(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of `range`, widened to f32, into `out`, which is as long. Values outside leave `out` as it is.
    pub fn read(&self, range: Range<usize>, out: &mut [f32]) {
        fn widen<T: Element>(from: Option<&[T]>, to: &mut [f32]) {
            for (to, from) in to.iter_mut().zip(from.unwrap_or_default()) {
                *to = from.widen();
            }
        }
        match self {
            Self::F32(values) => widen(values.get(range), out),
            Self::F16(values) => widen(values.get(range), out),
            Self::BF16(values) => widen(values.get(range), out),
        }
    }

    /// How large the values are, and how many are not numbers. One pass over their bits.
    pub fn survey(&self) -> FloatSurvey {
        // Without its sign, a float orders as the integer of the same bits, and everything from infinity on is not
        // finite. Nearly always nothing is: the first pass is a plain maximum, which vectorizes.
        fn fold<I: Copy + Ord + Default>(bits: impl Iterator<Item = I> + Clone, infinity: I) -> (usize, I) {
            let largest = bits.clone().fold(I::default(), I::max);
            if largest < infinity {
                return (0, largest);
            }
            let finite = bits.clone().filter(|&bits| bits < infinity);
            (bits.filter(|&bits| bits >= infinity).count(), finite.fold(I::default(), I::max))
        }
        let (non_finite, largest) = match self {
            Self::F32(values) => {
                let (count, bits) = fold(values.iter().map(|v| v.abs().to_bits()), f32::INFINITY.to_bits());
                (count, f32::from_bits(bits))
            }
            Self::F16(values) => {
                let (count, bits) =
                    fold(values.iter().map(|v| v.to_bits() & 0x7FFF), f16::INFINITY.to_bits());
                (count, f16::from_bits(bits).to_f32())
            }
            Self::BF16(values) => {
                let (count, bits) =
                    fold(values.iter().map(|v| v.to_bits() & 0x7FFF), bf16::INFINITY.to_bits());
                (count, bf16::from_bits(bits).to_f32())
            }
        };
        FloatSurvey { non_finite, largest }
    }

    /// The values as native-endian bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => values.as_bytes(),
            Self::F16(values) => values.as_bytes(),
            Self::BF16(values) => values.as_bytes(),
        }
    }

    /// How many bytes lie in memory that is not a mapped file.
    pub fn resident_bytes(&self) -> usize {
        match self {
            Self::F32(values) => values.resident_bytes(),
            Self::F16(values) => values.resident_bytes(),
            Self::BF16(values) => values.resident_bytes(),
        }
    }
}

/// How large some values are.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct FloatSurvey {
    /// How many are infinite or not a number.
    pub non_finite: usize,
    /// The largest magnitude of the others.
    pub largest: f32,
}

impl From<Vec<f32>> for Floats {
    fn from(values: Vec<f32>) -> Self {
        Self::F32(values.into())
    }
}

impl From<Vec<f16>> for Floats {
    fn from(values: Vec<f16>) -> Self {
        Self::F16(values.into())
    }
}

impl From<Vec<bf16>> for Floats {
    fn from(values: Vec<bf16>) -> Self {
        Self::BF16(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survey_counts_what_is_not_finite_and_finds_the_largest_of_the_rest() {
        let values = [1.0, -3.0, f32::NAN, f32::NEG_INFINITY, 2.0, -f32::NAN];
        let expected = FloatSurvey { non_finite: 3, largest: 3.0 };
        assert_eq!(Floats::from(values.to_vec()).survey(), expected);
        assert_eq!(Floats::from(values.map(f16::from_f32).to_vec()).survey(), expected);
        assert_eq!(Floats::from(values.map(bf16::from_f32).to_vec()).survey(), expected);
        assert_eq!(Floats::from(Vec::<f32>::new()).survey(), FloatSurvey::default());
    }
}
