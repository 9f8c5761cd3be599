//! The kernels of the families for layers in tiles, each over layers of every kind that its backend takes: how they arrange,
//! against the plain version of the arrangement; what they compute, against the oracle of `gptq-conformance`.
#![cfg(emulated)]
#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

mod arrange;
mod dense;
mod layer;
mod product;

/// Orders of threads in which each case runs.
const SEEDS: std::ops::Range<u64> = 0..2;

/// How many blocks of `size` hold `count`.
fn blocks(count: usize, size: usize) -> u32 {
    to_u32(count.div_ceil(size))
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("test layers are small")
}
