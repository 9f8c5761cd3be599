//! The backend `torch`: every GPTQ layer, on every machine.
//!
//! It runs all widths from 2 to 8 bits, both packings, any group size, symmetric or not, act-order, with or
//! without bias, for x in f32, f16 or bf16. Named after the backend of the same role in GPTQModel and Optimum;
//! there is no PyTorch in it.
//!
//! ```
//! use gptq_core::backend::{BACKEND, dispatch};
//! use gptq_core::checkpoint::Checkpoint;
//! use gptq_core::device::Device;
//! use gptq_core::post_init::{PostInitOptions, post_init};
//! use gptq_core::tensor::{TensorMut, TensorRef};
//! use gptq_torch_fallback as _; // Registers it.
//!
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/checkpoints/kjv-4bit-g128-sym-actorder");
//! let checkpoint = Checkpoint::open(dir)?;
//! let plan = dispatch::plan(&checkpoint, BACKEND::Torch, Device::Cpu)?;
//! let model = post_init(checkpoint, plan, PostInitOptions::default())?;
//!
//! let layer = &model.layers()[0];
//! let (k, n) = (layer.info().in_features, layer.info().out_features);
//! let (x, mut y) = (vec![1.0f32; k], vec![f32::NAN; n]);
//! let mut context = model.context()?;
//! layer.forward(&TensorRef::host(&x, [1, k])?, &mut TensorMut::host(&mut y, [1, n])?, &mut context)?;
//! assert!(y.iter().all(|y| y.is_finite()));
//! # Ok::<(), gptq_core::Error>(())
//! ```
//!
//! With the feature `cuda` it runs on NVIDIA GPUs too (`Device::Cuda`), in f16 and f32, and in bf16 where the GPU has it.
//!
//! # Design, and its price
//!
//! - **Kernels are chosen when a model is opened**, by what the processor has: AVX-512 with VBMI and VNNI (and BF16, if it
//!   is there), AVX2 with FMA, or plain code. The option `torch.isa` overrides the choice. Elsewhere than on x86-64 there
//!   is only plain code.
//! - **Nothing is repacked.** Codes are read where the checkpoint maps them. A few rows of x stream each word once; more
//!   pass over a strip of words in a core's cache, and unpack it each time or once, whichever is faster. The price: every
//!   call unpacks again.
//! - **Act-order layers are the exception.** They keep a copy of their words in the order of groups, about as large as
//!   the layer and reported as such. `torch.sorted_copy=false` does without it, and then such layers take the plain
//!   path.
//! - **Weights are multiplied unscaled.** `code - zero` is a small integer and exact in bf16, in f32 and in a byte. A run
//!   of at most 128 products is summed and scaled once, so nothing of a weight is lost and the error does not grow with K.
//! - **x in bf16 is exact, and x in f32 and f16 too with AVX2. With AVX-512 they are rounded to 24 bits**: to multiples of
//!   one unit in a run of 128 rows, of which the largest of them takes 24 bits. Then integers are multiplied, which is a
//!   third faster than f32, and summed exactly. What is rounded away is as much as one addition in f32 rounds. Where x is
//!   infinite or no number, or all of a run is smaller than 2^-103, it is multiplied in f32. With codes of 8 bits and up to 8
//!   rows of x, or of 2 and 3 bits and one row, that is faster for bf16 too, and is how it is multiplied.
//! - **The same bits on any number of threads.** What is added up in which order depends on the layer and the number of
//!   rows, never on who did it.
//! - **Threads of the global pool stay awake for 100 microseconds** after a call that they helped with, since the next layer
//!   is called soon, and do other work of the pool meanwhile; after 4 milliseconds they go back to it however many calls come.
//!   Calls from within a pool use that pool as it is.
//!
//! - **On a GPU the packed words lie in its memory as files hold them.** A few rows of x are multiplied from them; for more,
//!   panels of the dense matrix are written and handed to cuBLASLt, rounded to x's type. The price: one rounding of the
//!   weights more, which the capabilities say. Nothing of CUDA is linked. `torch.dense_rows` sets from how many rows that is;
//!   with 0 every call is made of fused products, which take any layer and any number of rows, four at a time, and no context
//!   has scratch for a dense matrix.
//!
//! Groups that are no multiple of 32 rows take the plain path.

