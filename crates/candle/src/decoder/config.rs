//! What `config.json` says of a decoder.

use std::path::{Path, PathBuf};

use candle_core::DType;
use gptq_core::checkpoint::{Checkpoint, json_file};
use serde_json::{Map, Value};

use super::rope::Rope;
use crate::error::{Error, Result};

/// A family of decoders: what they share, and in what they differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama, and models that say they are.
    Llama,
    /// Mistral: Llama whose attention may look back through a window.
    Mistral,
    /// Qwen2: biases for queries, keys and values.
    Qwen2,
    /// Qwen3: queries and keys are normed, head by head.
    Qwen3,
}

const ARCHITECTURES: [(&str, Architecture); 4] = [
    ("LlamaForCausalLM", Architecture::Llama),
    ("MistralForCausalLM", Architecture::Mistral),
    ("Qwen2ForCausalLM", Architecture::Qwen2),
    ("Qwen3ForCausalLM", Architecture::Qwen3),
];

/// Far more than any model has. Tables as long are made before a weight has been looked at.
const MOST_LAYERS: usize = 1 << 16;
const MOST_HEAD_DIM: usize = 1 << 16;

/// What `config.json` says of a decoder. Names are those of the file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward network.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Heads of queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values; each serves `num_attention_heads / num_key_value_heads` heads of queries.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens that have an embedding.
    pub vocab_size: usize,
    /// The most tokens that a sequence may have.
    pub max_position_embeddings: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// How positions turn queries and keys.
    pub rope: Rope,
    /// For each layer, how many tokens attention looks back, its own among them; `None` for all.
    pub sliding_window: Vec<Option<usize>>,
    /// Whether queries, keys and values have biases. Others are found in the checkpoint.
    pub attention_bias: bool,
    /// Whether the head is the transpose of the embeddings.
    pub tie_word_embeddings: bool,
    /// The type in which the model was trained or saved.
    pub dtype: Option<DType>,
    /// Tokens that end a text, from `config.json` and `generation_config.json`.
    pub eos_token_ids: Vec<u32>,
}

impl ModelConfig {
    /// Reads `config.json` of the checkpoint's directory.
    ///
    /// # Errors
    /// [`Error::NoModelConfig`]; [`Unsupported`](gptq_core::Error::Unsupported) for an architecture, or a variant of
    /// one, that this decoder does not run; [`ConfigValue`](gptq_core::Error::ConfigValue) for a key that is missing or
    /// holds what it cannot.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let dir = checkpoint.dir().unwrap_or(Path::new(""));
        let path = dir.join("config.json");
        let Some(config) = json_file(&path)? else { return Err(Error::NoModelConfig { dir: dir.into() }) };
        let mut config = Self::from_json(&config, &path)?;
        let path = dir.join("generation_config.json");
        if let Some(generation) = json_file(&path)? {
            for token in Keys::of(&generation, &path)?.tokens("eos_token_id")? {
                if !config.eos_token_ids.contains(&token) {
                    config.eos_token_ids.push(token);
                }
            }
        }
        Ok(config)
    }

    /// Reads a configuration that the caller holds as JSON. `path` is named in every error.
    ///
    /// # Errors
    /// As [`ModelConfig::of`].
    pub fn from_json(config: &Value, path: &Path) -> Result<Self> {
        let keys = Keys::of(config, path)?;
        let architecture = architecture(&keys)?;
        match keys.text("hidden_act")? {
            None | Some("silu" | "swish") => {}
            Some(other) => {
                return Err(keys.unsupported(format!("activation `{other}`"), "only silu is built"));
            }
        }
        let hidden_size = keys.positive("hidden_size")?;
        let num_attention_heads = keys.positive("num_attention_heads")?;
        let num_hidden_layers = keys.positive_up_to(MOST_LAYERS, "num_hidden_layers")?;
        let num_key_value_heads = keys.positive_or("num_key_value_heads", num_attention_heads)?;
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let expected = format!("a divisor of num_attention_heads = {num_attention_heads}");
            return Err(keys.wrong("num_key_value_heads", expected));
        }
        let head_dim = match architecture {
            Architecture::Qwen3 => keys.positive_or("head_dim", 128)?,
            _ => keys.positive_or("head_dim", hidden_size / num_attention_heads)?,
        };
        if !(2..=MOST_HEAD_DIM).contains(&head_dim) || !head_dim.is_multiple_of(2) {
            return Err(keys.wrong_head_dim(head_dim));
        }
        let max_position_embeddings = keys.positive("max_position_embeddings")?;
        Ok(Self {
            architecture,
            hidden_size,
            intermediate_size: keys.positive("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size: keys.positive("vocab_size")?,
            max_position_embeddings,
            rms_norm_eps: keys.number_or("rms_norm_eps", 1e-6)?,
            rope: Rope::from_keys(&keys, head_dim, max_position_embeddings)?,
            sliding_window: sliding_window(&keys, architecture, num_hidden_layers)?,
            attention_bias: match architecture {
                Architecture::Qwen2 => true,
                Architecture::Mistral => false,
                _ => keys.flag_or("attention_bias", false)?,
            },
            tie_word_embeddings: keys.flag_or("tie_word_embeddings", false)?,
            dtype: keys.dtype()?,
            eos_token_ids: keys.tokens("eos_token_id")?,
        })
    }
}

