//! GPTQ checkpoints, made ready to run.
//!
//! A GPTQ checkpoint on disk is packed for storage: zero points in one of several encodings, weights in the order
//! in which they were quantized. This crate opens it, checks it once, decides which backend runs each layer, and
//! calls the three steps that HuggingFace Optimum calls `post_init_model`.
//!
//! What a checkpoint holds is there without any backend:
//!
//! ```
//! use gptq_core::checkpoint::Checkpoint;
//!
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/checkpoints/kjv-4bit-g128-sym");
//! let checkpoint = Checkpoint::open(dir)?;
//! for layer in checkpoint.layers() {
//!     let info = layer.info();
//!     println!("{}: {} bits, [{}, {}]", layer.name(), info.bits, info.in_features, info.out_features);
//! }
//! for finding in checkpoint.findings() {
//!     println!("{finding}");
//! }
//!
//! let layer = checkpoint.layer("model.layers.0.self_attn.q_proj")?;
//! let dense: Vec<f32> = layer.dequantize(); // [in_features, out_features]
//! assert_eq!(dense.len(), layer.in_features() * layer.out_features());
//! # Ok::<(), gptq_core::Error>(())
//! ```
//!
//! With one, its layers run:
//!
//! ```no_run
//! use gptq_core::backend::{BACKEND, dispatch};
//! use gptq_core::checkpoint::Checkpoint;
//! use gptq_core::device::Device;
//! use gptq_core::post_init::{PostInitOptions, post_init};
//! use gptq_core::tensor::{TensorMut, TensorRef};
//! // An application names its backends: `use gptq_torch_fallback as _;`
//!
//! let checkpoint = Checkpoint::open("path/to/model")?;
//! let plan = dispatch::plan(&checkpoint, BACKEND::Auto, Device::Cpu)?;
//! println!("{}", plan.report()); // who runs what, and who refused and why
//! let model = post_init(checkpoint, plan, PostInitOptions::default())?;
//!
//! let layer = model.layer("model.layers.0.self_attn.q_proj")?;
//! let (k, n) = (layer.info().in_features, layer.info().out_features);
//! let (x, mut y) = (vec![1.0f32; k], vec![0.0f32; n]);
//! let mut context = model.context()?; // one for each thread or stream
//! layer.forward(&TensorRef::host(&x, [1, k])?, &mut TensorMut::host(&mut y, [1, n])?, &mut context)?;
//! # Ok::<(), gptq_core::Error>(())
//! ```
//!
//! [`backend`] is where a backend begins.
//!
//! # Design, and its price
//!
//! - **A [`QuantLinear`] cannot be wrong.** Shapes, ranges and encodings are checked when it is made; kernels
//!   check nothing. The price: a checkpoint with one bad layer does not open.
//! - **Backends are values.** A [`Registration`](backend::Registration) is a constant that a program can name;
//!   `inventory` only collects them. Traits are objects, so a backend is chosen at run time and adding one edits
//!   nothing here. The price: one virtual call for each layer.
//! - **Activations are lent.** Core has no tensor type; [`tensor`] lends slices and device buffers for one call.
//!   The price: matrices must be contiguous.
//! - **No state is global.** Buffers belong to a [`FinalizedModel`](post_init::FinalizedModel), scratch to the
//!   [`Context`](device::Context) that a caller owns.
//!
//! # What it does not promise
//!
//! A mapped file that another process cuts short kills the process that reads it:
//! [`Reading::Copy`](checkpoint::Reading::Copy) reads files into memory instead. Pickled weights are never read.

// Packed words are read from files as they lie: little-endian.
#[cfg(target_endian = "big")]
compile_error!("gptq-core reads little-endian words in place and does not support big-endian targets");

pub mod backend;
pub mod checkpoint;
pub mod device;
mod error;
pub mod format;
pub mod post_init;
mod quant_linear;
mod shared;
pub mod tensor;

#[doc(hidden)]
pub use inventory;
pub use safetensors::Dtype as StoredDtype;

pub use error::{Error, Result};
pub use quant_linear::{DequantizedRow, LayerInfo, Part, QuantLinear, QuantLinearParts};
pub use shared::Shared;
