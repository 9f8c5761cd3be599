//! The backend `marlin`: symmetric GPTQ layers of 4 and 8 bits on the tensor cores of NVIDIA GPUs.
//!
//! It runs group sizes of 16, 32, 64, 128, 256 and -1, act-order, with or without bias, for x in f16 or bf16. Named after the
//! backend of the same role in GPTQModel and vLLM; the kernels are this project's own.
//!
//! ```
//! use gptq_core::backend::{BACKEND, PlanRequest, Registry};
//! use gptq_core::device::Device;
//!
//! let mut request = PlanRequest::new(BACKEND::Marlin, Device::Cuda(0));
//! request.registry = Registry::empty().with(gptq_marlin::REGISTRATION);
//! # assert_eq!(request.registry.iter().len(), 1);
//! ```
//!
//! # Design, and its price
//!
//! - **What [`gptq_tiles`] does**: weights arranged once, sorted rows for act-order, a few rows of x at the speed of memory,
//!   many by cuBLASLt, equal bits for equal calls.
//! - **Zero points are built into the kernels.** None are stored, converted or read, in groups of any size. The price:
//!   a layer whose zero points are not all `2^(bits - 1)` is refused. Other Marlins run such a layer with that zero point
//!   all the same, and answer nonsense.
//! - **The arrangement is not Marlin's.** Files in the order of that kernel (`checkpoint_format: marlin`) are brought back
//!   to that of GPTQ when they are opened, for this backend as for every other.
//!
//! K and N have to be multiples of 64, and scales f16 or bf16. bf16 needs compute capability 8.0.

use gptq_core::LayerInfo;
use gptq_core::backend::{
    Backend, BackendId, Capabilities, GroupSizes, Options, Registration, Rejection, Speed, ZeroOperand,
};
use gptq_core::device::Device;
use gptq_core::format::Bits;
use gptq_tiles::{Family, HALVES, OPTIONS, Zeros};

/// The name of this backend: `marlin`.
pub const ID: BackendId = BackendId::new("marlin");

/// This backend. Linking the crate registers it: `use gptq_marlin as _;`.
pub const REGISTRATION: Registration = Registration {
    // Before `exllama_v2`, which is as fast and keeps zero points that these layers do not need.
    priority: 70,
    summary: "symmetric layers of 4 and 8 bits on NVIDIA GPUs: weights arranged for tensor cores, zero points built in",
    options: &OPTIONS,
    accepts: Some(accepts),
    ..Registration::new(ID, capabilities, open)
};

gptq_core::register!(REGISTRATION);

static FAMILY: Family = Family {
    id: ID,
    name: "marlin",
    kernels: include!(concat!(env!("OUT_DIR"), "/marlin.rs")),
    zeros: Zeros::BuiltIn,
};

fn capabilities(device: &Device) -> Result<Capabilities, Rejection> {
    let target = FAMILY.probe(device)?;
    Ok(Capabilities {
        bits: &[Bits::FOUR, Bits::EIGHT],
        group_sizes: GroupSizes::OneOf(&[16, 32, 64, 128, 256]),
        asymmetric: false,
        ragged_groups: false,
        x_dtypes: gptq_tiles::x_dtypes(target),
        scale_dtypes: &HALVES,
        in_features_multiple: 64,
        out_features_multiple: 64,
        zeros: ZeroOperand::Fixed,
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