fn architecture(keys: &Keys<'_>) -> Result<Architecture> {
    let known = || ARCHITECTURES.map(|(name, _)| name).join(", ");
    let names = keys.value("architectures").and_then(Value::as_array).filter(|names| !names.is_empty());
    let Some(names) = names else {
        return Err(keys.wrong("architectures", format!("a list with one of {}", known())));
    };
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    let found = names.iter().find_map(|name| ARCHITECTURES.iter().find(|(known, _)| known == name));
    match found {
        Some((_, architecture)) => Ok(*architecture),
        None => {
            let reason = format!("the decoder of this program is built for {}", known());
            Err(keys.unsupported(format!("architecture `{}`", names.join("`, `")), &reason))
        }
    }
}

/// The window of each layer. Newer files list the kind of each layer; older ones of Qwen say from which on.
fn sliding_window(keys: &Keys<'_>, architecture: Architecture, layers: usize) -> Result<Vec<Option<usize>>> {
    let used = match architecture {
        Architecture::Llama => false,
        Architecture::Mistral => true,
        _ => keys.flag_or("use_sliding_window", false)?,
    };
    let window = match keys.object.get("sliding_window") {
        _ if !used => None,
        Some(Value::Null) => None,
        Some(_) => Some(keys.positive("sliding_window")?),
        // Where the files of Mistral and Qwen say nothing, it is what their first models had.
        None => Some(4096),
    };
    if let Some(kinds) = keys.value("layer_types").and_then(Value::as_array) {
        let kinds =
            kinds.iter().map(|kind| match kind.as_str() {
                Some("full_attention") => Ok(None),
                Some("sliding_attention") => Ok(window),
                _ => Err(keys
                    .unsupported(format!("layer type {kind}"), "only full and sliding attention are built")),
            });
        let kinds = kinds.collect::<Result<Vec<_>>>()?;
        return match kinds.len() == layers {
            true => Ok(kinds),
            false => Err(keys.wrong("layer_types", format!("one for each of {layers} layers"))),
        };
    }
    let first = match architecture {
        Architecture::Qwen2 | Architecture::Qwen3 => keys.whole_or("max_window_layers", 28)?,
        _ => 0,
    };
    Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect())
}

