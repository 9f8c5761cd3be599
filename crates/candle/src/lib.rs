//! Finalized GPTQ layers as candle modules, and a small decoder of the Llama family on them.
//!
//! ```
//! use candle_core::{DType, Device};
//! use gptq_candle::{Decoder, Sampler, Weights};
//! use gptq_core::backend::{BACKEND, dispatch};
//! use gptq_core::checkpoint::Checkpoint;
//! use gptq_core::post_init::{PostInitOptions, post_init};
//! use gptq_torch_fallback as _; // An application names its backends.
//!
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/checkpoints/kjv-4bit-g128-sym");
//! let checkpoint = Checkpoint::open(dir)?;
//! let plan = dispatch::plan(&checkpoint, BACKEND::Auto, gptq_core::device::Device::Cpu)?;
//! let model = post_init(checkpoint, plan, PostInitOptions::default())?;
//!
//! let weights = Weights::new(model, DType::F32, &Device::Cpu)?;
//! let decoder = Decoder::load(weights)?;
//! let mut cache = decoder.cache(128)?;
//! let mut tokens = vec![1, 2, 3];
//! for _ in 0..16 {
//!     let logits = decoder.next(&tokens, &mut cache)?;
//!     tokens = vec![Sampler::greedy().sample(&logits)?];
//! }
//! # Ok::<(), gptq_candle::Error>(())
//! ```
//!
//! An engine with models of its own takes one floor less: [`Weights::linear`] gives each layer as a
//! [`candle_nn::Module`], quantized or not, and [`Layers`] only those that are quantized.
//!
//! # Design, and its price
//!
//! - **Weights stay where they are.** Packed layers run from the mapped file, through the backend that the plan chose;
//!   embeddings and a plain head are read there too, in the type in which they are stored. In memory of its own a
//!   model has its norms, and each sequence its [`Cache`]. The price: the first token waits for the disk.
//! - **Activations are candle tensors** of one dtype, f32, f16 or bf16, and operations are candle's, but for four
//!   that cost too much of a token on a CPU: norms, the gate of the feed-forward network, attention to a long cache,
//!   and the product with a plain matrix in half precision. Those compute in f32.
//! - **A GPU is a feature.** With `cuda` tensors may be on an NVIDIA GPU: layers are queued on the stream of candle's device,
//!   on its memory, and other operations are candle's own. The price: candle's feature of that name compiles its kernels
//!   and links CUDA when a program is built, so a program that has it starts nowhere else. That is why `gptq` has not.
//! - **One sequence at a time.** There is no batching and no paging: this shows that a checkpoint answers right and how
//!   fast its layers can be; it is no server.

mod attention;
mod contexts;
mod cpu;
#[cfg(any(feature = "cuda", test))]
mod cuda;
mod decoder;
mod dense;
mod error;
mod ops;
mod packed;
mod sampling;
mod weights;

pub use decoder::{Architecture, Cache, Decoder, ModelConfig, Rope};
pub use dense::{DenseLinear, Matrix};
pub use error::{Error, Result};
pub use packed::{Layers, PackedLinear};
pub use sampling::Sampler;
pub use weights::{Linear, Weights};
