//! A decoder of the Llama family: from tokens to the logits of the next one.

mod cache;
mod config;
mod rope;
#[cfg(feature = "cuda")]
mod whole_token;

use candle_core::{DType, IndexOp, Module, Tensor};

pub use cache::Cache;
pub use config::{Architecture, ModelConfig};
pub use rope::Rope;

use crate::attention::{self, Causal, attention};
use crate::dense::{DenseLinear, Matrix};
use crate::error::{Error, Result};
use crate::ops::{add, rms_norm, silu_mul};
use crate::weights::{Linear, Weights};

/// Tokens that go through the layers at once: what is held for each layer stays small, however long the prompt.
const CHUNK: usize = 256;
/// The same on a device, where the scores of a layer are held for all of them at once.
const DEVICE_CHUNK: usize = 512;
/// Tokens for which the layers of one x run side by side.
const SHORT: usize = 8;

/// A model that turns tokens into logits, one sequence at a time.
///
/// Llama, Mistral, Qwen2 and Qwen3: see [`ModelConfig`]. Threads share it; each sequence has a [`Cache`].
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    weights: Weights,
    embeddings: Matrix,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Linear,
    #[cfg(feature = "cuda")]
    token_kernels: whole_token::Kernels,
}

/// A transformer layer.
#[derive(Debug)]
struct Block {
    input_norm: Tensor,
    attention: Attention,
    post_attention_norm: Tensor,
    mlp: Mlp,
}

#[derive(Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// Norms of each head of queries and keys.
    head_norms: Option<[Tensor; 2]>,
    window: Option<usize>,
}

#[derive(Debug)]
struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What every layer needs to know of the tokens under way.
struct Step<'a> {
    config: &'a ModelConfig,
    cache: &'a Cache,
    cos: Tensor,
    sin: Tensor,
    /// For each window that a layer has, what is added to its scores.
    masks: Vec<(Option<usize>, Option<Tensor>)>,
}

impl Decoder {
    /// Builds the model that `config.json` of the checkpoint describes.
    ///
    /// # Errors
    /// As [`ModelConfig::of`]; [`Error::TensorMissing`] or [`Error::WeightShape`] where the checkpoint does not hold
    /// what that needs.
    pub fn load(weights: Weights) -> Result<Self> {
        let config = ModelConfig::of(weights.checkpoint())?;
        Self::new(config, weights)
    }

