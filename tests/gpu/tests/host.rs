//! What of this package needs no GPU, on what every machine has.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use gptq_conformance::{Target, fake};
use gptq_core::backend::Registration;
use gptq_tests_gpu::goldens;

#[test]
fn goldens_agree_in_host_memory_and_on_a_device() {
    for (registration, device) in [(gptq_torch_fallback::REGISTRATION, "cpu"), (fake::FULL, "fake:0")] {
        let target = Target::new(registration, device).unwrap();
        let summary = goldens::agree(&target, "kjv-4bit-g64-asym-v1").unwrap();
        assert!(summary.ran > 0 && summary.declined == 0, "{device}: {summary}");
    }
}

#[test]
fn layers_that_a_backend_refuses_are_counted_and_not_run() {
    let registration: Registration = fake::NARROW;
    let target = Target::new(registration, "fake:0").unwrap();
    let summary = goldens::agree(&target, "kjv-4bit-g64-asym-v1").unwrap();
    assert!(summary.ran == 0 && summary.declined > 0 && summary.worst.is_none(), "{summary}");
}
