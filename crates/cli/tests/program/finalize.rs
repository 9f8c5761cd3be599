//! `gptq finalize`.

use std::fs;

use gptq_core::checkpoint::Checkpoint;
use serde_json::{Value, json};

use crate::support::{
    CHECKPOINTS, Run, WHOLE, assert_says, checkpoint, gptq, names_in, program, run, scratch,
};

fn finalize(name: &str, more: &[&str]) -> Run {
    let dir = checkpoint(name);
    let mut args = vec!["finalize", dir.to_str().expect("a path that is text")];
    args.extend(more);
    gptq(&args)
}

#[test]
fn the_three_steps_are_shown_with_what_they_did() {
    let text = finalize(WHOLE, &[]).success();
    assert_says(
        &text,
        &[
            "28 quantized layers, 1.59 MiB packed; 11 plain tensors",
            "torch        runs 28 of 28 layers",
            "step 1  convert zero points",
            "28 layers: 24576 zero points rewritten from v1 (minus one",
            "to v2 (direct)",
            "step 2  initialise buffers",
            "28 layers ready",
            "step 3  set max input length    not asked for",
            "memory",
            "ready in",
        ],
    );
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
}

#[test]
fn the_json_counts_the_same_for_every_checkpoint() {
    for name in CHECKPOINTS {
        let json = finalize(name, &["--json"]).json();
        let layers = &json["layers"];
        let asked = json["plan"]["asked"].as_array().expect("a list");
        let torch = asked.iter().find(|asked| asked["backend"] == "torch").expect("the fallback is asked");
        assert_eq!(torch["runs"], *layers, "{name}");
        assert_eq!(json["post_init"]["init"]["backends"][0]["layers"], *layers, "{name}");
        let converted = json["post_init"]["convert"]["backends"][0]["converted"].as_array().expect("a list");
        let sum = |key: &str| converted.iter().filter_map(|entry| entry[key].as_u64()).sum::<u64>();
        assert_eq!(sum("layers"), layers.as_u64().expect("a number"), "{name}");
        assert!(sum("zeros") > 0, "{name}: {converted:?}");
        assert_eq!(json["memory"]["packed_bytes"], json["packed_bytes"], "{name}");
        assert_eq!(json["post_init"]["length"], Value::Null, "{name}");
    }
}

#[test]
fn direct_zero_points_are_left_as_they_are() {
    let run = finalize(WHOLE, &["--assume-format", "gptq_v2"]);
    assert_eq!(run.code, Some(0));
    assert_says(&run.stdout, &["28 layers: already in the encoding that the kernels read"]);
    assert_says(&run.stderr, &["WARN", "zero points are read as v2 (direct"]);
}

#[test]
fn step_3_runs_where_a_length_is_given_and_says_why_it_does_nothing() {
    let text = finalize(WHOLE, &["--max-input-length", "4096"]).success();
    assert_says(&text, &["step 3  set max input length to 4096 rows", "torch  not needed: "]);
    let json = finalize(WHOLE, &["--max-input-length", "4096", "--json"]).json();
    let length = &json["post_init"]["length"];
    assert_eq!((&length["rows"], &length["backends"][0]["outcome"]), (&json!(4096), &json!("not_needed")));
    assert!(length["backends"][0]["why"].is_string());
    assert_says(&finalize(WHOLE, &["--max-input-length", "0"]).usage(), &["--max-input-length"]);
}

#[test]
fn every_option_is_obeyed() {
    let json = finalize(WHOLE, &["--backend", "GPTQ_TORCH", "--dtype", "bf16", "--no-mmap", "--json"]).json();
    assert_eq!((&json["plan"]["requested"], &json["plan"]["x_dtype"]), (&json!("torch"), &json!("bf16")));
    let host_bytes = |json: &Value| json["memory"]["host_bytes"].as_u64().expect("a number");
    let mapped = finalize(WHOLE, &["--json"]).json();
    let (copied, mapped) = (host_bytes(&json), host_bytes(&mapped));
    assert!(copied > 10 * mapped, "without a mapping, weights are in host memory: {copied}, mapped {mapped}");
    assert_says(&finalize(WHOLE, &["--dtype", "int8"]).usage(), &["f32, f16, bf16"]);
    assert_says(&finalize(WHOLE, &["--device", "cuda:x"]).usage(), &["ordinal"]);
}

#[test]
fn a_backend_that_is_not_linked_is_an_error_that_lists_those_that_are() {
    assert_says(&finalize(WHOLE, &["--backend", "nonsense"]).failure(), &["`nonsense`", "linked: ", "torch"]);
}

