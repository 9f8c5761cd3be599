//! `gptq inspect`.

use gptq_core::checkpoint::Checkpoint;
use serde_json::json;

use crate::support::{
    CHECKPOINTS, UP_PROJ, WHOLE, WHOLE_LAYERS, assert_says, checkpoint, copy_of, edit_json, gptq,
    overwrite_tensor,
};

fn inspect(name: &str, more: &[&str]) -> crate::support::Run {
    let dir = checkpoint(name);
    let mut args = vec!["inspect", dir.to_str().expect("a path that is text")];
    args.extend(more);
    gptq(&args)
}

#[test]
fn the_text_says_how_it_was_quantized_and_who_can_run_it() {
    let text = inspect(WHOLE, &[]).success();
    assert_says(
        &text,
        &[
            "quantize_config.json",
            "gptqmodel:7.7.0",
            "minus one (v1, file format gptq)",
            "28 layers with 2^(bits-1) - 1 in every field: conclusive for minus one",
            "trivial  28 layers",
            "28 layers, 1.59 MiB: 28 of 4 bits",
            "torch        runs 28 of 28 layers",
            "11 tensors, 2.00 MiB",
            "findings\n  none",
        ],
    );
    let row = text.lines().find(|line| line.contains(UP_PROJ)).expect("a row for each layer");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        cells,
        [UP_PROJ, "256", "768", "4", "128", "yes", "trivial", "no", "no", "100.75", "KiB", "torch"]
    );
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
}

