//! JSON that is something else than it was: configurations, indices, headers.

use serde_json::{Map, Value, json};

use crate::rng::Rng;

/// Changes one key of a configuration.
pub(super) fn config(value: &mut Value, rng: &mut Rng) {
    if rng.one_in(20) {
        *value = anything(rng);
        return;
    }
    // In config.json the configuration is the value of a key.
    let nested = value.get("quantization_config").is_some_and(Value::is_object) && !rng.one_in(6);
    let object = match nested {
        true => &mut value["quantization_config"],
        false => value,
    };
    let Some(object) = object.as_object_mut() else { return };
    const KEYS: [&str; 22] = [
        "bits",
        "bits",
        "w_bit",
        "group_size",
        "group_size",
        "q_group_size",
        "desc_act",
        "sym",
        "zero_point",
        "format",
        "format",
        "checkpoint_format",
        "quant_method",
        "dynamic",
        "dynamic",
        "lm_head",
        "meta",
        "pack_dtype",
        "is_marlin_format",
        "rotation",
        "model_file_base_name",
        "max_input_length",
    ];
    let key = *rng.pick(&KEYS);
    let new = match (key, rng.below(4)) {
        (_, 0) => anything(rng),
        ("bits" | "w_bit", _) => json!(2 + rng.below(8)),
        ("group_size" | "q_group_size", _) => {
            json!(rng.pick(&[-1i64, 1, 3, 8, 16, 31, 32, 33, 64, 100, 128, i64::MAX]))
        }
        ("desc_act" | "sym" | "zero_point" | "lm_head" | "is_marlin_format", _) => json!(rng.one_in(2)),
        ("format" | "checkpoint_format" | "quant_method", _) => {
            json!(rng.pick(&["gptq", "gptq_v2", "gptq_p", "marlin", "awq", "gemm"]))
        }
        ("dynamic", _) => dynamic(rng),
        ("meta", _) => {
            const WRITERS: [&str; 4] =
                ["gptqmodel:7.7.0", "gptqmodel:6.0.0", "auto_gptq:0.7.1", "optimum:2.3.0"];
            json!({"quantizer": [rng.pick(&WRITERS)]})
        }
        _ => anything(rng),
    };
    match rng.below(8) {
        0 => _ = object.shift_remove(key),
        1 => _ = object.insert(key.to_ascii_uppercase(), new),
        _ => _ = object.insert(key.to_owned(), new),
    }
}

/// Rules with patterns of every kind, good ones among them.
fn dynamic(rng: &mut Rng) -> Value {
    const PATTERNS: [&str; 20] = [
        ".*",
        r".*\.up_proj$",
        r"model\.layers\.\d+\.",
        r"(?=.*attn).*_proj",
        r"(?!.*attn).*",
        r"(a+)+$",
        r"(.|.)*\1c",
        r"(.*)*\1\1x",
        r"((a{9}){9}){9}",
        r"(?:(?:(?:x{1000}){1000}){1000}){1000}",
        "(",
        "[",
        r"\",
        r"(?P<n>",
        r"(?R)?",
        "",
        "^$",
        "a)|(?:b",
        r"[[:alpha:]]+(?<=m)odel",
        "\u{1F980}",
    ];
    let mut rules = Map::new();
    for _ in 0..=rng.below(3) {
        let pattern = match rng.below(4) {
            0 => {
                let (start, end) = (*rng.pick(&PATTERNS), *rng.pick(&PATTERNS));
                spliced(start, end, rng)
            }
            _ => (*rng.pick(&PATTERNS)).to_owned(),
        };
        let prefix = rng.pick(&["", "+:", "-:", "-"]);
        let body = match rng.below(4) {
            0 => anything(rng),
            1 => json!({}),
            2 => json!({"group_size": rng.pick(&[-1, 16, 32, 64])}),
            _ => json!({"bits": 2 + rng.below(8)}),
        };
        rules.insert(format!("{prefix}{pattern}"), body);
    }
    Value::Object(rules)
}

