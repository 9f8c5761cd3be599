//! Checkpoints on disk to save again, written without the code under test.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use gptq_core::StoredDtype as Dtype;
use gptq_core::checkpoint::{Checkpoint, CheckpointFormat};
use gptq_core::format::{Bits, Packing, packing};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tensor by its dtype, shape and bytes.
pub(crate) type Raw = (Dtype, Vec<usize>, Vec<u8>);

/// Numbers that look random and are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// The `g_idx` of a layer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Groups {
    Absent,
    Empty,
    Trivial,
    Zeros,
    Shuffled,
}

/// The zero points of a layer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum ZeroKind {
    Symmetric,
    /// From 1 on, not all equal.
    Asymmetric,
    /// From 0 on, with zero points of 0 beside others.
    WithZero,
    /// All the same.
    Uniform(u8),
}

/// A quantized layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) bits: u64,
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) group_size: usize,
    pub(crate) zeros: ZeroKind,
    pub(crate) groups: Groups,
    pub(crate) bias: bool,
    pub(crate) scales: Dtype,
    pub(crate) words: Dtype,
}

impl Layer {
    pub(crate) fn new(name: &str, bits: u64, zeros: ZeroKind) -> Self {
        Self {
            name: name.into(),
            bits,
            k: 96,
            n: 64,
            group_size: 32,
            zeros,
            groups: Groups::Trivial,
            bias: false,
            scales: Dtype::F16,
            words: Dtype::I32,
        }
    }

    pub(crate) fn bits(&self) -> Bits {
        Bits::new(self.bits).unwrap()
    }

    /// `[G, N]`, as they are.
    pub(crate) fn zero_points(&self, random: &mut Random) -> Vec<u8> {
        let (max, groups) = (self.bits().max_code() as u8, self.k.div_ceil(self.group_size));
        let symmetric = self.bits().symmetric_zero() as u8;
        (0..groups * self.n)
            .map(|i| match self.zeros {
                ZeroKind::Symmetric => symmetric,
                ZeroKind::Asymmetric => 1 + random.below(max.into()) as u8,
                ZeroKind::WithZero if i % 5 == 1 => 0,
                ZeroKind::WithZero => 1 + random.below(max.into()) as u8,
                ZeroKind::Uniform(zero) => zero,
            })
            .collect()
    }

    /// The tensors of the layer, with `zeros` stored as `stored` makes them.
    fn tensors(&self, random: &mut Random, packing: Packing, stored: fn(u8) -> u8) -> Vec<(String, Raw)> {
        let (bits, k, n, groups) = (self.bits(), self.k, self.n, self.k.div_ceil(self.group_size));
        let mask = bits.max_code() as u8;
        let codes: Vec<u8> = random.bytes(k * n).into_iter().map(|code| code & mask).collect();
        let qweight = packing::pack_matrix(&codes, k, n, bits, packing);
        let zeros: Vec<u8> = self.zero_points(random).into_iter().map(|zero| stored(zero) & mask).collect();
        let qzeros: Vec<u32> = zeros.chunks(n).flat_map(|row| packing::pack(row, bits, packing)).collect();
        let float = |random: &mut Random| 0.01 + random.below(1000) as f32 / 1e4;
        let floats = |random: &mut Random, count: usize| -> Vec<u8> {
            (0..count)
                .flat_map(|_| match self.scales {
                    Dtype::F32 => float(random).to_le_bytes().to_vec(),
                    Dtype::BF16 => half::bf16::from_f32(float(random)).to_le_bytes().to_vec(),
                    _ => half::f16::from_f32(float(random)).to_le_bytes().to_vec(),
                })
                .collect()
        };
        let words = |words: &[u32]| bytemuck::cast_slice(words).to_vec();
        let mut tensors = vec![
            ("qweight", (self.words, vec![packing::words_for(bits, k), n], words(&qweight))),
            ("qzeros", (self.words, vec![groups, packing::words_for(bits, n)], words(&qzeros))),
            ("scales", (self.scales, vec![groups, n], floats(random, groups * n))),
        ];
        let mut g_idx: Vec<u32> = (0..k).map(|row| (row / self.group_size) as u32).collect();
        match self.groups {
            Groups::Absent => g_idx.clear(),
            Groups::Empty => g_idx.clear(),
            Groups::Trivial => {}
            Groups::Zeros => g_idx.fill(0),
            Groups::Shuffled => (1..k).rev().for_each(|i| g_idx.swap(i, random.below(i + 1))),
        }
        if self.groups != Groups::Absent {
            tensors.push(("g_idx", (self.words, vec![g_idx.len()], words(&g_idx))));
        }
        if self.bias {
            tensors.push(("bias", (self.scales, vec![n], floats(random, n))));
        }
        tensors.into_iter().map(|(suffix, raw)| (format!("{}.{suffix}", self.name), raw)).collect()
    }
}

