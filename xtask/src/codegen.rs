//! `codegen`: the Rust side of the kernels' launch parameters, from their `params.h`.

use std::path::PathBuf;
use std::process::Command;

use crate::{Result, workspace_root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing; fail where a committed file differs from what would be generated.
    #[arg(long)]
    check: bool,
}

/// Starts the program that has bindgen in it, with a libclang that it can load.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace_root());
    command.args(["run", "--quiet", "--locked", "--package", "xtask-codegen", "--"]).arg(workspace_root());
    if arguments.check {
        command.arg("--check");
    }
    match libclang() {
        Some(folder) => command.env("LIBCLANG_PATH", folder),
        None => &mut command,
    };
    if command.status()?.success() {
        return Ok(());
    }
    Err("the program that generates bindings failed; it says above why".into())
}

/// The libclang that pip installs. `None`: the user named one, or bindgen looks where systems keep theirs.
fn libclang() -> Option<PathBuf> {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return None;
    }
    let packages = gptq_kernel_build::python::site_packages();
    packages.into_iter().map(|folder| folder.join("clang").join("native")).find(|folder| folder.is_dir())
}
