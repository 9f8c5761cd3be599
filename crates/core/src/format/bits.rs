//! The three numbers that fix how a matrix is packed: bits, group size, and the order of bits in a word.

use std::fmt;
use std::num::NonZeroUsize;

use serde::{Serialize, Serializer};

/// The width of a weight code: 2 to 8 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(u8);

impl Bits {
    /// 2 bits.
    pub const TWO: Self = Self(2);
    /// 3 bits.
    pub const THREE: Self = Self(3);
    /// 4 bits.
    pub const FOUR: Self = Self(4);
    /// 8 bits.
    pub const EIGHT: Self = Self(8);
    /// Every width there is, narrowest first.
    pub const ALL: [Self; 7] = [Self(2), Self(3), Self(4), Self(5), Self(6), Self(7), Self(8)];

    /// The width of `bits`, or `None` unless it is 2 to 8.
    pub const fn new(bits: u64) -> Option<Self> {
        match bits {
            2 => Some(Self(2)),
            3 => Some(Self(3)),
            4 => Some(Self(4)),
            5 => Some(Self(5)),
            6 => Some(Self(6)),
            7 => Some(Self(7)),
            8 => Some(Self(8)),
            _ => None,
        }
    }

    /// The width as a number.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The largest code, `2^bits − 1`; also the mask of one field.
    pub const fn max_code(self) -> u32 {
        (1 << self.0) - 1
    }

    /// The zero point of a symmetric layer, `2^(bits − 1)`.
    pub const fn symmetric_zero(self) -> u32 {
        1 << (self.0 - 1)
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits", self.0)
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

/// How many consecutive rows share a scale and a zero point.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupSize {
    /// All rows of a column: one group. Written as −1.
    PerColumn,
    /// This many rows. The last group of a matrix may be shorter.
    Rows(NonZeroUsize),
}

impl GroupSize {
    /// Reads the signed number of a configuration file: −1, or a positive number of rows.
    pub fn from_config(value: i64) -> Option<Self> {
        match value {
            -1 => Some(Self::PerColumn),
            _ => NonZeroUsize::new(usize::try_from(value).ok()?).map(Self::Rows),
        }
    }

    /// The signed number that a configuration file holds.
    pub fn to_config(self) -> i64 {
        match self {
            Self::PerColumn => -1,
            Self::Rows(rows) => i64::try_from(rows.get()).unwrap_or(i64::MAX),
        }
    }

    /// Rows of a full group in a matrix with `in_features` rows; at least 1.
    pub fn rows(self, in_features: usize) -> usize {
        match self {
            Self::PerColumn => in_features.max(1),
            Self::Rows(rows) => rows.get(),
        }
    }

    /// How many groups a matrix with `in_features` rows has.
    pub fn groups(self, in_features: usize) -> usize {
        in_features.div_ceil(self.rows(in_features))
    }
}

impl fmt::Display for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_config(), f)
    }
}

impl fmt::Debug for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group size {self}")
    }
}

impl Serialize for GroupSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.to_config())
    }
}

/// The order in which the bits of 32 consecutive codes fill `bits` words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// One code after another, lowest bits first; a code may straddle two words (3 bits). Formats `gptq` and
    /// `gptq_v2`.
    Continuous,
    /// Codes split into bit planes whose widths divide 32; all words of the low plane come first. Format
    /// `gptq_p`. For 2, 4 and 8 bits the same as [`Packing::Continuous`].
    Planar,
}

impl Packing {
    /// Whether files hold codes of this width in this order: 2, 3, 4 and 8 bits continuous, every width planar.
    pub const fn supports(self, bits: Bits) -> bool {
        matches!((self, bits.get()), (Self::Planar, _) | (Self::Continuous, 2 | 3 | 4 | 8))
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Continuous => "continuous",
            Self::Planar => "planar",
        })
    }
}