/// A checkpoint's directory, and what is in it.
pub(crate) struct Source {
    pub(crate) dir: TempDir,
    pub(crate) tensors: BTreeMap<String, Raw>,
}

impl Source {
    /// A checkpoint of `layers` and some plain tensors, with `config` in `quantize_config.json`, which gets the
    /// format and rules for the layers' widths and group sizes.
    pub(crate) fn new(format: CheckpointFormat, layers: &[Layer], config: Value) -> Self {
        let source = Self { dir: TempDir::new().unwrap(), tensors: tensors(format, layers) };
        source.write_weights();
        source.write("quantize_config.json", &format!("{:#}", config_of(format, layers, config)));
        source
    }

    pub(crate) fn write_weights(&self) {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &self.path().join("model.safetensors")).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn open(&self) -> Checkpoint {
        open(self.path())
    }
}

/// `config` with the format, and rules for the layers.
pub(crate) fn config_of(format: CheckpointFormat, layers: &[Layer], mut config: Value) -> Value {
    let rules: serde_json::Map<_, _> = layers
        .iter()
        .map(|layer| {
            let rule = json!({"bits": layer.bits, "group_size": layer.group_size});
            (format!("{}$", layer.name.replace('.', "\\.")), rule)
        })
        .collect();
    for (key, value) in [
        ("bits", json!(4)),
        ("group_size", json!(32)),
        ("quant_method", json!("gptq")),
        ("format", json!(format.name())),
        ("checkpoint_format", json!(format.name())),
        ("dynamic", Value::from(rules)),
    ] {
        config[key] = value;
    }
    config
}

/// The tensors of `layers`, and some that belong to none.
pub(crate) fn tensors(format: CheckpointFormat, layers: &[Layer]) -> BTreeMap<String, Raw> {
    let mut random = Random(7);
    let packing = format.packing().unwrap();
    let stored = match format {
        CheckpointFormat::Gptq => |zero: u8| zero.wrapping_sub(1),
        _ => |zero| zero,
    };
    let mut tensors: BTreeMap<_, _> =
        layers.iter().flat_map(|layer| layer.tensors(&mut random, packing, stored)).collect();
    tensors.insert("model.embed_tokens.weight".into(), (Dtype::BF16, vec![5, 3], random.bytes(30)));
    tensors.insert("model.norm.weight".into(), (Dtype::F32, vec![3], random.bytes(12)));
    tensors.insert("rotary.inv_freq".into(), (Dtype::F64, vec![2], random.bytes(16)));
    tensors.insert("mask".into(), (Dtype::BOOL, vec![3, 1], vec![1, 0, 1]));
    tensors.insert("eight".into(), (Dtype::F8_E4M3, vec![7], random.bytes(7)));
    tensors.insert("nothing".into(), (Dtype::F16, vec![0, 4], Vec::new()));
    tensors.insert("scalar".into(), (Dtype::I64, Vec::new(), random.bytes(8)));
    tensors
}

pub(crate) fn open(dir: &Path) -> Checkpoint {
    Checkpoint::open(dir).unwrap_or_else(|error| panic!("{}: {}", dir.display(), error.report()))
}

/// The tensors in all weight files of `dir`, read by the safetensors crate.
pub(crate) fn tensors_in(dir: &Path) -> BTreeMap<String, Raw> {
    let mut all = BTreeMap::new();
    for name in names_in(dir).iter().filter(|name| name.ends_with(".safetensors")) {
        let bytes = fs::read(dir.join(name)).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(*metadata.metadata(), Some(HashMap::from([("format".into(), "pt".into())])), "{name}");
        for (tensor, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let raw = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            assert!(all.insert(tensor.clone(), raw).is_none(), "{tensor} is there twice");
        }
    }
    all
}

/// The names in `dir` and below, sorted, hidden ones too.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, under: &Path, names: &mut Vec<String>) {
        for entry in fs::read_dir(dir.join(under)).unwrap().map(Result::unwrap) {
            let name = under.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                walk(dir, &name, names);
            }
            names.push(name.to_str().unwrap().to_owned());
        }
    }
    let mut names = Vec::new();
    walk(dir, Path::new(""), &mut names);
    names.sort();
    names
}

/// Every file in `dir` and its bytes.
pub(crate) fn files_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = names_in(dir).into_iter().filter(|name| dir.join(name).is_file());
    files.map(|name| (name.clone(), fs::read(dir.join(&name)).unwrap())).collect()
}

pub(crate) fn text_of(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
