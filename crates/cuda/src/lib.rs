//! What GPTQ backends for CUDA stand on: the driver loaded at run time, memory and streams for the traits of
//! `gptq-core`, kernel images, typed launches, cuBLASLt, graphs.
//!
//! A program that links this crate starts on any machine. What is missing there is a
//! [`Rejection`](gptq_core::backend::Rejection), for a report to print:
//!
//! ```
//! match gptq_cuda::probe(0) {
//!     Ok(gpu) => println!("{}: compute capability {}", gpu.name, gpu.compute_capability),
//!     Err(rejection) => println!("no CUDA here: {rejection}"),
//! }
//! ```
//!
//! # From a backend's side
//!
//! ```no_run
//! use gptq_core::device::Memory as _;
//! use gptq_cuda::{CudaStream, Gpu, KernelImage, Kernels, Launch, Params};
//!
//! #[derive(Clone, Copy)]
//! #[repr(C)] // Made by `cargo xtask codegen` from the family's params.h.
//! struct Scale { values: u64, count: u32, factor: f32 }
//! // SAFETY: it is the struct of params.h, which gptq_mine_scale_f32 takes.
//! unsafe impl Params for Scale {}
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gpu = Gpu::open(0)?;
//! let kernels = Kernels::load(&gpu, &KernelImage::find("mine", None)?)?;
//! let scale = kernels.kernel::<Scale>("gptq_mine_scale_f32")?;
//!
//! let values = gpu.allocate_buffer(4096)?;
//! let stream = CudaStream::new(&gpu)?;
//! let params = Scale { values: values.address(), count: 1024, factor: 2.0 };
//! // SAFETY: `values` holds 1024 floats and lives until the stream is synchronized.
//! unsafe { scale.launch(&stream, &Launch::new([4, 1, 1], [256, 1, 1]), &params) }?;
//! # Ok(()) }
//! ```
//!
//! # Design, and its price
//!
//! - **Presence is asked first.** cudarc panics where the driver library, or a symbol of it, is missing. [`probe`] looks
//!   for the library, asks its version, and only then calls anything else; every other type here is made from a [`Gpu`],
//!   so it cannot come before. Only functions that exist since CUDA 12.0 are called; newer ones after a look at
//!   the version. cuBLASLt is loaded by this crate itself, since cudarc cannot be asked for it and does not look
//!   for the one of CUDA 13.
//! - **No events behind the back.** A [`CudaBuffer`] does not track the streams that use it, as that breaks graph
//!   capture. The price: dropping one waits for the device first. It is for buffers of a model's lifetime.
//! - **A launch is unsafe**, since addresses in its parameters are the kernel's to read and write. What can be
//!   checked once is: that the struct is as long as the kernel's parameter, when the kernel is looked up.
//! - **The primary context.** It is what the CUDA runtime and other engines use, so that their pointers are valid here.
//!   The thread's current context is put back where it was another.

pub mod arguments;
mod bias;
mod buffer;
mod code_target;
mod dense_rows;
mod driver;
mod event;
mod gpu;
mod graph;
mod image;
mod kernel;
mod matmul;
pub mod panels;
pub mod place;
mod staging;
mod status;
mod stream;
pub mod timing;
mod trial;

pub use bias::{Bias, BiasPlan, Biases};
pub use buffer::{CudaBuffer, address, address_mut};
pub use code_target::CodeTarget;
pub use dense_rows::DenseRows;
pub use driver::{ComputeCapability, CudaVersion, DeviceInfo, MINIMUM_DRIVER, devices, probe};
pub use event::CudaEvent;
pub use gpu::Gpu;
pub use graph::Graph;
pub use image::{KERNELS_DIR, KernelImage};
pub use kernel::{Kernel, Kernels, Launch, Params};
pub use matmul::{Matmul, MatmulOperands, MatmulShape, Workspace};
pub use stream::CudaStream;
pub use trial::{Trial, try_calls};
