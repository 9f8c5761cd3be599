//! What is held on a real GPU, for every CUDA backend, beside the contract of `gptq-conformance`.
//!
//! `tests/gpu.rs` is the program that runs it all: a harness of its own, whose table `run.sh` prints. On a machine without
//! a GPU it says which tests it skipped; with `GPTQ_REQUIRE_DEVICE` set they fail there.
//!
//! - [`graph`]: `forward`, recorded in a CUDA graph and replayed.
//! - [`goldens`]: what GPTQModel computes from real checkpoints.
//! - [`program`]: the same through the command line, as a user does it.
//! - [`record`]: one line for each test, for the table.

pub mod goldens;
pub mod graph;
pub mod program;
pub mod record;
