//! Safetensors headers that are cut, malformed, or lie about their file.

use gptq_tests_hostile::valid::WEIGHTS;
use gptq_tests_hostile::{Image, assemble};
use serde_json::{Value, json};

use crate::case::{Case, case};

const QWEIGHT: &str = "model.layers.0.mlp.up_proj.qweight";
/// The last tensor of the file.
const LAST: &str = "model.layers.0.self_attn.q_proj.g_idx";

/// The weight file with `text` in place of its header.
fn header(image: &mut Image, text: &[u8]) {
    let (_, data) = image.lie(WEIGHTS);
    let bytes = assemble(text, data);
    image.set_raw(WEIGHTS, bytes);
}

/// Changes what the header says of the first layer's qweight.
fn qweight(image: &mut Image, key: &str, value: Value) {
    image.lie(WEIGHTS).0[QWEIGHT][key] = value;
}

fn lie(name: &'static str, says: &'static [&'static str], change: fn(&mut Image)) -> Case {
    case(name, "Header", says, change)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = malformed();
    cases.extend(untrue());
    cases
}

fn malformed() -> Vec<Case> {
    vec![
        lie("an empty file", &["model.safetensors", "0 bytes long", "shorter than the length"], |image| {
            image.raw(WEIGHTS).clear();
        }),
        lie("a file of seven bytes", &["model.safetensors", "7 bytes long"], |image| {
            image.raw(WEIGHTS).truncate(7);
        }),
        lie(
            "a file that ends within its header",
            &["model.safetensors", "claims", "ends after 92"],
            |image| {
                image.raw(WEIGHTS).truncate(100);
            },
        ),
        lie(
            "a header that claims one byte more than the file has",
            &["model.safetensors", "claims", "ends"],
            |image| {
                let bytes = image.raw(WEIGHTS);
                let length = (bytes.len() - 8 + 1) as u64;
                bytes[..8].copy_from_slice(&length.to_le_bytes());
            },
        ),
        lie(
            "a header of absurd length",
            &["model.safetensors", "claims 18446744073709551615 bytes", "at most 100000000"],
            |image| image.raw(WEIGHTS)[..8].fill(0xFF),
        ),
        lie(
            "a header that is no UTF-8",
            &["model.safetensors", "header is not what the format says"],
            |image| {
                header(image, b"{\"\xFF\xFE\": 1}");
            },
        ),
        lie("a header that is no JSON", &["model.safetensors", "expected ident at line 1"], |image| {
            header(image, b"tensors: none");
        }),
        lie("a header without a byte", &["model.safetensors", "EOF"], |image| header(image, b"")),
        lie(
            "a header that is no object",
            &["model.safetensors", "sequence", "an object of tensors"],
            |image| {
                header(image, b"[1, 2]");
            },
        ),
        lie("a header with text behind it", &["model.safetensors", "trailing characters"], |image| {
            header(image, b"{} {}");
        }),
        lie("a header nested without end", &["model.safetensors", "missing field `dtype`"], |image| {
            let deep = format!("{{\"a\": {{\"x\": {}1{}}}}}", "[".repeat(5000), "]".repeat(5000));
            header(image, deep.as_bytes());
        }),
        lie("metadata that is no text", &["model.safetensors", "integer `7`", "a string"], |image| {
            image.lie(WEIGHTS).0["__metadata__"]["format"] = json!(7);
        }),
        lie("two tensors of one name", &["model.safetensors", "`twin` is there twice"], |image| {
            let twin = json!({"dtype": "U8", "shape": [0], "data_offsets": [0, 0]});
            header(image, format!("{{\"twin\": {twin}, \"twin\": {twin}}}").as_bytes());
        }),
        lie("a tensor without a shape", &["model.safetensors", "missing field `shape`"], |image| {
            if let Some(info) = image.lie(WEIGHTS).0[QWEIGHT].as_object_mut() {
                info.remove("shape");
            }
        }),
        lie("an element type that there is not", &["model.safetensors", "I31", "expected one of"], |image| {
            qweight(image, "dtype", json!("I31"));
        }),
        lie("a negative extent", &["model.safetensors", "integer `-8`", "expected usize"], |image| {
            qweight(image, "shape", json!([-8, 32]));
        }),
        lie("an extent with a fraction", &["model.safetensors", "8.5", "expected usize"], |image| {
            qweight(image, "shape", json!([8.5, 32]));
        }),
        lie("offsets in quotes", &["model.safetensors", "string \"0\"", "expected usize"], |image| {
            qweight(image, "data_offsets", json!(["0", "1024"]));
        }),
    ]
}

/// The embedding takes bytes 0 to 64 of the data, the first qweight bytes 64 to 1088.
fn untrue() -> Vec<Case> {
    vec![
        lie("tensors that overlap", &[QWEIGHT, "overlaps", "byte 60", "expected 64"], |image| {
            qweight(image, "data_offsets", json!([60, 1084]));
        }),
        lie("a gap between tensors", &[QWEIGHT, "gap", "byte 68", "expected 64"], |image| {
            qweight(image, "data_offsets", json!([68, 1092]));
        }),
        lie(
            "a tensor that ends before it begins",
            &[QWEIGHT, "bytes 64 to 8", "expected 1024 bytes"],
            |image| {
                qweight(image, "data_offsets", json!([64, 8]));
            },
        ),
        lie("a tensor far outside the file", &["q_proj.g_idx", "gap", "4611686018427387904"], |image| {
            let (header, _) = image.lie(WEIGHTS);
            header[LAST]["data_offsets"] = json!([1u64 << 62, (1u64 << 62) + 256]);
        }),
        lie("a tensor that ends past the file", &["model.safetensors", "cut short", "it holds"], |image| {
            let (header, _) = image.lie(WEIGHTS);
            let end = header[LAST]["data_offsets"][1].as_u64().expect("an offset");
            header[LAST]["data_offsets"][1] = json!(end + 4);
            header[LAST]["shape"] = json!([65]);
        }),
        lie(
            "a shape with another number of bytes than its offsets",
            &[QWEIGHT, "64 to 1088", "1056 bytes", "[8, 33]"],
            |image| {
                qweight(image, "shape", json!([8, 33]));
            },
        ),
        lie(
            "an element type with another number of bytes",
            &[QWEIGHT, "64 to 1088", "2048 bytes", "I64"],
            |image| {
                qweight(image, "dtype", json!("I64"));
            },
        ),
        lie("a shape whose product overflows", &[QWEIGHT, "can be counted", "4294967296"], |image| {
            qweight(image, "shape", json!([1u64 << 32, 1u64 << 32, 1u64 << 32]));
        }),
        lie("a shape whose number of bits overflows", &[QWEIGHT, "can be counted"], |image| {
            qweight(image, "shape", json!([1u64 << 60, 1]));
        }),
        lie("a tensor that ends within a byte", &[QWEIGHT, "whole number of bytes", "F4", "[3]"], |image| {
            qweight(image, "dtype", json!("F4"));
            qweight(image, "shape", json!([3]));
        }),
        lie(
            "a file cut short by one byte",
            &["model.safetensors", "cut short", "tensors take", "it holds"],
            |image| {
                _ = image.raw(WEIGHTS).pop();
            },
        ),
        lie(
            "a file with a byte too many",
            &["model.safetensors", "bytes of no tensor", "it holds"],
            |image| {
                image.raw(WEIGHTS).push(0);
            },
        ),
    ]
}
