//! Names the plug-in and nothing in it.

use gptq_core::backend::{BACKEND, Registry};
use gptq_linkage_plugin as _;

fn main() {
    println!("{}", gptq_tests_linkage::plan(Registry::linked(), BACKEND::Auto));
}
