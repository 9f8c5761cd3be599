//! How a checkpoint says that it was quantized.
//!
//! Every writer of GPTQ checkpoints has its own file, its own names for the same keys, and its own idea of
//! what a missing key means. [`QuantizeConfig`] is the one typed reading of all of them.
//!
//! * Places: `quantize_config.json`, `quant_config.json`, `config.json["quantization_config"]`. All that
//!   exist are read; the first is the primary, and where another contradicts it, [`Configs`] says so.
//! * Key names are compared without case. A key whose value is `null` is a missing key. Integers may be
//!   written as `128.0`, booleans as `0` and `1` (Python counts its booleans as integers); numbers in quotes
//!   are refused.
//! * Keys of one file that mean the same must agree, with one exception: `format` wins over
//!   `checkpoint_format`, as in GPTQModel.
//! * What decides the layout of the tensors is strict: a wrong type or an impossible value is an error with
//!   the key's name. What only hints (`meta`, `max_input_length`, file names, module lists) is dropped when
//!   malformed. Keys that nothing here needs are ignored.
//! * Widths of 5, 6 and 7 bits exist only in the planar layout. Where no key names the format, one such
//!   width, for the model or in a `dynamic` rule, makes the whole checkpoint `gptq_p`, as in GPTQModel. Where
//!   a key does name `gptq` or `gptq_v2`, the file contradicts itself and is refused: no layout is known that
//!   it could mean.
//!
//! A configuration is a claim. What the tensors show (`g_idx`, shapes, symmetric zero points) decides,
//! elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::format::{Bits, GroupSize};

mod dynamic;
mod find;
mod format;
mod keys;
mod meta;
mod parse;
mod pattern;
mod scalars;

pub use dynamic::{DynamicRules, Overrides, Rule};
pub(crate) use find::read_json;
pub use find::{Claim, Configs, Disagreement};
pub use format::CheckpointFormat;
pub(crate) use format::METHOD;
pub use meta::Quantizer;
pub(crate) use parse::BITS;

/// The quantization of a checkpoint, as one configuration file tells it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QuantizeConfig {
    /// The width of a code, unless a rule of `dynamic` says otherwise. Required in the file, but for the format `marlin`,
    /// whose files have 4 bits.
    pub bits: Bits,
    /// Rows that share a scale and a zero point, unless a rule of `dynamic` says otherwise. 128 where not
    /// given.
    pub group_size: GroupSize,
    /// Whether rows were quantized in order of activation; `None` where not given, which GPTQModel and
    /// transformers read as `false`, AutoGPTQ as `true`. A hint: the `g_idx` tensor decides.
    pub desc_act: Option<bool>,
    /// Whether every zero point is `2^(bits − 1)`, unless a rule of `dynamic` says otherwise. `true` where
    /// not given.
    pub sym: bool,
    /// How codes are packed and zero points stored. `gptq` where not given (`gptq_p` where a width needs it).
    pub format: CheckpointFormat,
    /// Whether `lm_head` is quantized too. `false` where not given.
    pub lm_head: bool,
    /// Rules that change these values for some modules.
    pub dynamic: DynamicRules,
    /// The programs that `meta.quantizer` names, in its order; empty where it is missing.
    pub quantizers: Vec<Quantizer>,
    /// Names of the modules that were quantized in each block, where a file lists them. A hint.
    pub modules_in_block_to_quantize: Option<Vec<String>>,
    /// Rows of `x` (batch × sequence) that buffers should hold. A hint.
    pub max_input_length: Option<usize>,
    /// The weight file's name without its extension, never with a directory. A hint.
    pub model_file_base_name: Option<String>,
    /// Which of `group_size`, `desc_act`, `sym`, `format`, `lm_head` the file does not give.
    pub defaulted: Vec<&'static str>,
    /// Where this was read.
    pub source: ConfigSource,
    /// The object that was read, unchanged: the whole of `quantize_config.json`, or the value of
    /// `quantization_config` in `config.json`.
    #[serde(skip)]
    pub raw: Map<String, Value>,
}

impl QuantizeConfig {
    /// Reads a configuration that the caller already holds as JSON. `source` is named in every error.
    ///
    /// # Errors
    ///
    /// [`ConfigValue`](crate::Error::ConfigValue) for a value that no checkpoint can have,
    /// [`DynamicRule`](crate::Error::DynamicRule) for a pattern that is none, and
    /// [`Unsupported`](crate::Error::Unsupported), by name, for what is known and not read: methods
    /// other than GPTQ, codes packed into anything but 32-bit words, `rotation`, `adapter`, `bitblas`.
    pub fn from_json(value: &Value, source: ConfigSource) -> Result<Self> {
        parse::quantize_config(value, source)
    }

