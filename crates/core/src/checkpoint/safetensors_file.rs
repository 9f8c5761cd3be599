//! One safetensors file: its bytes, mapped or read, and its tensors, checked.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::{Reading, regular_file};
use crate::error::{Error, Result};
use crate::shared::{Owner, Shared};
use crate::tensor::Floats;

/// Bytes before the header: its length as a little-endian u64.
const LENGTH_BYTES: usize = 8;
/// A header is JSON text, a few hundred bytes for each tensor. The reference reader refuses longer ones too.
const MAX_HEADER_BYTES: usize = 100_000_000;
/// How the small file begins that git-lfs leaves in place of one that was not downloaded.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// A tensor of a file, whatever its dtype: a view that owns a share of the file.
#[derive(Clone)]
pub struct StoredTensor {
    name: Arc<str>,
    file: Arc<Path>,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Shared<u8>,
    owner: Owner,
    range: Range<usize>,
    mapped: bool,
}

impl StoredTensor {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its element type, by the names of safetensors.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, row-major, little-endian. Aligned to nothing.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn shared_file(&self) -> Arc<Path> {
        Arc::clone(&self.file)
    }

    /// The elements as `T`s: a view of the file, or a copy where the file does not align them for `T`.
    pub(super) fn elements<T: Pod + Send + Sync>(&self) -> Shared<T> {
        Shared::view(Arc::clone(&self.owner), self.range.clone(), self.mapped)
            .unwrap_or_else(|| bytemuck::pod_collect_to_vec(self.bytes()).into())
    }

    /// The elements as floats of their own type: a view of the file, or a copy where the file does not align them.
    /// `None` for any dtype but f32, f16 and bf16.
    pub fn floats(&self) -> Option<Floats> {
        match self.dtype {
            Dtype::F32 => Some(Floats::F32(self.elements::<f32>())),
            Dtype::F16 => Some(Floats::F16(self.elements::<f16>())),
            Dtype::BF16 => Some(Floats::BF16(self.elements::<bf16>())),
            _ => None,
        }
    }
}

impl std::fmt::Debug for StoredTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?} in {}", self.name, self.dtype, self.shape, self.file.display())
    }
}

/// Opens the file at `path` and checks its header against its length. Tensors come in the file's order.
pub(super) fn open(path: &Path, reading: Reading) -> Result<Vec<StoredTensor>> {
    let (owner, mapped) = match reading {
        Reading::Map => (map(path)?, true),
        Reading::Copy => (read(path)?, false),
    };
    let bytes = (*owner).as_ref();
    let (data_start, tensors) =
        parse_header(bytes).map_err(|problem| Error::Header { path: path.into(), problem })?;

    let file: Arc<Path> = Arc::from(path);
    tensors
        .into_iter()
        .map(|(name, info)| {
            let range = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
            let bytes = Shared::view(Arc::clone(&owner), range.clone(), mapped).ok_or_else(|| {
                Error::Header { path: path.into(), problem: format!("tensor `{name}` lies outside the file") }
            })?;
            Ok(StoredTensor {
                name: name.into(),
                file: Arc::clone(&file),
                dtype: info.dtype,
                shape: info.shape,
                bytes,
                owner: Arc::clone(&owner),
                range,
                mapped,
            })
        })
        .collect()
}

/// Where the data starts, and the tensors in order of their offsets. Checks what the format promises: tensors
/// follow one another without gap or overlap, each is as long as its shape says, and together they fill the file.
/// Checked here and not by the safetensors crate, whose answer does not say which tensor is wrong, and how.
fn parse_header(bytes: &[u8]) -> Result<(usize, Vec<(String, TensorInfo)>), String> {
    if bytes.starts_with(LFS_POINTER) {
        return Err(
            "it is a pointer of git-lfs to a file that was not downloaded (`git lfs pull` does it)".into()
        );
    }
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(format!("it is {} bytes long, shorter than the length of a header", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let Some(length) = usize::try_from(length).ok().filter(|&length| length <= MAX_HEADER_BYTES) else {
        return Err(format!("its header claims {length} bytes, expected at most {MAX_HEADER_BYTES}"));
    };
    let Some((header, data)) = rest.split_at_checked(length) else {
        return Err(format!("its header claims {length} bytes, the file ends after {}", rest.len()));
    };
    let Header { mut tensors } = serde_json::from_slice(header)
        .map_err(|error| format!("its header is not what the format says: {error}"))?;

    tensors.sort_by_key(|(_, info)| info.data_offsets);
    check_layout(&tensors, data.len())?;
    Ok((LENGTH_BYTES + length, tensors))
}

/// What the format promises of tensors in order of their offsets, in a file with `data_len` bytes after its header.
fn check_layout(tensors: &[(String, TensorInfo)], data_len: usize) -> Result<(), String> {
    let mut end = 0;
    for (name, info) in tensors {
        let TensorInfo { dtype, shape, data_offsets: (from, to) } = info;
        if *from != end {
            let lie = if *from < end { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(format!(
                "tensor `{name}` {lie}: it begins at byte {from} of the data, expected {end}"
            ));
        }
        let needed = bytes_of(info);
        if needed.is_none() || to.checked_sub(*from) != needed {
            let needed = match needed {
                Some(needed) => format!("{needed} bytes"),
                None => "a whole number of bytes that can be counted".to_owned(),
            };
            return Err(format!(
                "tensor `{name}` lies at bytes {from} to {to} of the data, expected {needed} for {dtype:?} {shape:?}"
            ));
        }
        end = *to;
    }
    if end == data_len {
        return Ok(());
    }
    let problem = if end > data_len { "it is cut short" } else { "it has bytes of no tensor" };
    Err(format!("{problem}: its tensors take {end} bytes, it holds {data_len}"))
}

/// Bytes that a tensor takes; `None` where they cannot be counted or end within a byte.
fn bytes_of(info: &TensorInfo) -> Option<usize> {
    let elements = info.shape.iter().try_fold(1, |product: usize, &extent| product.checked_mul(extent))?;
    let bits = elements.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The header's JSON: one entry for each tensor. The free text under `__metadata__` is checked and dropped.
struct Header {
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            // By hand, because a map type would let the second of two tensors of one name hide the first.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header { tensors: Vec::new() };
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format_args!("`{name}` is there twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<Option<HashMap<String, String>>>()?;
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { path: path.into(), action, source }
}

fn open_file(path: &Path) -> Result<File> {
    regular_file::open(path).map_err(io_error(path, "open"))
}

/// Maps the file. The bytes stay readable as long as no one shortens the file: reading past a new end kills the
/// process. Nothing that decides memory safety is read from here twice.
#[expect(unsafe_code, reason = "mapping a file is unsafe, because others can change the file")]
fn map(path: &Path) -> Result<Owner> {
    let file = open_file(path)?;
    // SAFETY: the mapping is read-only and private to this process as far as we write; another process can change
    // the file's bytes under us. Every value read from the mapping is a plain number for which any bit pattern is
    // valid, and g_idx, the one tensor whose values are used as indices, is copied out before it is checked.
    let map = unsafe { Mmap::map(&file) }.map_err(io_error(path, "map"))?;
    Ok(Arc::new(map))
}

fn read(path: &Path) -> Result<Owner> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes).map_err(io_error(path, "read"))?;
    Ok(Arc::new(bytes))
}
