//! All configuration files tell the same truth, and otherwise stay as they were.

use gptq_core::checkpoint::config::QuantizeConfig;
use gptq_core::checkpoint::{Checkpoint, CheckpointFormat, SaveOptions};
use gptq_core::{Error, StoredDtype as Dtype};
use serde_json::json;
use tempfile::TempDir;

use crate::formats::{save, to};
use crate::source::*;

/// A symmetric layer of 4 bits whose configuration is all in its files.
fn source() -> Source {
    let source = Source::new(CheckpointFormat::Gptq, &[Layer::new("a", 4, ZeroKind::Symmetric)], json!({}));
    std::fs::remove_file(source.path().join("quantize_config.json")).unwrap();
    source
}

fn saved(source: &Source, format: CheckpointFormat) -> TempDir {
    let outs = TempDir::new().unwrap();
    save(&source.open(), &outs.path().join("out"), &to(format));
    outs
}

/// `config.json` as Python writes it: with floats that no two programs print alike, and numbers that JSON has not.
const MODEL: &str = r#"{
  "architectures": ["MambaForCausalLM"],
  "rms_norm_eps": 1e-06,
  "rope_theta": 10000.00,
  "time_step_limit": [0.0, Infinity],
  "quantization_config": {
    "bits": 4, "group_size": 32, "damp_percent": 0.10,
    "checkpoint_format": "gptq", "note": "formät \"gptq\""
  },
  "vocab_size": 2048
}
"#;

#[test]
fn three_places_say_the_same_and_change_nowhere_else() {
    let source = source();
    let quantize = "{\"bits\": 4,  \"group_size\": 32, \"format\":\"gptq\", \"damp_percent\": 1e-02}";
    let quant = "{\r\n\t\"w_bit\": 4,\r\n\t\"q_group_size\": 32,\r\n\t\"Format\": \"gptq\"\r\n}\r\n";
    source.write("quantize_config.json", quantize);
    source.write("quant_config.json", quant);
    source.write("config.json", MODEL);

    let outs = saved(&source, CheckpointFormat::GptqV2);
    let text = |name: &str| text_of(outs.path().join("out").join(name));
    assert_eq!(
        text("quantize_config.json"),
        "{\"bits\": 4,  \"group_size\": 32, \"format\":\"gptq_v2\", \"checkpoint_format\": \"gptq_v2\", \
         \"damp_percent\": 1e-02}"
    );
    assert_eq!(
        text("quant_config.json"),
        "{\r\n\t\"w_bit\": 4,\r\n\t\"q_group_size\": 32,\r\n\t\"Format\": \"gptq_v2\",\r\n\t\"checkpoint_format\": \
         \"gptq_v2\"\r\n}\r\n"
    );
    assert_eq!(
        text("config.json"),
        MODEL.replace(
            "\"checkpoint_format\": \"gptq\",",
            "\"checkpoint_format\": \"gptq_v2\", \"format\": \"gptq_v2\","
        )
    );
    let configs = QuantizeConfig::find(&outs.path().join("out")).unwrap();
    assert_eq!(configs.iter().count(), 3);
    assert!(configs.disagreements.is_empty(), "{:?}", configs.disagreements);
}