mod backend;
#[cfg(feature = "cuda")]
mod cuda;
mod fast;
mod kernel;
pub mod limits;
mod linear;
mod plain;
mod tasks;
mod x;

use gptq_core::backend::{
    Backend, BackendId, Capabilities, Linear, OptionSpec, Options, Registration, Rejection, Speed,
};
use gptq_core::device::Device;
use gptq_core::{Error, LayerInfo, QuantLinear, Result};

use backend::TorchBackend;

/// The name of this backend: `torch`.
pub const ID: BackendId = BackendId::new("torch");

/// This backend. Linking the crate registers it: `use gptq_torch_fallback as _;`.
pub const REGISTRATION: Registration = Registration {
    priority: 20,
    summary: "every layer on every machine: the packed words are read where the checkpoint maps them",
    options: &OPTIONS,
    accepts: Some(accepts),
    ..Registration::new(ID, capabilities, open)
};

gptq_core::register!(REGISTRATION);

/// One layer by itself, for an engine that holds layers without a checkpoint. `layer` may have its zero points in
/// any encoding.
///
/// # Errors
/// [`Error::Option`] where an option asks for what the processor has not.
pub fn linear(layer: QuantLinear, options: &Options) -> Result<Box<dyn Linear>> {
    TorchBackend::linear(layer, options)
}

const ISA: &str = "isa";
const SORTED_COPY: &str = "sorted_copy";
const DENSE_ROWS: &str = "dense_rows";
const DENSE_BYTES: &str = "dense_bytes";
const OPTIONS: [OptionSpec; 4] = [
    OptionSpec {
        name: ISA,
        help: "the instruction set of the kernels: plain, avx2 or avx512; by default the best that the processor has",
    },
    OptionSpec {
        name: SORTED_COPY,
        help: "whether act-order layers keep a copy of their words in the order of groups (true, the default), or \
               take the plain path without one (false)",
    },
    OptionSpec {
        name: DENSE_ROWS,
        help: "on a GPU: rows of x from which the dense matrix is written and multiplied by cuBLASLt, 0 for never; or \
               for layers by size: 4096x4096:8,8192x28672:5; by default where that was measured to be faster",
    },
    OptionSpec {
        name: DENSE_BYTES,
        help: "on a GPU: bytes of the dense matrix that are written at a time: a context's scratch has room for so much; by \
               default up to 512 MB, at most a 64th of the GPU's memory",
    },
];

/// Refuses options that mean something elsewhere, and nothing on `device`.
fn refuse(options: &Options, names: &[&'static str], device: &Device) -> Result<()> {
    for name in names {
        if options.read::<String>(ID, name)?.is_some() {
            return Err(Error::Option {
                key: format!("{ID}.{name}"),
                problem: format!("it means nothing on {device}, where the model runs; leave it out"),
            });
        }
    }
    Ok(())
}

fn capabilities(device: &Device) -> Result<Capabilities, Rejection> {
    match device {
        Device::Cpu => Ok(Capabilities { speed: Speed::Fallback, ..Capabilities::ANY }),
        #[cfg(feature = "cuda")]
        Device::Cuda(ordinal) => cuda::capabilities(*ordinal),
        _ => Err(elsewhere(device)),
    }
}

fn accepts(device: &Device, layer: &LayerInfo) -> Result<(), Rejection> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => cuda::accepts(layer),
        _ => {
            let _ = layer;
            Ok(())
        }
    }
}

fn open(device: &Device, options: &Options) -> Result<Box<dyn Backend>> {
    match device {
        Device::Cpu => TorchBackend::open(options),
        #[cfg(feature = "cuda")]
        Device::Cuda(ordinal) => cuda::CudaBackend::open(*ordinal, options),
        _ => Err(Error::Rejected {
            backend: ID,
            subject: format!("on {device}"),
            rejection: Box::new(elsewhere(device)),
        }),
    }
}

fn elsewhere(device: &Device) -> Rejection {
    let supported = match device {
        Device::Cuda(_) => "cpu, as it was built without its feature `cuda`",
        _ if cfg!(feature = "cuda") => "cpu and cuda",
        _ => "cpu",
    };
    Rejection::DeviceKind { device: device.clone(), supported: supported.into() }
}

#[cfg(test)]
mod tests;
