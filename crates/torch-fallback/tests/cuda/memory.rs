//! Memory: what a model takes, what it gives back, and what happens where there is not enough.

use gptq_core::Error;
use gptq_core::device::Memory;
use gptq_cuda::{CudaBuffer, Gpu};

use gptq_conformance::case::Case;
use gptq_conformance::rig::Rig;
use gptq_core::tensor::DType;

use crate::support::{four_bits, gpu, open, target};

/// Takes memory until about `left` bytes are free.
fn fill(gpu: &Gpu, left: usize) -> Vec<CudaBuffer> {
    let mut held = Vec::new();
    let mut piece = 8usize << 30;
    while piece >= 2 << 20 {
        if gpu.available_bytes().unwrap() >= left + piece {
            match gpu.allocate_buffer(piece) {
                Ok(buffer) => held.push(buffer),
                Err(_) => piece /= 2,
            }
        } else {
            piece /= 2;
        }
    }
    held
}

#[test]
fn a_model_that_does_not_fit_is_an_error_that_names_the_layer_and_leaves_nothing() {
    let Some(gpu) = gpu("memory that runs out") else { return };
    let names: Vec<String> = (0..12).map(|number| format!("model.layers.{number}.mlp.up_proj")).collect();
    let case = |number: usize| Case { seed: number as u64, ..four_bits(8192, 8192) };
    let layers: Vec<_> =
        names.iter().enumerate().map(|(number, name)| case(number).noise(name).unwrap()).collect();
    // Once with room, so that what the driver and cuBLASLt keep for themselves is there already.
    let model = open(layers.clone()).unwrap();
    let resident = model.memory_report().layer_bytes;
    drop(model);

    let held = fill(&gpu, resident / 2);
    let before = gpu.available_bytes().unwrap();
    for _ in 0..3 {
        let error = open(layers.clone()).expect_err("the model has twice the memory that is free");
        let text = error.to_string();
        assert!(
            matches!(&error, Error::OutOfMemory { needed, .. } if *needed >= resident),
            "another error: {text}"
        );
        assert!(names[1..].iter().any(|name| text.contains(name.as_str())), "no layer is named: {text}");
        eprintln!("{text}");
    }
    let after = gpu.available_bytes().unwrap();
    assert!(after + (8 << 20) >= before, "{before} bytes were free before, {after} after");

    drop(held);
    drop(layers);
    let cases: Vec<Case> = (0..names.len()).map(case).collect();
    let target = target();
    let rig = Rig::of_noise(&target, &cases, DType::F16, None).unwrap();
    rig.forward_right(3, &rig.x(3, 6, DType::F16, 1), &mut rig.context().unwrap()).unwrap();
}

#[test]
fn a_context_that_does_not_fit_is_an_error_and_the_model_stays_usable() {
    let Some(gpu) = gpu("a context without memory") else { return };
    let target = target();
    let rig = Rig::of_noise(&target, &[four_bits(8192, 8192)], DType::BF16, None).unwrap();
    let mut context = rig.context().unwrap();
    let held = fill(&gpu, 8 << 20);
    let error = rig.model().context().expect_err("there is no memory for its scratch");
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    drop(held);
    rig.forward_right(0, &rig.x(0, 20, DType::BF16, 1), &mut context).unwrap();
}

#[test]
fn a_model_says_what_it_takes() {
    let Some(gpu) = gpu("memory reports") else { return };
    let layers: Vec<_> = (0..4).map(|i| four_bits(8192, 8192).noise(&i.to_string()).unwrap()).collect();
    drop(open(layers.clone()).unwrap());
    let before = gpu.available_bytes().unwrap();
    let model = open(layers).unwrap();
    let report = model.memory_report();
    let taken = before.saturating_sub(gpu.available_bytes().unwrap());
    let packed = report.packed_bytes;
    assert!(
        report.layer_bytes >= packed && report.layer_bytes < packed + packed / 100,
        "{report}: layers lie on the GPU as they are packed"
    );
    // Others may use the GPU meanwhile; the driver allocates 2 MB at a time.
    let near = taken.abs_diff(report.layer_bytes) < 64 << 20;
    assert!(near, "{report}, and {taken} bytes of the GPU were taken");
    // The dense matrix in 16 bits, and cuBLASLt's workspace.
    assert_eq!(report.scratch_bytes_per_context, (128 << 20) + (8 << 20), "{report}");
}

#[test]
fn an_option_caps_the_scratch_and_results_stay_right() {
    if gpu("capped scratch").is_none() {
        return;
    }
    let target = target().with_options(&["torch.dense_bytes=58720256"]).unwrap();
    let rig = Rig::of_noise(&target, &[four_bits(8192, 8192)], DType::F16, None).unwrap();
    let report = rig.model().memory_report();
    assert_eq!(report.scratch_bytes_per_context, 64 << 20, "{report}");
    rig.forward_right(0, &rig.x(0, 20, DType::F16, 1), &mut rig.context().unwrap()).unwrap();
}
