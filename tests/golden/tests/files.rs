//! The shapes in which a checkpoint lies on disk: formats, dtypes, file names, shards, alignment.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

use gptq_core::Error;
use gptq_core::checkpoint::{Checkpoint, OpenOptions, Reading};
use gptq_core::format::Packing;
use gptq_core::tensor::DType;
use gptq_tests_golden::files::{CheckpointDir, quantize_config};
use gptq_tests_golden::golden::{checkpoint_dir, names};
use gptq_tests_golden::layer::{LayerValues, StoredZeros, activations};
use gptq_tests_golden::run::{bits, finalize, forward, open, open_with, relative_error};

const NAME: &str = "model.layers.0.proj";

/// Rows of x: more than a backend is likely to run in one piece.
const ROWS: usize = 19;

/// Its dense matrix is exact, and its output within the rounding of f32.
fn assert_is(layer: &LayerValues, checkpoint: Checkpoint, case: &str) {
    let packed = checkpoint.layer(&layer.name).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(bits(&packed.dequantize()) == bits(&layer.dense()), "{case}: {}: dense matrix", layer.name);
    let x = activations(ROWS, layer.k, 1);
    let y = forward(&finalize(checkpoint), &layer.name, &x, ROWS, DType::F32);
    let error = relative_error(&y, &layer.forward(&x, ROWS));
    assert!(error <= 1e-6, "{case}: {}: output is off by {error:.1e}", layer.name);
}

fn config_of(layer: &LayerValues, format: &str) -> serde_json::Value {
    let group_size = i64::try_from(layer.group_rows).expect("a small number");
    quantize_config(layer.bits, group_size, false, format)
}

#[test]
fn zeros_are_read_as_the_format_stores_them() {
    for width in [2, 3, 4, 8] {
        let layer = LayerValues::random(NAME, width, [128, 96], 64, 21);
        let dir = CheckpointDir::new(&config_of(&layer, "gptq"), &layer.tensors(StoredZeros::FieldWrap));
        assert_is(&layer, open(dir.path()), &format!("gptq at {width} bits"));
        let dir = CheckpointDir::new(&config_of(&layer, "gptq_v2"), &layer.tensors(StoredZeros::V2));
        assert_is(&layer, open(dir.path()), &format!("gptq_v2 at {width} bits"));
    }
}

#[test]
fn planar_codes_are_read_at_every_width() {
    for width in 2..=8 {
        let mut layer = LayerValues::random(NAME, width, [96, 64], 32, 22);
        layer.packing = Packing::Planar;
        let dir = CheckpointDir::new(&config_of(&layer, "gptq_p"), &layer.tensors(StoredZeros::V2));
        assert_is(&layer, open(dir.path()), &format!("gptq_p at {width} bits"));
    }
}

#[test]
fn a_bias_is_added_once() {
    let layer = LayerValues::random(NAME, 4, [64, 64], 32, 23).with_bias();
    let dir = CheckpointDir::new(&config_of(&layer, "gptq_v2"), &layer.tensors(StoredZeros::V2));
    let checkpoint = open(dir.path());
    assert!(checkpoint.layer(NAME).expect("the layer").info().bias);
    assert_eq!(checkpoint.tensors().len(), 0, "the bias belongs to the layer");
    assert_is(&layer, checkpoint, "bias");
}

#[test]
fn scales_and_bias_are_read_in_every_dtype() {
    for dtype in DType::ALL {
        let mut layer = LayerValues::random(NAME, 4, [64, 64], 32, 24).with_bias();
        layer.dtype = dtype;
        let dir = CheckpointDir::new(&config_of(&layer, "gptq_v2"), &layer.tensors(StoredZeros::V2));
        let checkpoint = open(dir.path());
        assert_eq!(checkpoint.layer(NAME).expect("the layer").info().scale_dtype, dtype);
        assert_is(&layer, checkpoint, &format!("scales in {dtype}"));
    }
}

#[test]
fn the_last_group_may_be_short_and_a_width_may_end_within_a_word() {
    for (width, shape, group_rows) in
        [(4, [160, 64], 64), (8, [100, 36], 32), (3, [96, 40], 64), (2, [72, 17], 64)]
    {
        let layer = LayerValues::random(NAME, width, shape, group_rows, 25);
        let dir = CheckpointDir::new(&config_of(&layer, "gptq_v2"), &layer.tensors(StoredZeros::V2));
        let checkpoint = open(dir.path());
        assert!(
            checkpoint.layer(NAME).expect("the layer").info().short_last_group(),
            "{shape:?} by {group_rows}"
        );
        assert_is(&layer, checkpoint, &format!("{width} bits, {shape:?} by {group_rows}"));
    }
}

#[test]
fn one_group_for_each_column_is_written_as_minus_one() {
    let layer = LayerValues::random(NAME, 4, [96, 64], 96, 26);
    let dir = CheckpointDir::new(&quantize_config(4, -1, false, "gptq_v2"), &layer.tensors(StoredZeros::V2));
    assert_is(&layer, open(dir.path()), "group size -1");
}

// ---- where the bytes lie -------------------------------------------------------------------------------------

