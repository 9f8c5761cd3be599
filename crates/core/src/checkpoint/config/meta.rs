//! Who wrote a checkpoint: the entries of `meta.quantizer` and the order of their versions.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// A program that had a hand in quantizing a checkpoint, as `gptqmodel:7.7.0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Quantizer {
    /// The program, in lower case.
    pub name: String,
    /// Its version, as it is written; `None` where none is.
    pub version: Option<String>,
}

impl Quantizer {
    /// The entries of `meta.quantizer`: one string, or a list of them. Anything else in it is skipped, since
    /// who wrote a file only matters where its zero points are ambiguous.
    pub(crate) fn list(value: &Value) -> Vec<Self> {
        match value {
            Value::Array(entries) => {
                entries.iter().filter_map(|entry| Self::parse(entry.as_str()?)).collect()
            }
            Value::String(entry) => Self::parse(entry).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
        let version = parts.next().filter(|version| !version.is_empty()).map(str::to_owned);
        Some(Self { name, version })
    }

    /// Whether this is `name` in `version` or a later one, in the order of PEP 440. `false` for a version
    /// that cannot be read.
    pub fn is_at_least(&self, name: &str, version: &str) -> bool {
        let ours = self.version.as_deref().and_then(Version::parse);
        self.name == name && ours.zip(Version::parse(version)).is_some_and(|(ours, least)| ours >= least)
    }
}

impl fmt::Display for Quantizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, ":{version}"))
    }
}

/// A version of a Python package. The order of the fields, and of the variants in them, is the order of PEP
/// 440. Its local part (`+cu121`) says how a package was built, not what is in it, and is dropped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    epoch: u64,
    /// Without trailing zeros, so that 0.9 is 0.9.0.
    release: Vec<u64>,
    stage: Stage,
    post: Option<u64>,
    dev: Dev,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// `0.9.0.dev1`: before every pre-release of 0.9.0.
    Development,
    Alpha(u64),
    Beta(u64),
    Candidate(u64),
    Final,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dev {
    Number(u64),
    No,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_prefix('v').unwrap_or(&text);
        let public = text.split('+').next()?;
        let (epoch, public) = match public.split_once('!') {
            Some((epoch, public)) => (epoch.parse().ok()?, public),
            None => (0, public),
        };

        let mut rest = Rest(public);
        let mut release = vec![rest.number()?];
        while let Some(number) = rest.dotted_number() {
            release.push(number);
        }
        while release.last() == Some(&0) {
            release.pop();
        }

        let alpha = |rest: &mut Rest<'_>| rest.suffix(&["alpha", "a"]).map(Stage::Alpha);
        let beta = |rest: &mut Rest<'_>| rest.suffix(&["beta", "b"]).map(Stage::Beta);
        let candidate =
            |rest: &mut Rest<'_>| rest.suffix(&["rc", "c", "preview", "pre"]).map(Stage::Candidate);
        let pre = alpha(&mut rest).or_else(|| beta(&mut rest)).or_else(|| candidate(&mut rest));
        let post = rest.suffix(&["post", "rev", "r"]).or_else(|| rest.dashed_number());
        let dev = rest.suffix(&["dev"]).map_or(Dev::No, Dev::Number);
        let stage = match (pre, post, dev) {
            (Some(stage), _, _) => stage,
            (None, None, Dev::Number(_)) => Stage::Development,
            _ => Stage::Final,
        };
        rest.0.is_empty().then_some(Self { epoch, release, stage, post, dev })
    }
}

/// What is left of a version to read. Every method takes its part, or leaves all where it is.
struct Rest<'t>(&'t str);

