//! GPU architectures, as compilers name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A GPU architecture: a compute capability, and whether the code may use what only that one has.
///
/// `80` is compute capability 8.0 and later minor versions. `90a` is 9.0 alone, with what only it has (`wgmma`).
/// `100f` is a family of 10.x. Parses with or without `sm_` or `compute_`; prints bare. Ordered from old to new.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Architecture {
    /// Major times ten plus minor, as compilers count: 75, 90, 120.
    number: u16,
    suffix: Suffix,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Suffix {
    None,
    Family,
    Specific,
}

impl Architecture {
    /// What is built where nothing else is asked, as far as the toolkit knows it.
    pub const DEFAULT: [Self; 7] = [
        Self::new(75, Suffix::None),
        Self::new(80, Suffix::None),
        Self::new(86, Suffix::None),
        Self::new(89, Suffix::None),
        Self::new(90, Suffix::Specific),
        Self::new(100, Suffix::Specific),
        Self::new(120, Suffix::Specific),
    ];

    const fn new(number: u16, suffix: Suffix) -> Self {
        Self { number, suffix }
    }

    /// Whether PTX for it runs on later GPUs: not where it may use what only one architecture has.
    pub fn is_portable(self) -> bool {
        self.suffix == Suffix::None
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.suffix {
            Suffix::None => "",
            Suffix::Family => "f",
            Suffix::Specific => "a",
        };
        write!(f, "{}{suffix}", self.number)
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.trim();
        let bare = bare.strip_prefix("sm_").or_else(|| bare.strip_prefix("compute_")).unwrap_or(bare);
        let (digits, suffix) = match bare.strip_suffix('a') {
            Some(digits) => (digits, Suffix::Specific),
            None => match bare.strip_suffix('f') {
                Some(digits) => (digits, Suffix::Family),
                None => (bare, Suffix::None),
            },
        };
        match digits.parse() {
            Ok(number) if digits.bytes().all(|b| b.is_ascii_digit()) && number >= 10 => {
                Ok(Self { number, suffix })
            }
            _ => Err(format!("`{text}` is not a GPU architecture; write 80, 90a or sm_90a")),
        }
    }
}

impl Serialize for Architecture {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Architecture {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_parses_from_every_way_it_is_written() {
        for text in ["90a", "sm_90a", "compute_90a", " 90a "] {
            assert_eq!(text.parse::<Architecture>().unwrap().to_string(), "90a", "{text}");
        }
        for wrong in ["", "a", "9", "sm_", "+80", "90b", "native", "sm-80", "99999999"] {
            assert!(wrong.parse::<Architecture>().is_err(), "`{wrong}` is none");
        }
    }

    #[test]
    fn architectures_are_ordered_from_old_to_new() {
        let parse = |text: &str| text.parse::<Architecture>().unwrap();
        assert!(parse("86") < parse("90a") && parse("90a") < parse("100") && parse("90") < parse("90a"));
        assert!(Architecture::DEFAULT.is_sorted());
    }
}
