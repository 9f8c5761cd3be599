//! The kernels of kernels/exllama_v1, over layers of every kind that they take, against the oracle of
//! `gptq-conformance`.
#![cfg(emulated)]
#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

mod arrange;
mod layer;
mod product;
mod reconstruct;

/// Orders of threads in which each case runs.
const SEEDS: std::ops::Range<u64> = 0..3;

/// Threads of a block.
const THREADS: u32 = 256;

/// How many blocks of `size` hold `count`.
fn blocks(count: usize, size: usize) -> u32 {
    to_u32(count.div_ceil(size))
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("test layers are small")
}
