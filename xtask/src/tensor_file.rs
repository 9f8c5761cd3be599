//! Safetensors files whose tensors are picked one by one.
//!
//! Reading is the reference crate's. Writing is done here, because that crate writes metadata in the order of a hash
//! map: a fixture that is made again must come out byte for byte the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::{Result, at};

/// A tensor as it lies in a file.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// The tensors of a file, in the order of their bytes, and its free text.
#[derive(Default)]
pub(crate) struct TensorFile {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: Vec<Tensor>,
}

impl TensorFile {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(at(path))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(at(path))?;
        let views = SafeTensors::deserialize(&bytes).map_err(at(path))?;
        let mut tensors = Vec::new();
        for name in header.offset_keys() {
            let view = views.tensor(&name).map_err(at(path))?;
            let (dtype, shape, bytes) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            tensors.push(Tensor { name, dtype, shape, bytes });
        }
        let metadata = header.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone()));
        Ok(Self { metadata: metadata.collect(), tensors })
    }

    /// Writes the tensors in the order they have here. The header is padded to 8 bytes, as the format asks.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!(self.metadata));
        let mut offset = 0;
        for Tensor { name, dtype, shape, bytes } in &self.tensors {
            let end = offset + bytes.len();
            let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]});
            header.insert(name.clone(), entry);
            offset = end;
        }
        let mut header = Value::Object(header).to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));

        let mut file = u64::try_from(header.len())?.to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        for tensor in &self.tensors {
            file.extend_from_slice(&tensor.bytes);
        }
        fs::write(path, file).map_err(at(path))
    }
}
