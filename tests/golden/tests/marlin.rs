//! Marlin's format: its order against that of the peer, and checkpoints that are stored in it.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

use gptq_core::QuantLinear;
use gptq_core::checkpoint::{Checkpoint, CheckpointFormat, SaveOptions, Severity};
use gptq_core::format::{GroupIndexKind, ZeroEncoding, marlin};
use gptq_core::tensor::{DType, Floats};
use gptq_tests_golden::files::{CheckpointDir, Tensor};
use gptq_tests_golden::golden::{Golden, checkpoint_dir};
use gptq_tests_golden::run::{bits, finalize, forward, open};
use safetensors::Dtype;
use serde_json::{Value, json};

const LAYER: &str = "model.layers.1.mlp.down_proj";
/// With groups, with one group, and in 8 bits.
const CHECKPOINTS: [&str; 3] = ["kjv-4bit-g128-sym", "kjv-4bit-gm1-sym", "kjv-8bit-g128-sym"];

fn scales(layer: &QuantLinear) -> &[half::f16] {
    match layer.scales() {
        Floats::F16(scales) => scales,
        _ => panic!("{}: GPTQModel writes scales in f16", layer.name()),
    }
}

#[test]
fn codes_and_scales_are_in_the_order_in_which_gptqmodel_puts_them_and_come_back() {
    let golden = Golden::open("marlin_post_init");
    for name in CHECKPOINTS {
        let checkpoint = open(&checkpoint_dir(name));
        let layer = checkpoint.layer(LAYER).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (bits, groups, n) = (layer.info().bits, layer.info().groups, layer.out_features());
        let b = marlin::from_qweight(layer.qweight(), n, bits);
        let s = marlin::from_scales(scales(layer), groups);

        let words = golden.words(&format!("{name}/{LAYER}.qweight_marlin")).expect("the fixture has it");
        assert_eq!(words.shape[1], marlin::words_of_row(bits, n), "{name}: words of a row");
        let differing = words.data.iter().zip(&b).position(|(expected, found)| expected != found);
        assert_eq!(differing, None, "{name}: the first word of B that differs");
        let expected = golden.f16(&format!("{name}/{LAYER}.scales_marlin")).expect("the fixture has it");
        assert_eq!(expected.shape, [groups, n], "{name}: scales");
        assert!(expected.data == s, "{name}: scales are in another order");

        assert!(marlin::to_qweight(&b, n, bits) == layer.qweight()[..], "{name}: codes do not come back");
        assert!(marlin::to_scales(&s, groups) == scales(layer), "{name}: scales do not come back");
    }
}

