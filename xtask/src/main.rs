//! Automation: `cargo xtask TASK`. One file for each task; `cargo xtask --help` lists them.

mod build_kernels;
mod codegen;
mod gpu_bundle;
mod new_backend;
mod package;
mod synth_checkpoint;
mod tensor_file;
mod tidy;
mod trim_fixture;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Any failure of a task. Its text says what to do.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Automation of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compile the CUDA kernels into fatbins, with a manifest of what each costs. Needs no GPU.
    BuildKernels(build_kernels::Arguments),
    /// Generate the Rust side of the kernels' launch parameters from their params.h.
    Codegen(codegen::Arguments),
    /// Gather tests, benches, kernels and fixtures in one folder for a GPU machine without Rust.
    GpuBundle(gpu_bundle::Arguments),
    /// Write the skeleton of a backend crate, whose tests pass.
    NewBackend(new_backend::Arguments),
    /// Package every crate that can be published, build it from its package, and look at what is in it.
    Package(package::Arguments),
    /// Write a checkpoint of noise of a given shape, for work on loading and speed.
    SynthCheckpoint(synth_checkpoint::Arguments),
    /// Check the rules of docs/architecture.md that text can hold.
    Tidy,
    /// Cut a checkpoint and its golden down to a test fixture.
    TrimFixture(trim_fixture::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::BuildKernels(arguments) => build_kernels::run(&arguments),
        Task::Codegen(arguments) => codegen::run(&arguments),
        Task::GpuBundle(arguments) => gpu_bundle::run(&arguments),
        Task::NewBackend(arguments) => new_backend::run(&arguments),
        Task::Package(arguments) => package::run(&arguments),
        Task::SynthCheckpoint(arguments) => synth_checkpoint::run(&arguments),
        Task::Tidy => tidy::run(),
        Task::TrimFixture(arguments) => trim_fixture::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace: tasks may be started anywhere in it.
pub(crate) fn workspace_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Puts the file in front of what the operating system or a parser says about it.
pub(crate) fn at<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Box<dyn Error> {
    move |error| format!("{}: {error}", path.display()).into()
}
