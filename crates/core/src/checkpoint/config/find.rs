//! Finding a checkpoint's configuration files, and where they contradict each other.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::keys::{Entry, shorten};
use super::{ConfigSource, QuantizeConfig};
use crate::checkpoint::json_file;
use crate::error::{Error, Result};

/// The places that are searched, first the one that GPTQModel and AutoGPTQ believe.
const PLACES: [(&str, Option<&str>); 3] = [
    ("quantize_config.json", None),
    ("quant_config.json", None),
    ("config.json", Some("quantization_config")),
];

/// Every configuration of a checkpoint.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Configs {
    /// The first that was found.
    pub primary: QuantizeConfig,
    /// The others, in the order in which they are searched.
    pub others: Vec<QuantizeConfig>,
    /// Where one of the others contradicts the primary. Nothing here settles it: for `format`, the data does.
    pub disagreements: Vec<Disagreement>,
}

/// Two configurations of one checkpoint that differ in what a key says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Disagreement {
    /// The key: one of `bits`, `group_size`, `format`, `sym`, `desc_act`, `lm_head`, `dynamic`.
    pub key: &'static str,
    /// What the primary says.
    pub first: Claim,
    /// What the other says.
    pub second: Claim,
}

/// What one configuration says of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Claim {
    /// The configuration.
    pub source: ConfigSource,
    /// The value, as a file would hold it; long ones are cut short.
    pub value: String,
    /// Whether the file gives the key. Otherwise the value is the default.
    pub given: bool,
}

impl QuantizeConfig {
    /// Reads all configurations of the checkpoint in `dir`: `quantize_config.json`, `quant_config.json`, and
    /// `config.json` where it has a `quantization_config`.
    ///
    /// # Errors
    ///
    /// [`ConfigMissing`](Error::ConfigMissing) where there is none, [`Io`](Error::Io) where a file cannot be
    /// read, [`ConfigSyntax`](Error::ConfigSyntax) where one is not JSON, and those of
    /// [`from_json`](QuantizeConfig::from_json). A file that cannot be read or parsed is an error even where
    /// another place has a good one: whether they agree would be unknown.
    pub fn find(dir: &Path) -> Result<Configs> {
        let mut found = Vec::new();
        for (name, key) in PLACES {
            let path = dir.join(name);
            let Some(file) = json_file(&path)? else { continue };
            let whole = ConfigSource::file(&path);
            match key {
                None => found.push(Self::from_json(&file, whole)?),
                Some(key) => {
                    Entry::root(&file, &whole).object()?;
                    if let Some(value) = file.get(key).filter(|value| !value.is_null()) {
                        found.push(Self::from_json(value, ConfigSource::key_of(&path, key))?);
                    }
                }
            }
        }
        let mut found = found.into_iter();
        let Some(primary) = found.next() else { return Err(missing(dir)) };
        let others: Vec<_> = found.collect();
        let disagreements = others.iter().flat_map(|other| disagreements(&primary, other)).collect();
        Ok(Configs { primary, others, disagreements })
    }

    /// The keys that two configurations of one checkpoint must agree on, and their values.
    fn claims(&self) -> [(&'static str, String); 7] {
        [
            ("bits", self.bits.to_string()),
            ("group_size", self.group_size.to_string()),
            ("format", self.format.to_string()),
            ("sym", self.sym.to_string()),
            ("desc_act", self.desc_act.unwrap_or(false).to_string()),
            ("lm_head", self.lm_head.to_string()),
            ("dynamic", serde_json::to_string(&self.dynamic).unwrap_or_default()),
        ]
    }
}

fn disagreements(first: &QuantizeConfig, second: &QuantizeConfig) -> Vec<Disagreement> {
    let claim = |config: &QuantizeConfig, key, value: &str| Claim {
        source: config.source.clone(),
        value: shorten(value),
        given: config.gives(key),
    };
    let pairs = first.claims().into_iter().zip(second.claims());
    let differ = pairs.filter(|((_, one), (_, other))| one != other);
    differ
        .map(|((key, one), (_, other))| Disagreement {
            key,
            first: claim(first, key, &one),
            second: claim(second, key, &other),
        })
        .collect()
}

impl Configs {
    /// The primary and the others.
    pub fn iter(&self) -> impl Iterator<Item = &QuantizeConfig> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    /// Where the files contradict each other about `key`.
    pub fn disagreements_on(&self, key: &str) -> impl Iterator<Item = &Disagreement> {
        self.disagreements.iter().filter(move |disagreement| disagreement.key == key)
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}, {}", self.key, self.first, self.second)
    }
}

/// `quantize_config.json says gptq`.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.source, if self.given { "says" } else { "leaves the default" }, self.value)
    }
}

