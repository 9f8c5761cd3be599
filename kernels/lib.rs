//! The CUDA sources of gptq-rs, as files: where they lie on the machine that builds.
//!
//! Kernels of another crate include the same headers: PTX instructions once each, packed codes as floats, rounding, and
//! the macros with which one source compiles with nvcc and, for tests, as C++.
//!
//! ```
//! let header = gptq_kernels::include().join("dequant.cuh");
//! assert!(header.is_file());
//! let family = gptq_kernels::family("dequantize").unwrap();
//! assert!(family.join("dequantize.cu").is_file());
//! ```
//!
//! With `gptq-kernel-build` they become a fatbin. This builds one of gptq-rs again, for an architecture that the
//! published one lacks:
//!
//! ```text
//! let family = Family::new(gptq_kernels::family("dequantize")?).include(gptq_kernels::include());
//! build(&Toolchain::find()?, &family, &Options::new("kernels/out"))?;
//! ```
//!
//! # Design, and its price
//!
//! - **A crate of files.** Cargo packages only what lies inside a package, so the folder of the kernels is one. Backends
//!   do not depend on it: they carry their fatbins.
//! - **Paths are those of the build.** A program that keeps one finds nothing on another machine: call this from build
//!   scripts, examples and tests.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// The folder of the headers that all families share, for the include path.
pub fn include() -> PathBuf {
    sources().join("include")
}

/// The folder of a family: its `.cu` files, `params.h`, and headers of its own. `None` where there is none of this name.
pub fn family(name: &str) -> Option<PathBuf> {
    let folder = sources().join(name);
    folder.join("params.h").is_file().then_some(folder)
}

fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_launch_parameters_is_no_family() {
        assert!(family("dequantize").is_some());
        for other in ["include", "emulator", "absent", ""] {
            assert_eq!(family(other), None, "{other}");
        }
    }
}
