//! What this backend alone promises on a GPU: any number of rows around the length of `temp_state`, lengths that change,
//! a budget for `temp_dq`, the classic threshold. What all backends are held to on a GPU is in tests/gpu.
//!
//! Where there is no GPU the tests say that they are skipped; with `GPTQ_REQUIRE_DEVICE` set they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

use gptq_conformance::Target;
use gptq_conformance::case::{Case, GIdx};
use gptq_conformance::rig::Rig;
use gptq_core::backend::Outcome;
use gptq_core::device::Context;
use gptq_core::format::{Bits, GroupSize};
use gptq_core::tensor::DType;
use gptq_cuda::Gpu;

/// On both sides of the classic threshold, and of a `temp_state` of [`LENGTH`] rows.
const ROWS: [usize; 8] = [0, 1, 7, 8, 9, 2048, 2049, 5000];
const LENGTH: usize = 2048;

/// What decides which path a call takes: as measured, as in the original, the fused kernels alone, the dense matrix in
/// three panels.
const OPTIONS: [&[&str]; 4] = [
    &[],
    &["exllama_v1.matmul_recons_thd=8"],
    &["exllama_v1.matmul_recons_thd=0"],
    &["exllama_v1.matmul_recons_thd=8", "exllama_v1.temp_dq_bytes=1048576"],
];

const ACT_ORDER: usize = 0;
const IN_ORDER: usize = 1;

/// Whether there is a GPU; says so where there is none and none is required.
fn there_is_a_gpu(test: &str) -> bool {
    match Gpu::open(0) {
        Ok(_) => true,
        Err(rejection) => {
            assert!(std::env::var_os("GPTQ_REQUIRE_DEVICE").is_none(), "{test}: {rejection}");
            eprintln!("skipped {test}: {rejection}");
            false
        }
    }
}

fn target(options: &[&str]) -> Target {
    Target::new(gptq_exllama_v1::REGISTRATION, "cuda:0").unwrap().with_options(options).unwrap()
}

/// A layer in act-order, asymmetric and with a bias, and one in order.
fn cases() -> [Case; 2] {
    let in_order = Case {
        bits: Bits::FOUR,
        group_size: GroupSize::from_config(128).unwrap(),
        sym: false,
        in_features: 1024,
        out_features: 1536,
        seed: 71,
        ..Case::PLAIN
    };
    [Case { g_idx: GIdx::ActOrder, bias: true, seed: 72, ..in_order }, in_order]
}

fn right(rig: &Rig<'_>, index: usize, rows: usize, context: &mut Context, when: &str) {
    let x = rig.x(index, rows, DType::F16, 73 + rows as u64);
    rig.forward_right(index, &x, context).map(drop).unwrap_or_else(|problem| panic!("{when}: {problem}"));
}

#[test]
fn any_number_of_rows_is_right_with_a_buffer_of_2048() {
    if !there_is_a_gpu("any_number_of_rows") {
        return;
    }
    for options in OPTIONS {
        let target = target(options);
        let rig = Rig::of_noise(&target, &cases(), DType::F16, Some(LENGTH)).unwrap();
        let mut context = rig.context().unwrap();
        for index in [ACT_ORDER, IN_ORDER] {
            for rows in ROWS {
                right(&rig, index, rows, &mut context, &format!("{options:?}"));
            }
        }
    }
}

#[test]
fn lengths_change_between_calls() {
    if !there_is_a_gpu("lengths_change") {
        return;
    }
    for options in OPTIONS {
        let target = target(options);
        let rig = Rig::of_noise(&target, &cases(), DType::F16, None).unwrap();
        let by_default = rig.model().scratch_bytes();
        let mut early = rig.context().unwrap();
        for length in [1, 8, 5000, 100, LENGTH] {
            rig.model().set_max_input_length(length).unwrap();
            let mut late = rig.context().unwrap();
            for rows in [1, 9, 100, 2049] {
                right(
                    &rig,
                    ACT_ORDER,
                    rows,
                    &mut early,
                    &format!("{options:?}, length {length}, older context"),
                );
                right(&rig, ACT_ORDER, rows, &mut late, &format!("{options:?}, length {length}"));
                right(&rig, IN_ORDER, rows, &mut late, &format!("{options:?}, length {length}"));
            }
        }
        assert_eq!(rig.model().scratch_bytes(), by_default, "2048 rows are what it begins with");
    }
}

#[test]
fn a_length_that_fits_no_memory_is_an_error_and_the_old_buffer_serves() {
    if !there_is_a_gpu("a_length_that_fits_no_memory") {
        return;
    }
    let target = target(&[]);
    let rig = Rig::of_noise(&target, &cases(), DType::F16, Some(64)).unwrap();
    let before = rig.model().scratch_bytes();
    let error = rig.model().set_max_input_length(1 << 30).expect_err("2 TiB").report();
    assert!(error.contains("memory"), "{error}");
    assert_eq!(rig.model().scratch_bytes(), before);
    let mut context = rig.context().unwrap();
    for rows in [1, 64, 65, 300] {
        right(&rig, ACT_ORDER, rows, &mut context, "after the failure");
    }
}

#[test]
fn a_model_in_order_needs_no_length() {
    if !there_is_a_gpu("a_model_in_order") {
        return;
    }
    let target = target(&[]);
    let rig = Rig::of_noise(&target, &cases()[IN_ORDER..], DType::F16, None).unwrap();
    let before = rig.model().scratch_bytes();
    let report = rig.model().set_max_input_length(LENGTH).unwrap();
    for entry in &report.backends {
        assert!(matches!(entry.outcome, Outcome::NotNeeded(_)), "{}: {:?}", entry.backend, entry.outcome);
    }
    assert_eq!(rig.model().scratch_bytes(), before);
    let mut context = rig.context().unwrap();
    for rows in ROWS {
        right(&rig, 0, rows, &mut context, "in order");
    }
}

#[test]
fn a_budget_for_temp_dq_is_kept() {
    if !there_is_a_gpu("a_budget_for_temp_dq") {
        return;
    }
    let scratch = |options: &[&str]| {
        let target = target(options);
        let rig = Rig::of_noise(&target, &cases()[IN_ORDER..], DType::F16, None).unwrap();
        rig.model().scratch_bytes()
    };
    let whole = 1024 * 1536 * 2;
    let saved = scratch(&["exllama_v1.matmul_recons_thd=8"])
        - scratch(&["exllama_v1.matmul_recons_thd=8", "exllama_v1.temp_dq_bytes=1048576"]);
    assert_eq!(saved, whole - (1 << 20), "{whole} bytes where they are whole");
}
