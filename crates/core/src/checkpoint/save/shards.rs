//! Weight files: which tensor goes into which, and how they are written.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;

use super::output::Staging;
use super::tensors::Tensor;
use super::{SaveOptions, SaveProgress, SaveStep};
use crate::error::{Error, Result};

/// Bytes written at once: progress is told as often.
const CHUNK_BYTES: usize = 16 << 20;

/// The tensors of a checkpoint, divided among weight files.
pub(super) struct Shards<'a>(Vec<Vec<Tensor<'a>>>);

/// Fills one file after another, in the order of `tensors`, with up to `max_bytes` each. A larger tensor gets a file
/// of its own.
pub(super) fn divide(tensors: Vec<Tensor<'_>>, max_bytes: usize) -> Shards<'_> {
    let mut shards: Vec<Vec<Tensor<'_>>> = vec![Vec::new()];
    let mut room = max_bytes;
    for tensor in tensors {
        match shards.last_mut() {
            Some(shard) if tensor.len_bytes <= room || shard.is_empty() => {
                room = room.saturating_sub(tensor.len_bytes);
                shard.push(tensor);
            }
            _ => {
                room = max_bytes.saturating_sub(tensor.len_bytes);
                shards.push(vec![tensor]);
            }
        }
    }
    Shards(shards)
}

/// `model.safetensors.index.json`, as the field's programs write it.
#[derive(Serialize)]
struct Index<'a> {
    metadata: IndexMetadata,
    weight_map: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct IndexMetadata {
    total_size: usize,
}

impl Shards<'_> {
    /// Writes `model.safetensors`, or `model-00001-of-0000N.safetensors` and their index.
    pub(super) fn write(mut self, staging: &mut Staging, options: &SaveOptions<'_>) -> Result<()> {
        let count = self.0.len();
        let names: Vec<String> = match count {
            1 => vec!["model.safetensors".to_owned()],
            _ => (1..=count).map(|i| format!("model-{i:05}-of-{count:05}.safetensors")).collect(),
        };
        let bytes_total = self.0.iter().flatten().map(|tensor| tensor.len_bytes).sum();
        let mut bytes = 0;
        let mut tell = |more| {
            bytes += more;
            if let Some(progress) = options.progress {
                progress(SaveProgress { step: SaveStep::Write, bytes, bytes_total });
            }
        };
        for (shard, name) in self.0.iter_mut().zip(&names) {
            // Wide elements first, as all writers do: then each tensor is aligned to its elements.
            shard.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
            let header = header(shard).map_err(|problem| Error::Header { path: name.into(), problem })?;
            staging.write_with(Path::new(name), |file| {
                file.write_all(&header)?;
                for tensor in shard {
                    for chunk in tensor.bytes().chunks(CHUNK_BYTES) {
                        file.write_all(chunk)?;
                        tell(chunk.len());
                    }
                }
                Ok(())
            })?;
        }
        if count > 1 {
            let weight_map = self.0.iter().zip(&names).flat_map(|(shard, name)| {
                shard.iter().map(move |tensor| (tensor.name.as_ref(), name.as_str()))
            });
            let index = Index {
                metadata: IndexMetadata { total_size: bytes_total },
                weight_map: weight_map.collect(),
            };
            let name = Path::new("model.safetensors.index.json");
            let text = serde_json::to_string_pretty(&index)
                .map_err(|error| Error::Index { path: name.into(), problem: error.to_string() })?;
            staging.write(name, (text + "\n").as_bytes())?;
        }
        Ok(())
    }
}

/// The length of the header, and the header: names, dtypes, shapes and places, padded to 8 bytes.
///
/// The safetensors crate makes it and checks it. Its own writer to files is not used: it leaves files that only
/// their owner can read, and nothing to call `fsync` on.
fn header(tensors: &[Tensor<'_>]) -> Result<Vec<u8>, String> {
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.len_bytes;
        let info =
            TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (start, end) };
        (tensor.name.clone().into_owned(), info)
    });
    let infos = infos.collect();
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos).map_err(|error| error.to_string())?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let length = u64::try_from(header.len()).map_err(|error| error.to_string())?;
    Ok([&length.to_le_bytes()[..], &header].concat())
}
