//! A checkpoint directory in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::weights::{Weights, assemble};

/// What stands under a name in a directory.
#[derive(Clone, PartialEq, Debug)]
pub enum Entry {
    /// A JSON file.
    Json(Value),
    /// A safetensors file.
    Weights(Weights),
    /// A safetensors file whose header says something else.
    Lying {
        /// The header.
        header: Value,
        /// What stands behind it.
        data: Vec<u8>,
    },
    /// A file of any bytes.
    Raw(Vec<u8>),
    /// A directory, where a file should be.
    Directory,
}

impl Entry {
    /// The bytes of the file; none of a directory.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Json(value) => value.to_string().into_bytes(),
            Self::Weights(weights) => weights.to_bytes(),
            Self::Lying { header, data } => assemble(header.to_string().as_bytes(), data),
            Self::Raw(bytes) => bytes.clone(),
            Self::Directory => Vec::new(),
        }
    }
}

/// A checkpoint directory: its entries by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Image {
    /// The entries.
    pub entries: BTreeMap<String, Entry>,
}

impl Image {
    /// Adds or replaces a JSON file.
    pub fn with_json(mut self, name: &str, value: Value) -> Self {
        self.entries.insert(name.into(), Entry::Json(value));
        self
    }

    /// Adds or replaces a safetensors file.
    pub fn with_weights(mut self, name: &str, weights: Weights) -> Self {
        self.entries.insert(name.into(), Entry::Weights(weights));
        self
    }

    /// Adds or replaces a file of any bytes.
    pub fn set_raw(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.entries.insert(name.into(), Entry::Raw(bytes.into()));
    }

    /// The JSON of the file `name`, to change.
    pub fn json(&mut self, name: &str) -> &mut Value {
        match self.entries.get_mut(name) {
            Some(Entry::Json(value)) => value,
            other => panic!("`{name}` is no JSON file: {other:?}"),
        }
    }

    /// The tensors of the file `name`, to change.
    pub fn weights(&mut self, name: &str) -> &mut Weights {
        match self.entries.get_mut(name) {
            Some(Entry::Weights(weights)) => weights,
            other => panic!("`{name}` is no safetensors file: {other:?}"),
        }
    }

    /// The header and the data of the safetensors file `name`, to change apart.
    pub fn lie(&mut self, name: &str) -> (&mut Value, &mut Vec<u8>) {
        if let Some(Entry::Weights(weights)) = self.entries.get(name) {
            let (header, data) = weights.to_parts();
            self.entries.insert(name.into(), Entry::Lying { header, data });
        }
        match self.entries.get_mut(name) {
            Some(Entry::Lying { header, data }) => (header, data),
            other => panic!("`{name}` is no safetensors file: {other:?}"),
        }
    }

    /// The bytes of the file `name`, to change.
    pub fn raw(&mut self, name: &str) -> &mut Vec<u8> {
        let bytes = self.entries.get(name).unwrap_or_else(|| panic!("no file `{name}`")).to_bytes();
        self.set_raw(name, bytes);
        match self.entries.get_mut(name) {
            Some(Entry::Raw(bytes)) => bytes,
            other => panic!("`{name}` is not of bytes: {other:?}"),
        }
    }

    /// Takes the entry `name` away.
    pub fn remove(&mut self, name: &str) -> Entry {
        self.entries.remove(name).unwrap_or_else(|| panic!("no entry `{name}`"))
    }

    /// Makes `dir` hold exactly these entries. `dir` was empty, or written by this before.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        for (name, entry) in &self.entries {
            let path = dir.join(name);
            match entry {
                Entry::Directory => fs::create_dir(path)?,
                _ => fs::write(path, entry.to_bytes())?,
            }
        }
        Ok(())
    }
}
