//! Weight files that are true to their header, with tensors that make no layer.

use gptq_tests_hostile::valid::{self, CONFIG, LAYERS, WEIGHTS};
use gptq_tests_hostile::{Image, Tensor, Weights};
use serde_json::json;

use crate::case::{Case, case, case_of};

const UP: &str = LAYERS[0];

/// The tensor `suffix` of the first layer.
fn piece<'a>(image: &'a mut Image, suffix: &str) -> &'a mut Tensor {
    image.weights(WEIGHTS).tensor(&format!("{UP}.{suffix}"))
}

fn shape(name: &'static str, says: &'static [&'static str], change: fn(&mut Image)) -> Case {
    case(name, "TensorShape", says, change)
}

fn dtype(name: &'static str, says: &'static [&'static str], change: fn(&mut Image)) -> Case {
    case(name, "TensorDtype", says, change)
}

fn group(name: &'static str, says: &'static [&'static str], change: fn(&mut Image)) -> Case {
    case(name, "GroupOutOfRange", says, change)
}

fn set_group(image: &mut Image, row: usize, group: i32) {
    piece(image, "g_idx").data[row * 4..][..4].copy_from_slice(&group.to_le_bytes());
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = missing();
    cases.extend(dtypes());
    cases.extend(shapes_of_codes());
    cases.extend(shapes_of_groups());
    cases.extend(groups());
    cases.extend(scalars());
    cases
}

fn missing() -> Vec<Case> {
    vec![
        case(
            "a layer without qzeros",
            "TensorMissing",
            &[
                "layer `model.layers.0.mlp.up_proj`",
                "up_proj.qzeros` is missing",
                "found only g_idx, qweight, scales",
            ],
            |image| _ = image.weights(WEIGHTS).remove(&format!("{UP}.qzeros")),
        ),
        case(
            "a layer without scales",
            "TensorMissing",
            &[
                "layer `model.layers.0.mlp.up_proj`",
                "up_proj.scales` is missing",
                "needs qweight, qzeros and scales",
            ],
            |image| _ = image.weights(WEIGHTS).remove(&format!("{UP}.scales")),
        ),
        case(
            "no qweight at all",
            "NothingQuantized",
            &["no tensor is called *.qweight", "says GPTQ"],
            |image| {
                image.weights(WEIGHTS).tensors.retain(|tensor| !tensor.name.ends_with("qweight"));
            },
        ),
        case("no tensor at all", "NothingQuantized", &["no tensor is called *.qweight"], |image| {
            image.weights(WEIGHTS).tensors.clear();
        }),
    ]
}

fn dtypes() -> Vec<Case> {
    vec![
        dtype(
            "qweight in 64-bit words",
            &["model.safetensors", "up_proj.qweight", "I64", "expected I32", "pack_dtype"],
            |image| {
                piece(image, "qweight").retype("I64", 8);
            },
        ),
        dtype(
            "qweight in 16-bit words",
            &["model.safetensors", "up_proj.qweight", "I16", "expected I32", "pack_dtype"],
            |image| {
                piece(image, "qweight").retype("I16", 2);
            },
        ),
        dtype(
            "qweight in floats",
            &["model.safetensors", "up_proj.qweight", "F32", "expected I32"],
            |image| {
                piece(image, "qweight").retype("F32", 4);
            },
        ),
        dtype("qzeros in halves", &["model.safetensors", "up_proj.qzeros", "F16", "expected I32"], |image| {
            piece(image, "qzeros").retype("F16", 2);
        }),
        dtype(
            "scales in integers",
            &["model.safetensors", "up_proj.scales", "I32", "expected F16, BF16 or F32"],
            |image| {
                piece(image, "scales").retype("I32", 4);
            },
        ),
        dtype(
            "scales in doubles",
            &["model.safetensors", "up_proj.scales", "F64", "expected F16, BF16 or F32"],
            |image| {
                piece(image, "scales").retype("F64", 8);
            },
        ),
        dtype("g_idx in 64 bits", &["model.safetensors", "up_proj.g_idx", "I64", "expected I32"], |image| {
            piece(image, "g_idx").retype("I64", 8);
        }),
        dtype(
            "a bias in bytes",
            &["model.safetensors", "up_proj.bias", "I8", "expected F16, BF16 or F32"],
            |image| {
                let bias =
                    Tensor { name: format!("{UP}.bias"), dtype: "I8", shape: vec![32], data: vec![0; 32] };
                image.weights(WEIGHTS).tensors.push(bias);
            },
        ),
    ]
}

fn shapes_of_codes() -> Vec<Case> {
    vec![
        shape("qweight of one dimension", &["up_proj.qweight", "[256]", "two dimensions"], |image| {
            piece(image, "qweight").shape = vec![256];
        }),
        shape("qweight of three dimensions", &["up_proj.qweight", "[8, 32, 1]", "two dimensions"], |image| {
            piece(image, "qweight").shape = vec![8, 32, 1];
        }),
        shape("qweight of no dimension", &["up_proj.qweight", "[]", "two dimensions"], |image| {
            let qweight = piece(image, "qweight");
            (qweight.shape, qweight.data) = (Vec::new(), vec![0; 4]);
        }),
        shape("qweight without rows", &["up_proj.qweight", "[0, 32]", "at least one row"], |image| {
            piece(image, "qweight").resize(0, 0);
            piece(image, "g_idx").resize(0, 0);
        }),
        shape(
            "qweight without columns",
            &["up_proj.qweight", "[8, 0]", "at least one row and one column"],
            |image| {
                piece(image, "qweight").resize(1, 0);
            },
        ),
        shape(
            "qweight of the width that the configuration does not say",
            &["up_proj.qweight", "[16, 32]", "[8, N]", "fit 8 bits", "dynamic"],
            |image| {
                piece(image, "qweight").resize(0, 16);
            },
        ),
        shape("qweight of no width", &["up_proj.qweight", "[9, 32]", "[8, N]", "restore"], |image| {
            piece(image, "qweight").resize(0, 9);
        }),
        case_of(
            valid::planar(5),
            "planar codes that do not fill their blocks",
            "TensorShape",
            &["up_proj.qweight", "[10, 20]", "multiples of 32", "N = 20"],
            |image| piece(image, "qweight").resize(1, 20),
        ),
    ]
}

fn shapes_of_groups() -> Vec<Case> {
    vec![
        shape(
            "scales of another group size",
            &["up_proj.scales", "[4, 32]", "[2, 32]", "fit a group size of 16"],
            |image| {
                piece(image, "scales").resize(0, 4);
            },
        ),
        shape(
            "scales of one group",
            &["up_proj.scales", "[1, 32]", "[2, 32]", "fit a group size of -1"],
            |image| {
                piece(image, "scales").resize(0, 1);
            },
        ),
        shape(
            "scales of other columns",
            &["up_proj.scales", "[2, 33]", "[2, 32]", "K = 64, N = 32, 4 bits"],
            |image| {
                piece(image, "scales").resize(1, 33);
            },
        ),
        shape("scales without groups", &["up_proj.scales", "[0, 32]", "[2, 32]"], |image| {
            piece(image, "scales").resize(0, 0);
        }),
        shape(
            "scales of one dimension",
            &["up_proj.scales", "[64]", "[2, 32]", "restore the file"],
            |image| {
                piece(image, "scales").shape = vec![64];
            },
        ),
        shape("qzeros of other groups", &["up_proj.qzeros", "[3, 4]", "[2, 4]"], |image| {
            piece(image, "qzeros").resize(0, 3);
        }),
        shape("qzeros of other columns", &["up_proj.qzeros", "[2, 3]", "[2, 4]"], |image| {
            piece(image, "qzeros").resize(1, 3);
        }),
        shape("qzeros that are not packed", &["up_proj.qzeros", "[2, 32]", "[2, 4]"], |image| {
            piece(image, "qzeros").resize(1, 32);
        }),
        shape("g_idx of two dimensions", &["up_proj.g_idx", "[64, 1]", "expected [64]"], |image| {
            piece(image, "g_idx").shape = vec![64, 1];
        }),
        shape("a bias of another length", &["up_proj.bias", "[31]", "expected [32]"], |image| {
            let bias = valid::floats(format!("{UP}.bias"), &[31], "F16", &[0.0; 31]);
            image.weights(WEIGHTS).tensors.push(bias);
        }),
        shape("a bias of two dimensions", &["up_proj.bias", "[1, 32]", "expected [32]"], |image| {
            let bias = valid::floats(format!("{UP}.bias"), &[1, 32], "F16", &[0.0; 32]);
            image.weights(WEIGHTS).tensors.push(bias);
        }),
        shape(
            "a configuration of another width",
            &["up_proj.qweight", "[8, 32]", "[16, N]", "fit 4 bits"],
            |image| {
                image.json(CONFIG)["bits"] = json!(8);
            },
        ),
        shape(
            "a configuration of another width, without g_idx to contradict it",
            &["up_proj.scales", "[2, 32]", "[1, 32]", "K = 32, N = 32, 8 bits", "fit 4 bits"],
            |image| {
                image.weights(WEIGHTS).tensors.retain(|tensor| !tensor.name.ends_with(".g_idx"));
                image.json(CONFIG)["bits"] = json!(8);
            },
        ),
        shape(
            "the same with one group of any number of rows",
            &["up_proj.qzeros", "[1, 4]", "[1, 8]", "K = 32, N = 32, 8 bits", "fit 4 bits"],
            |image| {
                let config = image.json(CONFIG);
                config["bits"] = json!(8);
                config["group_size"] = json!(-1);
                let weights = image.weights(WEIGHTS);
                weights.tensors.retain(|tensor| !tensor.name.ends_with(".g_idx"));
                for layer in LAYERS {
                    weights.tensor(&format!("{layer}.scales")).resize(0, 1);
                    weights.tensor(&format!("{layer}.qzeros")).resize(0, 1);
                }
            },
        ),
        shape(
            "a configuration of another group size",
            &["up_proj.scales", "[2, 32]", "[1, 32]", "fit a group size of 32"],
            |image| {
                image.json(CONFIG)["group_size"] = json!(128);
            },
        ),
    ]
}

fn groups() -> Vec<Case> {
    vec![
        shape(
            "g_idx for fewer rows than there are",
            &["up_proj.qweight", "[8, 32]", "[7, N]: 56 rows (from g_idx)"],
            |image| {
                piece(image, "g_idx").resize(0, 56);
            },
        ),
        shape(
            "g_idx for more rows than there are",
            &["up_proj.qweight", "[8, 32]", "[9, N]: 65 rows (from g_idx)"],
            |image| {
                piece(image, "g_idx").resize(0, 65);
            },
        ),
        shape(
            "g_idx for half the rows",
            &["up_proj.qweight", "[8, 32]", "[4, N]: 32 rows (from g_idx)"],
            |image| {
                piece(image, "g_idx").resize(0, 32);
            },
        ),
        group(
            "g_idx that names one group too many",
            &["model.safetensors", "up_proj.g_idx", "group 2 at row 63", "from 0 to 1"],
            |image| {
                set_group(image, 63, 2);
            },
        ),
        group(
            "g_idx that names the last group there could be",
            &["up_proj.g_idx", "group 2147483647 at row 0", "from 0 to 1"],
            |image| {
                set_group(image, 0, i32::MAX);
            },
        ),
        group(
            "g_idx that counts from the end",
            &["up_proj.g_idx", "group -2 at row 5", "from 0 to 1"],
            |image| {
                set_group(image, 5, -2);
            },
        ),
        group(
            "g_idx with rows of no group",
            &["up_proj.g_idx", "group -1 at row 5", "compressed-tensors"],
            |image| {
                set_group(image, 5, -1);
            },
        ),
        case_of(
            valid::act_order(),
            "a permutation with a group too high",
            "GroupOutOfRange",
            &["up_proj.g_idx", "group 4 at row 9", "from 0 to 3"],
            |image| set_group(image, 9, 4),
        ),
    ]
}

/// The configuration among the tensors.
fn scalars() -> Vec<Case> {
    const FILE: &str = "gptq_model-4bit-32g.safetensors";
    fn scalar<'a>(image: &'a mut Image, name: &str) -> &'a mut Tensor {
        let weights: &mut Weights = image.weights(FILE);
        weights.tensor(name)
    }
    vec![
        case_of(
            valid::scalars(),
            "a width in floats",
            "TensorDtype",
            &[FILE, "`gptq_bits`", "F32", "expected I64, I32"],
            |image| {
                scalar(image, "gptq_bits").retype("F32", 4);
            },
        ),
        case_of(
            valid::scalars(),
            "a width without a number",
            "TensorShape",
            &[FILE, "`gptq_bits`", "[0]", "one number"],
            |image| {
                scalar(image, "gptq_bits").resize(0, 0);
            },
        ),
        case_of(
            valid::scalars(),
            "two widths",
            "TensorShape",
            &[FILE, "`gptq_bits`", "[2]", "one number"],
            |image| {
                scalar(image, "gptq_bits").resize(0, 2);
            },
        ),
        case_of(
            valid::scalars(),
            "a width of 5 bits",
            "ConfigValue",
            &[FILE, "`gptq_bits` is 5", "2, 3, 4 or 8"],
            |image| {
                scalar(image, "gptq_bits").data[0] = 5;
            },
        ),
        case_of(
            valid::scalars(),
            "a group size of 0",
            "ConfigValue",
            &[FILE, "`gptq_groupsize` is 0", "-1 or a positive"],
            |image| {
                scalar(image, "gptq_groupsize").data.fill(0);
            },
        ),
    ]
}
