//! Names a library that names the plug-in.

use gptq_core::backend::{BACKEND, Registry};
use gptq_linkage_library as _;

fn main() {
    println!("{}", gptq_tests_linkage::plan(Registry::linked(), BACKEND::Auto));
}