/// The start of one text and the end of another.
fn spliced(start: &str, end: &str, rng: &mut Rng) -> String {
    let (start, end): (Vec<char>, Vec<char>) = (start.chars().collect(), end.chars().collect());
    let (cut, from) = (rng.below(start.len() + 1), rng.below(end.len() + 1));
    start[..cut].iter().chain(&end[from..]).collect()
}

/// Changes one entry of an index.
pub(super) fn index(value: &mut Value, rng: &mut Rng) {
    if rng.one_in(10) {
        value["weight_map"] = anything(rng);
        return;
    }
    let Some(map) = value.get_mut("weight_map").and_then(Value::as_object_mut) else { return };
    let (names, shards): (Vec<String>, Vec<Value>) = map.clone().into_iter().unzip();
    if names.is_empty() {
        return;
    }
    let name = rng.pick(&names).clone();
    match rng.below(6) {
        0 => _ = map.shift_remove(&name),
        1 => _ = map.insert(name, rng.pick(&shards).clone()),
        2 => _ = map.insert("ghost.qweight".into(), rng.pick(&shards).clone()),
        3 => _ = map.insert(name, anything(rng)),
        4 => {
            const PLACES: [&str; 9] = [
                "../model.safetensors",
                "/etc/passwd",
                "",
                ".",
                "a/../model.safetensors",
                "missing.safetensors",
                "quantize_config.json",
                "\u{0}",
                "//",
            ];
            map.insert(name, json!(rng.pick(&PLACES)));
        }
        _ => map.clear(),
    }
}

/// Changes what a header says of one tensor, and leaves the tensors as they are.
pub(super) fn header(header: &mut Value, data: &mut Vec<u8>, rng: &mut Rng) {
    let Some(object) = header.as_object_mut() else { return };
    let names: Vec<String> = object.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let name = rng.pick(&names).clone();
    let Some(info) = object.get_mut(&name) else { return };
    // An entry that is no object any more has no dtype and no shape to change.
    match if info.is_object() { rng.below(9) } else { 0 } {
        0 => *info = anything(rng),
        1 => {
            info["dtype"] =
                json!(rng.pick(&["I32", "F16", "F64", "F4", "F8_E4M3", "C64", "U16", "i32", "X"]));
        }
        2 => info["shape"] = anything(rng),
        3 | 4 => number_in(&mut info["shape"], rng),
        5 | 6 => number_in(&mut info["data_offsets"], rng),
        7 => {
            let other = rng.pick(&names).clone();
            let swapped = object.get(&other).cloned().unwrap_or_default();
            object.insert(name, swapped);
        }
        _ => {
            let length = data.len();
            data.truncate(rng.below(length));
        }
    }
}

/// Changes one number of a list.
fn number_in(list: &mut Value, rng: &mut Rng) {
    let Some(numbers) = list.as_array_mut().filter(|numbers| !numbers.is_empty()) else { return };
    let at = rng.below(numbers.len());
    let was = numbers[at].as_u64().unwrap_or(0);
    numbers[at] = match rng.below(4) {
        0 => anything(rng),
        1 => json!(was.wrapping_sub(1)),
        2 => json!(was.wrapping_add(1)),
        _ => json!(rng.pick(&[0, 1, 1 << 31, 1 << 32, 1 << 40, 1 << 61, 1 << 62, 1 << 63, u64::MAX])),
    };
}

/// A value that nobody asked for.
fn anything(rng: &mut Rng) -> Value {
    match rng.below(18) {
        0 => json!(null),
        1 => json!(true),
        2 => json!(false),
        3 => json!(-1),
        4 => json!(0),
        5 => json!(9),
        6 => json!(-7),
        7 => json!(1.5),
        8 => json!(4.0),
        9 => json!(1e300),
        10 => json!(u64::MAX),
        11 => json!(i64::MIN),
        12 => json!(""),
        13 => json!("4"),
        14 => json!([]),
        15 => json!({}),
        16 => json!("x".repeat(300)),
        _ => (0..100).fold(json!([1]), |inner, _| json!([inner])),
    }
}
