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
//! - **Weights are arranged once**, on the GPU, as tensor cores take them ([`gptq_tiles::layout`]): a lane of a warp loads
//!   what it needs in pieces of 16 bytes. The price: packed layers are not what lies in device memory, and loading takes a pass over them.
//! - **Rows of act-order layers are sorted** when they are arranged, and x is brought into their order by a small kernel
//!   ahead of each product.
//! - **A few rows of x cost what one costs**, up to 8: x is the narrow operand of the tensor core ([`gptq_tiles::products`]
//!   says which kernel runs). Weights are multiplied unscaled, as whole numbers less their zero point, which is exact; sums are f32 and
//!   scaled once for each group.
//! - **Many rows** take the dense matrix, a panel of columns at a time in the scratch of the context, and products by
//!   cuBLASLt.
//! - **Equal calls give equal bits.** Sums of warps and blocks are added in order; nothing is added atomically.
//!
//! K has to be a multiple of 32, N of 8, and scales f16 or bf16.

use gptq_core::LayerInfo;
use gptq_core::backend::{
    Backend, BackendId, Capabilities, GroupSizes, Options, Registration, Rejection, Speed,
};
use gptq_core::device::Device;
use gptq_core::format::Bits;
use gptq_tiles::{Family, HALVES, OPTIONS, Zeros};

/// The name of this backend: `exllama_v2`.
pub const ID: BackendId = BackendId::new("exllama_v2");

/// This backend. Linking the crate registers it: `use gptq_exllama_v2 as _;`.
pub const REGISTRATION: Registration = Registration {
    priority: 60,
    summary: "2, 3, 4 and 8 bits on NVIDIA GPUs: weights arranged for tensor cores, a few rows at the speed of memory",
    options: &OPTIONS,
    accepts: Some(accepts),
    ..Registration::new(ID, capabilities, open)
};

gptq_core::register!(REGISTRATION);

static FAMILY: Family = Family {
    id: ID,
    name: "exllama_v2",
    kernels: include!(concat!(env!("OUT_DIR"), "/exllama_v2.rs")),
    zeros: Zeros::Stored,
};

fn capabilities(device: &Device) -> Result<Capabilities, Rejection> {
    let target = FAMILY.probe(device)?;
    Ok(Capabilities {
        bits: &[Bits::TWO, Bits::THREE, Bits::FOUR, Bits::EIGHT],
        group_sizes: GroupSizes::MultipleOf(8),
        ragged_groups: false,
        x_dtypes: gptq_tiles::x_dtypes(target),
        scale_dtypes: &HALVES,
        in_features_multiple: 32,
        out_features_multiple: 8,
        // For many rows a dense matrix is written in x's type, for cuBLASLt.
        rounds_weights: true,
        speed: Speed::Native,
        ..Capabilities::ANY
    })
}

fn accepts(_device: &Device, layer: &LayerInfo) -> Result<(), Rejection> {
    gptq_tiles::accepts(layer)
}

fn open(device: &Device, options: &Options) -> gptq_core::Result<Box<dyn Backend>> {
    FAMILY.open(device, options)
}
