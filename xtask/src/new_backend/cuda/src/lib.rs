//! The backend `my_backend`, for GPUs of NVIDIA.

mod backend;
mod linear;
mod params;

use gptq_core::backend::{BackendId, Capabilities, Registration, Rejection, Speed};
use gptq_core::device::Device;
use gptq_core::format::Bits;
use gptq_core::tensor::DType;
use gptq_cuda::KernelImage;

/// The name by which users ask for it.
pub const ID: BackendId = BackendId::new("my_backend");

/// This backend. A program that says `use my_backend as _;` has it.
pub const REGISTRATION: Registration = Registration {
    // `auto` asks the highest first: torch has 20, the fast kernels here 30 to 70.
    priority: 10,
    summary: "one line for those who list backends",
    ..Registration::new(ID, capabilities, backend::open)
};

gptq_core::register!(REGISTRATION);

/// What build.rs found.
const KERNELS: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/my_backend.rs"));

/// What it can run on a device, or why it cannot run there. Declare what is true; the tests go to its edges.
fn capabilities(device: &Device) -> Result<Capabilities, Rejection> {
    let Device::Cuda(ordinal) = *device else {
        return Err(Rejection::DeviceKind {
            device: device.clone(),
            supported: "cuda".into(),
        });
    };
    // Asking makes no context, allocates nothing, and answers on machines without a driver too.
    let gpu = gptq_cuda::probe(ordinal)?;
    image()?.check(&gpu)?;
    Ok(Capabilities {
        bits: &[Bits::FOUR],
        act_order: false,
        x_dtypes: &[DType::F16],
        speed: Speed::Fallback,
        ..Capabilities::ANY
    })
}

/// The kernels: those of `GPTQ_KERNELS_DIR`, else those in the crate.
fn image() -> Result<KernelImage, Rejection> {
    KernelImage::find("my_backend", KERNELS).map_err(|rejection| match rejection {
        Rejection::KernelsMissing { looked_for, .. } => Rejection::KernelsMissing {
            looked_for,
            remedy:
                "run `cargo run --example build-kernels` in my-backend, and build the program again"
                    .into(),
        },
        other => other,
    })
}
