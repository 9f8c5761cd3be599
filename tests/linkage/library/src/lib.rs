//! A library that names the plug-in: as a crate for Rust programs, as an archive and as a shared library for C.
#![expect(unsafe_code, reason = "exports a function to C by its name")]

use std::ffi::{CString, c_char};

use gptq_core::backend::Registry;
use gptq_linkage_plugin as _;

/// The names of the backends that this library has, best first, or the error that says why there are none. The string is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn gptq_linkage_plan() -> *const c_char {
    let registry = Registry::linked();
    let names: Vec<&str> = registry.iter().map(|entry| entry.id.as_str()).collect();
    let answer = match registry.check() {
        Ok(()) => names.join(", "),
        Err(error) => format!("error: {}", error.report()),
    };
    CString::new(answer).unwrap_or_default().into_raw()
}
