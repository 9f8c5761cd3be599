//! `build-kernels`: every kernel family, for every architecture, without a GPU.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use gptq_kernel_build::{AllowedSpill, Architecture, Built, Family, Options, Toolchain, build};

use crate::{Result, at, workspace_root};

/// Kernels that may spill, each with the reason.
const ALLOWED_SPILLS: &[(&str, &str)] = &[];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Architectures, such as 80 or 90a [default: what the compiler knows of 75, 80, 86, 89, 90a].
    #[arg(long, value_delimiter = ',')]
    pub(crate) arch: Vec<Architecture>,
    /// Families: folders of kernels/, by name, or other folders, by path [default: all of kernels/]. A folder `include`
    /// beside a family's is on its include path.
    #[arg(long, value_delimiter = ',')]
    pub(crate) family: Vec<String>,
    /// Where fatbins and manifests go.
    #[arg(long, default_value = "kernels/out")]
    pub(crate) out: PathBuf,
    /// How many compilers run at a time [default: one for each core].
    #[arg(long, short)]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Print what every kernel takes; the manifest says it too.
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// Keep line numbers, for profilers and compute-sanitizer.
    #[arg(long)]
    pub(crate) lineinfo: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = workspace_root();
    let toolchain = Toolchain::find()?;
    println!("{} ({})", toolchain.nvcc.display(), toolchain.version);
    let mut options = Options::new(root.join(&arguments.out));
    options.architectures.clone_from(&arguments.arch);
    if let Some(jobs) = arguments.jobs {
        options.jobs = jobs;
    }
    for folder in folders(&root.join("kernels"), &arguments.family)? {
        let shared = folder.with_file_name("include");
        let mut family = Family::new(folder);
        if shared.is_dir() {
            family = family.include(shared);
        }
        if arguments.lineinfo {
            family.flags.push("-lineinfo".into());
        }
        let allowed = |(kernel, reason): &(&str, &str)| AllowedSpill {
            kernel: (*kernel).to_owned(),
            reason: (*reason).to_owned(),
        };
        let prefix = format!("gptq_{}_", family.name);
        let own = ALLOWED_SPILLS.iter().filter(|(kernel, _)| kernel.starts_with(&prefix));
        family.allowed_spills = own.map(allowed).collect();
        print(&family, &build(&toolchain, &family, &options)?, arguments.verbose);
    }
    Ok(())
}

/// The folders to build: those asked for, or all.
fn folders(kernels: &Path, asked: &[String]) -> Result<Vec<PathBuf>> {
    if !asked.is_empty() {
        let by_name_or_path = |family: &String| {
            let named = kernels.join(family);
            if named.is_dir() { named } else { PathBuf::from(family) }
        };
        return Ok(asked.iter().map(by_name_or_path).collect());
    }
    all_families(kernels)
}

/// Every folder of `kernels` that has launch parameters.
pub(crate) fn all_families(kernels: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(kernels).map_err(at(kernels))? {
        let folder = entry?.path();
        if folder.join("params.h").is_file() {
            found.push(folder);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(format!("{}: no folder in it has a params.h", kernels.display()).into());
    }
    Ok(found)
}

fn print(family: &Family, built: &Built, verbose: bool) {
    let manifest = &built.manifest;
    let architectures: Vec<String> = manifest.architectures.iter().map(ToString::to_string).collect();
    println!(
        "{}: {} kernels for sm_{}{}, {} KB{}",
        family.name,
        manifest.kernels.len(),
        architectures.join(", "),
        manifest.ptx.map(|ptx| format!(" and PTX of {ptx}")).unwrap_or_default(),
        manifest.fatbin_bytes.div_ceil(1024),
        if built.unchanged { ", unchanged" } else { "" },
    );
    let of_all = || manifest.kernels.values().flat_map(|kernel| kernel.resources.values());
    println!(
        "  at most {} registers, {} bytes of static shared memory, {} bytes spilled",
        of_all().map(|resources| resources.registers).max().unwrap_or(0),
        of_all().map(|resources| resources.shared_bytes).max().unwrap_or(0),
        of_all().map(|resources| resources.spill_bytes).max().unwrap_or(0),
    );
    for warning in &built.warnings {
        println!("  {warning}");
    }
    if !verbose {
        return;
    }
    let width = manifest.kernels.keys().map(String::len).max().unwrap_or(0);
    for (name, kernel) in &manifest.kernels {
        for (architecture, resources) in &kernel.resources {
            println!(
                "  {name:width$}  sm_{architecture:<4} {:3} registers  {:6} bytes shared  {:4} bytes spilled",
                resources.registers, resources.shared_bytes, resources.spill_bytes
            );
        }
    }
}
