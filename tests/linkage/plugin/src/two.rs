//! The second.

use gptq_core::backend::{BackendId, Registration};

/// The backend `plug_two`.
pub const PLUG_TWO: Registration = Registration {
    priority: 1,
    ..Registration::new(BackendId::new("plug_two"), super::anything, super::nothing)
};

gptq_core::register!(PLUG_TWO);
