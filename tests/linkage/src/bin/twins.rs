//! Has two backends of one name: the plug-in's, and one of its own.

use gptq_core::backend::{BACKEND, Registration, Registry};
use gptq_linkage_plugin::PLUG_ONE;

gptq_core::register!(Registration { priority: 7, ..PLUG_ONE });

fn main() {
    println!("{}", gptq_tests_linkage::plan(Registry::linked(), BACKEND::Auto));
}
