//! The program `gptq` from outside: what it prints where, what it writes, and how it ends.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

mod backends;
mod bench;
mod broken;
mod command_line;
mod convert;
mod dequantize;
mod doctor;
mod finalize;
mod forward;
mod generate;
mod inspect;
mod perplexity;
mod support;
mod verify;
