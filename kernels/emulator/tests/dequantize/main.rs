//! The kernels of kernels/dequantize, over layers of every kind, against the oracle of `gptq-conformance`.
#![cfg(emulated)]
#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

mod codes;
mod dense;
mod dot;
mod layer;
/// The launch parameters that the backend `torch` has.
#[path = "../../../../crates/torch-fallback/src/cuda/params.rs"]
mod params;

/// Orders of threads in which each case runs.
const SEEDS: std::ops::Range<u64> = 0..3;

/// How many blocks of `size` hold `count`.
fn blocks(count: usize, size: usize) -> u32 {
    to_u32(count.div_ceil(size))
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("test layers are small")
}
