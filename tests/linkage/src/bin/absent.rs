//! Its Cargo.toml depends on the plug-in, and no line of it names the crate.

use gptq_core::backend::{BACKEND, Registry};

fn main() {
    println!("{}", gptq_tests_linkage::plan(Registry::linked(), BACKEND::Auto));
}
