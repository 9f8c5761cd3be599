//! `gptq inspect` of checkpoints in which something is wrong, suspicious or unusual.

use std::fs;
use std::path::Path;

use half::f16;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::support::{
    CHECKPOINTS, Run, Tensor, UP_PROJ, WHOLE, assert_says, checkpoint, copy_of, edit_configs, edit_json,
    edit_tensors, gptq, overwrite_tensor, scratch, write_tensors,
};

const DYNAMIC: &str = "kjv-4bit-dynamic-lmhead";

fn inspect(dir: &Path, more: &[&str]) -> Run {
    gptq(&[&["inspect", dir.to_str().expect("a path that is text")][..], more].concat())
}

fn assert_strict_fails(dir: &Path) {
    let (_, error) = inspect(dir, &["--strict"]).found_wrong();
    assert_says(&error, &["warning", "--strict"]);
}

#[test]
fn the_estimate_of_memory_is_what_finalizing_takes() {
    for name in CHECKPOINTS {
        let dir = checkpoint(name);
        let dir = dir.to_str().expect("text");
        for more in [&[][..], &["--no-mmap"]] {
            let run = |command: &str| gptq(&[&[command, dir, "--json"][..], more].concat()).json();
            let (inspected, finalized) = (run("inspect"), run("finalize"));
            let estimate = &inspected["memory"][0];
            assert_eq!((&estimate["backend"], &estimate["layers"]), (&json!("torch"), &finalized["layers"]));
            for key in ["packed_bytes", "host_bytes"] {
                assert_eq!(estimate[key], finalized["memory"][key], "{name} {more:?}: {key}");
            }
        }
    }
    let text = inspect(&checkpoint(WHOLE), &[]).success();
    assert_says(
        &text,
        &["memory on cpu, estimated", "in host memory outside mapped files", "`gptq finalize` shows it"],
    );
    let text = inspect(&checkpoint(WHOLE), &["--device", "cuda:7"]).success();
    assert_says(&text, &["memory on cuda:7, estimated\n  no backend accepts a layer there"]);
}

#[test]
fn a_layer_that_lacks_a_tensor_is_an_error_and_the_rest_is_shown() {
    let dir = copy_of(WHOLE);
    let gone = [format!("{UP_PROJ}.scales"), "model.layers.2.self_attn.q_proj.qzeros".into()];
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| !gone.contains(name));
    });
    let (text, error) = inspect(dir.path(), &[]).found_wrong();
    assert_says(&error, &["is missing, found only", "download the missing shard"]);
    assert_says(
        &text,
        &[
            "does not open",
            "gptqmodel:7.7.0",
            "also read: config.json[\"quantization_config\"]",
            "26 modules with all tensors that a quantized layer needs, 11 plain tensors",
            "2 modules with some missing:",
            &format!("{UP_PROJ}: has g_idx, qweight, qzeros; lacks scales"),
            "model.layers.2.self_attn.q_proj: has g_idx, qweight, scales; lacks qzeros",
        ],
    );
    let (json, _) = inspect(dir.path(), &["--json"]).found_wrong();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_says(json["error"].as_str().expect("text"), &["is missing"]);
    assert_eq!(json["weights"]["incomplete"][0]["missing"], json!(["scales"]));
    assert_eq!((&json["configs"]["primary"]["bits"], &json["weights_error"]), (&json!(4), &Value::Null));
}

#[test]
fn weights_that_cannot_be_read_leave_the_configuration_and_the_other_way_round() {
    let dir = copy_of(WHOLE);
    edit_json(dir.path(), "config.json", |config| config["quantization_config"]["sym"] = json!(false));
    let weights = dir.path().join("model.safetensors");
    let bytes = fs::read(&weights).expect("the file");
    fs::write(&weights, &bytes[..1000]).expect("written");
    let (text, _) = inspect(dir.path(), &[]).found_wrong();
    assert_says(
        &text,
        &["group_size  128", "they disagree: `sym`", "weights\n  not readable: see the error"],
    );

    fs::write(&weights, &bytes).expect("written");
    fs::write(dir.path().join("quantize_config.json"), "{").expect("written");
    let (text, _) = inspect(dir.path(), &[]).found_wrong();
    assert_says(&text, &["configuration\n  not readable: see the error", "28 modules with all tensors"]);
}

#[test]
fn pieces_without_a_qweight_belong_to_no_layer() {
    let dir = copy_of(WHOLE);
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| *name != format!("{UP_PROJ}.qweight"));
    });
    let text = inspect(dir.path(), &[]).success();
    let warning = format!("warning: {UP_PROJ}: it has qzeros and no qweight");
    assert_says(&text, &[&warning, "27 layers", "14 tensors"]);
    assert_strict_fails(dir.path());
}

#[test]
fn scales_that_are_no_numbers_or_too_large_for_f16_are_named() {
    for (scale, parts) in [
        (f16::NAN, &["1 of 1536 scales are infinite or not a number"][..]),
        (f16::INFINITY, &["1 of 1536 scales are infinite or not a number"]),
        (f16::from_f32(5000.0), &["5000", "exceed 65504", "run it in bf16 or f32"]),
    ] {
        let dir = copy_of(WHOLE);
        let file = dir.path().join("model.safetensors");
        overwrite_tensor(&file, &format!("{UP_PROJ}.scales"), &scale.to_le_bytes());
        let text = inspect(dir.path(), &[]).success();
        assert_says(&text, &[&format!("warning: {UP_PROJ}: ")]);
        assert_says(&text, parts);
        assert_strict_fails(dir.path());
    }
}

