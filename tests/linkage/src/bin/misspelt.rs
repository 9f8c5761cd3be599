//! Asks for a backend that nobody has.

use gptq_core::backend::{BACKEND, Registry};
use gptq_linkage_plugin as _;

fn main() {
    println!("{}", gptq_tests_linkage::plan(Registry::linked(), BACKEND::Other("plug_won".into())));
}
