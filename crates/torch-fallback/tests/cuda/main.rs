//! What the conformance suite does not reach on a GPU: layers of real size, graphs, memory that runs out, options.
//!
//! Where there is no GPU the tests say that they are skipped; with `GPTQ_REQUIRE_DEVICE` set they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

mod graphs;
mod memory;
mod options;
mod size;
mod support;