#[test]
fn a_device_that_nobody_runs_on_is_an_error_with_everyones_reason() {
    let error = finalize(WHOLE, &["--device", "cuda:7"]).failure();
    assert_says(&error, &["no linked backend can run", "torch", "not usable on cuda:7"]);
    let error = finalize(WHOLE, &["--device", "cuda:7", "--backend", "torch"]).failure();
    assert_says(&error, &["backend `torch` cannot run on cuda:7"]);
}

#[test]
fn backend_options_are_checked_in_form_and_in_name() {
    assert_says(&finalize(WHOLE, &["--option", "threshold"]).usage(), &["BACKEND.NAME=VALUE"]);
    assert_says(
        &finalize(WHOLE, &["--option", "torch.threshold=1"]).failure(),
        &["option `torch.threshold`"],
    );
}

#[test]
fn a_file_of_options_may_be_for_other_backends_and_not_for_options_that_there_are_not() {
    let dir = scratch();
    let file = dir.path().join("tuned.options");
    let with = |text: &str| {
        fs::write(&file, text).expect("written");
        finalize(WHOLE, &["--option-file", file.to_str().expect("a path that is text")])
    };
    with("# of a GPU\nmarlin.dense_rows=4096x4096:72\n\ntorch.isa=plain\n").success();
    assert_says(&with("torch.threshold=1").failure(), &["option `torch.threshold`"]);
    assert_says(&with("dense_rows 72").failure(), &["dense_rows 72", "BACKEND.NAME=VALUE"]);
    assert_says(&finalize(WHOLE, &["--option-file", "absent"]).failure(), &["absent", "cannot read"]);
}

#[test]
fn a_pipe_gets_no_progress_bar_and_logs_come_when_asked_for() {
    for json in [&[][..], &["--json"]] {
        let run = finalize(WHOLE, json);
        assert_eq!(run.stderr, "", "with {json:?}");
    }
    let run_at = |level: &str| {
        let dir = checkpoint(WHOLE);
        run(program(&["finalize".as_ref(), dir.as_os_str()]).env("RUST_LOG", level))
    };
    assert_says(&run_at("info").stderr, &["INFO post_init{device=cpu layers=28}", "converted zero points"]);
    assert_eq!(run_at("off").stderr, "");
    let verbose = finalize(WHOLE, &["-v"]);
    assert_says(&verbose.stderr, &["INFO open{", "close"]);
    assert_says(&verbose.stdout, &["ready in"]);
}

#[test]
fn a_finalized_model_is_saved_as_it_was_packed() {
    for name in ["kjv-4bit-g64-asym-v1", "kjv-4bit-g128-sym-actorder", WHOLE] {
        let dir = scratch();
        let out = dir.path().join("out");
        let text = finalize(name, &["--save", out.to_str().expect("text"), "--format", "gptq_v2"]).success();
        assert_says(&text, &["ready in", "saved as gptq_v2 in", "model.safetensors", "proof passed"]);
        let (was, is) = (Checkpoint::open(checkpoint(name)), Checkpoint::open(&out));
        let (was, is) = (was.expect("it opens"), is.expect("it opens"));
        assert_eq!(is.config().format.to_string(), "gptq_v2", "{name}");
        for (was, is) in was.layers().iter().zip(is.layers()) {
            assert!(was.dequantize() == is.dequantize(), "{name}: {} differs", was.name());
        }
    }
}

#[test]
fn without_a_format_symmetric_models_are_saved_as_gptq_and_others_as_gptq_v2() {
    for (name, format) in [(WHOLE, "gptq"), ("kjv-4bit-g64-asym-v1", "gptq_v2")] {
        let dir = scratch();
        let out = dir.path().join("out");
        let json = finalize(name, &["--save", out.to_str().expect("text"), "--json"]).json();
        assert_eq!((&json["saved"]["format"], &json["saved"]["proved"]), (&json!(format), &json!(true)));
        assert_eq!(json["saved_to"], out.to_str().expect("text"));
    }
    assert_eq!(finalize(WHOLE, &["--json"]).json()["saved"], Value::Null);
}

#[test]
fn what_stands_in_the_way_of_a_save_is_told_before_the_work() {
    let dir = scratch();
    fs::write(dir.path().join("precious"), "").expect("written");
    let out = dir.path().to_str().expect("text");
    assert_says(
        &finalize(WHOLE, &["--save", out]).failure(),
        &["the directory is not empty", "an empty one"],
    );
    let file = dir.path().join("precious");
    let error = finalize(WHOLE, &["--save", file.to_str().expect("text")]).failure();
    assert_says(&error, &["precious: it is not a directory"]);
    assert_eq!(names_in(dir.path()), ["precious"]);
    assert_says(&finalize(WHOLE, &["--format", "gptq"]).usage(), &["--save <OUT>"]);
}
