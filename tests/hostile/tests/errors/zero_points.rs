//! Zero points that contradict their configuration, or that nobody can read for certain.

use gptq_tests_hostile::valid::{self, CONFIG, LAYERS, WEIGHTS};
use gptq_tests_hostile::{Entry, Image};
use serde_json::json;

use crate::case::{Case, case, case_of};

/// One word in the first layer's qzeros, and a program that wrote it.
fn word(image: &mut Image, word: u32, quantizer: &str) {
    let qzeros = image.weights(WEIGHTS).tensor(&format!("{}.qzeros", LAYERS[0]));
    qzeros.data[4..8].copy_from_slice(&word.to_le_bytes());
    let config = image.json(CONFIG);
    config["format"] = json!("gptq");
    config["meta"] = json!({"quantizer": [quantizer]});
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(
            "v1 zero points that are said to be v2",
            "ZeroEncodingContradiction",
            &["stored as v2", "the data says v1", "2 layers store 2^(bits-1)-1", "--assume-format gptq"],
            |image| image.json(CONFIG)["format"] = json!("gptq_v2"),
        ),
        case(
            "v2 zero points that are said to be v1",
            "ZeroEncodingContradiction",
            &["stored as v1", "the data says v2", "2 store 2^(bits-1) ", "--assume-format gptq_v2"],
            |image| {
                for layer in LAYERS {
                    image.weights(WEIGHTS).tensor(&format!("{layer}.qzeros")).data.fill(0x88);
                }
            },
        ),
        case_of(
            valid::asymmetric(4),
            "configurations that contradict each other about zero points that settle nothing",
            "ZeroEncodingUnsettled",
            &[
                "quantize_config.json says gptq_v2",
                "quant_config.json says gptq",
                "2 are asymmetric",
                "--assume-format",
            ],
            |image| {
                let mut other = image.json(CONFIG).clone();
                other["format"] = json!("gptq");
                image.entries.insert("quant_config.json".into(), Entry::Json(other));
            },
        ),
        case_of(
            valid::asymmetric(4),
            "a v1 zero point of 0 by an unknown writer",
            "ZeroDialectUnknown",
            &["layer `model.layers.0.mlp.up_proj`", "first at [0, 1] = 0x111f1111", "--zeros-dialect"],
            |image| word(image, 0x111F_1111, "somebody:1.0"),
        ),
        case_of(
            valid::asymmetric(4),
            "v1 zero points that AutoGPTQ destroyed",
            "ZerosDestroyed",
            &[
                "layer `model.layers.0.mlp.up_proj`",
                "first at [0, 1] = 0xfff41111",
                "gptq_v2",
                "--zeros-dialect field",
            ],
            |image| word(image, 0xFFF4_1111, "auto_gptq:0.7.1"),
        ),
    ]
}
