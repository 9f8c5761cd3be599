//! A safetensors file, written by hand so that it can be written wrong.

use serde_json::{Map, Value, json};

/// A tensor of a file, true to itself: `data` is as long as dtype and shape say, unless a test sees to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its element type, as headers write it: `I32`.
    pub dtype: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, little-endian.
    pub data: Vec<u8>,
}

impl Tensor {
    /// A tensor of 32-bit words.
    pub fn words(name: impl Into<String>, shape: &[usize], words: &[u32]) -> Self {
        let data = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Self { name: name.into(), dtype: "I32", shape: shape.to_vec(), data }
    }

    /// The number of dimension `axis`, and the bytes of the tensor, made to fit `extent`: cut, or filled with zeros.
    pub fn resize(&mut self, axis: usize, extent: usize) {
        let elements: usize = self.shape.iter().product();
        let size = self.data.len().checked_div(elements).unwrap_or(0);
        self.shape[axis] = extent;
        self.data.resize(self.shape.iter().product::<usize>() * size, 0);
    }

    /// The tensor with its elements as another type: as many bytes each as `size` says, all zero.
    pub fn retype(&mut self, dtype: &'static str, size: usize) {
        self.dtype = dtype;
        self.data = vec![0; self.shape.iter().product::<usize>() * size];
    }
}

/// The tensors of a file, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Weights {
    /// The tensors.
    pub tensors: Vec<Tensor>,
}

impl Weights {
    /// A file of these tensors.
    pub fn new(tensors: Vec<Tensor>) -> Self {
        Self { tensors }
    }

    /// The tensor of this name.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        found.unwrap_or_else(|| panic!("no tensor `{name}`"))
    }

    /// The file without the tensor of this name.
    pub fn remove(&mut self, name: &str) -> Tensor {
        let at = self.tensors.iter().position(|tensor| tensor.name == name);
        self.tensors.remove(at.unwrap_or_else(|| panic!("no tensor `{name}`")))
    }

    /// The header as JSON, and the data behind it.
    pub fn to_parts(&self) -> (Value, Vec<u8>) {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut data = Vec::new();
        for tensor in &self.tensors {
            let start = data.len();
            data.extend_from_slice(&tensor.data);
            header.insert(
                tensor.name.clone(),
                json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]}),
            );
        }
        (Value::Object(header), data)
    }

    /// The bytes of the file, its data aligned to 8 bytes as writers do.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (header, data) = self.to_parts();
        let mut text = header.to_string();
        while !text.len().is_multiple_of(8) {
            text.push(' ');
        }
        assemble(text.as_bytes(), &data)
    }
}

/// A file of this header, which may be no JSON at all, and this data.
pub fn assemble(header: &[u8], data: &[u8]) -> Vec<u8> {
    let length = header.len() as u64;
    [&length.to_le_bytes(), header, data].concat()
}
