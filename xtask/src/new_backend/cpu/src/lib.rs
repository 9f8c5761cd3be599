//! The backend `my_backend`.

mod backend;
mod linear;

use gptq_core::backend::{BackendId, Capabilities, Registration, Rejection, Speed};
use gptq_core::device::Device;

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

/// What it can run on a device, or why it cannot run there. Declare what is true; the tests go to its edges.
fn capabilities(device: &Device) -> Result<Capabilities, Rejection> {
    match device {
        Device::Cpu => Ok(Capabilities {
            speed: Speed::Fallback,
            ..Capabilities::ANY
        }),
        _ => Err(Rejection::DeviceKind {
            device: device.clone(),
            supported: "cpu".into(),
        }),
    }
}
