//! Checkpoints on disk: configuration, weight files, and the quantized layers in them. Knows no backend.
//!
//! [`Checkpoint::open`] maps the weight files and checks everything once: every tensor's dtype, shape and range,
//! every group of every `g_idx`, the encoding of the zero points against the data. After that nothing downstream
//! checks again.

pub mod config;
mod findings;
mod layers;
mod marlin;
mod regular_file;
mod remarks;
mod safetensors_file;
pub mod save;
mod survey;
mod weights;
mod zeros;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

pub use config::{CheckpointFormat, Configs, QuantizeConfig};
pub use findings::{Finding, Severity};
pub use regular_file::{json_file, text_file};
pub use safetensors_file::StoredTensor;
pub use save::{SaveOptions, SaveReport};
pub use survey::{IncompleteModule, Survey, WeightSurvey};
pub use zeros::{Declared, SettledBy, ZeroEvidence, ZeroVersion};

use crate::error::{Error, Result};
use crate::format::ZeroDialect;
use crate::quant_linear::{LayerId, QuantLinear};

/// A GPTQ checkpoint, opened and checked: its quantized layers, its plain tensors, its configuration.
///
/// ```no_run
/// use gptq_core::checkpoint::Checkpoint;
///
/// let checkpoint = Checkpoint::open("path/to/model")?;
/// for layer in checkpoint.layers() {
///     let info = layer.info();
///     println!("{} [{}, {}] in {} bits", info.name, info.in_features, info.out_features, info.bits);
/// }
/// # Ok::<(), gptq_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    dir: Option<PathBuf>,
    files: Vec<PathBuf>,
    config: QuantizeConfig,
    layers: Vec<QuantLinear>,
    ids: HashMap<Arc<str>, LayerId>,
    tensors: BTreeMap<Arc<str>, StoredTensor>,
    /// The tensors of its layers, as they stand in the files.
    stored: BTreeMap<Arc<str>, StoredTensor>,
    zero_evidence: Option<ZeroEvidence>,
    findings: Vec<Finding>,
}

/// How to open a checkpoint.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "users write it as a literal that ends in ..Default::default()"
)]
pub struct OpenOptions {
    /// Whether to map the weight files or to copy them into memory.
    pub reading: Reading,
    /// How v1 zero points of 0 were stored, where the writer is unknown. Overrides what its name implies. At 3 bits the
    /// dialects are one, and it changes nothing. It and `assume_format` are of no meaning to files that store no zero
    /// points.
    pub zeros_dialect: Option<ZeroDialect>,
    /// In which encoding zero points are stored. Overrides configuration and data.
    pub assume_format: Option<ZeroVersion>,
}

/// How the bytes of a weight file are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Reading {
    /// Through a mapping: no copy, pages come in when they are used. A file that is cut short while it is mapped
    /// kills the process that reads it.
    #[default]
    Map,
    /// Through a copy in memory: as much memory as the files take; a file that is cut short is an error.
    Copy,
}

