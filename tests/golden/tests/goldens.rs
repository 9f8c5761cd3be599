//! Checkpoints that GPTQModel made, against what GPTQModel computes from them.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

use gptq_core::checkpoint::{Checkpoint, SettledBy, Severity, StoredTensor};
use gptq_core::post_init::FinalizedModel;
use gptq_core::{QuantLinear, StoredDtype};
use gptq_tests_golden::golden::{Golden, ROWS, TOLERANCES, checkpoint_dir, names};
use gptq_tests_golden::run::{bits, finalize, forward, open, relative_error};

#[test]
fn every_layer_computes_what_gptqmodel_computes() {
    let names = names();
    assert!(!names.is_empty(), "there are no goldens");
    println!(
        "{:28} {:>6} {:>6} {:>9} {:>9} {:>9}",
        "worst relative errors", "layers", "dense", "f32", "f16", "bf16"
    );
    for name in names {
        let golden = Golden::open(&name);
        let checkpoint = open(&checkpoint_dir(&name));
        for layer in golden.layers() {
            let packed = checkpoint.layer(&layer).unwrap_or_else(|error| panic!("{name}: {error}"));
            check_stored_zeros(&golden, &name, packed);
        }
        let model = finalize(checkpoint);
        let mut dense = 0;
        let mut worst = [0.0f64; 3];
        for layer in golden.layers() {
            let packed = model.layer(&layer).unwrap_or_else(|error| panic!("{name}: {error}")).packed();
            check_converted_zeros(&golden, &name, packed);
            dense += usize::from(check_dense(&golden, &name, packed));
            for (worst, error) in worst.iter_mut().zip(check_outputs(&golden, &name, &model, &layer)) {
                *worst = worst.max(error);
            }
        }
        let [f32, f16, bf16] = worst;
        let layers = golden.layers().len();
        println!("{name:28} {layers:>6} {dense:>6} {f32:>9.1e} {f16:>9.1e} {bf16:>9.1e}");
    }
}

fn check_stored_zeros(golden: &Golden, name: &str, layer: &QuantLinear) {
    let Some(expected) = golden.words(&format!("{}.qzeros_orig", layer.name())) else { return };
    let found = layer.zeros();
    assert_eq!([found.groups(), found.words_per_group()], *expected.shape, "{name}: {}.qzeros", layer.name());
    assert!(found.words() == expected.data, "{name}: {}.qzeros are not what the file holds", layer.name());
    check_zero_points(golden, name, layer, "before conversion");
}

fn check_converted_zeros(golden: &Golden, name: &str, layer: &QuantLinear) {
    let Some(expected) = golden.words(&format!("{}.qzeros_v2", layer.name())) else { return };
    let differing =
        layer.zeros().words().iter().zip(&expected.data).position(|(found, expected)| found != expected);
    assert_eq!(differing, None, "{name}: {}.qzeros: the first converted word that differs", layer.name());
    check_zero_points(golden, name, layer, "after conversion");
}

fn check_zero_points(golden: &Golden, name: &str, layer: &QuantLinear, when: &str) {
    let Some(expected) = golden.u8(&format!("{}.zeros", layer.name())) else { return };
    let n = layer.out_features();
    let mut row = vec![0; n];
    for (group, expected) in expected.data.chunks_exact(n).enumerate() {
        layer.zeros().unpack_group(group, 0..n, &mut row);
        assert!(row == expected, "{name}: {}: zero points of group {group} {when}", layer.name());
    }
}

/// Whether the golden has a dense matrix.
fn check_dense(golden: &Golden, name: &str, layer: &QuantLinear) -> bool {
    let Some(expected) = golden.f32(&format!("{}.w_f32", layer.name())) else { return false };
    assert_eq!(
        [layer.in_features(), layer.out_features()],
        *expected.shape,
        "{name}: {}.w_f32",
        layer.name()
    );
    let differing =
        bits(&layer.dequantize()).into_iter().zip(bits(&expected.data)).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 0, "{name}: {}: dense weights that are not the same to the last bit", layer.name());
    true
}