#[test]
fn a_layer_may_lie_in_several_shards() {
    let layers: Vec<_> = (0..3)
        .map(|i| LayerValues::random(&format!("model.layers.{i}.proj"), 4, [64, 64], 32, 30 + i))
        .collect();
    let tensors: Vec<_> = layers.iter().flat_map(|layer| layer.tensors(StoredZeros::V2)).collect();
    // Four tensors a layer: both cuts go through one.
    let (first, rest) = tensors.split_at(5);
    let (second, third) = rest.split_at(5);
    let dir = CheckpointDir::empty();
    dir.json("quantize_config.json", &config_of(&layers[0], "gptq_v2"));
    dir.shards(&[
        ("model-00001-of-00003.safetensors", first),
        ("model-00002-of-00003.safetensors", second),
        ("model-00003-of-00003.safetensors", third),
    ]);
    let checkpoint = open(dir.path());
    assert_eq!((checkpoint.layers().len(), checkpoint.files().len()), (3, 3));
    for layer in &layers {
        assert_is(layer, checkpoint.clone(), "shards");
    }
}

#[test]
fn a_shard_that_is_missing_is_an_error_that_names_it() {
    let layer = LayerValues::random(NAME, 4, [64, 64], 32, 33);
    let tensors = layer.tensors(StoredZeros::V2);
    let dir = CheckpointDir::empty();
    dir.json("quantize_config.json", &config_of(&layer, "gptq_v2"));
    let (first, second) = tensors.split_at(2);
    dir.shards(&[("a.safetensors", first), ("b.safetensors", second)]);
    std::fs::remove_file(dir.path().join("b.safetensors")).expect("it was written");
    let error = Checkpoint::open(dir.path()).expect_err("half of the layer is gone").to_string();
    assert!(error.contains("b.safetensors"), "{error}");
}

#[test]
fn autogptq_names_its_file_after_bits_and_group_size_and_has_no_config_json() {
    let layer = LayerValues::random(NAME, 4, [256, 64], 128, 34).symmetric();
    let dir = CheckpointDir::empty();
    let config = serde_json::json!({
        "bits": 4, "group_size": 128, "damp_percent": 0.01, "desc_act": false, "static_groups": false, "sym": true,
        "true_sequential": true, "model_name_or_path": null, "model_file_base_name": null,
    });
    dir.json("quantize_config.json", &config);
    dir.weights("gptq_model-4bit-128g.safetensors", &layer.tensors(StoredZeros::FieldWrap));
    // A second file, so that it is not found by being the only one.
    dir.weights("adapter.safetensors", &[]);
    assert_is(&layer, open(dir.path()), "AutoGPTQ");
}

#[test]
fn misaligned_tensors_are_read_right() {
    for dtype in DType::ALL {
        let mut layer = LayerValues::random(NAME, 4, [64, 64], 32, 35).with_bias();
        layer.dtype = dtype;
        for shift in 1..8 {
            let dir = CheckpointDir::empty();
            dir.json("quantize_config.json", &config_of(&layer, "gptq_v2"));
            dir.shifted_weights("model.safetensors", &layer.tensors(StoredZeros::V2), shift);
            for reading in [Reading::Map, Reading::Copy] {
                let checkpoint = open_with(dir.path(), &OpenOptions { reading, ..OpenOptions::default() });
                assert_is(&layer, checkpoint, &format!("{dtype} shifted by {shift}, {reading:?}"));
            }
        }
    }
}

#[test]
fn a_copied_file_gives_what_a_mapped_one_gives() {
    let copied = OpenOptions { reading: Reading::Copy, ..OpenOptions::default() };
    for name in names() {
        let (mapped, copied) = (open(&checkpoint_dir(&name)), open_with(&checkpoint_dir(&name), &copied));
        assert_eq!(mapped.layers().len(), copied.layers().len(), "{name}");
        for (mapped, copied) in mapped.layers().iter().zip(copied.layers()) {
            assert_eq!(mapped.name(), copied.name(), "{name}");
            assert!(mapped.qweight()[..] == copied.qweight()[..], "{name}: {}.qweight", mapped.name());
            assert!(mapped.zeros().words() == copied.zeros().words(), "{name}: {}.qzeros", mapped.name());
            assert!(
                mapped.scales().as_bytes() == copied.scales().as_bytes(),
                "{name}: {}.scales",
                mapped.name()
            );
            assert!(mapped.group_index() == copied.group_index(), "{name}: {}.g_idx", mapped.name());
        }
        for (mapped, copied) in mapped.tensors().zip(copied.tensors()) {
            assert!(mapped.bytes() == copied.bytes(), "{name}: {}", mapped.name());
        }
    }
}

#[test]
fn a_layer_without_scales_is_an_error_that_names_them() {
    let layer = LayerValues::random(NAME, 4, [64, 64], 32, 36);
    let mut tensors = layer.tensors(StoredZeros::V2);
    tensors.retain(|tensor| !tensor.name.ends_with(".scales"));
    let dir = CheckpointDir::new(&config_of(&layer, "gptq_v2"), &tensors);
    match Checkpoint::open(dir.path()) {
        Err(Error::TensorMissing { layer, missing: "scales", .. }) => assert_eq!(layer, NAME),
        other => panic!("expected to be told what is missing, got {other:?}"),
    }
}
