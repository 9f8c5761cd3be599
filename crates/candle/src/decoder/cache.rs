//! Keys and values of the tokens seen so far.

use candle_core::{DType, Device, Tensor};

use super::config::ModelConfig;
use crate::error::{Error, Result};

/// The keys and values of one sequence, with room for `capacity` tokens. New ones are written behind the old, in
/// place: no step copies what is there.
pub struct Cache {
    /// For each layer, keys and values: `[capacity, heads, head_dim]`, and on a device `[heads, capacity, head_dim]`, so
    /// that those of a head are a matrix for its libraries.
    pub(super) layers: Vec<[Tensor; 2]>,
    tokens: usize,
    capacity: usize,
    /// A token that goes on from it, recorded. The lock is never waited for: a graph is for one thread at a time.
    #[cfg(feature = "cuda")]
    pub(super) whole_token: std::sync::Mutex<Option<Box<super::whole_token::WholeToken>>>,
}

impl Cache {
    pub(super) fn new(config: &ModelConfig, capacity: usize, dtype: DType, device: &Device) -> Result<Self> {
        let limit = config.max_tokens();
        if capacity > limit {
            return Err(Error::TooLong {
                tokens: capacity,
                limit: format!("the model's context of {limit}"),
                remedy: "give a shorter prompt, or ask for fewer new tokens".into(),
            });
        }
        let (heads, width) = (config.num_key_value_heads, config.head_dim);
        let shape = if device.is_cpu() { (capacity, heads, width) } else { (heads, capacity, width) };
        let zeros = || Tensor::zeros(shape, dtype, device);
        let layers = (0..config.num_hidden_layers).map(|_| Ok([zeros()?, zeros()?]));
        Ok(Self {
            layers: layers.collect::<candle_core::Result<_>>()?,
            tokens: 0,
            capacity,
            #[cfg(feature = "cuda")]
            whole_token: std::sync::Mutex::default(),
        })
    }

    /// Tokens whose keys and values are in it.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Tokens that it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of its tensors.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum()
    }

    /// Forgets all tokens from number `tokens` on.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
    }

    /// That `tokens` more fit.
    pub(super) fn check(&self, tokens: usize) -> Result<()> {
        let after = self.tokens + tokens;
        if after <= self.capacity {
            return Ok(());
        }
        Err(Error::TooLong {
            tokens: after,
            limit: format!("a cache made for {}", self.capacity),
            remedy: "make it larger, or begin a new one".into(),
        })
    }

    /// Writes the keys `[T, heads, head_dim]` of a layer behind those it has, and returns all of them,
    /// `[tokens, heads, head_dim]`.
    pub(super) fn append_keys(&self, layer: usize, keys: &Tensor) -> candle_core::Result<Tensor> {
        self.append(self.layers.get(layer).map(|[keys, _]| keys), keys)
    }

    /// The same for values.
    pub(super) fn append_values(&self, layer: usize, values: &Tensor) -> candle_core::Result<Tensor> {
        self.append(self.layers.get(layer).map(|[_, values]| values), values)
    }

    fn append(&self, to: Option<&Tensor>, new: &Tensor) -> candle_core::Result<Tensor> {
        let Some(all) = to else { candle_core::bail!("the cache has {} layers only", self.layers.len()) };
        let tokens = self.tokens + new.dim(0)?;
        if all.device().is_cpu() {
            all.slice_set(&new.contiguous()?, 0, self.tokens)?;
            return all.narrow(0, 0, tokens);
        }
        all.slice_set(&new.transpose(0, 1)?.contiguous()?, 1, self.tokens)?;
        all.narrow(1, 0, tokens)?.transpose(0, 1)
    }

    /// Counts `tokens` whose keys and values every layer has appended.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }
}
