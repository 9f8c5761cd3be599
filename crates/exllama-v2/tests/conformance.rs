//! The contract of a backend, on the first GPU. Where there is none the tests say so; with `GPTQ_REQUIRE_DEVICE` set they
//! fail.

use std::sync::OnceLock;

use gptq_core::Result;
use gptq_core::backend::{Backend, Options, Registration};
use gptq_core::device::Device;
use gptq_cuda::Gpu;

/// The backend, with the GPU kept open between models: making a context takes a quarter of a second, and hundreds of
/// models are opened here.
const HELD_OPEN: Registration = Registration { open, ..gptq_exllama_v2::REGISTRATION };

fn open(device: &Device, options: &Options) -> Result<Box<dyn Backend>> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| Gpu::open(0).ok());
    (gptq_exllama_v2::REGISTRATION.open)(device, options)
}

gptq_conformance::suite!(HELD_OPEN, device = "cuda:0", weights = ToX);