    /// The configuration that text-generation-inference stores as tensors of one number beside the weights:
    /// `gptq_bits`, `gptq_groupsize`, and `gptq_sym`, whose absence means asymmetric. `path` is the weight
    /// file.
    ///
    /// # Errors
    ///
    /// [`ConfigValue`](crate::Error::ConfigValue) unless `bits` is 2, 3, 4 or 8 and `group_size` is −1
    /// or positive.
    pub fn from_scalars(bits: i64, group_size: i64, sym: Option<bool>, path: &Path) -> Result<Self> {
        scalars::quantize_config(bits, group_size, sym, path)
    }

    /// What this configuration says of one module, by its full name in the checkpoint
    /// (`model.layers.0.self_attn.q_proj`).
    ///
    /// # Errors
    ///
    /// [`DynamicRule`](crate::Error::DynamicRule) where a pattern does not terminate on this name.
    pub fn for_module(&self, module: &str) -> Result<ModuleConfig<'_>> {
        let (overrides, pattern) = match self.dynamic.of(module)? {
            Rule::Skip { pattern } => return Ok(ModuleConfig::Skip { pattern }),
            Rule::Override { pattern, overrides } => (*overrides, Some(pattern)),
            Rule::None => (Overrides::default(), None),
        };
        Ok(ModuleConfig::Quantized(ModuleSettings {
            bits: overrides.bits.unwrap_or(self.bits),
            group_size: overrides.group_size.unwrap_or(self.group_size),
            desc_act: overrides.desc_act.or(self.desc_act),
            sym: overrides.sym.unwrap_or(self.sym),
            pattern,
        }))
    }

    /// What this configuration says of modules that no rule of `dynamic` names.
    pub fn base(&self) -> ModuleSettings<'static> {
        ModuleSettings {
            bits: self.bits,
            group_size: self.group_size,
            desc_act: self.desc_act,
            sym: self.sym,
            pattern: None,
        }
    }

    /// Whether the file gives `key`, one of those that [`defaulted`](Self::defaulted) lists where they are
    /// missing.
    pub fn gives(&self, key: &str) -> bool {
        !self.defaulted.contains(&key)
    }

    /// Whether GPTQModel 0.9.0 or later had a hand in the file. Its v1 zero points of 2, 4 and 8 bits are
    /// stored by subtracting from whole words, so that a zero point of 0 borrows from its neighbour.
    pub fn is_gptqmodel_lineage(&self) -> bool {
        self.quantizers.iter().any(|quantizer| quantizer.is_at_least("gptqmodel", "0.9.0"))
    }

    /// Whether GPTQModel before version 7 wrote the file. It stored v1 zero points of 3 bits in a way of its own.
    pub fn is_gptqmodel_before_7(&self) -> bool {
        let mut versions =
            self.quantizers.iter().filter(|quantizer| quantizer.is_at_least("gptqmodel", "0.9.0"));
        versions.next().is_some_and(|quantizer| !quantizer.is_at_least("gptqmodel", "7.0.0.dev0"))
    }

    /// Whether AutoGPTQ, or a program that names nobody, had a hand in the file. AutoGPTQ stores a v1 zero
    /// point of 0 in a way that destroys its neighbours, and programs that copied its packer leave
    /// `meta.quantizer` out.
    pub fn is_autogptq_lineage(&self) -> bool {
        self.quantizers.is_empty()
            || self
                .quantizers
                .iter()
                .any(|q| matches!(q.name.as_str(), "auto_gptq" | "autogptq" | "auto-gptq"))
    }
}

/// What a configuration says of one module. Nothing can be added to these two without every reader having to
/// know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleConfig<'c> {
    /// A rule leaves the module unquantized.
    Skip {
        /// The rule, as written in the file.
        pattern: &'c str,
    },
    /// The module is quantized like this, if it is quantized.
    Quantized(ModuleSettings<'c>),
}

/// The values that hold for one quantized module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ModuleSettings<'c> {
    /// The width of a code.
    pub bits: Bits,
    /// Rows that share a scale and a zero point.
    pub group_size: GroupSize,
    /// Whether rows were quantized in order of activation, where the file tells. A hint.
    pub desc_act: Option<bool>,
    /// Whether every zero point is `2^(bits − 1)`.
    pub sym: bool,
    /// The rule of `dynamic` that matched, as written in the file; `None` where none did.
    pub pattern: Option<&'c str>,
}

/// Where a configuration was read: a file, or one key of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConfigSource {
    /// The file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// The key whose value is the configuration; `None` where the whole file is.
    pub key: Option<String>,
}

impl ConfigSource {
    /// A file that is a configuration.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), key: None }
    }

    /// One key of a file, as `quantization_config` of `config.json`.
    pub fn key_of(path: impl Into<PathBuf>, key: impl Into<String>) -> Self {
        Self { path: path.into(), key: Some(key.into()) }
    }
}