#[test]
fn the_json_holds_the_same_of_every_checkpoint() {
    for name in CHECKPOINTS {
        let json = inspect(name, &["--json"]).json();
        let opened = Checkpoint::open(checkpoint(name)).expect("it opens");
        assert_eq!(json["zero_points"]["stored"], "minus one", "{name}");
        assert_eq!(json["zero_points"]["settled_by"], "configuration", "{name}");
        assert_eq!(json["config"]["format"], "gptq", "{name}");
        assert_eq!(json["plain_tensors"]["count"], opened.tensors().len(), "{name}");
        assert_eq!(json["findings"], json!([]), "{name}");
        let layers = json["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), opened.layers().len(), "{name}");
        for (found, layer) in layers.iter().zip(opened.layers()) {
            let info = layer.info();
            let numbers = ["in_features", "out_features", "bits", "group_size", "packed_bytes"]
                .map(|key| found[key].as_i64().expect("a number"));
            let expected = [
                info.in_features as i64,
                info.out_features as i64,
                info.bits.get() as i64,
                info.group_size.to_config(),
                info.packed_bytes as i64,
            ];
            assert_eq!((&found["name"], numbers), (&json!(layer.name()), expected), "{name}");
            assert_eq!(found["act_order"], info.act_order, "{name}: {}", layer.name());
            assert_eq!(found["accepted_by"], json!(["torch"]), "{name}: {}", layer.name());
        }
    }
}

#[test]
fn act_order_is_what_g_idx_says() {
    let json = inspect("kjv-4bit-g128-sym-actorder", &["--json"]).json();
    assert_eq!(json["g_idx"][0]["kind"], "permutation");
    assert_eq!(json["g_idx"][0]["layers"], json["layer_count"]);
    let text = inspect("kjv-4bit-g128-sym-actorder", &[]).success();
    assert_says(&text, &["permutation", "(act-order)"]);
}

#[test]
fn dynamic_rules_are_shown_with_what_they_change() {
    assert_says(
        &inspect("kjv-4bit-dynamic-lmhead", &[]).success(),
        &[r"-:.*layers\.0\.self_attn\.k_proj$  not quantized", r"+:.*\.down_proj$  bits 8, group_size 64"],
    );
}

#[test]
fn zero_points_of_asymmetric_layers_come_with_their_mean() {
    let text = inspect("kjv-4bit-g64-asym-v1", &[]).success();
    assert_says(&text, &["minus one", "not conclusive by itself", "the mean of code - zero is"]);
    let json = inspect("kjv-4bit-g64-asym-v1", &["--json"]).json();
    let mean = json["zero_points"]["mean_code_minus_zero"].as_f64().expect("a mean");
    assert!(mean.abs() < 0.3, "{mean} is near 0");
}

#[test]
fn a_summary_has_one_row_for_layers_that_are_alike() {
    let text = inspect(WHOLE, &["--summary"]).success();
    let row = text.lines().find(|line| line.contains("model.layers.*.mlp.up_proj")).expect("a row");
    assert!(row.contains(" 4  256  768 "), "four layers of one kind: {row}");
    assert!(!text.contains(UP_PROJ), "no row for each:\n{text}");
    let json = inspect(WHOLE, &["--summary", "--json"]).json();
    let groups = json["layer_groups"].as_array().expect("groups");
    let names: usize = groups.iter().map(|group| group["names"].as_array().expect("names").len()).sum();
    assert_eq!((groups.len(), names), (7, WHOLE_LAYERS), "every layer is in one group");
    assert_eq!(json.get("layers"), None);
}

#[test]
fn a_device_that_nobody_runs_on_is_shown_with_the_reason_and_fails_only_when_strict() {
    let text = inspect(WHOLE, &["--device", "cuda:7"]).success();
    assert_says(&text, &["torch        not usable on cuda:7", "no backend there for 28 of 28 layers"]);
    let json = inspect(WHOLE, &["--device", "cuda:7", "--json"]).json();
    let refused_by = json["layers"][0]["refused_by"].as_array().expect("everyone's reason");
    let torch =
        refused_by.iter().find(|refusal| refusal["backend"] == "torch").expect("the fallback's reason");
    let reason = torch["reason"].as_str().expect("a reason");
    let missing = ["NVIDIA driver", "there is no cuda:7"];
    assert!(missing.iter().any(|what| reason.contains(what)), "neither the driver nor the GPU: {reason}");

    let run = inspect(WHOLE, &["--device", "cuda:7", "--strict"]);
    assert_eq!(run.code, Some(1), "a layer without a backend is found wrong");
    assert_says(&run.stdout, &["not usable on cuda:7"]);
    assert_says(&run.stderr, &["error: ", "28 layers without a backend"]);
    inspect(WHOLE, &["--strict"]).success();
}

#[test]
fn a_reading_against_the_data_is_a_finding() {
    let run = inspect(WHOLE, &["--assume-format", "gptq_v2", "--strict"]);
    assert_eq!(run.code, Some(1));
    assert_says(
        &run.stdout,
        &["direct (v2", "settled by  --assume-format", "warning: zero points are read as"],
    );
    assert_says(&run.stderr, &["1 warning;"]);
}

#[test]
fn configurations_that_disagree_are_settled_by_the_data_and_named() {
    let dir = copy_of(WHOLE);
    edit_json(dir.path(), "config.json", |config| {
        config["quantization_config"]["format"] = json!("gptq_v2");
        config["quantization_config"]["checkpoint_format"] = json!("gptq_v2");
    });
    let text = gptq(&["inspect".as_ref(), dir.path().as_os_str()]).success();
    assert_says(
        &text,
        &[
            "quantize_config.json says gptq",
            r#"config.json["quantization_config"] says gptq_v2"#,
            "settled by  the data, where configuration files disagree",
            "findings\n  warning: ",
        ],
    );
}

#[test]
fn a_zero_point_of_0_by_an_unknown_writer_is_read_in_the_dialect_that_is_named() {
    let name = "kjv-4bit-g64-asym-v1";
    let dir = copy_of(name);
    for file in ["quantize_config.json", "config.json"] {
        edit_json(dir.path(), file, |config| {
            let config = match config.get("quantization_config") {
                Some(_) => &mut config["quantization_config"],
                None => config,
            };
            config["meta"]["quantizer"] = json!(["somebody:1.0"]);
        });
    }
    // In the first word of some layer's qzeros, field 1 is stored as 15: a zero point of 0, minus one.
    let opened = Checkpoint::open(checkpoint(name)).expect("it opens");
    let layer = opened.layers().first().expect("a layer").name();
    overwrite_tensor(
        &dir.path().join("model.safetensors"),
        &format!("{layer}.qzeros"),
        &0x7777_77f7u32.to_le_bytes(),
    );

    let inspect = |more: &[&str]| {
        let dir = dir.path().to_str().expect("a path that is text");
        gptq(&[&["inspect", dir][..], more].concat())
    };
    let (_, error) = inspect(&[]).found_wrong();
    assert_says(&error, &[layer, "0x777777f7", "--zeros-dialect field|word"]);
    let text = inspect(&["--zeros-dialect", "field"]).success();
    assert_says(&text, &["1 word of qzeros", "each field by itself (--zeros-dialect field)"]);
    let json = inspect(&["--zeros-dialect", "word", "--json"]).json();
    let zeros = &json["zero_points"];
    assert_eq!((&zeros["dialect"], &zeros["saturated_words"]), (&json!("word_borrow"), &json!(1)));
}
