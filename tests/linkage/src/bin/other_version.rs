//! Has a backend that was built for another version of the interface, and the plug-in's.

use gptq_core::backend::{API_VERSION, BACKEND, BackendId, Registration, Registry};
use gptq_linkage_plugin::PLUG_ONE;

const OLD: Registration =
    Registration { api: API_VERSION + 1, id: BackendId::new("from_another_time"), priority: 7, ..PLUG_ONE };
gptq_core::register!(OLD);

fn main() {
    println!("{}", gptq_tests_linkage::plan(Registry::linked(), BACKEND::Auto));
    println!("{}", gptq_tests_linkage::plan(Registry::linked(), BACKEND::Other(OLD.id.to_string())));
}
