//! `gptq verify`.

use half::f16;
use serde_json::json;

use crate::support::{
    CHECKPOINTS, Run, UP_PROJ, WHOLE, WHOLE_LAYERS, assert_says, checkpoint, copy_of, gptq, overwrite_tensor,
};

fn verify(name: &str, more: &[&str]) -> Run {
    let dir = checkpoint(name);
    gptq(&[&["verify", dir.to_str().expect("a path that is text")][..], more].concat())
}

#[test]
fn every_layer_of_every_checkpoint_is_right_in_every_type_and_at_several_sizes() {
    for name in CHECKPOINTS {
        for (dtype, rows) in [("f16", "1"), ("bf16", "17"), ("f32", "4")] {
            let json = verify(name, &["--dtype", dtype, "--rows", rows, "--json"]).json();
            let layers = json["layers"].as_array().expect("layers");
            assert!(!layers.is_empty() && json["failed"] == 0, "{name} {dtype}");
            for layer in layers {
                let number = |key: &str| layer[key].as_f64().expect("a number");
                assert_eq!(layer["verdict"], "ok", "{name} {dtype}: {layer}");
                assert_eq!(layer["floor_counts"], "x_and_y", "the fallback rounds no weights: {layer}");
                assert!(number("error") <= number("bound") && number("floor") > 0.0, "{name}: {layer}");
                assert_eq!(layer["columns"], layer["out_features"], "small layers are compared whole");
            }
        }
    }
}

#[test]
fn the_text_has_a_row_for_each_layer_and_a_summary() {
    let text = verify(WHOLE, &["--seed", "9"]).success();
    assert_says(
        &text,
        &[
            "torch        runs 28 of 28 layers",
            "28 layers on cpu, x f16 [4, K], seed 9",
            "28 of 28 layers right, in",
            "worst error",
            "beside a floor of",
            "of the bound",
            "10240 of 10240 columns compared",
        ],
    );
    let row = text.lines().find(|line| line.contains(UP_PROJ)).expect("a row for each layer");
    assert!(row.contains(" torch  256  768      768 ") && row.ends_with(" ok"), "{row}");
}

#[test]
fn a_sample_is_the_same_for_the_same_seed() {
    let run = |seed: &str| {
        let json = verify(WHOLE, &["--seed", seed, "--columns", "20", "--json"]).json();
        let layers = json["layers"].as_array().expect("layers").clone();
        let errors: Vec<_> = layers.iter().map(|layer| layer["error"].clone()).collect();
        assert!(layers.iter().all(|layer| layer["columns"] == 20));
        assert_eq!(layers.len(), WHOLE_LAYERS);
        errors
    };
    assert_eq!(run("3"), run("3"));
    assert_ne!(run("3"), run("4"));
}

#[test]
fn only_the_layers_that_were_named_are_run() {
    let other = "model.layers.3.self_attn.k_proj";
    let json = verify(WHOLE, &["--layer", other, "--layer", UP_PROJ, "--json"]).json();
    let names: Vec<_> =
        json["layers"].as_array().expect("layers").iter().map(|layer| layer["name"].clone()).collect();
    assert_eq!(names, [UP_PROJ, other], "in the checkpoint's order");
    let error = verify(WHOLE, &["--layer", "up_proj"]).failure();
    assert_says(&error, &["no quantized layer is called `up_proj`"]);
}

#[test]
fn an_output_that_overflows_f16_is_found_and_named() {
    let dir = copy_of(WHOLE);
    let scales: Vec<u8> = [f16::from_f32(60_000.0); 768].iter().flat_map(|s| s.to_le_bytes()).collect();
    overwrite_tensor(&dir.path().join("model.safetensors"), &format!("{UP_PROJ}.scales"), &scales);
    let verify = |more: &[&str]| {
        gptq(&[&["verify", dir.path().to_str().expect("text")][..], &["--layer", UP_PROJ], more].concat())
    };
    let (text, error) = verify(&["--dtype", "f16"]).found_wrong();
    assert_says(&text, &["NOT FINITE", "0 of 1 layer right", "f16 ends at 65504"]);
    assert_says(&error, &["1 of 1 layers answer otherwise", "--dtype bf16"]);
    for dtype in ["bf16", "f32"] {
        let run = verify(&["--dtype", dtype]);
        assert_eq!(run.code, Some(0), "{dtype} holds it: {}", run.stdout);
    }
}

#[test]
fn columns_whose_own_scale_is_no_number_are_no_error_of_the_backend() {
    let dir = copy_of(WHOLE);
    let nan = f16::NAN.to_le_bytes();
    overwrite_tensor(&dir.path().join("model.safetensors"), &format!("{UP_PROJ}.scales"), &nan);
    let run = gptq(&["verify", dir.path().to_str().expect("text"), "--layer", UP_PROJ, "--json"]);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    assert_says(&run.stderr, &["WARN", "not a number"]);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    let layer = &json["layers"][0];
    assert_eq!((&layer["columns_not_finite"], &layer["verdict"]), (&json!(1), &json!("ok")));
    assert!(layer["error"].is_number(), "the other columns are judged: {layer}");
}

#[test]
fn backends_and_types_are_those_that_were_asked_for() {
    assert_says(
        &verify(WHOLE, &["--backend", "triton"]).failure(),
        &["`triton` is not linked", "linked: ", "torch"],
    );
    assert_says(&verify(WHOLE, &["--device", "cuda:7"]).failure(), &["not usable on cuda:7"]);
    assert_says(&verify(WHOLE, &["--rows", "0"]).usage(), &["--rows"]);
    for rows in ["1000000000000", "18446744073709551615"] {
        let text = verify(WHOLE, &["--rows", rows]).failure();
        assert_says(&text, &["x or y of layer `model.layers.0.", rows, "pass fewer --rows"]);
    }
    assert_says(&verify(WHOLE, &["--dtype", "int8"]).usage(), &["f32, f16, bf16"]);
}
