//! What the tests of this package share: the fixtures, what a peer says about them, and a writer of checkpoints.
//!
//! [`golden`] reads what GPTQModel computes from the checkpoints under `tests/fixtures`. What no fixture covers is
//! made by the tests: [`layer`] turns logical values into packed tensors, [`files`] writes them as a checkpoint.
//! Packing and arithmetic are written out once more here, in the plainest way, so that a mistake in the library
//! does not hide itself.

// A package of tests: what cannot be read, written or run fails the test that asked for it.
#![allow(clippy::expect_used, clippy::panic)]

pub mod files;
pub mod golden;
pub mod layer;
pub mod run;
