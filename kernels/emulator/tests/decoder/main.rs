//! The kernels of kernels/decoder, in every type of activations, against the same arithmetic in f64.
#![cfg(emulated)]
#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

mod attend;
mod rows;
mod turn;
mod values;

/// Orders of threads in which each case runs.
const SEEDS: std::ops::Range<u64> = 0..3;
/// Threads of a block.
const THREADS: u32 = 256;

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("tests are small")
}
