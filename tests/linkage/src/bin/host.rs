//! Loads the shared library at run time, and asks both sides what they have.
#![expect(
    unsafe_code,
    reason = "loading a library runs its constructors; calling into it trusts its signature"
)]

use std::error::Error;
use std::ffi::{CStr, c_char};

use gptq_core::backend::{BACKEND, Registry};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: host LIBRARY")?;
    // SAFETY: it is the library of this package, whose constructors fill a list and do nothing else.
    let library = unsafe { libloading::Library::new(path) }?;
    // SAFETY: gptq-linkage-library exports it with this signature.
    let plan = unsafe { library.get::<extern "C" fn() -> *const c_char>(b"gptq_linkage_plan\0") }?;
    // SAFETY: it answers a string that ends with a zero byte and is never freed.
    let inside = unsafe { CStr::from_ptr(plan()) };
    println!("the library:\n{}", inside.to_string_lossy());
    println!("the host:\n{}", gptq_tests_linkage::plan(Registry::linked(), BACKEND::Auto));
    Ok(())
}
