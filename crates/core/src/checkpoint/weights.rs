//! Which files of a directory hold the weights, and the tensors in them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::safetensors_file::{self, StoredTensor};
use super::{QuantizeConfig, Reading, regular_file};
use crate::error::{Error, Result};

/// Every tensor of a checkpoint, by name.
pub(super) type Tensors = BTreeMap<Arc<str>, StoredTensor>;

/// Finds, opens and checks the weight files of `dir`.
///
/// # Errors
/// [`Error::WeightsMissing`], [`Error::WeightsAmbiguous`], [`Error::Pickle`], [`Error::Index`],
/// [`Error::Header`], [`Error::DuplicateTensor`], [`Error::Io`].
pub(super) fn open(
    dir: &Path,
    config: Option<&QuantizeConfig>,
    reading: Reading,
) -> Result<(Vec<PathBuf>, Tensors)> {
    let located = locate(dir, config)?;
    let mut tensors = Tensors::new();
    for file in &located.files {
        for tensor in safetensors_file::open(file, reading)? {
            if let Some(first) = tensors.get(tensor.name()) {
                return Err(Error::DuplicateTensor {
                    tensor: tensor.name().to_owned(),
                    first: first.file().into(),
                    second: file.clone(),
                });
            }
            tensors.insert(tensor.name().into(), tensor);
        }
    }
    if let Some(index) = &located.index {
        index.check(dir, &tensors)?;
    }
    Ok((located.files, tensors))
}

struct Located {
    files: Vec<PathBuf>,
    index: Option<Index>,
}

fn locate(dir: &Path, config: Option<&QuantizeConfig>) -> Result<Located> {
    let present = list(dir)?;
    let has = |name: &str| present.iter().any(|entry| entry == name);

    let mut names = vec!["model.safetensors".to_owned()];
    if let Some(config) = config {
        names.extend(config.model_file_base_name.iter().map(|base| format!("{base}.safetensors")));
        // The name that AutoGPTQ gives its files.
        names.push(format!("gptq_model-{}bit-{}g.safetensors", config.bits, config.group_size));
    }

    for name in &names {
        let index = format!("{name}.index.json");
        if has(&index) {
            let index = Index::read(&dir.join(index))?;
            return Ok(Located { files: index.files(dir), index: Some(index) });
        }
    }
    if let Some(name) = names.iter().find(|name| has(name)) {
        return Ok(Located { files: vec![dir.join(name)], index: None });
    }

    let with_extension = |wanted: &[&str]| -> Vec<String> {
        let wanted = |name: &&String| {
            let extension = Path::new(name).extension().and_then(OsStr::to_str);
            extension.is_some_and(|extension| wanted.contains(&extension))
        };
        present.iter().filter(wanted).cloned().collect()
    };
    let candidates = with_extension(&["safetensors"]);
    if let [only] = candidates.as_slice() {
        return Ok(Located { files: vec![dir.join(only)], index: None });
    }
    if !candidates.is_empty() {
        return Err(Error::WeightsAmbiguous { dir: dir.into(), candidates });
    }
    if let Some(pickle) = with_extension(&["bin", "pt", "pth", "ckpt", "pkl"]).first() {
        return Err(Error::Pickle { path: dir.join(pickle) });
    }
    Err(Error::WeightsMissing { dir: dir.into(), looked_for: format!("{}, *.safetensors", names.join(", ")) })
}

/// The names of the files in `dir`, sorted.
fn list(dir: &Path) -> Result<Vec<String>> {
    let error = |source| Error::Io { path: dir.into(), action: "list", source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(error)? {
        names.extend(entry.map_err(error)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// `model.safetensors.index.json`: which shard holds which tensor.
struct Index {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            weight_map: BTreeMap<String, String>,
        }
        let text = regular_file::read_text(path).map_err(|source| Error::Io {
            path: path.into(),
            action: "read",
            source,
        })?;
        let File { weight_map } = serde_json::from_slice(&text).map_err(|error| Error::Index {
            path: path.into(),
            problem: format!("not an index with a `weight_map` from tensors to files: {error}"),
        })?;
        let index = Self { path: path.into(), weight_map };
        for (tensor, shard) in &index.weight_map {
            let inside = Path::new(shard).components().all(|part| matches!(part, Component::Normal(_)));
            if !inside || shard.is_empty() {
                return Err(index.error(format!(
                    "tensor `{tensor}` is said to lie in `{shard}`, which leaves the checkpoint's directory"
                )));
            }
        }
        if index.weight_map.is_empty() {
            return Err(index.error("its `weight_map` names no tensor".into()));
        }
        Ok(index)
    }

    fn files(&self, dir: &Path) -> Vec<PathBuf> {
        let mut shards: Vec<&String> = self.weight_map.values().collect();
        shards.sort();
        shards.dedup();
        shards.into_iter().map(|shard| dir.join(shard)).collect()
    }

    fn check(&self, dir: &Path, tensors: &Tensors) -> Result<()> {
        for (name, shard) in &self.weight_map {
            match tensors.get(name.as_str()) {
                Some(tensor) if tensor.file() == dir.join(shard) => {}
                Some(tensor) => {
                    return Err(self.error(format!(
                        "tensor `{name}` is said to lie in `{shard}` and lies in {}",
                        tensor.file().display()
                    )));
                }
                None => {
                    return Err(
                        self.error(format!("tensor `{name}` is said to lie in `{shard}` and does not"))
                    );
                }
            }
        }
        Ok(())
    }

    fn error(&self, problem: String) -> Error {
        Error::Index { path: self.path.clone(), problem }
    }
}