/// The layers of a checkpoint as a file of Marlin's format holds them.
fn arranged(checkpoint: &Checkpoint) -> Vec<Tensor> {
    let bytes = |elements: &[u8]| elements.to_vec();
    let mut tensors = Vec::new();
    for layer in checkpoint.layers() {
        let info = layer.info();
        let (k, n) = (info.in_features, info.out_features);
        let b = marlin::from_qweight(layer.qweight(), n, info.bits);
        let s = marlin::from_scales(scales(layer), info.groups);
        tensors.push(Tensor {
            name: format!("{}.B", info.name),
            dtype: Dtype::I32,
            shape: vec![k / 16, marlin::words_of_row(info.bits, n)],
            bytes: bytes(bytemuck::cast_slice(&b)),
        });
        tensors.push(Tensor {
            name: format!("{}.s", info.name),
            dtype: Dtype::F16,
            shape: vec![info.groups, n],
            bytes: bytes(bytemuck::cast_slice(&s)),
        });
    }
    tensors.extend(checkpoint.tensors().map(|tensor| Tensor {
        name: tensor.name().into(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        bytes: bytes(tensor.bytes()),
    }));
    tensors
}

/// Configurations that say it in every way, and one that does not say it at all.
fn configs(bits: usize, group_size: i64) -> Vec<Value> {
    let mut configs = vec![
        json!({"bits": bits, "group_size": group_size, "checkpoint_format": "marlin", "desc_act": false, "sym": true}),
        json!({"bits": bits, "group_size": group_size, "quant_method": "gptq", "is_marlin_format": true}),
        json!({"bits": bits, "group_size": group_size, "quant_method": "gptq", "checkpoint_format": "gptq"}),
    ];
    if bits == 4 {
        configs.push(json!({"group_size": group_size, "quant_method": "marlin"}));
    }
    configs
}

fn same_layers(found: &Checkpoint, expected: &Checkpoint, what: &str) {
    assert_eq!(found.layers().len(), expected.layers().len(), "{what}: layers");
    for (found, expected) in found.layers().iter().zip(expected.layers()) {
        let name = expected.name();
        assert_eq!(found.name(), name, "{what}");
        assert!(found.qweight()[..] == expected.qweight()[..], "{what}: {name}: codes differ");
        let same =
            found.dequantize().iter().zip(expected.dequantize()).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{what}: {name}: weights differ");
    }
}

#[test]
fn a_checkpoint_of_marlins_format_opens_as_the_one_that_it_was_made_from() {
    for (name, group_size) in CHECKPOINTS.into_iter().zip([128, -1, 128]) {
        let gptq = open(&checkpoint_dir(name));
        let width = gptq.config().bits.get();
        for config in configs(width, group_size) {
            let what = format!("{name} with {config}");
            let dir = CheckpointDir::new(&config, &arranged(&gptq));
            let checkpoint = Checkpoint::open(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
            same_layers(&checkpoint, &gptq, &what);
            assert_eq!(checkpoint.config().format, CheckpointFormat::Marlin, "{what}");
            assert!(checkpoint.zero_evidence().is_none(), "{what}: no file stores zero points");
            assert_eq!(checkpoint.tensors().len(), gptq.tensors().len(), "{what}: plain tensors");
            for layer in checkpoint.layers() {
                let info = layer.info();
                assert!(
                    info.symmetric && !info.act_order && info.zero_encoding == ZeroEncoding::V2,
                    "{what}: {info:?}"
                );
                assert_ne!(info.g_idx, GroupIndexKind::Absent, "{what}: {info:?}");
            }
            let warnings: Vec<_> = checkpoint
                .findings()
                .iter()
                .filter(|finding| finding.severity == Severity::Warning)
                .collect();
            let contradicted = config["checkpoint_format"] == "gptq";
            let said = warnings.iter().any(|warning| warning.to_string().contains("the tensors decide"));
            assert_eq!(said, contradicted, "{what}: {warnings:?}");
        }
    }
}

#[test]
fn it_runs_on_a_backend_and_is_saved_as_gptq() {
    let gptq = open(&checkpoint_dir(CHECKPOINTS[0]));
    let config = json!({
        "bits": 4, "group_size": 128, "quant_method": "marlin", "checkpoint_format": "marlin", "is_marlin_format": true,
    });
    let dir = CheckpointDir::new(&config, &arranged(&gptq));
    let checkpoint = open(dir.path());

    let out = CheckpointDir::empty();
    let report = checkpoint
        .save(out.path(), &SaveOptions::default())
        .unwrap_or_else(|error| panic!("saving it: {}", error.report()));
    assert!(report.format == CheckpointFormat::Gptq && report.proved, "{report:?}");
    let saved = open(out.path());
    assert_eq!(saved.config().format, CheckpointFormat::Gptq);
    same_layers(&saved, &gptq, "saved as gptq");
    let raw = &saved.config().raw;
    assert!(
        raw.get("quant_method") == Some(&json!("gptq")) && !raw.contains_key("is_marlin_format"),
        "{raw:?}"
    );

    let golden = Golden::open(CHECKPOINTS[0]);
    let x = golden.f32(&format!("{LAYER}.x_m7")).expect("the golden has it");
    let [expected, found] = [gptq, checkpoint]
        .map(|checkpoint| forward(&finalize(checkpoint), LAYER, &x.data, x.shape[0], DType::F32));
    assert!(bits(&found) == bits(&expected), "outputs differ");
}

#[test]
fn a_width_that_only_marlins_format_may_leave_out_is_written_when_it_is_saved() {
    let gptq = open(&checkpoint_dir(CHECKPOINTS[0]));
    for config in [
        json!({"group_size": 128, "quant_method": "marlin"}),
        json!({"bits": null, "group_size": 128, "quant_method": "gptq", "is_marlin_format": true}),
    ] {
        let what = format!("saved from {config}");
        let dir = CheckpointDir::new(&config, &arranged(&gptq));
        // The model's own file gets the configuration too.
        dir.json("config.json", &json!({"model_type": "llama"}));
        for format in [None, Some(CheckpointFormat::Gptq), Some(CheckpointFormat::GptqV2)] {
            let out = CheckpointDir::empty();
            let report = open(dir.path())
                .save(out.path(), &SaveOptions { format, ..SaveOptions::default() })
                .unwrap_or_else(|error| panic!("{what}: {}", error.report()));
            assert!(report.proved, "{what}: {report:?}");
            let saved = open(out.path());
            assert_eq!(saved.config().raw.get("bits"), Some(&json!(4)), "{what}");
            same_layers(&saved, &gptq, &what);
        }
    }
}