    /// Builds the model that `config` describes.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn new(config: ModelConfig, weights: Weights) -> Result<Self> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embeddings = weights.matrix("model.embed_tokens.weight", [vocab, hidden])?;
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| Block::new(&config, &weights, layer))
            .collect::<Result<_>>()?;
        let norm = weights.tensor("model.norm.weight", &[hidden])?;
        // A quantized head outweighs what config.json says: it cannot be the embeddings.
        let tied = config.tie_word_embeddings && weights.checkpoint().layer_id("lm_head").is_none();
        let head = match tied {
            true => Linear::Dense(DenseLinear::new(embeddings.clone(), None)),
            false => weights.linear("lm_head", hidden, vocab)?,
        };
        Ok(Self {
            #[cfg(feature = "cuda")]
            token_kernels: whole_token::find_kernels(&config, &weights),
            config,
            weights,
            embeddings,
            blocks,
            norm,
            head,
        })
    }

    /// What `config.json` says.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What it was built from.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What turns the last hidden state into logits.
    pub fn head(&self) -> &Linear {
        &self.head
    }

    /// Bytes of weights that one new token reads: every layer, and the head.
    pub fn bytes_per_token(&self) -> usize {
        let blocks = self.blocks.iter().flat_map(Block::linears).map(Linear::weight_bytes);
        blocks.sum::<usize>() + self.head.weight_bytes()
    }

    /// An empty cache with room for `capacity` tokens, its keys and values in the type of the activations.
    ///
    /// # Errors
    /// [`Error::TooLong`] where the model's context is shorter; candle's, where there is no memory.
    pub fn cache(&self, capacity: usize) -> Result<Cache> {
        Cache::new(&self.config, capacity, self.weights.dtype(), self.weights.device())
    }

    /// The logits `[vocab_size]`, in f32, of the token that follows `tokens`, which follow those in `cache`.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn next(&self, tokens: &[u32], cache: &mut Cache) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let [token] = *tokens
            && let Some(logits) = self.whole_token(token, cache)?
        {
            return Ok(logits);
        }
        self.run(|| {
            let mut hidden = None;
            for tokens in tokens.chunks(self.chunk()) {
                hidden = Some(self.hidden(tokens, cache)?);
            }
            let hidden = hidden.ok_or_else(no_tokens)?;
            let last = hidden.narrow(0, hidden.dim(0)? - 1, 1)?;
            Ok(self.logits(&last)?.i(0)?)
        })
    }

    /// The logits `[T, vocab_size]`, in f32, of the tokens that follow each of `tokens`, which follow those in
    /// `cache`.
    ///
    /// # Errors
    /// [`Error::TooLong`] where the cache has no room for them; [`Error::NoSuchToken`]; candle's.
    pub fn forward(&self, tokens: &[u32], cache: &mut Cache) -> Result<Tensor> {
        self.run(|| {
            let mut logits = Vec::new();
            for tokens in tokens.chunks(self.chunk()) {
                logits.push(self.logits(&self.hidden(tokens, cache)?)?);
            }
            match logits.len() {
                0 => Err(no_tokens()),
                _ => Ok(Tensor::cat(&logits, 0)?),
            }
        })
    }

    /// The last hidden states `[T, hidden_size]`, before the norm.
    fn hidden(&self, tokens: &[u32], cache: &mut Cache) -> Result<Tensor> {
        cache.check(tokens.len())?;
        let (dtype, device) = (self.weights.dtype(), self.weights.device());
        let (cos, sin) = self.config.rope.tables(cache.len(), tokens.len(), dtype, device)?;
        let mut x = self.embeddings.rows(tokens, dtype, device)?;
        let masks = self.masks(cache.len(), tokens.len())?;
        let step = Step { config: &self.config, cache, cos, sin, masks };
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, layer, &step)?;
        }
        cache.advance(tokens.len());
        Ok(x)
    }

    /// What the layers add to the scores of `tokens` queries, the first at position `first`.
    fn masks(
        &self,
        first: usize,
        tokens: usize,
    ) -> candle_core::Result<Vec<(Option<usize>, Option<Tensor>)>> {
        let mut masks: Vec<(Option<usize>, Option<Tensor>)> = Vec::new();
        for block in &self.blocks {
            let window = block.attention.window;
            if masks.iter().all(|(found, _)| *found != window) {
                let mask = attention::mask(Causal { first, window }, tokens, self.weights.device())?;
                masks.push((window, mask));
            }
        }
        Ok(masks)
    }

    fn chunk(&self) -> usize {
        if self.weights.device().is_cpu() { CHUNK } else { DEVICE_CHUNK }
    }

    /// Runs `work` where it is fastest. On the CPU it is hundreds of short pieces for all threads, and a thread from
    /// outside of the pool would hand over and wait for each. A GPU's work is queued, in the order of the caller's thread.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        if self.weights.device().is_cpu() { rayon::scope(|_| work()) } else { work() }
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let x = self.config.norm(hidden, &self.norm)?;
        Ok(self.head.forward(&x)?.to_dtype(DType::F32)?)
    }
}

/// Layers that all read `x`: side by side, where each alone would be so short that threads mostly wait for one another.
fn together<A: Send, B: Send>(
    x: &Tensor,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    match x.device().is_cpu() && x.dim(0).is_ok_and(|rows| rows <= SHORT) {
        true => rayon::join(a, b),
        false => (a(), b()),
    }
}

fn no_tokens() -> Error {
    candle_core::Error::Msg("no tokens: a model needs at least one to go on from".into()).into()
}

impl ModelConfig {
    /// The most tokens of a sequence.
    pub fn max_tokens(&self) -> usize {
        self.rope.max_positions()
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
        rms_norm(x, weight, self.eps())
    }

    /// As norms add it.
    #[expect(clippy::cast_possible_truncation, reason = "norms are computed in f32")]
    fn eps(&self) -> f32 {
        self.rms_norm_eps as f32
    }
}

