//! The backend `torch`: every GPTQ layer, on every machine.
//!
//! It runs all widths from 2 to 8 bits, both packings, any group size, symmetric or not, act-order, with or
//! without bias, for x in f32, f16 or bf16. Named after the backend of the same role in GPTQModel and Optimum;
//! there is no PyTorch in it.
//!
//! ```
//! use gptq_core::backend::{BACKEND, PlanRequest, Registry};
//! use gptq_core::device::Device;
//!
//! let mut request = PlanRequest::new(BACKEND::Torch, Device::Cpu);
//! request.registry = Registry::empty().with(gptq_torch_fallback::REGISTRATION);
//! # assert_eq!(request.registry.iter().len(), 1);
//! ```
//!
//! # Design, and its price
//!
//! - **Nothing is repacked.** Codes are read where the checkpoint maps them, a strip of columns at a time, and
//!   live unpacked for a few rows on a thread's stack. Finalizing takes no time and no memory beyond converted
//!   zero points. The price: every call unpacks again.
//! - **f32 accumulation, once per run of rows.** A sum of at most 128 products is kept apart before it is scaled
//!   and added, so the error does not grow with K.
//! - **The same bits on any number of threads.** Threads divide columns, never rows.

mod backend;
mod linear;

use gptq_core::backend::{BackendId, Capabilities, Registration, Rejection, Speed};
use gptq_core::device::Device;

use backend::TorchBackend;

/// The name of this backend: `torch`.
pub const ID: BackendId = BackendId::new("torch");

/// This backend. Linking the crate registers it: `use gptq_torch_fallback as _;`.
pub const REGISTRATION: Registration = Registration {
    priority: 20,
    summary: "every layer on every machine: the packed words are read where the checkpoint maps them",
    ..Registration::new(ID, capabilities, TorchBackend::open)
};

gptq_core::register!(REGISTRATION);

fn capabilities(device: &Device) -> Result<Capabilities, Rejection> {
    match device {
        Device::Cpu => Ok(Capabilities { speed: Speed::Fallback, ..Capabilities::ANY }),
        _ => Err(Rejection::DeviceKind { device: device.clone(), supported: "cpu".into() }),
    }
}
