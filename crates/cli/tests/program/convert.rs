//! `gptq convert`.

use std::fs;
use std::path::Path;

use gptq_core::checkpoint::Checkpoint;
use gptq_core::format::marlin;
use gptq_core::tensor::Floats;
use safetensors::Dtype;
use serde_json::json;

use crate::support::{
    CHECKPOINTS, Run, WHOLE, WHOLE_LAYERS, assert_says, checkpoint, copy_of, edit_configs, edit_tensors,
    gptq, names_in, overwrite_tensor, scratch,
};

fn convert(dir: &Path, out: &Path, to: &str, more: &[&str]) -> Run {
    let [dir, out] = [dir, out].map(|path| path.to_str().expect("a path that is text"));
    gptq(&[&["convert", dir, out, "--to", to][..], more].concat())
}

fn assert_same_weights(was: &Path, is: &Path) {
    let [was, is] = [was, is].map(|dir| Checkpoint::open(dir).expect("it opens"));
    assert_eq!(was.layers().len(), is.layers().len());
    for (was, is) in was.layers().iter().zip(is.layers()) {
        assert!(was.dequantize() == is.dequantize(), "{} differs", was.name());
    }
}

#[test]
fn the_text_says_what_was_rewritten_and_that_the_weights_are_the_same() {
    let dir = scratch();
    let out = dir.path().join("out");
    let text = convert(&checkpoint(WHOLE), &out, "gptq_v2", &[]).success();
    assert_says(
        &text,
        &[
            "gptq to gptq_v2",
            "zero points stored minus one",
            "28 quantized layers, 1.59 MiB packed; 11 plain tensors",
            "rewritten  24576 zero points; all other tensors are the same bytes",
            "config.json",
            "configuration, rewritten",
            "tokenizer.json",
            "carried along",
            "proof passed: read back, and 28 layers dequantize to the same weights, bit for bit",
        ],
    );
    assert_same_weights(&checkpoint(WHOLE), &out);
    for file in ["tokenizer.json", "generation_config.json"] {
        let [was, is] = [checkpoint(WHOLE), out.clone()].map(|dir| fs::read(dir.join(file)).expect("there"));
        assert!(was == is, "{file} is carried along byte for byte");
    }
    assert_eq!(names_in(dir.path()), ["out"], "nothing else is left beside it");
}

/// The whole checkpoint as a file in the order of Marlin's kernel.
fn in_marlins_format() -> tempfile::TempDir {
    let dir = copy_of(WHOLE);
    let gptq = Checkpoint::open(dir.path()).expect("it opens");
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        for layer in gptq.layers() {
            let (info, name) = (layer.info(), layer.name());
            let (k, n) = (info.in_features, info.out_features);
            let Floats::F16(scales) = layer.scales() else { panic!("{name}: scales in f16") };
            tensors.retain(|(tensor, ..)| tensor.rsplit_once('.').map(|(module, _)| module) != Some(name));
            let b = marlin::from_qweight(layer.qweight(), n, info.bits);
            let s = marlin::from_scales(scales, info.groups);
            let s = s.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            tensors.push((format!("{name}.B"), Dtype::I32, vec![k / 16, 2 * n], bytes(&b)));
            tensors.push((format!("{name}.s"), Dtype::F16, vec![info.groups, n], s));
        }
    });
    edit_configs(dir.path(), |config| {
        config["format"] = json!("marlin");
        config["checkpoint_format"] = json!("marlin");
        config["is_marlin_format"] = json!(true);
    });
    dir
}

#[test]
fn a_checkpoint_in_marlins_format_is_shown_runs_and_becomes_one_of_gptq() {
    let (marlin, dir) = (in_marlins_format(), scratch());
    let path = marlin.path().to_str().expect("a path that is text");
    let shown = gptq(&["inspect", path, "--summary"]).success();
    assert_says(
        &shown,
        &[
            "marlin: in the order of the Marlin kernel",
            "28 layers are stored in the order of Marlin's kernel",
        ],
    );
    gptq(&["finalize", path]).success();

    let out = dir.path().join("out");
    let text = convert(marlin.path(), &out, "gptq", &[]).success();
    assert_says(&text, &["marlin to gptq", "codes and scales, in the order of GPTQ", "proof passed"]);
    assert_same_weights(&checkpoint(WHOLE), &out);
    let json = gptq(&["inspect", out.to_str().expect("text"), "--json"]).json();
    assert_eq!(json["zero_points"]["stored"], json!("minus one"), "{json}");
    assert_says(&convert(marlin.path(), &dir.path().join("other"), "marlin", &[]).usage(), &["gptq_v2"]);
}

