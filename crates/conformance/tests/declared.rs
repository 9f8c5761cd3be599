//! Backends of the fake device that say of themselves what is not so.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a backend that exists to be wrong, inside a test")]

use gptq_conformance::{Target, checks, fake};
use gptq_core::backend::{
    BackendId, Capabilities, GroupSizes, OptionSpec, Registration, Rejection, Speed, ZeroOperand,
};
use gptq_core::device::Device;
use gptq_core::format::Bits;
use gptq_core::tensor::DType;

const DEVICE: &str = "fake:14";

/// What the check of declared edges says of a backend that it has to refuse.
fn refused(registration: Registration) -> String {
    let target = Target::new(registration, DEVICE).unwrap();
    match checks::declared_edges(&target) {
        Ok(summary) => panic!("`{}` passes: {summary}", registration.summary),
        Err(problem) => problem,
    }
}

fn on_the_device(device: &Device, capabilities: Capabilities) -> Result<Capabilities, Rejection> {
    (fake::FULL.capabilities)(device).map(|_| capabilities)
}

#[test]
fn a_condition_that_refuses_all_of_a_declared_kind_is_told_which() {
    let no_bias = Registration {
        accepts: Some(|_, layer| {
            if layer.bias { Err(Rejection::other("no room for a bias", "drop it")) } else { Ok(()) }
        }),
        ..fake::FULL
    };
    let problem = refused(no_bias);
    for part in ["declare a bias", "with bias", "bits", "K = ", "no room for a bias", "declare less"] {
        assert!(problem.contains(part), "{problem}");
    }
}

#[test]
fn a_condition_that_refuses_some_of_a_declared_kind_is_none_of_our_business() {
    let not_both = Registration {
        accepts: Some(|_, layer| match layer.bits == Bits::EIGHT && layer.act_order {
            true => Err(Rejection::other("8 bits in act-order", "use another backend")),
            false => Ok(()),
        }),
        ..fake::FULL
    };
    let summary = checks::declared_edges(&Target::new(not_both, DEVICE).unwrap()).unwrap();
    assert!(summary.ran > 80, "{summary}");
}

#[test]
fn what_is_declared_and_runs_wrong_is_told_with_its_claim_and_case() {
    // The narrow backend has its zero point built in.
    let too_wide = Registration {
        capabilities: |device| {
            on_the_device(
                device,
                Capabilities {
                    bits: &[Bits::FOUR],
                    group_sizes: GroupSizes::OneOf(&[32]),
                    zeros: ZeroOperand::Fixed,
                    ..Capabilities::ANY
                },
            )
        },
        ..fake::NARROW
    };
    let problem = refused(too_wide);
    for part in ["the capabilities declare", "asymmetric", "4 bits", "K = ", "relative error"] {
        assert!(problem.contains(part), "{problem}");
    }
}

#[test]
fn capabilities_that_allow_nothing_are_refused() {
    let of_no_width = Registration {
        capabilities: |device| on_the_device(device, Capabilities { bits: &[], ..Capabilities::ANY }),
        ..fake::FULL
    };
    assert!(refused(of_no_width).contains("allow no layer"));
    let of_multiples_of_zero = Registration {
        capabilities: |device| {
            on_the_device(device, Capabilities { in_features_multiple: 0, ..Capabilities::ANY })
        },
        ..fake::FULL
    };
    assert!(refused(of_multiples_of_zero).contains("allow no layer"));
}

#[test]
fn a_registration_that_nobody_can_ask_for_is_refused_with_the_reason() {
    const SPACED: &[OptionSpec] = &[OptionSpec { name: "two words", help: "something" }];
    let good = Registration { id: BackendId::new("npu_2"), ..fake::FULL };
    let registration = |registration| checks::registration(&Target::new(registration, DEVICE).unwrap());
    registration(good).unwrap();
    for (wrong, part) in [
        (Registration { id: BackendId::new("Npu"), ..good }, "lower case"),
        (Registration { id: BackendId::new("my-npu"), ..good }, "lower case"),
        (Registration { id: BackendId::new("my.npu"), ..good }, "lower case"),
        (Registration { id: BackendId::new(""), ..good }, "lower case"),
        (Registration { id: BackendId::new("auto"), ..good }, "taken"),
        (Registration { id: BackendId::new("gptq_marlin"), ..good }, "taken"),
        (Registration { api: 0, ..good }, "version 0"),
        (Registration { options: SPACED, ..good }, "two words"),
        (Registration { capabilities: |_| Ok(Capabilities::ANY), ..good }, "nowhere:0"),
        (
            Registration {
                capabilities: |device| {
                    on_the_device(device, Capabilities { x_dtypes: &[], ..Capabilities::ANY })
                },
                ..good
            },
            "empty",
        ),
    ] {
        let problem = registration(wrong).unwrap_err();
        assert!(problem.contains(part), "{problem}");
    }
}

#[test]
fn capabilities_that_change_from_one_question_to_the_next_are_refused() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static ODD: AtomicBool = AtomicBool::new(false);
    let fickle = Registration {
        capabilities: |device| {
            let x_dtypes: &[DType] =
                if ODD.fetch_xor(true, Ordering::SeqCst) { &[DType::F16] } else { &DType::ALL };
            on_the_device(device, Capabilities { x_dtypes, speed: Speed::Fallback, ..Capabilities::ANY })
        },
        ..fake::FULL
    };
    let problem = checks::registration(&Target::new(fickle, DEVICE).unwrap()).unwrap_err();
    assert!(problem.contains("asked twice"), "{problem}");
}
