//! What a user asks for, and what a backend is called.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The name of a backend: lower case, words joined by `_`. Names are open: any crate may bring a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct BackendId(&'static str);

impl BackendId {
    /// A name.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The name as text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

/// Which backend a user asks for, by the names of GPTQModel and Optimum.
///
/// It parses from their strings in any case, current and legacy (`gptq_marlin`, `marlin`, `exllama_v2`, ...), and
/// prints as the short form. A name that is none of these is [`BACKEND::Other`], and is asked of the registry.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum BACKEND {
    /// Ask every linked backend, best first, for each layer.
    #[default]
    Auto,
    /// ExLlama v1: 4 bits on any CUDA card, with the buffers of Optimum's third step.
    ExllamaV1,
    /// ExLlama v2.
    ExllamaV2,
    /// Marlin.
    Marlin,
    /// The fallback that runs everything everywhere.
    Torch,
    /// A backend of another crate, by its registered name.
    Other(String),
}

impl BACKEND {
    /// The registered name that is asked for; `None` for [`BACKEND::Auto`].
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Auto => None,
            Self::ExllamaV1 => Some("exllama_v1"),
            Self::ExllamaV2 => Some("exllama_v2"),
            Self::Marlin => Some("marlin"),
            Self::Torch => Some("torch"),
            Self::Other(name) => Some(name),
        }
    }
}

impl FromStr for BACKEND {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let text = text.trim().to_ascii_lowercase().replace('-', "_");
        Ok(match text.strip_prefix("gptq_").unwrap_or(&text) {
            "auto" => Self::Auto,
            "exllama_v1" | "exllama" => Self::ExllamaV1,
            "exllama_v2" | "exllamav2" => Self::ExllamaV2,
            "marlin" => Self::Marlin,
            "torch" => Self::Torch,
            _ => Self::Other(text),
        })
    }
}

impl fmt::Display for BACKEND {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name().unwrap_or("auto"))
    }
}

impl Serialize for BACKEND {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_field_are_understood_and_printed_in_their_short_form() {
        for (text, backend, printed) in [
            ("auto", BACKEND::Auto, "auto"),
            ("AUTO", BACKEND::Auto, "auto"),
            ("exllama", BACKEND::ExllamaV1, "exllama_v1"),
            ("exllama_v1", BACKEND::ExllamaV1, "exllama_v1"),
            ("gptq_exllama_v2", BACKEND::ExllamaV2, "exllama_v2"),
            ("exllama-v2", BACKEND::ExllamaV2, "exllama_v2"),
            ("gptq_marlin", BACKEND::Marlin, "marlin"),
            ("GPTQ_TORCH", BACKEND::Torch, "torch"),
            ("gptq_machete", BACKEND::Other("gptq_machete".into()), "gptq_machete"),
            ("mine", BACKEND::Other("mine".into()), "mine"),
        ] {
            let Ok(parsed) = text.parse::<BACKEND>();
            assert_eq!(parsed, backend, "{text}");
            assert_eq!(parsed.to_string(), printed, "{text}");
        }
    }
}
