//! Passes one of the plug-in's backends by hand: no linker decides what is asked.

use gptq_core::backend::{BACKEND, Registry};

fn main() {
    let registry = Registry::empty().with(gptq_linkage_plugin::PLUG_TWO);
    println!("{}", gptq_tests_linkage::plan(registry, BACKEND::Auto));
}