impl Checkpoint {
    /// Opens the checkpoint in the directory `dir`, mapping its weight files.
    ///
    /// # Errors
    /// Every way in which a directory can fail to be a GPTQ checkpoint is a variant of [`Error`]: the file, the
    /// tensor, what was found, what was expected, what to do next.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, &OpenOptions::default())
    }

    /// Opens the checkpoint in the directory `dir`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_with(dir: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let dir = dir.as_ref();
        let _span = tracing::info_span!("open", dir = %dir.display()).entered();
        let (configs, files, tensors) = read_files(dir, options.reading)?;
        let mut findings = Vec::new();
        let built = layers::build(&configs, tensors, &mut findings)?;
        let (mut quantized, tensors) = (built.layers, built.tensors);
        if quantized.is_empty() {
            return Err(Error::NothingQuantized { dir: dir.into() });
        }
        let mut config = configs.primary.clone();
        remarks::add(&config, &quantized, &tensors, &mut findings);
        let evidence = match built.marlin {
            true => None,
            false => Some(zeros::settle(dir, &configs, options, &mut quantized, &mut findings)?),
        };
        layers::note_symmetry(&quantized, &built.sym, &mut findings);
        if built.marlin {
            config.format = CheckpointFormat::Marlin;
        }
        for finding in &findings {
            tracing::debug!("{finding}");
        }
        let mut checkpoint = Self::from_layers(config, quantized);
        checkpoint.dir = Some(dir.into());
        checkpoint.files = files;
        checkpoint.tensors = tensors;
        checkpoint.stored = built.stored;
        checkpoint.zero_evidence = evidence;
        checkpoint.findings = findings;
        Ok(checkpoint)
    }

    /// A checkpoint that is not on disk: layers that an engine made with [`QuantLinear::new`].
    pub fn from_layers(config: QuantizeConfig, layers: Vec<QuantLinear>) -> Self {
        let ids = layers
            .iter()
            .enumerate()
            .map(|(id, layer)| (Arc::clone(&layer.info().name), LayerId(id)))
            .collect();
        Self {
            dir: None,
            files: Vec::new(),
            config,
            layers,
            ids,
            tensors: BTreeMap::new(),
            stored: BTreeMap::new(),
            zero_evidence: None,
            findings: Vec::new(),
        }
    }

    /// The directory it was opened from.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Its weight files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// How it was quantized, as its configuration says.
    pub fn config(&self) -> &QuantizeConfig {
        &self.config
    }

    /// Its quantized layers, ordered by name with numbers counted (`layers.2` before `layers.10`).
    pub fn layers(&self) -> &[QuantLinear] {
        &self.layers
    }

    /// The layer of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], with the most similar name there is.
    pub fn layer(&self, name: &str) -> Result<&QuantLinear> {
        let id = self.layer_id(name).ok_or_else(|| self.no_such_layer(name))?;
        self.layers.get(id.index()).ok_or_else(|| self.no_such_layer(name))
    }

    /// The place of the layer of this name.
    pub fn layer_id(&self, name: &str) -> Option<LayerId> {
        self.ids.get(name).copied()
    }

    /// The tensors that belong to no quantized layer: embeddings, norms, modules left in floating point.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &StoredTensor> {
        self.tensors.values()
    }

    /// The plain tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// What the zero points were read as, and on what grounds. `None` for layers that came from no file, and for files of
    /// Marlin's format, which store none.
    pub fn zero_evidence(&self) -> Option<&ZeroEvidence> {
        self.zero_evidence.as_ref()
    }

    /// What a person should know although it opened.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(crate) fn no_such_layer(&self, name: &str) -> Error {
        let similar = self.ids.keys().max_by_key(|known| similarity(known, name)).map(ToString::to_string);
        Error::NoSuchLayer { name: name.to_owned(), similar }
    }
}

/// Every configuration and every tensor in `dir`.
fn read_files(dir: &Path, reading: Reading) -> Result<(Configs, Vec<PathBuf>, weights::Tensors)> {
    match QuantizeConfig::find(dir) {
        Ok(configs) => {
            let (files, tensors) = weights::open(dir, Some(&configs.primary), reading)?;
            Ok((configs, files, tensors))
        }
        // text-generation-inference keeps the configuration among the tensors. Where the weights do not open
        // either, the missing configuration is the first thing to tell.
        Err(missing @ Error::ConfigMissing { .. }) => {
            let Ok((files, tensors)) = weights::open(dir, None, reading) else { return Err(missing) };
            let config = layers::config_among(&tensors)?.ok_or(missing)?;
            Ok((Configs { primary: config, others: Vec::new(), disagreements: Vec::new() }, files, tensors))
        }
        Err(error) => Err(error),
    }
}

/// How many bytes two names share at both ends: enough to find a typing error in a dotted path.
fn similarity(a: &str, b: &str) -> usize {
    let from_start = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let from_end = a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count();
    from_start + from_end
}