#[test]
fn a_contradiction_that_the_data_settled_is_gone_when_saved() {
    let source = source();
    source.write("quantize_config.json", r#"{"bits": 4, "group_size": 32, "format": "gptq"}"#);
    let config = r#"{"quantization_config": {"bits": 4, "group_size": 32, "format": "gptq_v2"}}"#;
    source.write("config.json", config);
    assert_eq!(source.open().zero_evidence().unwrap().declared.len(), 2);
    for format in [CheckpointFormat::Gptq, CheckpointFormat::GptqV2] {
        let outs = saved(&source, format);
        let configs = QuantizeConfig::find(&outs.path().join("out")).unwrap();
        assert!(configs.disagreements.is_empty(), "{:?}", configs.disagreements);
        assert_eq!(configs.primary.format, format);
    }
}

#[test]
fn one_place_stays_one_place() {
    let source = source();
    source.write("config.json", MODEL);
    let outs = saved(&source, CheckpointFormat::Gptq);
    assert_eq!(names_in(&outs.path().join("out")), ["config.json", "model.safetensors"]);
    let text = text_of(outs.path().join("out/config.json"));
    let added = "\"checkpoint_format\": \"gptq\", \"format\": \"gptq\",";
    assert_eq!(text, MODEL.replace("\"checkpoint_format\": \"gptq\",", added));
}

#[test]
fn a_model_file_that_said_nothing_says_it_too() {
    let source = source();
    source.write(
        "quantize_config.json",
        "{\n  \"bits\": 4,\n  \"group_size\": 32,\n  \"damp_percent\": 0.10\n}\n",
    );
    for (model, expected) in [
        (
            "{\n    \"eps\": 1e-06\n}\n",
            "{\n    \"eps\": 1e-06,\n    \"quantization_config\": {\n      \"bits\": 4,\n      \"group_size\": 32,\n      \
             \"damp_percent\": 0.10,\n      \"format\": \"gptq\",\n      \"checkpoint_format\": \"gptq\",\n      \
             \"quant_method\": \"gptq\"\n    }\n}\n",
        ),
        (
            "{\"quantization_config\": null, \"x\": NaN}",
            "{\"quantization_config\": {\n  \"bits\": 4,\n  \"group_size\": 32,\n  \"damp_percent\": 0.10,\n  \"format\": \
             \"gptq\",\n  \"checkpoint_format\": \"gptq\",\n  \"quant_method\": \"gptq\"\n}, \"x\": NaN}",
        ),
    ] {
        source.write("config.json", model);
        let outs = saved(&source, CheckpointFormat::Gptq);
        assert_eq!(text_of(outs.path().join("out/config.json")), expected);
    }
}

#[test]
fn a_configuration_among_the_tensors_becomes_a_file() {
    let mut source = source();
    let number = |number: i64| (Dtype::I64, Vec::new(), number.to_le_bytes().to_vec());
    source.tensors.insert("gptq_bits".into(), number(4));
    source.tensors.insert("gptq_groupsize".into(), number(32));
    source.write_weights();
    source.write("config.json", "{}");
    let outs = saved(&source, CheckpointFormat::GptqV2);
    let configs = QuantizeConfig::find(&outs.path().join("out")).unwrap();
    assert_eq!(configs.primary.source.to_string(), "quantize_config.json");
    assert_eq!(configs.primary.format, CheckpointFormat::GptqV2);
    assert_eq!(configs.others.len(), 1, "config.json says it too");
    assert_eq!(tensors_in(&outs.path().join("out"))["gptq_bits"], number(4), "plain tensors stay");
}

#[test]
fn weight_files_are_found_under_their_new_name() {
    let source = source();
    std::fs::rename(
        source.path().join("model.safetensors"),
        source.path().join("gptq_model-4bit-32g.safetensors"),
    )
    .unwrap();
    let quantize = r#"{"bits": 4, "group_size": 32, "model_name_or_path": "org/m", "model_file_base_name": "gptq_model-4bit-32g"}"#;
    source.write("quantize_config.json", quantize);
    let outs = saved(&source, CheckpointFormat::Gptq);
    assert_eq!(names_in(&outs.path().join("out")), ["model.safetensors", "quantize_config.json"]);
    let config = open(&outs.path().join("out")).config().clone();
    assert_eq!(config.model_file_base_name.as_deref(), Some("model"));
    assert_eq!(config.raw["model_name_or_path"], "org/m");
}

#[test]
fn a_configuration_that_broke_since_it_was_opened_is_an_error_and_leaves_nothing() {
    let source = source();
    source.write("quantize_config.json", r#"{"bits": 4, "group_size": 32}"#);
    let checkpoint = Checkpoint::open(source.path()).unwrap();
    let outs = TempDir::new().unwrap();
    source.write("quantize_config.json", r#"{"bits": 4, "#);
    let error = checkpoint.save(outs.path().join("out"), &SaveOptions::default()).unwrap_err();
    assert!(matches!(error, Error::ConfigSyntax { .. }), "{error}");
    source.write("quantize_config.json", r#"{"bits": 8, "group_size": 32}"#);
    let error = checkpoint.save(outs.path().join("out"), &SaveOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotStorable { .. }), "{error}");
    assert_eq!(names_in(outs.path()), [""; 0]);
}

#[test]
fn a_rule_that_no_layer_follows_and_the_format_has_no_room_for_is_refused_with_what_helps() {
    let source = Source::new(CheckpointFormat::GptqP, &[Layer::new("a", 4, ZeroKind::Symmetric)], json!({}));
    let rule = r#"{"bits": 4, "group_size": 32, "format": "gptq_p", "dynamic": {"absent": {"bits": 5}}}"#;
    source.write("quantize_config.json", rule);
    let outs = TempDir::new().unwrap();
    let out = outs.path().join("out");
    let error = source.open().save(&out, &to(CheckpointFormat::GptqV2)).unwrap_err();
    let text = error.to_string();
    for said in
        ["a width of 5 bits of the dynamic rule `absent`", "save as gptq_p, or remove", "saved as gptq_v2"]
    {
        assert!(text.contains(said), "`{said}` is not in {text}");
    }
    assert_eq!(names_in(outs.path()), [""; 0]);
    save(&source.open(), &out, &to(CheckpointFormat::GptqP));
}