impl Rest<'_> {
    fn number(&mut self) -> Option<u64> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at_checked(end)?;
        let number = digits.parse().ok()?;
        self.0 = rest;
        Some(number)
    }

    fn dotted_number(&mut self) -> Option<u64> {
        let mut rest = Rest(self.0.strip_prefix('.')?);
        let number = rest.number()?;
        self.0 = rest.0;
        Some(number)
    }

    /// `-1`, short for `.post1`.
    fn dashed_number(&mut self) -> Option<u64> {
        let mut rest = Rest(self.0.strip_prefix('-')?);
        let number = rest.number()?;
        self.0 = rest.0;
        Some(number)
    }

    /// One of `names` and its number, 0 where it has none, with a separator before either or not.
    fn suffix(&mut self, names: &[&str]) -> Option<u64> {
        const SEPARATORS: [char; 3] = ['.', '-', '_'];
        let unseparated = |text: &'_ str| -> usize { usize::from(text.starts_with(SEPARATORS)) };
        let start = self.0.get(unseparated(self.0)..)?;
        let rest = names.iter().find_map(|name| start.strip_prefix(name))?;
        let mut number = Rest(rest.get(unseparated(rest)..)?);
        match number.number() {
            Some(value) => {
                self.0 = number.0;
                Some(value)
            }
            None => {
                self.0 = rest;
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_stand_in_the_order_of_pep_440() {
        let ascending = [
            "0.8.9",
            "0.9.0.dev0",
            "0.9.0.dev1",
            "0.9.0a0.dev3",
            "0.9.0a1",
            "0.9.0b2",
            "0.9.0rc1.dev4",
            "0.9.0rc1",
            "0.9.0rc1.post2",
            "0.9.0rc10",
            "0.9.0",
            "0.9.0.post1.dev1",
            "0.9.0.post1",
            "0.9.0.1",
            "0.9.1",
            "0.9.11",
            "0.10",
            "1.0.0",
            "7.7.0",
            "10",
            "1!0.1",
        ];
        let parse = |text| Version::parse(text).unwrap_or_else(|| panic!("{text} is a version"));
        for pair in ascending.windows(2) {
            assert!(parse(pair[0]) < parse(pair[1]), "{} comes before {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn spellings_of_one_version_are_equal() {
        for (one, other) in [
            ("0.9.0", "0.9"),
            ("0.9.0", "v0.9.0"),
            ("0.9.0", " 0.9.0 "),
            ("0.9.0", "0.9.0+cu121"),
            ("0.9.0.dev0", "0.9.0-dev"),
            ("0.9.0.dev0", "0.9.0dev"),
            ("0.9.0.dev3", "0.9.0_DEV_3"),
            ("0.9.0a0", "0.9.0-alpha"),
            ("0.9.0b1", "0.9.0.beta-1"),
            ("0.9.0rc1", "0.9.0c1"),
            ("0.9.0rc1", "0.9.0-preview.1"),
            ("0.9.0rc1", "0.9.0pre1"),
            ("0.9.0.post1", "0.9.0-1"),
            ("0.9.0.post1", "0.9.0r1"),
            ("0.9.0.post0", "0.9.0.rev"),
        ] {
            assert_eq!(Version::parse(one), Version::parse(other), "{one} and {other}");
            assert!(Version::parse(one).is_some(), "{one} is a version");
        }
    }

    #[test]
    fn what_is_no_version_is_not_at_least_any() {
        for text in
            ["", "main", "0.9.0-", "0.9.0.", "0.9.x", "0.9 0", "1e9", "99999999999999999999999", "!1", "-1"]
        {
            assert_eq!(Version::parse(text), None, "{text} is no version");
            let quantizer = Quantizer { name: "gptqmodel".into(), version: Some(text.into()) };
            assert!(!quantizer.is_at_least("gptqmodel", "0.9.0"));
        }
    }

    #[test]
    fn the_quantizer_is_a_string_or_a_list_with_or_without_versions() {
        let names =
            |value: Value| Quantizer::list(&value).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(json!("GPTQModel:0.9.11")), ["gptqmodel:0.9.11"]);
        assert_eq!(names(json!(["optimum:2.3.0", "gptqmodel:7.7.0"])), ["optimum:2.3.0", "gptqmodel:7.7.0"]);
        assert_eq!(names(json!("auto_gptq")), ["auto_gptq"]);
        assert_eq!(names(json!("gptqmodel:")), ["gptqmodel"]);
        assert_eq!(names(json!([1, null, "", ":1.0", {"name": "x"}])), [""; 0]);
        assert_eq!(names(json!({"name": "gptqmodel"})), [""; 0]);
    }

    #[test]
    fn a_quantizer_is_at_least_itself_and_no_other_program() {
        let at_least =
            |text: &str| Quantizer::parse(text).is_some_and(|q| q.is_at_least("gptqmodel", "0.9.0"));
        for text in ["gptqmodel:0.9.0", "GPTQModel:0.9.11+cu121", "gptqmodel:7.7.0", "gptqmodel:1.0.0-dev"] {
            assert!(at_least(text), "{text}");
        }
        for text in ["gptqmodel:0.8.5", "gptqmodel:0.9.0.dev1", "gptqmodel:0.9.0rc1", "gptqmodel:0.9.0-dev"] {
            assert!(!at_least(text), "{text} comes before 0.9.0");
        }
        for text in ["gptqmodel", "gptqmodel:main", "optimum:2.3.0", "auto_gptq:0.9.0"] {
            assert!(!at_least(text), "{text}");
        }
    }
}
