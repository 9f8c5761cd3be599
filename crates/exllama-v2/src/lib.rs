//! The backend `exllama_v2`: GPTQ layers on NVIDIA GPUs at the speed at which their weights can be read.
//!
//! It runs 2, 3, 4 and 8 bits, group sizes that are multiples of 8 and -1, symmetric or not, act-order, with or without
//! bias, for x in f16 or bf16, on every GPU since Turing. Named after the backend of the same role in GPTQModel and Optimum;
//! the kernels are this project's own.
//!
//! ```
//! use gptq_core::backend::{BACKEND, PlanRequest, Registry};
//! use gptq_core::device::Device;
//!
//! let mut request = PlanRequest::new(BACKEND::ExllamaV2, Device::Cuda(0));
//! request.registry = Registry::empty().with(gptq_exllama_v2::REGISTRATION);
//! # assert_eq!(request.registry.iter().len(), 1);
//! ```
//!
//! # Design, and its price
//!
//! - **Weights are arranged once**, on the GPU, as tensor cores take them ([`layout`]): a lane of a warp loads what it needs
//!   in pieces of 16 bytes. The price: packed layers are not what lies in device memory, and loading takes a pass over them.
//! - **Rows of act-order layers are sorted** when they are arranged, and x is brought into their order by a small kernel
//!   ahead of each product.
//! - **A few rows of x cost what one costs**, up to 8: x is the narrow operand of the tensor core ([`products`] says which
//!   kernel runs). Weights are multiplied unscaled, as whole numbers less their zero point, which is exact; sums are f32 and
//!   scaled once for each group.
//! - **Many rows** take the dense matrix, a panel of columns at a time in the scratch of the context, and products by
//!   cuBLASLt.
//! - **Equal calls give equal bits.** Sums of warps and blocks are added in order; nothing is added atomically.
//!
//! K has to be a multiple of 32, N of 8, and scales f16 or bf16.

mod backend;
mod kernels;
pub mod layout;
mod linear;
mod memory;
#[doc(hidden)] // For tests of the kernels elsewhere.
pub mod params;
pub mod products;

use gptq_core::LayerInfo;
use gptq_core::backend::{BackendId, Capabilities, GroupSizes, OptionSpec, Registration, Rejection, Speed};
use gptq_core::device::Device;
use gptq_core::format::Bits;
use gptq_core::tensor::DType;
use gptq_cuda::{ComputeCapability, KernelImage, Matmul};

/// The name of this backend: `exllama_v2`.
pub const ID: BackendId = BackendId::new("exllama_v2");

/// This backend. Linking the crate registers it: `use gptq_exllama_v2 as _;`.
pub const REGISTRATION: Registration = Registration {
    priority: 60,
    summary: "2, 3, 4 and 8 bits on NVIDIA GPUs: weights arranged for tensor cores, a few rows at the speed of memory",
    options: &OPTIONS,
    accepts: Some(accepts),
    ..Registration::new(ID, capabilities, backend::ExllamaBackend::open)
};

gptq_core::register!(REGISTRATION);

/// The family's fatbin, where it was built before this crate.
const EMBEDDED: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/exllama_v2.rs"));
/// The family of kernels.
const FAMILY: &str = "exllama_v2";

const DENSE_ROWS: &str = "dense_rows";
const OPTIONS: [OptionSpec; 1] = [OptionSpec {
    name: DENSE_ROWS,
    help: "rows of x from which the dense matrix is written and multiplied by cuBLASLt, 0 for never; by default where \
           that was measured to be faster",
}];

/// Tensor cores multiply bf16 from Ampere on.
const BFLOAT16: ComputeCapability = ComputeCapability { major: 8, minor: 0 };
const HALVES: [DType; 2] = [DType::F16, DType::BF16];

fn x_dtypes(gpu: ComputeCapability) -> &'static [DType] {
    if gpu >= BFLOAT16 { &HALVES } else { &[DType::F16] }
}

fn capabilities(device: &Device) -> Result<Capabilities, Rejection> {
    let Device::Cuda(ordinal) = device else { return Err(elsewhere(device)) };
    let gpu = gptq_cuda::probe(*ordinal)?;
    KernelImage::find(FAMILY, EMBEDDED)?.check(&gpu)?;
    Matmul::probe()?;
    Ok(Capabilities {
        bits: &[Bits::TWO, Bits::THREE, Bits::FOUR, Bits::EIGHT],
        group_sizes: GroupSizes::MultipleOf(8),
        ragged_groups: false,
        x_dtypes: x_dtypes(gpu.compute_capability),
        scale_dtypes: &HALVES,
        in_features_multiple: 32,
        out_features_multiple: 8,
        // For many rows a dense matrix is written in x's type, for cuBLASLt.
        rounds_weights: true,
        speed: Speed::Native,
        ..Capabilities::ANY
    })
}

/// Whether the numbers of a layer are ones that the kernels count with.
fn accepts(_device: &Device, layer: &LayerInfo) -> Result<(), Rejection> {
    let most = if layer.act_order { layout::MOST_SORTED_ROWS } else { layout::MOST_ROWS };
    let rows = layer.in_features;
    if rows > most {
        return Err(Rejection::other(
            format!("the layer's in_features is {rows}, and the kernels count to {most}"),
            "split the module, or choose another backend",
        ));
    }
    if !kernels::counts(&layout::Arrangement::of(layer)) {
        return Err(Rejection::other(
            format!("the layer's out_features, {}, is more than the kernels count to", layer.out_features),
            "split the module, or choose another backend",
        ));
    }
    Ok(())
}

fn elsewhere(device: &Device) -> Rejection {
    Rejection::DeviceKind { device: device.clone(), supported: "cuda".into() }
}
