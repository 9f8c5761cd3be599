//! Directories that are no checkpoint, or a broken one: every command that opens one says so the same way.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{
    Run, UP_PROJ, WHOLE, assert_says, checkpoint, copy_of, edit_json, gptq, names_in, scratch,
};

/// Every command that opens a checkpoint, on `dir`.
fn all_commands(dir: &Path) -> Vec<Run> {
    let dir = dir.to_str().expect("a path that is text");
    let unused = scratch();
    let [x, y] = ["x", "y"].map(|name| unused.path().join(name).to_string_lossy().into_owned());
    let layer = ["--layer", UP_PROJ, "--output", &y];
    let out = unused.path().join("out").to_string_lossy().into_owned();
    let commands: [Vec<&str>; 7] = [
        vec!["inspect", dir],
        vec!["inspect", dir, "--json"],
        vec!["finalize", dir],
        vec!["convert", dir, &out, "--to", "gptq_v2"],
        vec!["verify", dir],
        [&["forward", dir, "--input", &x][..], &layer].concat(),
        [&["dequantize", dir][..], &layer].concat(),
    ];
    let runs = commands.iter().map(|args| gptq(args)).collect();
    assert!(names_in(unused.path()).is_empty(), "a command that fails writes nothing");
    runs
}

#[track_caller]
fn assert_all_fail(dir: &Path, parts: &[&str]) {
    for mut run in all_commands(dir) {
        // `inspect` shows what can be read of it all the same.
        if run.stdout.contains("does not open") || run.stdout.starts_with("{\n  \"directory\"") {
            run.stdout.clear();
        }
        assert_says(&run.failure(), parts);
    }
}

#[test]
fn a_directory_that_is_not_there() {
    assert_all_fail(&scratch().path().join("absent"), &["absent: no such directory", "not downloaded"]);
}

#[test]
fn a_file_inside_a_checkpoint() {
    let file = checkpoint(WHOLE).join("model.safetensors");
    let dir = format!("pass {}", checkpoint(WHOLE).display());
    assert_all_fail(&file, &["model.safetensors: this is a file", "expected a checkpoint's directory", &dir]);
}

#[test]
fn a_directory_without_a_configuration() {
    assert_all_fail(scratch().path(), &["no GPTQ configuration found", "quantize_config.json"]);
}

#[test]
fn a_configuration_that_is_not_json() {
    let dir = copy_of("kjv-2bit-g32-sym");
    fs::write(dir.path().join("quantize_config.json"), "{").expect("written");
    assert_all_fail(dir.path(), &["quantize_config.json: not valid JSON", "caused by"]);
}

#[test]
fn weights_that_are_not_there() {
    let dir = copy_of("kjv-2bit-g32-sym");
    fs::remove_file(dir.path().join("model.safetensors")).expect("removed");
    assert_all_fail(dir.path(), &["no weights found", "model.safetensors"]);
}

#[test]
fn weights_that_are_cut_short() {
    let dir = copy_of("kjv-2bit-g32-sym");
    let file = fs::File::options().write(true).open(dir.path().join("model.safetensors")).expect("the file");
    file.set_len(file.metadata().expect("its length").len() - 1).expect("cut");
    assert_all_fail(dir.path(), &["model.safetensors: not a valid safetensors file", "cut short"]);
}

#[test]
fn bits_that_the_tensors_contradict() {
    let dir = copy_of("kjv-2bit-g32-sym");
    for file in ["quantize_config.json", "config.json"] {
        edit_json(dir.path(), file, |config| match config.get_mut("quantization_config") {
            Some(inner) => inner["bits"] = json!(4),
            None => config["bits"] = json!(4),
        });
    }
    assert_all_fail(dir.path(), &["qweight", "the tensors fit 2 bits"]);
}

#[test]
fn a_format_that_the_data_contradicts_and_the_option_that_settles_it() {
    let dir = copy_of(WHOLE);
    for file in ["quantize_config.json", "config.json"] {
        edit_json(dir.path(), file, |config| {
            let config = match config.get("quantization_config") {
                Some(_) => &mut config["quantization_config"],
                None => config,
            };
            config["format"] = json!("gptq_v2");
            config["checkpoint_format"] = json!("gptq_v2");
        });
    }
    assert_all_fail(dir.path(), &["v2 (direct", "v1 (minus one", "pass --assume-format gptq"]);
    let dir = dir.path().to_str().expect("a path that is text");
    for command in ["inspect", "finalize"] {
        let text = gptq(&[command, dir, "--assume-format", "gptq"]).success();
        assert_says(&text, &["minus one"]);
    }
}
