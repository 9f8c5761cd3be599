//! What can go wrong beside the errors of core and of candle.

use std::path::PathBuf;

/// The result of what this crate does outside of candle's own traits.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model cannot be built or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint, its configuration, or one of its layers.
    #[error(transparent)]
    Core(#[from] gptq_core::Error),

    /// An operation on tensors.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),

    /// The layers come from no directory, or its `config.json` is missing: nothing says what model they make up.
    #[error(
        "{}: no config.json, which says how the layers make up a model; \
         copy it from where the weights came from", dir.display()
    )]
    NoModelConfig {
        /// The checkpoint's directory; empty for layers that came from none.
        dir: PathBuf,
    },

    /// A plain tensor that the architecture needs is not in the checkpoint.
    #[error(
        "no tensor is called `{tensor}`, and the architecture in config.json needs it; download the missing shard, or \
         correct config.json"
    )]
    TensorMissing {
        /// The tensor.
        tensor: String,
    },

    /// A checkpoint's layer or tensor has another shape than its `config.json` implies.
    #[error(
        "`{name}` has shape {found:?}, expected {expected:?} from config.json; one of the two is another model's"
    )]
    WeightShape {
        /// The layer or tensor. The shape of a layer is `[in_features, out_features]`.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that `config.json` implies.
        expected: Vec<usize>,
    },

    /// More tokens than there is room for.
    #[error("{tokens} tokens do not fit {limit}; {remedy}")]
    TooLong {
        /// How many there would be.
        tokens: usize,
        /// What they do not fit, with its size.
        limit: String,
        /// What to do instead.
        remedy: String,
    },

    /// A token that the model has no embedding for.
    #[error("token {token} is outside the vocabulary of {vocab_size}; use the tokenizer of this checkpoint")]
    NoSuchToken {
        /// The token.
        token: u32,
        /// How many tokens there are.
        vocab_size: usize,
    },

    /// The logits are not numbers: activations have overflowed, or the weights are broken.
    #[error(
        "the logits are not finite: activations overflowed, or weights are broken; \
         try bf16 or f32 activations where they are f16, and `gptq verify` on the checkpoint"
    )]
    NotFinite,
}
