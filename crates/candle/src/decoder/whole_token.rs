//! One token on a GPU as one graph: recorded once for each cache, launched for each token.
//!
//! A token of candle's operations is some thousand launches, which take the host longer than the GPU. Here it is 13 for
//! each layer, recorded: seven of layers, and those of kernels/decoder between. What changes from token to token, the token
//! and its position, lies in memory of the GPU.
#![expect(unsafe_code, reason = "launches kernels and a graph on addresses")]

use std::fmt;
use std::sync::{Arc, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{DType, Device, Tensor, bail};
use gptq_core::device::{Context, Memory as _};
use gptq_core::tensor::{TensorMut, TensorRef};
use gptq_cuda::{CudaBuffer, CudaStream, Gpu, Graph};

use super::{Block, Cache, Decoder, ModelConfig};
use crate::cuda::kernels::{Attended, Dense, TokenKernels, Turned};
use crate::cuda::sizes::{Heads, refusal};
use crate::cuda::{Queue, address, address_of_slice, stream_of};
use crate::dense::Matrix;
use crate::error::Result;
use crate::weights::{Linear, Weights, core_dtype};

/// What a decoder needs to run a token as a graph, or why it cannot.
pub(super) type Kernels = std::result::Result<Arc<TokenKernels>, String>;

/// Everything in the work memory lies at multiples of this.
const ALIGNMENT: usize = 256;

/// A token of one cache, recorded.
pub(super) struct WholeToken {
    /// Recorded on a stream of its own: what other threads queue on candle's meanwhile stays out of it.
    graph: Graph,
    /// Candle's, on which it is launched.
    stream: CudaStream,
    token: Token,
}

/// What a token is, and all that it works in.
struct Token {
    kernels: Arc<TokenKernels>,
    gpu: Gpu,
    heads: Heads,
    steps: Vec<Step>,
    /// The token and its position.
    state: CudaSlice<u32>,
    /// In f32 from a plain head, in the type of activations from a quantized one.
    logits: Tensor,
    // Steps have addresses of what these keep.
    weights: Weights,
    device: CudaDevice,
    _work: CudaBuffer,
    _tensors: Vec<Tensor>,
}

/// One launch, or one layer's.
enum Step {
    Embed {
        table: u64,
        shape: [usize; 2],
        token: u64,
        x: u64,
    },
    /// x, delta, weight, out.
    Norm {
        of: [u64; 4],
        width: usize,
        eps: f32,
    },
    Packed {
        name: String,
        x: u64,
        out: u64,
    },
    Dense(Dense),
    Turn(Turned),
    Attend(Attended),
    /// gate, up, out.
    Gate {
        of: [u64; 3],
        width: usize,
    },
}

/// The kernels for tokens of such a model.
pub(super) fn find_kernels(config: &ModelConfig, weights: &Weights) -> Kernels {
    let Device::Cuda(device) = weights.device() else { return Err("it runs on no GPU".into()) };
    if !Queue::of(device.cuda_stream().cu_stream() as usize).is_shared() {
        let remedy = "make it with Device::new_cuda_with_stream";
        return Err(format!("its device has another stream in each thread; {remedy}"));
    }
    let dtype = core_dtype(weights.dtype()).map_err(|error| error.to_string())?;
    let widths = [config.hidden_size, config.intermediate_size];
    if let Some(reason) = refusal(dtype, &widths, Heads::of(config, 1)) {
        return Err(reason);
    }
    let gpu = weights.layers().contexts().gpu(device).map_err(|error| error.to_string())?;
    TokenKernels::load(&gpu, dtype).map(Arc::new)
}

impl Heads {
    fn of(config: &ModelConfig, capacity: usize) -> Self {
        let (heads, groups) = (config.num_attention_heads, config.num_key_value_heads);
        Self { heads, groups, width: config.head_dim, capacity }
    }
}

impl Decoder {
    /// Whether a new token runs as one graph of kernels. If not, it runs operation by operation, and slower.
    ///
    /// # Errors
    /// The reason.
    pub fn whole_tokens(&self) -> std::result::Result<(), &str> {
        self.token_kernels.as_ref().map(|_| ()).map_err(String::as_str)
    }

    /// The logits after `token`, where this decoder runs it as one graph.
    pub(super) fn whole_token(&self, token: u32, cache: &mut Cache) -> Result<Option<Tensor>> {
        let Ok(kernels) = &self.token_kernels else { return Ok(None) };
        cache.check(1)?;
        self.embeddings.check(&[token])?;
        let position = u32::try_from(cache.len()).map_err(candle_core::Error::wrap)?;
        // Another decoder's recording is of no use to this one.
        let place = cache.whole_token.get_mut().unwrap_or_else(PoisonError::into_inner);
        let recorded = place.take().filter(|recorded| Arc::ptr_eq(&recorded.token.kernels, kernels));
        let recorded = match recorded {
            Some(mut recorded) => {
                recorded.token.tell(token, position)?;
                // SAFETY: what was recorded uses memory of `recorded`, of weights that it keeps, and of the cache that has
                // it; all of that is used in the order of this stream alone.
                unsafe { recorded.graph.launch_on(&recorded.stream) }?;
                recorded
            }
            None => {
                let mut new = Token::new(self, kernels, cache)?;
                new.tell(token, position)?;
                let (contexts, model) = (new.weights.layers().contexts(), new.weights.layers().model());
                // The first one runs launch by launch: what is loaded or chosen at a first call cannot be recorded.
                contexts.lent.with(&new.device, model, |context| new.queue(context))?;
                let own = Context::on_stream(&new.gpu, new.gpu.stream()?, model.scratch_bytes())?;
                let graph = Graph::capture(own, |context| new.queue(context))?;
                // SAFETY: `new` has the GPU of its device, and keeps both as long as the stream.
                let stream = unsafe { stream_of(&new.device, &new.gpu) };
                Box::new(WholeToken { graph, stream, token: new })
            }
        };
        let logits = recorded.token.answer();
        *cache.whole_token.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(recorded);
        cache.advance(1);
        Ok(Some(logits?))
    }
}

impl Token {
    fn new(decoder: &Decoder, kernels: &Arc<TokenKernels>, cache: &Cache) -> candle_core::Result<Self> {
        let (config, weights) = (&decoder.config, &decoder.weights);
        let Device::Cuda(device) = weights.device() else { bail!("the weights are on no GPU") };
        let gpu = weights.layers().contexts().gpu(device)?;
        let heads = Heads::of(config, cache.capacity());
        let state = device.alloc_zeros::<u32>(2)?;
        let dtype = match decoder.head {
            Linear::Dense(_) => DType::F32,
            Linear::Packed(_) => weights.dtype(),
        };
        let logits = Tensor::zeros(config.vocab_size, dtype, weights.device())?;
        let (cosines, sines) = config.rope.tables(0, cache.capacity(), DType::F32, weights.device())?;

        let size = weights.dtype().size_in_bytes();
        let (q, kv) = (heads.heads * heads.width, heads.groups * heads.width);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut layout = Layout::default();
        let vector = |layout: &mut Layout, width: usize| layout.add(width * size);
        let mut slots = Slots {
            x: vector(&mut layout, hidden),
            normed: vector(&mut layout, hidden),
            qkv: [q, kv, kv].map(|width| vector(&mut layout, width)),
            turned: vector(&mut layout, q),
            attended: vector(&mut layout, q),
            delta: vector(&mut layout, hidden),
            gate: vector(&mut layout, inner),
            up: vector(&mut layout, inner),
            gated: vector(&mut layout, inner),
            work: layout.add(kernels.work_bytes(heads)),
        };
        let work = gpu.allocate_buffer(layout.bytes).map_err(candle_core::Error::wrap)?;
        slots.begin_at(work.address());

        let state_address = address_of_slice(&state, device);
        let mut builder = Builder {
            slots,
            steps: Vec::new(),
            tensors: vec![cosines.clone(), sines.clone()],
            eps: config.eps(),
            angles: [address(&cosines)?, address(&sines)?],
            position: state_address + size_of::<u32>() as u64,
        };
        let (table, shape) = builder.keep_matrix(&decoder.embeddings)?;
        builder.steps.push(Step::Embed { table, shape, token: state_address, x: slots.x });
        let mut delta = 0;
        for (block, [keys, values]) in decoder.blocks.iter().zip(&cache.layers) {
            builder.block(block, [address(keys)?, address(values)?], delta, [hidden, inner])?;
            delta = slots.delta;
        }
        builder.norm(&decoder.norm, delta, hidden)?;
        builder.linear(&decoder.head, slots.normed, address(&logits)?, dtype == DType::F32)?;
        let Builder { steps, tensors, .. } = builder;
        let (weights, device) = (weights.clone(), device.clone());
        Ok(Self {
            kernels: Arc::clone(kernels),
            gpu,
            heads,
            steps,
            state,
            logits,
            weights,
            device,
            _work: work,
            _tensors: tensors,
        })
    }

    /// Says which token comes next, and where, in the order of the stream.
    fn tell(&mut self, token: u32, position: u32) -> candle_core::Result<()> {
        self.device.memcpy_htod(&[token, position], &mut self.state)
    }

    /// The logits in f32, in memory of their own: the next token's replace these.
    fn answer(&self) -> candle_core::Result<Tensor> {
        match self.logits.dtype() {
            DType::F32 => self.logits.copy(),
            _ => self.logits.to_dtype(DType::F32),
        }
    }

    /// Queues every step.
    fn queue(&self, context: &mut Context) -> gptq_core::Result<()> {
        let kernels = &*self.kernels;
        for step in &self.steps {
            if let Step::Packed { name, x, out } = step {
                self.packed(name, *x, *out, context)?;
                continue;
            }
            let Some((stream, _)) = context.on_device() else { continue };
            let stream = CudaStream::of(stream)?;
            // SAFETY: all addresses are of this GPU and of memory that `self` or the cache keeps: slots of the work memory
            // and tensors of candle's, laid out one behind the other and aligned to 256 bytes, of the sizes that the
            // configuration gives and `refusal` has looked at. All is used in the order of this one stream.
            unsafe {
                match step {
                    Step::Embed { table, shape, token, x } => {
                        kernels.embed(stream, *table, *shape, *token, *x)
                    }
                    Step::Norm { of, width, eps } => kernels.norm(stream, *of, *width, *eps),
                    Step::Dense(dense) => kernels.dense(stream, dense),
                    Step::Turn(turned) => kernels.turn(stream, self.heads, turned),
                    Step::Attend(attended) => kernels.attend(stream, self.heads, attended),
                    Step::Gate { of, width } => kernels.gate(stream, *of, *width),
                    Step::Packed { .. } => Ok(()),
                }
            }?;
        }
        Ok(())
    }

    fn packed(&self, name: &str, x: u64, out: u64, context: &mut Context) -> gptq_core::Result<()> {
        let layer = self.weights.layers().model().layer(name)?;
        let dtype = self.kernels.dtype();
        let (k, n) = (layer.info().in_features, layer.info().out_features);
        // SAFETY: a slot of the work memory, or the logits, of so many elements; used in the order of the context's stream.
        let lend = |address, width: usize| unsafe {
            CudaBuffer::from_raw(&self.gpu, address, width * dtype.size_bytes())
        };
        let (x, mut out) = (lend(x, k), lend(out, n));
        let x = TensorRef::on_device(dtype, [1, k], &x, 0)?;
        layer.forward(&x, &mut TensorMut::on_device(dtype, [1, n], &mut out, 0)?, context)
    }
}

/// Where vectors lie that one kernel hands to the next.
#[derive(Clone, Copy)]
struct Slots {
    x: u64,
    normed: u64,
    qkv: [u64; 3],
    turned: u64,
    attended: u64,
    delta: u64,
    gate: u64,
    up: u64,
    gated: u64,
    work: u64,
}

impl Slots {
    /// Makes addresses of offsets.
    fn begin_at(&mut self, address: u64) {
        let Self { x, normed, qkv: [q, k, v], turned, attended, delta, gate, up, gated, work } = self;
        for slot in [x, normed, q, k, v, turned, attended, delta, gate, up, gated, work] {
            *slot += address;
        }
    }
}

#[derive(Default)]
struct Layout {
    bytes: usize,
}

impl Layout {
    /// The offset of so many bytes more.
    fn add(&mut self, bytes: usize) -> u64 {
        let offset = self.bytes;
        self.bytes = (offset + bytes).next_multiple_of(ALIGNMENT);
        offset as u64
    }
}

/// Steps as they are put together.
struct Builder {
    slots: Slots,
    steps: Vec<Step>,
    /// What steps have addresses of.
    tensors: Vec<Tensor>,
    eps: f32,
    angles: [u64; 2],
    position: u64,
}

impl Builder {
    fn keep(&mut self, tensor: &Tensor) -> candle_core::Result<u64> {
        self.tensors.push(tensor.clone());
        address(tensor)
    }

    fn keep_matrix(&mut self, matrix: &Matrix) -> candle_core::Result<(u64, [usize; 2])> {
        match matrix.tensor() {
            Some(tensor) => Ok((self.keep(tensor)?, matrix.shape())),
            None => bail!("a matrix is not on the GPU"),
        }
    }

    /// x += delta, and its norm.
    fn norm(&mut self, weight: &Tensor, delta: u64, width: usize) -> candle_core::Result<()> {
        let of = [self.slots.x, delta, self.keep(weight)?, self.slots.normed];
        self.steps.push(Step::Norm { of, width, eps: self.eps });
        Ok(())
    }

    fn linear(&mut self, linear: &Linear, x: u64, out: u64, out_is_f32: bool) -> candle_core::Result<()> {
        let step = match linear {
            Linear::Packed(linear) => Step::Packed { name: linear.layer()?.name().into(), x, out },
            Linear::Dense(dense) => {
                let (weight, shape) = self.keep_matrix(dense.weight())?;
                let bias = dense.bias().map_or(Ok(0), |bias| self.keep(bias))?;
                Step::Dense(Dense { weight, bias, x, out, shape, out_is_f32 })
            }
        };
        self.steps.push(step);
        Ok(())
    }

    fn block(
        &mut self,
        block: &Block,
        [keys, values]: [u64; 2],
        delta: u64,
        [hidden, inner]: [usize; 2],
    ) -> candle_core::Result<()> {
        let Slots { normed, qkv, turned, attended, gate, up, gated, work, .. } = self.slots;
        let attention = &block.attention;
        self.norm(&block.input_norm, delta, hidden)?;
        for (linear, out) in [&attention.q, &attention.k, &attention.v].into_iter().zip(qkv) {
            self.linear(linear, normed, out, false)?;
        }
        let norms = match &attention.head_norms {
            Some([q, k]) => [self.keep(q)?, self.keep(k)?],
            None => [0, 0],
        };
        let ([cosines, sines], position, eps) = (self.angles, self.position, self.eps);
        self.steps.push(Step::Turn(Turned {
            qkv,
            norms,
            cosines,
            sines,
            position,
            turned,
            keys,
            values,
            eps,
        }));
        let window = attention.window;
        let out = attended;
        self.steps.push(Step::Attend(Attended { q: turned, keys, values, position, out, work, window }));
        self.linear(&attention.o, attended, self.slots.delta, false)?;
        self.norm(&block.post_attention_norm, self.slots.delta, hidden)?;
        self.linear(&block.mlp.gate, normed, gate, false)?;
        self.linear(&block.mlp.up, normed, up, false)?;
        self.steps.push(Step::Gate { of: [gate, up, gated], width: inner });
        self.linear(&block.mlp.down, gated, self.slots.delta, false)
    }
}

impl fmt::Debug for WholeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a token in {} steps", self.token.steps.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_lie_one_behind_the_other_and_aligned() {
        let mut layout = Layout::default();
        assert_eq!([layout.add(10), layout.add(256), layout.add(1)], [0, 256, 512]);
        assert_eq!(layout.bytes, 768);
    }
}
