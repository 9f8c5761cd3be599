//! Whole models: what GPTQModel computes from its checkpoints, and what a decoder must refuse.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

mod goldens;
mod modules;
mod oracle;
mod refusals;
mod support;
