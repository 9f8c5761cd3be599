//! Whole models on an NVIDIA GPU: `cargo run --release -- generate DIR PROMPT`, in this folder.
//!
//! `check` holds every fixture that is a whole model to what GPTQModel computes from it; `measure` times a prompt and the
//! tokens after it. Building takes a CUDA toolkit, since candle's kernels are compiled and CUDA is linked: README.md.

mod check;
mod generate;
mod measure;
mod model;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

// The backends of this program. One that only Cargo.toml names is not linked.
use gptq_exllama_v1 as _;
use gptq_exllama_v2 as _;
use gptq_marlin as _;
use gptq_torch_fallback as _;

/// Any failure. Its text says what to do.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Whole models on an NVIDIA GPU.
#[derive(Parser)]
#[command(name = "gptq-cuda-generate")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Go on with a text.
    Generate(generate::Arguments),
    /// Hold what is computed to the goldens of the fixtures: logits, greedy tokens, losses.
    Check(check::Arguments),
    /// Time a prompt and the tokens after it, and tell the memory.
    Measure(measure::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Generate(arguments) => generate::run(&arguments),
        Task::Check(arguments) => check::run(&arguments),
        Task::Measure(arguments) => measure::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
