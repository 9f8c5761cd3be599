//! The backend `dense_gemm`: dequantizes every layer once, when a model is opened, and multiplies with the crate
//! matrixmultiply.
//!
//! A backend of its own crate: it depends on gptq-core and on nothing else of gptq-rs, and its users write
//! `use dense_gemm as _;`.
//!
//! # Design, and its price
//!
//! - **The dense matrix is kept in f32**: eight times the memory of 4-bit weights, for a product that knows nothing of
//!   GPTQ. Every kind of layer that dequantizes runs, and no weight is rounded.
//! - **One thread, and a packing buffer for each call**, which matrixmultiply allocates. On a host that is harmless; a
//!   backend on a device allocates when a model is opened, and never later.

mod backend;
mod linear;

use gptq_core::backend::{BackendId, Capabilities, Registration, Rejection, Speed};
use gptq_core::device::Device;

/// The name of this backend.
pub const ID: BackendId = BackendId::new("dense_gemm");

/// This backend. Linking the crate registers it: `use dense_gemm as _;`.
pub const REGISTRATION: Registration = Registration {
    // `auto` prefers torch (20), which needs less memory.
    priority: 10,
    summary: "every layer on the CPU, dequantized once and multiplied as f32",
    ..Registration::new(ID, capabilities, backend::open)
};

gptq_core::register!(REGISTRATION);

fn capabilities(device: &Device) -> Result<Capabilities, Rejection> {
    match device {
        Device::Cpu => Ok(Capabilities { speed: Speed::Fallback, ..Capabilities::ANY }),
        _ => Err(Rejection::DeviceKind { device: device.clone(), supported: "cpu".into() }),
    }
}
