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
    /// What is built where nothing else is asked, as far as the toolkit knows it. Later GPUs take PTX: many kernels spill where
    /// they are compiled for 100 and 120, which fails a build.
    pub const DEFAULT: [Self; 5] = [
        Self::new(75, Suffix::None),
        Self::new(80, Suffix::None),
        Self::new(86, Suffix::None),
        Self::new(89, Suffix::None),
        Self::new(90, Suffix::Specific),
    ];

    const fn new(number: u16, suffix: Suffix) -> Self {
        Self { number, suffix }
    }

    /// Whether PTX for it runs on later GPUs: not where it may use what only one architecture has.
    pub fn is_portable(self) -> bool {
        self.suffix == Suffix::None
    }

    /// The architecture whose PTX goes beside machine code for `built`: the newest that leaves out no GPU which is as new as
    /// the oldest of them. What later GPUs can do is in newer PTX alone. `known` has the GPUs that there are.
    pub(crate) fn for_ptx(built: &[Self], known: &[Self]) -> Option<Self> {
        let oldest = built.iter().min()?;
        let reaches_all = |ptx: &Self| {
            let mut before = known.iter().filter(|gpu| (oldest.number..ptx.number).contains(&gpu.number));
            before.all(|gpu| built.iter().any(|code| code.runs_on(gpu.number)))
        };
        built.iter().copied().filter(|ptx| ptx.is_portable() && reaches_all(ptx)).max()
    }

    /// Whether machine code for it runs on a GPU.
    fn runs_on(self, gpu: u16) -> bool {
        match self.suffix {
            Suffix::Specific => self.number == gpu,
            Suffix::None | Suffix::Family => self.number <= gpu && self.number / 10 == gpu / 10,
        }
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
    fn ptx_is_the_newest_that_leaves_out_no_gpu() {
        let parse = |text: &str| -> Vec<Architecture> {
            text.split(' ').map(|word| word.parse::<Architecture>().unwrap()).collect()
        };
        let known = parse("75 80 86 87 88 89 90 90a 100 100a 103 110 120 120a 121");
        let default = Architecture::DEFAULT;
        let of_default = Architecture::for_ptx(&default, &known);
        assert_eq!(of_default, parse("89").first().copied(), "every GPU before it has machine code");
        for (built, ptx, why) in [
            ("80 90a", Some("80"), "the only one that leaves its architecture"),
            ("75 80", Some("80"), "7.5 has machine code, and 8.0 and later have what needs it"),
            ("75 80 90", Some("90"), "every GPU before it has machine code"),
            ("75 80 86 89 90a 100 120", Some("100"), "11.0 has no machine code"),
            ("75 86", Some("75"), "8.0 has no machine code"),
            ("80 120", Some("80"), "nor have 9.0, 10.0 and 11.0"),
            ("90a 100", Some("100"), "nothing is between them"),
            ("90a 120", None, "10.0 is, and 90a leaves no PTX"),
            ("90a", None, "PTX of a variant runs nowhere else"),
            ("90", Some("90"), "one alone"),
        ] {
            let found = Architecture::for_ptx(&parse(built), &known).map(|ptx| ptx.to_string());
            assert_eq!(found.as_deref(), ptx, "{built}: {why}");
        }
        assert_eq!(Architecture::for_ptx(&[], &known), None);
    }

    #[test]
    fn architectures_are_ordered_from_old_to_new() {
        let parse = |text: &str| text.parse::<Architecture>().unwrap();
        assert!(parse("86") < parse("90a") && parse("90a") < parse("100") && parse("90") < parse("90a"));
        assert!(Architecture::DEFAULT.is_sorted());
    }
}