impl Block {
    fn new(config: &ModelConfig, weights: &Weights, layer: usize) -> Result<Self> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let norm = |part: &str| weights.tensor(&name(&format!("{part}.weight")), &[config.hidden_size]);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            attention: Attention::new(config, weights, layer, &name("self_attn"))?,
            post_attention_norm: norm("post_attention_layernorm")?,
            mlp: Mlp {
                gate: weights.linear(&name("mlp.gate_proj"), hidden, inner)?,
                up: weights.linear(&name("mlp.up_proj"), hidden, inner)?,
                down: weights.linear(&name("mlp.down_proj"), inner, hidden)?,
            },
        })
    }

    fn linears(&self) -> [&Linear; 7] {
        let Self { attention: Attention { q, k, v, o, .. }, mlp: Mlp { gate, up, down }, .. } = self;
        [q, k, v, o, gate, up, down]
    }

    fn forward(&self, x: &Tensor, layer: usize, step: &Step<'_>) -> candle_core::Result<Tensor> {
        let normed = step.config.norm(x, &self.input_norm)?;
        let x = add(x, &self.attention.forward(&normed, layer, step)?)?;
        let normed = step.config.norm(&x, &self.post_attention_norm)?;
        add(&x, &self.mlp.forward(&normed)?)
    }
}

impl Attention {
    fn new(config: &ModelConfig, weights: &Weights, layer: usize, name: &str) -> Result<Self> {
        let hidden = config.hidden_size;
        let q_size = config.num_attention_heads * config.head_dim;
        let kv_size = config.num_key_value_heads * config.head_dim;
        let part = |part: &str, from, to| weights.linear(&format!("{name}.{part}"), from, to);
        let head_norm = |part: &str| weights.tensor(&format!("{name}.{part}.weight"), &[config.head_dim]);
        let attention = Self {
            q: part("q_proj", hidden, q_size)?,
            k: part("k_proj", hidden, kv_size)?,
            v: part("v_proj", hidden, kv_size)?,
            o: part("o_proj", q_size, hidden)?,
            head_norms: match config.architecture {
                Architecture::Qwen3 => Some([head_norm("q_norm")?, head_norm("k_norm")?]),
                _ => None,
            },
            window: config.sliding_window.get(layer).copied().flatten(),
        };
        for (part, linear) in [("q", &attention.q), ("k", &attention.k), ("v", &attention.v)] {
            if config.attention_bias && !linear.has_bias() {
                return Err(Error::TensorMissing { tensor: format!("{name}.{part}_proj.bias") });
            }
        }
        Ok(attention)
    }

    fn forward(&self, x: &Tensor, layer: usize, step: &Step<'_>) -> candle_core::Result<Tensor> {
        let heads = |linear: &Linear| linear.forward(x)?.reshape((x.dim(0)?, (), step.config.head_dim));
        let turned = |linear: &Linear, norm: Option<&Tensor>| match norm {
            Some(norm) => step.turn(&step.config.norm(&heads(linear)?, norm)?),
            None => step.turn(&heads(linear)?),
        };
        let [q_norm, k_norm] = self.head_norms.as_ref().map_or([None; 2], |norms| norms.each_ref().map(Some));
        let (q, (keys, values)) = together(
            x,
            || turned(&self.q, q_norm),
            || {
                together(
                    x,
                    || step.cache.append_keys(layer, &turned(&self.k, k_norm)?),
                    || step.cache.append_values(layer, &heads(&self.v)?),
                )
            },
        );
        let causal = Causal { first: step.cache.len(), window: self.window };
        let mask = step.masks.iter().find(|(window, _)| *window == self.window);
        let mask = mask.and_then(|(_, mask)| mask.as_ref());
        self.o.forward(&attention(&q?, &keys?, &values?, causal, mask)?)
    }
}

impl Step<'_> {
    /// Turns the heads `[T, heads, head_dim]` as their positions say.
    fn turn(&self, heads: &Tensor) -> candle_core::Result<Tensor> {
        candle_nn::rotary_emb::rope_thd(&heads.unsqueeze(0)?, &self.cos, &self.sin)?.squeeze(0)
    }
}

impl Mlp {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (gate, up) = together(x, || self.gate.forward(x), || self.up.forward(x));
        self.down.forward(&silu_mul(&gate?, &up?)?)
    }
}
