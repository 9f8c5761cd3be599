//! Goldens: what a peer computes from a checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gptq_core::tensor::DType;
use half::f16;
use safetensors::{Dtype, SafeTensors};

/// For each dtype of x and the output, the largest relative error in the Frobenius norm. The peer computes in f32;
/// rounding x and the output costs some 3e-4 in f16 and 2.4e-3 in bf16.
pub const TOLERANCES: Tolerances = [(DType::F32, 1e-5), (DType::F16, 1e-3), (DType::BF16, 4e-3)];

/// The same where weights are rounded to the type of x before they are multiplied.
pub const TOLERANCES_OF_ROUNDED_WEIGHTS: Tolerances =
    [(DType::F32, 1e-5), (DType::F16, 1e-3), (DType::BF16, 5e-3)];

/// A dtype, and the largest relative error in it.
pub type Tolerances = [(DType, f64); 3];

/// Batches that a golden may hold, as tensors `LAYER.x_mROWS` and `LAYER.y_mROWS`.
pub const ROWS: [usize; 3] = [1, 7, 64];

/// The folder with `checkpoints/` and `goldens/`: `GPTQ_FIXTURES`, or what is committed.
pub fn fixtures() -> PathBuf {
    match std::env::var_os("GPTQ_FIXTURES") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures"),
    }
}

/// The directory of a checkpoint among the fixtures.
pub fn checkpoint_dir(name: &str) -> PathBuf {
    fixtures().join("checkpoints").join(name)
}

/// The names of the checkpoints that have a golden.
pub fn names() -> Vec<String> {
    let folder = fixtures().join("goldens");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_stem()?.to_str()?.to_owned();
            checkpoint_dir(&name).is_dir().then_some(name)
        })
        .collect();
    names.sort();
    names
}

/// A matrix or a vector of a golden.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<T> {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub data: Vec<T>,
}

/// A file of the folder `goldens`.
pub struct Golden {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: BTreeMap<String, String>,
}

impl Golden {
    /// The golden of this name.
    pub fn open(name: &str) -> Self {
        let path = fixtures().join("goldens").join(format!("{name}.safetensors"));
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (_, header) =
            SafeTensors::read_metadata(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let metadata = header.metadata().iter().flatten();
        let metadata = metadata.map(|(key, text)| (key.clone(), text.clone())).collect();
        Self { path, bytes, metadata }
    }

    /// The layers that it is about.
    pub fn layers(&self) -> Vec<String> {
        let layers =
            self.metadata.get("layers").unwrap_or_else(|| panic!("{}: no `layers`", self.path.display()));
        serde_json::from_str(layers)
            .unwrap_or_else(|error| panic!("{}: `layers`: {error}", self.path.display()))
    }

    /// An `F32` tensor, or `None` where the golden does not have it.
    pub fn f32(&self, name: &str) -> Option<Tensor<f32>> {
        self.elements(name, Dtype::F32, f32::from_le_bytes)
    }

    /// An `F16` tensor.
    pub fn f16(&self, name: &str) -> Option<Tensor<f16>> {
        self.elements(name, Dtype::F16, f16::from_le_bytes)
    }

    /// The words of an `I32` tensor.
    pub fn words(&self, name: &str) -> Option<Tensor<u32>> {
        self.elements(name, Dtype::I32, u32::from_le_bytes)
    }

    /// An `I64` tensor: tokens.
    pub fn i64(&self, name: &str) -> Option<Tensor<i64>> {
        self.elements(name, Dtype::I64, i64::from_le_bytes)
    }

    /// A `U8` tensor.
    pub fn u8(&self, name: &str) -> Option<Tensor<u8>> {
        self.elements(name, Dtype::U8, u8::from_le_bytes)
    }

    fn elements<T, const BYTES: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        from_le_bytes: impl Fn([u8; BYTES]) -> T,
    ) -> Option<Tensor<T>> {
        let file = SafeTensors::deserialize(&self.bytes).expect("its header was read before");
        let view = file.tensor(name).ok()?;
        assert_eq!(view.dtype(), dtype, "{}: `{name}`", self.path.display());
        let (elements, []) = view.data().as_chunks::<BYTES>() else {
            panic!("{}: `{name}` ends within an element", self.path.display())
        };
        let data = elements.iter().map(|element| from_le_bytes(*element)).collect();
        Some(Tensor { shape: view.shape().to_vec(), data })
    }
}
