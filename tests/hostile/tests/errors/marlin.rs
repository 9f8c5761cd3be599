//! Checkpoints in Marlin's format, or said to be.

use gptq_tests_hostile::valid::{self, CONFIG, LAYERS, WEIGHTS};
use gptq_tests_hostile::{Entry, Image, Tensor};
use serde_json::json;

use crate::case::{Case, case, case_of};

const UP: &str = LAYERS[0];

/// The tensor `suffix` of the first layer.
fn piece<'a>(image: &'a mut Image, suffix: &str) -> &'a mut Tensor {
    image.weights(WEIGHTS).tensor(&format!("{UP}.{suffix}"))
}

fn broken(
    name: &'static str,
    kind: &'static str,
    says: &'static [&'static str],
    change: fn(&mut Image),
) -> Case {
    case_of(valid::marlin(), name, kind, says, change)
}

fn shape(name: &'static str, says: &'static [&'static str], change: fn(&mut Image)) -> Case {
    broken(name, "TensorShape", says, change)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = said();
    cases.extend(tensors());
    cases.extend(shapes());
    cases
}

fn said() -> Vec<Case> {
    vec![
        case(
            "tensors of GPTQ that are said to be Marlin's",
            "Unsupported",
            &["quantize_config.json", "format marlin", "has a `qweight`", "`B` and `s`", "correct `format`"],
            |image| image.json(CONFIG)["format"] = json!("marlin"),
        ),
        case(
            "the same by Marlin's flag",
            "Unsupported",
            &["quantize_config.json", "format marlin", "has a `qweight`"],
            |image| {
                let config = json!({"bits": 4, "is_marlin_format": true});
                image.entries.insert(CONFIG.into(), Entry::Json(config));
            },
        ),
        broken(
            "no module in Marlin's format",
            "Unsupported",
            &["quantize_config.json", "format marlin", "no module", "missing weight file"],
            |image| image.weights(WEIGHTS).tensors.retain(|tensor| tensor.name.ends_with(".weight")),
        ),
        shape(
            "3 bits in Marlin's format",
            &["up_proj.B", "[4, 96]", "for 3 bits", "holds codes of 4 and 8"],
            |image| {
                image.json(CONFIG)["bits"] = json!(3);
                piece(image, "B").resize(1, 96);
            },
        ),
        shape(
            "another width in Marlin's format",
            &["up_proj.B", "[4, 128]", "[K / 16, 256]", "fit 4 bits"],
            |image| {
                image.json(CONFIG)["bits"] = json!(8);
            },
        ),
        shape(
            "another group size in Marlin's format",
            &["up_proj.s", "[2, 64]", "[4, 64]", "K = 64", "fit a group size of 32"],
            |image| image.json(CONFIG)["group_size"] = json!(16),
        ),
    ]
}

fn tensors() -> Vec<Case> {
    vec![
        broken(
            "a layer without B",
            "TensorMissing",
            &["layer `model.layers.0.mlp.up_proj`", "up_proj.B` is missing", "found only s", "format marlin"],
            |image| _ = image.weights(WEIGHTS).remove(&format!("{UP}.B")),
        ),
        broken(
            "a layer without s",
            "TensorMissing",
            &["layer `model.layers.0.mlp.up_proj`", "up_proj.s` is missing", "found only B"],
            |image| _ = image.weights(WEIGHTS).remove(&format!("{UP}.s")),
        ),
        broken("B in halves", "TensorDtype", &["up_proj.B", "F16", "expected I32"], |image| {
            piece(image, "B").retype("F16", 2);
        }),
        broken("s in integers", "TensorDtype", &["up_proj.s", "I32", "expected F16"], |image| {
            piece(image, "s").retype("I32", 4);
        }),
    ]
}

fn shapes() -> Vec<Case> {
    vec![
        shape("B of one dimension", &["up_proj.B", "[512]", "[K / 16, N * bits / 2]"], |image| {
            piece(image, "B").shape = vec![512];
        }),
        shape("B without rows", &["up_proj.B", "[0, 128]", "one row or more"], |image| {
            piece(image, "B").resize(0, 0);
        }),
        shape(
            "B of other columns",
            &["up_proj.B", "[4, 127]", "[K / 16, 128]", "N = 64", "restore"],
            |image| {
                piece(image, "B").resize(1, 127);
            },
        ),
        shape("s of one dimension", &["up_proj.s", "[128]", "two dimensions, [G, N]"], |image| {
            piece(image, "s").shape = vec![128];
        }),
        shape("s without groups", &["up_proj.s", "[0, 64]", "one group or more"], |image| {
            piece(image, "s").resize(0, 0);
        }),
        shape("s of columns that are no tiles", &["up_proj.s", "[2, 60]", "a multiple of 64"], |image| {
            piece(image, "s").resize(1, 60);
        }),
        broken("a bias of other columns", "TensorShape", &["q_proj.bias", "[63]", "[64]"], |image| {
            image.weights(WEIGHTS).tensor(&format!("{}.bias", LAYERS[1])).resize(0, 63);
        }),
    ]
}