/// The worst error for each dtype of [`TOLERANCES`].
fn check_outputs(golden: &Golden, name: &str, model: &FinalizedModel, layer: &str) -> [f64; 3] {
    let mut worst = [0.0f64; 3];
    for rows in ROWS {
        let batch = |side| golden.f32(&format!("{layer}.{side}_m{rows}"));
        let (Some(x), Some(y)) = (batch("x"), batch("y")) else { continue };
        for ((dtype, tolerance), worst) in TOLERANCES.into_iter().zip(&mut worst) {
            let error = relative_error(&forward(model, layer, &x.data, rows, dtype), &y.data);
            assert!(
                error <= tolerance,
                "{name}: {layer}.y_m{rows} in {dtype}: off by {error:.2e}, over {tolerance:.0e}"
            );
            *worst = worst.max(error);
        }
    }
    worst
}

#[test]
fn checkpoints_that_gptqmodel_made_give_no_cause_for_warnings() {
    for name in names() {
        let checkpoint = open(&checkpoint_dir(&name));
        let warnings: Vec<_> =
            checkpoint.findings().iter().filter(|finding| finding.severity == Severity::Warning).collect();
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
        let evidence = checkpoint.zero_evidence().expect("it was read from files");
        assert_eq!(evidence.settled_by, SettledBy::Configuration, "{name}: {evidence:?}");
    }
}

#[test]
fn the_tensors_of_a_checkpoint_say_whether_it_is_act_order() {
    for (name, act_order) in [("kjv-4bit-g128-sym", false), ("kjv-4bit-g128-sym-actorder", true)] {
        for layer in open(&checkpoint_dir(name)).layers() {
            assert_eq!(layer.info().act_order, act_order, "{name}: {}", layer.name());
        }
    }
}

#[test]
fn a_whole_checkpoint_has_every_layer_and_keeps_its_plain_tensors() {
    let name = "kjv-4bit-g128-sym";
    let checkpoint = open(&checkpoint_dir(name));
    assert_eq!(checkpoint.layers().len(), 4 * 7, "{name}: seven modules in each of four layers");
    let plain: Vec<_> = checkpoint.tensors().map(|tensor| (tensor.name(), tensor.shape())).collect();
    assert_eq!(plain.len(), 3 + 4 * 2, "{name}: {plain:?}");
    for (tensor, shape) in [("model.embed_tokens.weight", [2048, 256]), ("lm_head.weight", [2048, 256])] {
        assert_eq!(checkpoint.tensor(tensor).map(StoredTensor::shape), Some(&shape[..]), "{name}: {tensor}");
    }
}

#[test]
fn dynamic_rules_decide_the_shape_of_each_module() {
    let name = "kjv-4bit-dynamic-lmhead";
    let checkpoint = open(&checkpoint_dir(name));
    let mut seen = [0; 3];
    for layer in checkpoint.layers() {
        let (expected, rule) = match layer.name() {
            "lm_head" => ((8, 32), 0),
            module if module.ends_with(".down_proj") => ((8, 64), 1),
            _ => ((4, 128), 2),
        };
        let info = layer.info();
        assert_eq!((info.bits.get(), info.group_size.to_config()), expected, "{name}: {}", layer.name());
        seen[rule] += 1;
    }
    assert!(seen.iter().all(|&layers| layers > 0), "{name}: layers of each rule: {seen:?}");
    assert_left_plain(&checkpoint, name, "model.layers.0.self_attn.k_proj");
}

fn assert_left_plain(checkpoint: &Checkpoint, name: &str, module: &str) {
    assert!(checkpoint.layer(module).is_err(), "{name}: {module} is left unquantized by a rule");
    let tensor = checkpoint.tensor(&format!("{module}.weight"));
    let tensor = tensor.unwrap_or_else(|| panic!("{name}: {module}.weight is kept as it is"));
    assert_eq!(
        (tensor.dtype(), tensor.shape()),
        (StoredDtype::F16, &[128, 256][..]),
        "{name}: {module}.weight"
    );
}
