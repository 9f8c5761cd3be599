//! The backend `exllama_v1`: 4-bit layers on NVIDIA GPUs, from words in the order of the file.
//!
//! It keeps the contract of ExLlama v1 in AutoGPTQ and Optimum: a fused kernel for few rows of x, the dense matrix rebuilt
//! for many, `temp_state` and `temp_dq`, and [`set_max_input_length`]. x and scales are f16; groups are of any size, with
//! or without act-order. x in bf16 is refused, not narrowed.
//!
//! ```
//! use gptq_core::backend::{BACKEND, PlanRequest, Registry};
//! use gptq_core::device::Device;
//!
//! let mut request = PlanRequest::new(BACKEND::ExllamaV1, Device::Cuda(0));
//! request.registry = Registry::empty().with(gptq_exllama_v1::REGISTRATION);
//! # assert_eq!(request.registry.iter().len(), 1);
//! ```
//!
//! `auto` asks `exllama_v2` before it, which is faster for a few rows of x where it accepts the layer.
//!
//! # Design, and its price
//!
//! - **Words are not rearranged.** They lie in device memory as files hold them; those of an act-order layer are sorted by
//!   group once, and x is gathered into `temp_state` in the same order at every call.
//! - **A few rows** of x are multiplied with the packed words on tensor cores, in f32, with weights that are not rounded.
//!   GPUs without tensor cores, and groups that 32 rows would straddle, take a kernel without them, four rows at a time.
//! - **More rows** take the dense matrix in `temp_dq`, and cuBLASLt. Where that begins was measured; the option
//!   `matmul_recons_thd` sets it, and 8 is what it was in the original.
//! - **`temp_state` and `temp_dq` are in the scratch of a context**, which belongs to a model and to one stream at a time:
//!   two models never meet, nor do two threads. The price: each context has its own. `temp_dq_bytes` caps `temp_dq`, and
//!   the dense matrix then comes in panels of columns.
//! - **A call with more rows than `temp_state` holds is run in pieces**, on both paths. Layers without act-order need no
//!   more than one row of it, whatever the length: for a model without them [`set_max_input_length`] is not needed.
//!
//! [`set_max_input_length`]: gptq_core::post_init::FinalizedModel::set_max_input_length

mod backend;
mod choice;
mod kernels;
mod layout;
mod linear;
mod params;
mod scratch;

use gptq_core::LayerInfo;
use gptq_core::backend::{BackendId, Capabilities, OptionSpec, Registration, Rejection, Speed};
use gptq_core::device::Device;
use gptq_core::format::Bits;
use gptq_core::tensor::DType;
use gptq_cuda::{KernelImage, Matmul, arguments};

/// The name of this backend: `exllama_v1`.
pub const ID: BackendId = BackendId::new("exllama_v1");

/// This backend. Linking the crate registers it: `use gptq_exllama_v1 as _;`.
pub const REGISTRATION: Registration = Registration {
    // After `exllama_v2`, which is faster for a few rows, and before `torch`.
    priority: 30,
    summary: "4-bit layers on NVIDIA GPUs from words in the order of the file, with buffers of a set input length",
    options: &OPTIONS,
    accepts: Some(accepts),
    ..Registration::new(ID, capabilities, backend::open)
};

gptq_core::register!(REGISTRATION);

/// The family's fatbin, where it was built before this crate.
const EMBEDDED: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/exllama_v1.rs"));
/// The family of kernels.
const FAMILY: &str = "exllama_v1";

const MATMUL_RECONS_THD: &str = "matmul_recons_thd";
const TEMP_DQ_BYTES: &str = "temp_dq_bytes";
const OPTIONS: [OptionSpec; 2] = [
    OptionSpec {
        name: MATMUL_RECONS_THD,
        help: "rows of x from which the dense matrix is rebuilt and multiplied by cuBLASLt: 8 as in the original, 0 for \
               never; by default where that was measured to be faster",
    },
    OptionSpec {
        name: TEMP_DQ_BYTES,
        help: "bytes of temp_dq, the dense matrix, at most; it is rebuilt in panels of columns that fit. By default the \
               whole of the largest layer",
    },
];

const BITS: [Bits; 1] = [Bits::FOUR];
const F16: [DType; 1] = [DType::F16];

fn capabilities(device: &Device) -> Result<Capabilities, Rejection> {
    let Device::Cuda(ordinal) = device else {
        return Err(Rejection::DeviceKind { device: device.clone(), supported: "cuda".into() });
    };
    let gpu = gptq_cuda::probe(*ordinal)?;
    KernelImage::find(FAMILY, EMBEDDED)?.check(&gpu)?;
    Matmul::probe()?;
    Ok(Capabilities {
        bits: &BITS,
        ragged_groups: false,
        x_dtypes: &F16,
        scale_dtypes: &F16,
        in_features_multiple: 8,
        out_features_multiple: 8,
        // For many rows a dense matrix is written in x's type, for cuBLASLt.
        rounds_weights: true,
        speed: Speed::Native,
        ..Capabilities::ANY
    })
}

/// Whether the numbers of a layer are ones that the kernels count with.
fn accepts(_: &Device, layer: &LayerInfo) -> Result<(), Rejection> {
    arguments::accepts(layer, [kernels::MOST_IN_FEATURES, kernels::MOST_OUT_FEATURES])
}

#[cfg(test)]
mod tests;