#[test]
fn every_checkpoint_goes_to_gptq_v2_and_back() {
    for name in CHECKPOINTS {
        let dir = scratch();
        let [direct, back] = ["direct", "back"].map(|name| dir.path().join(name));
        let json = convert(&checkpoint(name), &direct, "gptq_v2", &["--json"]).json();
        assert_eq!((&json["from"], &json["saved"]["format"]), (&json!("gptq"), &json!("gptq_v2")), "{name}");
        assert_eq!((&json["saved"]["proved"], &json["layers_repacked"]), (&json!(true), &json!(0)), "{name}");
        assert_eq!(json["saved"]["layers"], json["layers"], "{name}");
        assert!(json["saved"]["zeros_converted"].as_u64() > Some(0), "{name}");
        convert(&direct, &back, "gptq", &[]).success();
        assert_same_weights(&checkpoint(name), &direct);
        assert_same_weights(&checkpoint(name), &back);
    }
}

#[test]
fn three_bits_change_their_packing_and_the_text_says_so() {
    let dir = scratch();
    let out = dir.path().join("out");
    let text = convert(&checkpoint("kjv-3bit-g32-asym-v1"), &out, "gptq_p", &[]).success();
    assert_says(&text, &["the code words of 4 layers of 3 bits", "gptq to gptq_p"]);
    assert_same_weights(&checkpoint("kjv-3bit-g32-asym-v1"), &out);
}

#[test]
fn the_same_format_rewrites_no_tensor() {
    let dir = scratch();
    let text = convert(&checkpoint(WHOLE), &dir.path().join("out"), "gptq", &[]).success();
    assert_says(&text, &["rewritten  no tensor"]);
}

#[test]
fn shards_are_as_large_as_was_said_and_have_an_index() {
    let dir = scratch();
    let out = dir.path().join("out");
    let text = convert(&checkpoint(WHOLE), &out, "gptq_v2", &["--max-shard-size", "1500KB"]).success();
    assert_says(&text, &["model-00001-of-0000", "model.safetensors.index.json", "index of the weights"]);
    let weights: Vec<_> = names_in(&out).into_iter().filter(|name| name.ends_with(".safetensors")).collect();
    assert!(weights.len() > 1, "{weights:?}");
    assert_eq!(Checkpoint::open(&out).expect("it opens").layers().len(), WHOLE_LAYERS);
    assert_same_weights(&checkpoint(WHOLE), &out);
    for size in ["0", "5 apples", "-1GB"] {
        let size = format!("--max-shard-size={size}");
        let run = convert(&checkpoint(WHOLE), &dir.path().join("other"), "gptq_v2", &[&size]);
        assert_says(&run.usage(), &["--max-shard-size", "KB, MB, GB"]);
    }
}

#[test]
fn a_directory_that_holds_something_is_left_alone() {
    let dir = scratch();
    fs::write(dir.path().join("precious"), "").expect("written");
    let error = convert(&checkpoint(WHOLE), dir.path(), "gptq_v2", &[]).failure();
    assert_says(&error, &["an empty one"]);
    assert_eq!(names_in(dir.path()), ["precious"]);
    let copy = copy_of("kjv-2bit-g32-sym");
    let before = names_in(copy.path());
    let error = convert(copy.path(), copy.path(), "gptq_v2", &[]).failure();
    assert_says(&error, &["the directory of the checkpoint that is saved"]);
    assert_eq!(names_in(copy.path()), before);
}

#[test]
fn a_zero_point_of_0_has_no_place_in_gptq_unless_the_writer_is_known() {
    let name = "kjv-4bit-g64-asym-v1";
    let source = copy_of(name);
    let opened = Checkpoint::open(checkpoint(name)).expect("it opens");
    let layer = opened.layers().first().expect("a layer").name();
    // Field 1 is 15: a zero point of 0, minus one.
    let words = 0x7777_77f7u32.to_le_bytes();
    overwrite_tensor(&source.path().join("model.safetensors"), &format!("{layer}.qzeros"), &words);
    edit_configs(source.path(), |config| config["meta"]["quantizer"] = json!(["somebody:1.0"]));

    let dir = scratch();
    let out = dir.path().join("out");
    let dialect = ["--zeros-dialect", "field"];
    let error = convert(source.path(), &out, "gptq", &dialect).failure();
    assert_says(&error, &[layer, "cannot be stored as gptq", "are 0", "save it as gptq_v2"]);
    assert!(names_in(dir.path()).is_empty(), "nothing is written");
    convert(source.path(), &out, "gptq_v2", &dialect).success();

    edit_configs(source.path(), |config| config["meta"]["quantizer"] = json!(["gptqmodel:7.7.0"]));
    let known = dir.path().join("known");
    convert(source.path(), &known, "gptq", &[]).success();
    assert_same_weights(source.path(), &known);
}