#[test]
fn desc_act_that_the_tensors_do_not_bear_out_is_a_note_and_the_reverse_a_warning() {
    let dir = copy_of(WHOLE);
    edit_configs(dir.path(), |config| config["desc_act"] = json!(true));
    let text = inspect(dir.path(), &["--strict"]).success();
    assert_says(&text, &["and 27 more: desc_act is true and g_idx is trivial: no permutation is needed"]);

    let dir = copy_of("kjv-4bit-g128-sym-actorder");
    edit_configs(dir.path(), |config| config["desc_act"] = json!(false));
    assert_says(&inspect(dir.path(), &[]).success(), &["desc_act is false and g_idx is a permutation"]);
    assert_strict_fails(dir.path());
}

#[test]
fn configurations_that_disagree_are_named_with_both_values() {
    let dir = copy_of(WHOLE);
    edit_json(dir.path(), "config.json", |config| {
        config["quantization_config"]["group_size"] = json!(64);
        config["quantization_config"]["desc_act"] = json!(true);
    });
    let text = inspect(dir.path(), &[]).success();
    assert_says(&text, &["`group_size`: quantize_config.json says 128", "says 64", "`desc_act`"]);
    assert_strict_fails(dir.path());
}

#[test]
fn rules_that_decide_for_nothing_and_matrices_that_no_rule_leaves_out_are_notes() {
    let dir = copy_of(DYNAMIC);
    edit_configs(dir.path(), |config| {
        let rules = config["dynamic"].as_object_mut().expect("rules");
        let skip = rules.keys().find(|rule| rule.starts_with("-:")).expect("a rule that skips").clone();
        rules.shift_remove(&skip);
        rules.insert("-:.*vision.*".into(), json!({}));
        rules.insert("+:lm_head.*".into(), json!({"bits": 4}));
    });
    let text = inspect(dir.path(), &["--strict"]).success();
    assert_says(
        &text,
        &[
            "note: `dynamic` rule `-:.*vision.*` decides for no module",
            "note: `dynamic` rule `+:lm_head.*` decides for no module",
            "note: model.layers.0.self_attn.k_proj: it looks like a linear layer, is left in floating point",
        ],
    );
    assert!(!text.contains("down_proj$` decides"), "rules that decide are no finding:\n{text}");
    assert_says(&inspect(&checkpoint(DYNAMIC), &[]).success(), &["findings\n  none"]);
}

#[test]
fn lists_of_modules_are_held_against_those_that_are_quantized() {
    let dir = copy_of(DYNAMIC);
    edit_configs(dir.path(), |config| {
        config["dynamic"].as_object_mut().expect("rules").retain(|rule, _| !rule.starts_with("-:"));
        config["modules_in_block_to_quantize"] =
            json!([["self_attn.q_proj"], ["mlp.down_proj", "mlp.experts.0.w1"]]);
    });
    let text = inspect(dir.path(), &[]).success();
    assert_says(&text, &["modules_in_block_to_quantize lists `mlp.experts.0.w1`, and no quantized module"]);
    assert!(!text.contains("lists `self_attn.q_proj`"), "{text}");
    assert!(!text.contains("left in floating point among"), "k_proj is in no list:\n{text}");
}

/// A checkpoint of one layer `a.0.b` [K, N] in 4 bits and one group, and its configuration.
fn single(dir: &Path, k: usize, n: usize) {
    let half = f16::from_f32(0.01).to_le_bytes();
    let tensor = |suffix: &str, dtype, shape: Vec<usize>, bytes| -> Tensor {
        (format!("a.0.b.{suffix}"), dtype, shape, bytes)
    };
    let words = |count: usize, word: u32| word.to_le_bytes().repeat(count);
    write_tensors(
        &dir.join("model.safetensors"),
        &[
            tensor("qweight", Dtype::I32, vec![k / 8, n], words(k / 8 * n, 0x8123_4567)),
            tensor("qzeros", Dtype::I32, vec![1, n / 8], words(n / 8, 0x7777_7777)),
            tensor("scales", Dtype::F16, vec![1, n], half.repeat(n)),
        ],
    );
    let config = json!({"bits": 4, "group_size": -1, "sym": true, "desc_act": false, "quant_method": "gptq"});
    fs::write(dir.join("quantize_config.json"), config.to_string()).expect("written");
}

#[test]
fn shapes_that_kernels_of_the_field_refuse_are_notes() {
    for (k, n, expected) in [
        (256, 64, &[][..]),
        (192, 96, &["K = 192 is no multiple of 128: Marlin", "N = 96 is no multiple of 64: Marlin"]),
        (136, 128, &["K = 136 is no multiple of 32: ExLlama's and Marlin's kernels refuse it"]),
        (128, 40, &["N = 40 is no multiple of 32: ExLlama's and Marlin's kernels refuse it"]),
    ] {
        let dir = scratch();
        single(dir.path(), k, n);
        let text = inspect(dir.path(), &["--strict"]).success();
        assert_says(&text, expected);
        assert_eq!(text.matches("is no multiple of").count(), expected.len(), "K = {k}, N = {n}:\n{text}");
    }
}
