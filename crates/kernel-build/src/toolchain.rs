//! The CUDA compiler: where it is, what it knows, and the host compiler that it needs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::architecture::Architecture;
use crate::error::{Error, Result};
use crate::python;

/// A CUDA compiler that answered, ready to build with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Toolchain {
    /// The compiler driver.
    pub nvcc: PathBuf,
    /// The program that joins images into a fatbin.
    pub fatbinary: PathBuf,
    /// What `nvcc --version` says: `release 13.0, V13.0.88`.
    pub version: String,
    /// The C++ compiler that nvcc preprocesses with. `None`: nvcc chooses.
    pub host_compiler: Option<PathBuf>,
    /// The architectures that it compiles for.
    pub known: Vec<Architecture>,
}

impl Toolchain {
    /// The compiler of this machine: the first of `NVCC`, `CUDA_HOME`, `CUDA_PATH`, `PATH`, the usual folder of an
    /// installed toolkit, and what pip installed for the active environment or for `python3`.
    ///
    /// # Errors
    /// [`Error::CompilerMissing`] with the command that installs one, or [`Error::CompilerUnusable`]: the first that
    /// is found is taken, so that a broken choice is reported and not passed over.
    pub fn find() -> Result<Self> {
        let mut looked_for = Vec::new();
        match first_nvcc(&mut looked_for) {
            Some(nvcc) => Self::at(nvcc),
            None => Err(Error::CompilerMissing { looked_for }),
        }
    }

    /// The compiler at a path.
    ///
    /// # Errors
    /// [`Error::CompilerUnusable`].
    pub fn at(nvcc: impl Into<PathBuf>) -> Result<Self> {
        let nvcc = nvcc.into();
        let unusable = |problem: String| Error::CompilerUnusable { nvcc: nvcc.clone(), problem };
        let ask = |option: &str| {
            let answer =
                Command::new(&nvcc).arg(option).output().map_err(|error| unusable(error.to_string()))?;
            Ok::<_, Error>(String::from_utf8_lossy(&answer.stdout).into_owned())
        };
        let version = ask("--version")?;
        let version = version.lines().find_map(|line| line.split_once("tools, ")).map(|(_, version)| version);
        let version =
            version.ok_or_else(|| unusable("`--version` names no release of CUDA".into()))?.to_owned();
        // `--list-gpu-code` leaves out 90a and its like; the help of `--gpu-code` has them all.
        let known = architectures_in(&ask("--help")?);
        if known.is_empty() {
            return Err(unusable("`--help` lists no architecture".into()));
        }
        let fatbinary = beside(&nvcc, "fatbinary");
        Ok(Self { fatbinary, version, host_compiler: host_compiler(), known, nvcc })
    }

    /// Those of [`Architecture::DEFAULT`] that it knows.
    pub fn default_architectures(&self) -> Vec<Architecture> {
        Architecture::DEFAULT.into_iter().filter(|architecture| self.known.contains(architecture)).collect()
    }

    /// # Errors
    /// [`Error::UnknownArchitecture`].
    pub(crate) fn check(&self, asked: &[Architecture]) -> Result<()> {
        match asked.iter().find(|architecture| !self.known.contains(architecture)) {
            None => Ok(()),
            Some(&asked) => {
                Err(Error::UnknownArchitecture { nvcc: self.nvcc.clone(), asked, known: self.known.clone() })
            }
        }
    }
}

fn first_nvcc(looked_for: &mut Vec<String>) -> Option<PathBuf> {
    let name = format!("nvcc{}", env::consts::EXE_SUFFIX);
    // A variable that is set is a choice: what it names is taken even where it is not there, and reported then.
    if let Some(nvcc) = variable("NVCC") {
        return Some(nvcc);
    }
    looked_for.push("NVCC (not set)".into());
    for root in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(folder) = variable(root) {
            return Some(folder.join("bin").join(name));
        }
        looked_for.push(format!("{root} (not set)"));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    if let Some(found) = env::split_paths(&path).map(|folder| folder.join(&name)).find(|file| file.is_file())
    {
        return Some(found);
    }
    looked_for.push("nvcc on PATH".into());
    let mut folders = Vec::new();
    if cfg!(unix) {
        folders.push(PathBuf::from("/usr/local/cuda"));
    }
    for packages in python::site_packages() {
        let toolkits = python::toolkits(&packages);
        if toolkits.is_empty() {
            looked_for.push(format!("{}", packages.join("nvidia").join("cu13").join("bin").display()));
        }
        folders.extend(toolkits);
    }
    folders.into_iter().find_map(|folder| {
        let file = folder.join("bin").join(&name);
        if file.is_file() {
            return Some(file);
        }
        looked_for.push(file.display().to_string());
        None
    })
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A program of the same toolkit. Where nvcc is a link into it, the program lies where the link leads.
fn beside(nvcc: &Path, program: &str) -> PathBuf {
    let name = format!("{program}{}", env::consts::EXE_SUFFIX);
    let target = nvcc.canonicalize().unwrap_or_else(|_| nvcc.to_owned());
    let candidates = [nvcc.with_file_name(&name), target.with_file_name(&name)];
    candidates.into_iter().find(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// The C++ compiler that `cc` would use on this machine. It knows `CXX`, and Visual Studio where that is not on PATH.
fn host_compiler() -> Option<PathBuf> {
    // The user has chosen, and nvcc reads it itself.
    if env::var_os("NVCC_CCBIN").is_some() {
        return None;
    }
    let host = env!("GPTQ_KERNEL_BUILD_HOST");
    let mut build = cc::Build::new();
    build.cpp(true).cargo_metadata(false).cargo_warnings(false).target(host).host(host).opt_level(0);
    build.try_get_compiler().ok().map(|compiler| compiler.path().to_owned())
}

/// The architectures in the help of nvcc: `'sm_90','sm_90a'`.
fn architectures_in(help: &str) -> Vec<Architecture> {
    let quoted = help.split('\'').filter(|word| word.starts_with("sm_"));
    let mut found: Vec<Architecture> = quoted.filter_map(|word| word.parse().ok()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_of_the_compiler_lists_what_it_knows() {
        let help = "--gpu-code <code>,...  (-code)\n  Allowed values for this option:  'compute_90','lto_90',\n  \
                    'sm_90','sm_100','sm_90a','sm_75'.\n ... such as a sm_60 ... 'sm_90' again";
        let known: Vec<String> = architectures_in(help).iter().map(ToString::to_string).collect();
        assert_eq!(known, ["75", "90", "90a", "100"]);
    }

    #[test]
    fn a_compiler_that_is_not_there_is_an_error_with_its_path() {
        let error = Toolchain::at("no/such/nvcc").unwrap_err().to_string();
        assert!(error.contains("no/such/nvcc") && error.contains("NVCC"), "{error}");
    }
}
