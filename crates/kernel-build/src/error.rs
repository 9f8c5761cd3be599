//! What can go wrong while kernels are built, and what to do about it.

use std::path::PathBuf;

use crate::Architecture;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How to get a CUDA compiler where no toolkit is installed. The last two packages have to be of one release with the
/// first, or ptxas refuses the PTX that it is given.
pub const INSTALL_COMPILER: &str = "pip install nvidia-cuda-nvcc==13.0.88 nvidia-cuda-runtime==13.0.96 \
nvidia-cuda-cccl==13.0.85 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88";

/// Why kernels were not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No CUDA compiler was found.
    #[error(
        "no CUDA compiler (nvcc) found; looked for {}. Install one into a Python environment and run this with that \
         environment active, or with NVCC set to its nvcc:\n  {INSTALL_COMPILER}",
        looked_for.join(", ")
    )]
    CompilerMissing {
        /// Every place where one could have been.
        looked_for: Vec<String>,
    },
    /// What was found as a compiler is none.
    #[error("{} does not work as a CUDA compiler: {problem}; set NVCC to another one", nvcc.display())]
    CompilerUnusable {
        /// What was found.
        nvcc: PathBuf,
        /// What it answered.
        problem: String,
    },
    /// An architecture that the compiler does not know.
    #[error(
        "{} does not know sm_{asked}; it knows {}", nvcc.display(),
        known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    UnknownArchitecture {
        /// The compiler.
        nvcc: PathBuf,
        /// The architecture asked for.
        asked: Architecture,
        /// Those it knows.
        known: Vec<Architecture>,
    },
    /// A family without anything to compile.
    #[error("{}: there is no .cu file in it; a family is a folder of .cu files", folder.display())]
    NoSources {
        /// The family's folder.
        folder: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A program of the toolkit refused what it was given.
    #[error("{command}\n{output}")]
    Tool {
        /// The command line.
        command: String,
        /// All that it printed.
        output: String,
    },
    /// Kernels that are slower than they look.
    #[error(
        "family `{family}`:\n  {}\nGive the kernel fewer live values (a smaller tile, __launch_bounds__), or allow \
         its spills by name, with the reason", problems.join("\n  ")
    )]
    SlowKernels {
        /// The family.
        family: String,
        /// One line for each kernel and architecture.
        problems: Vec<String>,
    },
}
