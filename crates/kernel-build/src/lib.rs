//! Builds CUDA kernels into fatbins, on machines with or without a GPU.
//!
//! A *family* is a folder of `.cu` files that belong together, with the headers they include. [`build`] compiles it
//! for several architectures and writes one file, `FAMILY.fatbin`, and a manifest beside it that says what every
//! kernel costs on every architecture. `gptq-cuda` loads that file at run time; nothing links CUDA.
//!
//! ```
//! use gptq_kernel_build::{Family, Options, Toolchain, build};
//!
//! # fn main() -> gptq_kernel_build::Result<()> {
//! # let (folder, out) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"), std::env::temp_dir().join("gptq-kernel-build-doc"));
//! # let kernels = std::path::Path::new(folder);
//! let family = Family::new(kernels.join("scale")).include(kernels.join("include"));
//! match Toolchain::find() {
//!     Ok(toolchain) => {
//!         let mut options = Options::new(out);
//!         options.architectures = toolchain.known.last().copied().into_iter().collect();
//!         let built = build(&toolchain, &family, &options)?;
//!         println!("{}: {} kernels", built.fatbin.display(), built.manifest.kernels.len());
//!     }
//!     // Says where it looked, and the command that installs a compiler.
//!     Err(missing) => println!("{missing}"),
//! }
//! # Ok(()) }
//! ```
//!
//! # Design, and its price
//!
//! - **The compiler is found, not configured.** `NVCC`, `CUDA_HOME`, `CUDA_PATH`, `PATH`, then the toolkit that pip
//!   installs. Where there is none, the error is the command that installs one. The search is ours, since `cc` knows
//!   only `NVCC` and `PATH`; the host compiler that nvcc needs is found by `cc`, which knows `CXX` and Visual Studio.
//!   nvcc is then run directly: `cc` makes object files for a linker, and these are images for the driver.
//! - **Architectures are a list, never this machine's GPU.** `nvidia-smi` is not asked.
//! - **One file, several images.** Each `.cu` becomes a complete fatbin and the file is their concatenation, as in the
//!   `.nv_fatbin` section of a linked program. So files compile apart, on all cores, without relocatable device code.
//!   The price: no `__device__` variable or function is shared between `.cu` files, only headers are.
//! - **A spill fails the build**, and so does a warning that `wgmma` instructions were serialized: both turn a fast
//!   kernel into a slow one without a wrong answer that a test could find.
//!
//! With `default-features = false` only [`embed`] is left, for the build script of a backend.

#[cfg(feature = "compile")]
mod architecture;
#[cfg(feature = "compile")]
mod build;
mod embed;
#[cfg(feature = "compile")]
mod error;
#[cfg(feature = "compile")]
mod family;
#[cfg(feature = "compile")]
mod image;
#[cfg(feature = "compile")]
mod manifest;
#[cfg(feature = "compile")]
mod ptxas;
#[cfg(feature = "compile")]
pub mod python;
#[cfg(feature = "compile")]
mod toolchain;

#[cfg(feature = "compile")]
pub use architecture::Architecture;
#[cfg(feature = "compile")]
pub use build::{Built, Options, build};
pub use embed::{WITHOUT_KERNELS, embed};
#[cfg(feature = "compile")]
pub use error::{Error, INSTALL_COMPILER, Result};
#[cfg(feature = "compile")]
pub use family::{AllowedSpill, Family};
#[cfg(feature = "compile")]
pub use manifest::{Kernel, Manifest};
#[cfg(feature = "compile")]
pub use ptxas::Resources;
#[cfg(feature = "compile")]
pub use toolchain::Toolchain;
