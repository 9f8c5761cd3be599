//! A checkpoint directory, written file by file.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A tensor that goes into a file.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major, little-endian.
    pub bytes: Vec<u8>,
}

/// A directory that is removed when it is dropped.
pub struct CheckpointDir(TempDir);

impl CheckpointDir {
    /// A directory without files.
    pub fn empty() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    /// A `quantize_config.json` and a `model.safetensors`.
    pub fn new(config: &Value, tensors: &[Tensor]) -> Self {
        let dir = Self::empty();
        dir.json("quantize_config.json", config);
        dir.weights("model.safetensors", tensors);
        dir
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a JSON file.
    pub fn json(&self, name: &str, value: &Value) {
        self.write(name, value.to_string().as_bytes());
    }

    /// Writes a weight file.
    pub fn weights(&self, name: &str, tensors: &[Tensor]) {
        self.write(name, &safetensors_bytes(tensors, 0));
    }

    /// Writes a weight file whose data begins `shift` bytes past a multiple of 8.
    pub fn shifted_weights(&self, name: &str, tensors: &[Tensor], shift: usize) {
        self.write(name, &safetensors_bytes(tensors, shift));
    }

    /// Writes `model.safetensors.index.json` and its shards.
    pub fn shards(&self, shards: &[(&str, &[Tensor])]) {
        let mut weight_map = Map::new();
        for (file, tensors) in shards {
            self.weights(file, tensors);
            weight_map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(file))));
        }
        let bytes: usize =
            shards.iter().flat_map(|(_, tensors)| *tensors).map(|tensor| tensor.bytes.len()).sum();
        let index = json!({"metadata": {"total_size": bytes}, "weight_map": weight_map});
        self.json("model.safetensors.index.json", &index);
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// A `quantize_config.json` as GPTQModel writes it, but for `meta`.
pub fn quantize_config(bits: usize, group_size: i64, sym: bool, format: &str) -> Value {
    json!({
        "bits": bits, "group_size": group_size, "desc_act": false, "sym": sym, "lm_head": false,
        "method": "gptq", "quant_method": "gptq", "format": format, "checkpoint_format": format,
        "pack_dtype": "int32",
    })
}

/// The same, with `meta.quantizer`.
#[must_use]
pub fn by(mut config: Value, quantizer: &str) -> Value {
    config["meta"] = json!({"quantizer": [quantizer]});
    config
}

fn safetensors_bytes(tensors: &[Tensor], shift: usize) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for Tensor { name, dtype, shape, bytes } in tensors {
        let end = offset + bytes.len();
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    // Spaces after the JSON are a part of the header.
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len() + shift));
    let length = u64::try_from(header.len()).expect("a short header");
    let mut file = length.to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    for tensor in tensors {
        file.extend_from_slice(&tensor.bytes);
    }
    file
}