/// The keys of a JSON object, and where it was read. A key that is null is one that is not there.
#[derive(Clone)]
pub(super) struct Keys<'a> {
    path: PathBuf,
    /// The key of this object in the file, with a dot after it.
    prefix: String,
    object: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    fn of(value: &'a Value, path: &Path) -> Result<Self> {
        match value.as_object() {
            Some(object) => Ok(Self { path: path.into(), prefix: String::new(), object }),
            None => Err(gptq_core::Error::ConfigValue {
                path: path.into(),
                key: "(the file)".into(),
                found: value.to_string().chars().take(80).collect(),
                expected: "an object".into(),
            }
            .into()),
        }
    }

    /// The object under `key`; `None` where there is none.
    pub(super) fn object(&self, key: &str) -> Result<Option<Self>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(object)) => {
                Ok(Some(Self { path: self.path.clone(), prefix: format!("{}{key}.", self.prefix), object }))
            }
            Some(_) => Err(self.wrong(key, "an object".into())),
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.read(key, "text", Value::as_str)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", Value::as_f64)
    }

    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.read(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    fn whole_or(&self, key: &str, default: usize) -> Result<usize> {
        let whole = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
        Ok(self.read(key, "a whole number", whole)?.unwrap_or(default))
    }

    pub(super) fn positive_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.value(key) {
            Some(_) => self.positive(key),
            None => Ok(default),
        }
    }

    /// A size: from 1 to 2^31, so that the products of a few can be counted.
    pub(super) fn positive(&self, key: &str) -> Result<usize> {
        self.positive_up_to(1 << 31, key)
    }

    fn positive_up_to(&self, most: usize, key: &str) -> Result<usize> {
        let size = |value: &Value| {
            let size = usize::try_from(value.as_u64()?).ok()?;
            (1..=most).contains(&size).then_some(size)
        };
        let expected = format!("a whole number from 1 to {most}");
        self.read(key, &expected, size)?.ok_or_else(|| self.wrong(key, expected))
    }

    /// One token or a list of them.
    fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
        let tokens = |value: &Value| match value {
            Value::Array(values) => values.iter().map(token).collect(),
            value => token(value).map(|token| vec![token]),
        };
        Ok(self.read(key, "a token number or a list of them", tokens)?.unwrap_or_default())
    }

    /// `dtype`, which older files call `torch_dtype`. Types that activations cannot have are as good as none.
    fn dtype(&self) -> Result<Option<DType>> {
        let name = match self.text("dtype")? {
            Some(name) => Some(name),
            None => self.text("torch_dtype")?,
        };
        Ok(match name {
            Some("float32") => Some(DType::F32),
            Some("float16") => Some(DType::F16),
            Some("bfloat16") => Some(DType::BF16),
            _ => None,
        })
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong(key, expected.into()))
    }

    /// That the value of `key` is not what it can be.
    pub(super) fn wrong(&self, key: &str, expected: String) -> Error {
        let found = self.value(key).map_or("missing".into(), Value::to_string);
        gptq_core::Error::ConfigValue {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
            found,
            expected,
        }
        .into()
    }

    /// That heads have a width, given or left to `hidden_size`, that they cannot have.
    fn wrong_head_dim(&self, head_dim: usize) -> Error {
        let expected = format!("an even number from 2 to {MOST_HEAD_DIM}");
        match self.value("head_dim") {
            Some(_) => self.wrong("head_dim", expected),
            None => self.wrong("hidden_size", format!("{expected} for each head, where it makes {head_dim}")),
        }
    }

    /// That the file asks for what is not built.
    pub(super) fn unsupported(&self, feature: String, reason: &str) -> Error {
        gptq_core::Error::Unsupported {
            path: self.path.clone(),
            feature,
            reason: reason.into(),
            remedy: "its layers still run one by one: `gptq forward`, or Layer::forward in a program".into(),
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(more: &Value) -> Result<ModelConfig> {
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "vocab_size": 10,
            "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128,
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        ModelConfig::from_json(&config, Path::new("config.json"))
    }

    #[test]
    fn what_a_file_leaves_out_is_what_the_architecture_has() {
        let llama = config(&json!({})).unwrap();
        assert_eq!((llama.num_key_value_heads, llama.head_dim, llama.tie_word_embeddings), (4, 16, false));
        assert_eq!((llama.rms_norm_eps, llama.attention_bias, llama.dtype), (1e-6, false, None));
        assert_eq!((llama.sliding_window, llama.eos_token_ids), (vec![None; 3], vec![]));
        let qwen3 = config(&json!({"architectures": ["Qwen3ForCausalLM"]})).unwrap();
        assert_eq!((qwen3.architecture, qwen3.head_dim), (Architecture::Qwen3, 128));
        let qwen2 = config(&json!({"architectures": ["Qwen2ForCausalLM"]})).unwrap();
        assert!(qwen2.attention_bias && qwen2.sliding_window == [None; 3], "no window unless it is used");
    }

    #[test]
    fn a_window_holds_for_the_layers_that_have_one() {
        let windows = |more| config(&more).unwrap().sliding_window;
        let mistral = |more: Value| {
            let mut config = json!({"architectures": ["MistralForCausalLM"]});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            windows(config)
        };
        assert_eq!(mistral(json!({"sliding_window": 9})), [Some(9); 3]);
        assert_eq!(mistral(json!({"sliding_window": null})), [None; 3]);
        assert_eq!(mistral(json!({})), [Some(4096); 3], "as the first Mistral, whose file is silent");
        let kinds = ["sliding_attention", "full_attention", "sliding_attention"];
        assert_eq!(mistral(json!({"sliding_window": 9, "layer_types": kinds})), [Some(9), None, Some(9)]);
        let qwen = json!({
            "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": true, "sliding_window": 9, "max_window_layers": 2,
        });
        assert_eq!(windows(qwen), [None, None, Some(9)]);
    }

    #[test]
    fn types_and_ends_of_text_are_read_in_all_their_spellings() {
        let read = |more| config(&more).unwrap();
        assert_eq!(read(json!({"torch_dtype": "bfloat16"})).dtype, Some(DType::BF16));
        assert_eq!(read(json!({"dtype": "float16", "torch_dtype": "float32"})).dtype, Some(DType::F16));
        assert_eq!(read(json!({"dtype": "float8"})).dtype, None);
        assert_eq!(read(json!({"eos_token_id": 7})).eos_token_ids, [7]);
        assert_eq!(read(json!({"eos_token_id": [7, 9]})).eos_token_ids, [7, 9]);
    }

    #[test]
    fn what_a_file_cannot_say_is_an_error_that_names_the_key() {
        for (more, says) in [
            (json!({"hidden_size": null}), "`hidden_size` is missing"),
            (json!({"hidden_size": 0}), "`hidden_size` is 0"),
            (json!({"vocab_size": 1u64 << 40}), "`vocab_size`"),
            (json!({"num_hidden_layers": "3"}), "`num_hidden_layers` is \"3\""),
            (json!({"num_key_value_heads": 3}), "a divisor of num_attention_heads = 4"),
            (json!({"head_dim": 15}), "`head_dim` is 15, expected an even number"),
            (
                json!({"head_dim": 1u64 << 31}),
                "`head_dim` is 2147483648, expected an even number from 2 to 65536",
            ),
            (
                json!({"hidden_size": 1u64 << 31}),
                "`hidden_size` is 2147483648, expected an even number from 2 to 65536",
            ),
            (json!({"hidden_size": 3}), "`hidden_size` is 3, expected an even number"),
            (
                json!({"num_hidden_layers": 1u64 << 31}),
                "`num_hidden_layers` is 2147483648, expected a whole number from 1 to 65536",
            ),
            (json!({"architectures": []}), "`architectures` is []"),
            (
                json!({"architectures": ["GPTNeoXForCausalLM"]}),
                "architecture `GPTNeoXForCausalLM` is not supported",
            ),
            (json!({"hidden_act": "gelu"}), "activation `gelu` is not supported"),
            (json!({"layer_types": ["full_attention"]}), "`layer_types`"),
            (json!({"layer_types": ["mamba"]}), "layer type \"mamba\" is not supported"),
            (json!({"eos_token_id": "</s>"}), "`eos_token_id` is \"</s>\""),
        ] {
            let error = config(&more).unwrap_err();
            assert!(matches!(error, Error::Core(_)) && error.to_string().contains(says), "{more}: {error}");
        }
        let error = ModelConfig::from_json(&json!([]), Path::new("config.json")).unwrap_err();
        assert!(error.to_string().contains("expected an object"), "{error}");
    }
}
