//! `gptq dequantize`.

use std::fs;
use std::path::Path;

use gptq_core::checkpoint::Checkpoint;
use safetensors::Dtype;
use serde_json::json;

use crate::support::{
    CHECKPOINTS, Run, UP_PROJ, WHOLE, assert_says, checkpoint, gptq, names_in, read_tensor, scratch,
};

fn dequantize(name: &str, layer: &str, output: &Path, more: &[&str]) -> Run {
    let (dir, output) = (checkpoint(name), output.to_str().expect("a path that is text"));
    let mut args = vec!["dequantize", dir.to_str().expect("a path that is text"), "--layer", layer];
    args.extend(["--output", output]);
    args.extend(more);
    gptq(&args)
}

#[test]
fn the_file_holds_the_dense_matrix_to_the_last_bit() {
    let dir = scratch();
    for name in CHECKPOINTS {
        let opened = Checkpoint::open(checkpoint(name)).expect("it opens");
        let layer = opened.layers().first().expect("a layer");
        let output = dir.path().join(format!("{name}.safetensors"));
        let text = dequantize(name, layer.name(), &output, &[]).success();
        assert_says(&text, &[layer.name(), "weight [", "f32"]);
        let expected: Vec<u8> = layer.dequantize().iter().flat_map(|value| value.to_le_bytes()).collect();
        let (tensor, dtype, shape, bytes) = read_tensor(&output);
        assert_eq!((tensor.as_str(), dtype), ("weight", Dtype::F32), "{name}");
        assert_eq!(shape, [layer.in_features(), layer.out_features()], "{name}");
        assert!(bytes == expected, "{name}: {} differs", layer.name());
    }
}

#[test]
fn the_json_says_what_was_written() {
    let dir = scratch();
    let output = dir.path().join("w.safetensors");
    let json = dequantize(WHOLE, UP_PROJ, &output, &["--json", "--no-mmap"]).json();
    assert_eq!((&json["layer"]["name"], &json["shape"]), (&json!(UP_PROJ), &json!([256, 768])));
    assert_eq!((&json["tensor"], &json["dtype"]), (&json!("weight"), &json!("f32")));
    assert_eq!(json["file_bytes"], fs::metadata(&output).expect("written").len());
    assert_eq!(names_in(dir.path()), ["w.safetensors"], "nothing else is left beside it");
}

#[test]
fn the_encoding_that_was_asked_for_is_the_one_read() {
    let dir = scratch();
    let [minus_one, direct] = ["minus_one", "direct"].map(|name| dir.path().join(name));
    dequantize(WHOLE, UP_PROJ, &minus_one, &[]).success();
    let run = dequantize(WHOLE, UP_PROJ, &direct, &["--assume-format", "gptq_v2"]);
    assert_eq!(run.code, Some(0));
    assert_says(&run.stdout, &["zero points v2 (direct)"]);
    assert!(read_tensor(&minus_one).3 != read_tensor(&direct).3, "zero points differ by one");
}

#[test]
fn an_existing_file_is_replaced_by_force_only() {
    let dir = scratch();
    let output = dir.path().join("w.safetensors");
    fs::write(&output, "precious").expect("written");
    let error = dequantize(WHOLE, UP_PROJ, &output, &[]).failure();
    assert_says(&error, &["w.safetensors", "exists already", "--force"]);
    assert_eq!(fs::read(&output).expect("still there"), b"precious");
    dequantize(WHOLE, UP_PROJ, &output, &["--force"]).success();
    assert_eq!(read_tensor(&output).0, "weight");
    let error = dequantize(WHOLE, UP_PROJ, dir.path(), &["--force"]).failure();
    assert_says(&error, &["this is a directory"]);
}

#[test]
fn a_file_in_no_directory_cannot_be_written() {
    let dir = scratch();
    let error = dequantize(WHOLE, UP_PROJ, &dir.path().join("absent/w.safetensors"), &[]).failure();
    assert_says(&error, &["absent: cannot write into", "caused by"]);
}

#[test]
fn a_layer_that_is_not_there_is_answered_with_the_nearest() {
    let dir = scratch();
    let error =
        dequantize(WHOLE, "model.layers.0.mlp.upproj", &dir.path().join("w.safetensors"), &[]).failure();
    assert_says(&error, &["`model.layers.0.mlp.upproj`", UP_PROJ, "gptq inspect"]);
    assert!(names_in(dir.path()).is_empty(), "nothing is written");
}
