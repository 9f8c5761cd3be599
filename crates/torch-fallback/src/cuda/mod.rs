//! Layers on NVIDIA GPUs, from their packed words: fused for a few rows of x, dequantized and multiplied by cuBLASLt for
//! more.
//!
//! - **Only act-order is rearranged.** Tensors lie in device memory as files hold them, zero points direct, in one piece
//!   of memory for the whole model. Rows that are out of order are sorted by group on their way there ([`layout`]); a
//!   panel of the dense matrix gets them back in order, and a few rows of x are gathered once a call.
//! - **A few rows** of x go through a fused kernel that reads each packed word once ([`kernels`]).
//! - **More rows** take the dense matrix, a panel of it at a time, in the scratch of the context ([`gptq_cuda::panels`]), and a
//!   product by cuBLASLt straight into the panel's columns of out ([`linear`]).
//! - **Sums are f32** in both; weights are multiplied exactly in the first, rounded to x's type in the second.

mod backend;
mod kernels;
mod layout;
mod linear;
mod params;

use gptq_core::LayerInfo;
use gptq_core::backend::{Capabilities, Rejection, Speed};
use gptq_core::tensor::DType;
use gptq_cuda::{ComputeCapability, KernelImage, Matmul, arguments};

pub(crate) use backend::CudaBackend;

/// The family's fatbin, where it was built before this crate.
const EMBEDDED: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/dequantize.rs"));
/// The family of kernels.
const FAMILY: &str = "dequantize";

/// cuBLASLt multiplies bf16 from Ampere on.
const BFLOAT16: ComputeCapability = ComputeCapability { major: 8, minor: 0 };
const WITHOUT_BFLOAT16: [DType; 2] = [DType::F32, DType::F16];

/// What it can run on the CUDA device of this ordinal.
pub(crate) fn capabilities(ordinal: usize) -> Result<Capabilities, Rejection> {
    capabilities_with(ordinal, EMBEDDED)
}

/// The same, with other kernels in the program.
fn capabilities_with(ordinal: usize, embedded: Option<&'static [u8]>) -> Result<Capabilities, Rejection> {
    let gpu = gptq_cuda::probe(ordinal)?;
    KernelImage::find(FAMILY, embedded)?.check(&gpu)?;
    Matmul::probe()?;
    Ok(Capabilities {
        x_dtypes: x_dtypes(gpu.compute_capability),
        // For many rows the dense matrix is written in x's type, for cuBLASLt.
        rounds_weights: true,
        speed: Speed::Native,
        ..Capabilities::ANY
    })
}

fn x_dtypes(gpu: ComputeCapability) -> &'static [DType] {
    if gpu >= BFLOAT16 { &DType::ALL } else { &WITHOUT_BFLOAT16 }
}

/// Whether the numbers of a layer are ones that the kernels count with.
pub(crate) fn accepts(layer: &LayerInfo) -> Result<(), Rejection> {
    arguments::accepts(layer, [kernels::MOST_IN_FEATURES, kernels::MOST_OUT_FEATURES])
}

#[cfg(test)]
mod tests;