fn missing(dir: &Path) -> Error {
    // A directory that is not there has no missing files.
    if let Err(source) = std::fs::metadata(dir) {
        return Error::Io { path: dir.to_owned(), action: "open", source };
    }
    let places = PLACES.map(|(name, key)| match key {
        Some(key) => format!("`{key}` in {name}"),
        None => name.to_owned(),
    });
    Error::ConfigMissing { dir: dir.to_owned(), looked_for: places.join(", ") }
}

/// The text as JSON, read over numbers that only Python writes.
pub(crate) fn read_json(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text)
        .or_else(|error| serde_json::from_slice(&without_non_finite(text)).map_err(|_| error))
}

/// The text with `null` where Python wrote a number that JSON has not: `config.json` of state-space models
/// holds limits of `Infinity`.
fn without_non_finite(text: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut clean = Vec::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some((&byte, after)) = rest.split_first() {
        let word = WORDS.into_iter().find(|word| !quoted && rest.starts_with(word));
        let taken = match (byte, word) {
            (_, Some(word)) => word.len(),
            (b'\\', None) if quoted && !after.is_empty() => 2,
            (b'"', None) => {
                quoted = !quoted;
                1
            }
            _ => 1,
        };
        let (part, left) = rest.split_at_checked(taken).unwrap_or((rest, &[]));
        clean.extend_from_slice(if word.is_some() { b"null" } else { part });
        rest = left;
    }
    clean
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::format::Bits;

    /// A directory with these files.
    fn checkpoint(files: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new().expect("a directory");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("written");
        }
        dir
    }

    fn find(files: &[(&str, &str)]) -> Result<Configs> {
        QuantizeConfig::find(checkpoint(files).path())
    }

    const THREE: [(&str, &str); 3] = [
        ("config.json", r#"{"quantization_config": {"bits": 8}}"#),
        ("quantize_config.json", r#"{"bits": 4}"#),
        ("quant_config.json", r#"{"bits": 2}"#),
    ];

    #[test]
    fn places_are_searched_in_the_order_of_gptqmodel() {
        let configs = find(&THREE).expect("three configs");
        let bits: Vec<_> = configs.iter().map(|config| config.bits.get()).collect();
        assert_eq!(bits, [4, 2, 8]);
        let sources: Vec<_> = configs.iter().map(|config| config.source.to_string()).collect();
        let expected = ["quantize_config.json", "quant_config.json", r#"config.json["quantization_config"]"#];
        assert_eq!(sources, expected);
        for (name, text) in THREE {
            let configs = find(&[(name, text)]).expect("one config");
            assert!(configs.others.is_empty() && configs.disagreements.is_empty(), "{name}");
        }
    }

    #[test]
    fn no_configuration_is_an_error_that_names_the_places() {
        for files in [
            &[][..],
            &[("config.json", r#"{"model_type": "llama"}"#)],
            &[("config.json", r#"{"quantization_config": null}"#)],
        ] {
            match find(files) {
                Err(Error::ConfigMissing { looked_for, .. }) => {
                    assert!(THREE.iter().all(|(name, _)| looked_for.contains(name)), "{looked_for}");
                }
                other => panic!("{files:?} gave {other:?}"),
            }
        }
        let gone = QuantizeConfig::find(Path::new("/nowhere/at/all"));
        assert!(matches!(gone, Err(Error::Io { action: "open", .. })), "gave {gone:?}");
    }

    #[test]
    fn a_file_that_is_not_json_is_a_syntax_error_even_beside_a_good_one() {
        let deep = "[".repeat(100_000);
        for text in
            ["", "{", "bits: 4", "{\"bits\": 4,}", "{\"bits\": 1e999}", "{\"bits\": 04}", &deep, "\u{feff}{}"]
        {
            for name in ["quantize_config.json", "quant_config.json", "config.json"] {
                let mut files = THREE.to_vec();
                files.retain(|(other, _)| *other != name);
                files.push((name, text));
                match find(&files) {
                    Err(Error::ConfigSyntax { path, .. }) => assert!(path.ends_with(name), "{path:?}"),
                    other => panic!("{name}, {text:.20} gave {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_file_that_is_no_object_is_a_value_error() {
        for name in ["quantize_config.json", "quant_config.json", "config.json"] {
            let result = find(&[(name, "[4, 128]")]);
            assert!(
                matches!(&result, Err(Error::ConfigValue { key, .. }) if key == "(top level)"),
                "gave {result:?}"
            );
        }
        let result = find(&[("config.json", r#"{"quantization_config": "gptq"}"#)]);
        assert!(matches!(&result, Err(Error::ConfigValue { key, .. }) if key == "quantization_config"));
        let result = find(&[(
            "config.json",
            r#"{"quantization_config": {"bits": 4, "dynamic": {"a": {"bits": 9}}}}"#,
        )]);
        let key = "quantization_config.dynamic.a.bits";
        assert!(matches!(&result, Err(Error::ConfigValue { key: found, .. }) if found == key));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_a_missing_one() {
        let dir = checkpoint(&THREE[..1]);
        fs::create_dir(dir.path().join("quantize_config.json")).expect("made");
        match QuantizeConfig::find(dir.path()) {
            Err(Error::Io { action: "read", path, .. }) => assert!(path.ends_with("quantize_config.json")),
            other => panic!("gave {other:?}"),
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_not_a_missing_file() {
        let dir = checkpoint(&THREE[..1]);
        std::os::unix::fs::symlink("blobs/gone", dir.path().join("quantize_config.json")).expect("linked");
        assert!(matches!(QuantizeConfig::find(dir.path()), Err(Error::Io { .. })));
    }

    #[test]
    fn numbers_that_only_python_writes_are_read_over() {
        let config = r#"{"time_step_limit": [0.0, Infinity, -Infinity, NaN], "x": "NaN \" Infinity \\",
                        "quantization_config": {"bits": 4, "note": "Infinity"}}"#;
        let configs = find(&[("config.json", config)]).expect("readable");
        assert_eq!(Some(configs.primary.bits), Bits::new(4));
        assert_eq!(configs.primary.raw["note"], "Infinity", "text stays text");
        assert!(matches!(find(&[("config.json", r#"{"a": Infinity"#)]), Err(Error::ConfigSyntax { .. })));
        let bits = find(&[("quantize_config.json", r#"{"bits": NaN}"#)]);
        assert!(matches!(bits, Err(Error::ConfigValue { .. })), "gave {bits:?}");
    }

    #[test]
    fn files_that_say_the_same_in_other_words_agree() {
        let configs = find(&[
            (
                "quantize_config.json",
                r#"{"bits": 4, "group_size": 128, "sym": true, "format": "gptq", "desc_act": false}"#,
            ),
            (
                "config.json",
                r#"{"quantization_config": {"w_bit": 4.0, "quant_method": "gptq", "zero_point": false}}"#,
            ),
        ])
        .expect("readable");
        assert_eq!(configs.others.len(), 1);
        assert_eq!(configs.disagreements, []);
    }

    #[test]
    fn the_two_formats_that_optimum_writes_for_one_checkpoint_are_both_visible() {
        let configs = find(&[
            ("quantize_config.json", r#"{"bits": 4, "format": "gptq"}"#),
            ("config.json", r#"{"quantization_config": {"bits": 4, "format": "gptq_v2"}}"#),
        ])
        .expect("readable");
        let formats: Vec<_> = configs.iter().map(|config| config.format.name()).collect();
        assert_eq!(formats, ["gptq", "gptq_v2"]);
        let said: Vec<_> = configs.disagreements_on("format").map(ToString::to_string).collect();
        assert_eq!(
            said,
            [r#"`format`: quantize_config.json says gptq, config.json["quantization_config"] says gptq_v2"#]
        );
        assert_eq!(configs.disagreements.len(), 1);
    }

    #[test]
    fn every_key_that_matters_is_compared_and_defaults_are_told_apart() {
        let other = json!({"quantization_config": {
            "bits": 8, "group_size": -1, "format": "gptq_p", "sym": false, "desc_act": true, "lm_head": true,
            "dynamic": {"-:a": {}},
        }});
        let configs =
            find(&[("quantize_config.json", r#"{"bits": 4}"#), ("config.json", &other.to_string())])
                .expect("readable");
        let said =
            configs.disagreements.iter().map(|d| (d.key, d.first.value.as_str(), d.second.value.as_str()));
        assert_eq!(
            said.collect::<Vec<_>>(),
            [
                ("bits", "4", "8"),
                ("group_size", "128", "-1"),
                ("format", "gptq", "gptq_p"),
                ("sym", "true", "false"),
                ("desc_act", "false", "true"),
                ("lm_head", "false", "true"),
                ("dynamic", "{}", r#"{"-:a":{}}"#),
            ]
        );
        let format = configs.disagreements_on("format").next().expect("there");
        assert!(!format.first.given && format.second.given);
        assert_eq!(format.first.to_string(), "quantize_config.json leaves the default gptq");
    }

    #[test]
    fn three_files_are_each_compared_with_the_first() {
        let configs = find(&THREE).expect("readable");
        let second: Vec<_> = configs.disagreements_on("bits").map(|d| d.second.value.clone()).collect();
        assert_eq!(second, ["2", "8"]);
    }
}
