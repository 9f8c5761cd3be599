//! What the processor has.

use std::fmt;
use std::str::FromStr;

use gptq_core::tensor::DType;

use super::Family;

/// A set of kernels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Isa {
    /// No vector instructions beyond what the compiler takes for granted.
    Plain,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VBMI and VNNI; BF16 too where the processor has it.
    Avx512,
}

/// The most rows of x in bf16 for which codes of so many bits are multiplied as bytes. Those of 8 bits are multiplied as
/// they stand in the words, and would have to be put together for pairs; of 2 and 3 bits a word holds so many that unpacking
/// takes longer than reading, and four at once are unpacked in less than two by two.
#[cfg(target_arch = "x86_64")]
const fn rows_of_bytes(bits: usize) -> usize {
    match bits {
        8 => 8,
        2 | 3 => 1,
        _ => 0,
    }
}

impl Isa {
    /// The best that this processor has.
    pub(crate) fn detect() -> Self {
        [Self::Avx512, Self::Avx2].into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Plain)
    }

    /// Whether this processor has it.
    pub(crate) fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Plain => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512vnni")
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Plain
        }
    }

    /// The kernels for `rows` rows of x of a dtype with codes of `bits` bits (0 for a format that is read by its pieces).
    /// `None` where there are none but the plain ones, or the processor has not what they need.
    pub(crate) fn families(self, x: DType, bits: usize, rows: usize) -> Option<Families> {
        if !self.is_available() {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        {
            use super::avx2::FLOATS;
            use super::avx512::{BYTES, PAIRS};
            let bf16 = is_x86_feature_detected!("avx512bf16");
            match self {
                Self::Plain => None,
                Self::Avx2 => Some(Families { first: &FLOATS, otherwise: &FLOATS }),
                Self::Avx512 if x == DType::BF16 && bf16 && rows > rows_of_bytes(bits) => {
                    Some(Families { first: &PAIRS, otherwise: &PAIRS })
                }
                Self::Avx512 => Some(Families { first: &BYTES, otherwise: &FLOATS }),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (x, bits, rows);
            None
        }
    }
}

/// How a call is multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Families {
    /// What is fastest.
    pub(crate) first: &'static Family,
    /// What takes x that the first cannot pack.
    pub(crate) otherwise: &'static Family,
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

impl FromStr for Isa {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Plain, Self::Avx2, Self::Avx512].into_iter().find(|isa| isa.to_string() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_set_parses_from_what_it_prints() {
        for isa in [Isa::Plain, Isa::Avx2, Isa::Avx512] {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
    }

    #[test]
    fn the_detected_set_is_one_that_the_processor_has() {
        assert!(Isa::detect().is_available());
        assert!(Isa::Plain.is_available());
    }
}