/// The file's name, and the key in brackets: `config.json["quantization_config"]`.
impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        write!(f, "{}", Path::new(name).display())?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, "[{key:?}]"))
    }
}

/// A path may hold bytes that are not text; a report about it must not fail for that.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::json;

    use super::*;

    fn config(value: &Value) -> QuantizeConfig {
        QuantizeConfig::from_json(value, ConfigSource::file("quantize_config.json")).expect("a good config")
    }

    #[test]
    fn a_module_takes_the_values_of_the_first_rule_that_matches_it_and_the_others_from_the_file() {
        let config = config(&json!({
            "bits": 4, "group_size": 128, "sym": false,
            "dynamic": {
                "+:.*down_proj": {"bits": 8, "desc_act": true},
                "+:.*mlp": {"bits": 2, "group_size": -1},
                "-:.*k_proj$": {},
            },
        }));
        let settings = |module| match config.for_module(module).expect("terminates") {
            ModuleConfig::Quantized(settings) => settings,
            skip => panic!("{module} is quantized, not {skip:?}"),
        };
        let down = settings("model.layers.0.mlp.down_proj");
        assert_eq!((down.bits.get(), down.group_size.to_config()), (8, 128), "rules are not merged");
        assert_eq!((down.desc_act, down.sym, down.pattern), (Some(true), false, Some("+:.*down_proj")));
        let up = settings("model.layers.0.mlp.up_proj");
        assert_eq!((up.bits.get(), up.group_size.to_config()), (2, -1));
        let q = settings("model.layers.0.self_attn.q_proj");
        assert_eq!((q.bits.get(), q.pattern, q.desc_act), (4, None, None));
        assert_eq!(
            config.for_module("model.layers.0.self_attn.k_proj").expect("terminates"),
            ModuleConfig::Skip { pattern: "-:.*k_proj$" }
        );
    }

    #[test]
    fn a_source_names_its_file_and_its_key() {
        assert_eq!(ConfigSource::file("/models/a/quantize_config.json").to_string(), "quantize_config.json");
        let key = ConfigSource::key_of("/models/a/config.json", "quantization_config");
        assert_eq!(key.to_string(), r#"config.json["quantization_config"]"#);
    }

    #[test]
    fn a_config_serializes_for_reports() {
        let config = config(&json!({"bits": 3, "dynamic": {"-:lm_head": {}, "+:a": {"bits": 8}}}));
        let report = serde_json::to_value(config).expect("serializes");
        assert_eq!(report["bits"], 3);
        assert_eq!(report["format"], "gptq");
        assert_eq!(report["dynamic"], json!({"-:lm_head": {}, "+:a": {"bits": 8}}));
        assert_eq!(report["defaulted"], json!(["group_size", "desc_act", "sym", "format", "lm_head"]));
        assert_eq!(report.get("raw"), None);
    }

    /// Any JSON, a few levels deep, with numbers and names that mean something now and then.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-2..10i64).prop_map(Value::from),
            select(&["gptq", "gptq_v2", "marlin", "int32", "gptqmodel:0.9.0-", ":", "a/b/", ""])
                .prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = prop_oneof![
                any_pattern(),
                select(&["bits", "group_size", "sym", "quantizer"]).prop_map(String::from)
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        let part = select(&[
            "-:",
            "+:",
            "a",
            ".*",
            "(",
            ")",
            "[",
            "]",
            "[^",
            "|",
            "(?=",
            "(?!",
            "(?<=",
            "(?<n>",
            "(?>",
            "(?i)",
            "{2}",
            "{9999999999}",
            "+",
            "*",
            "?",
            r"\1",
            r"\k<n>",
            r"\",
            "$",
            "^",
            r"\w",
            "é",
            "(?(1)",
            "&&",
        ]);
        prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_json_makes_the_reader_panic(
            keys in prop::collection::vec((select(&KEYS), any_json()), 0..6),
            rules in prop::collection::vec((any_pattern(), any_json()), 0..4),
        ) {
            let mut file: Map<_, _> = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            if !rules.is_empty() {
                file.insert("dynamic".to_owned(), Value::Object(rules.into_iter().collect()));
            }
            file.entry("bits").or_insert(Value::from(4));
            if let Ok(config) = QuantizeConfig::from_json(&Value::from(file), ConfigSource::file("f")) {
                _ = config.for_module("aaaaaaaaaaaaaaaaaaaaaaaaab");
                _ = (config.is_gptqmodel_lineage(), config.is_gptqmodel_before_7());
                serde_json::to_value(&config).expect("serializes");
            }
        }
    }

    const KEYS: [&str; 14] = [
        "bits",
        "w_bit",
        "group_size",
        "sym",
        "zero_point",
        "desc_act",
        "lm_head",
        "format",
        "quant_method",
        "pack_dtype",
        "meta",
        "max_input_length",
        "modules_in_block_to_quantize",
        "model_file_base_name",
    ];
}
