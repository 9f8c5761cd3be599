//! `trim-fixture`: a checkpoint and its golden, cut down to what a repository can hold.
//!
//! A golden holds what a peer computes from some layers of a checkpoint, listed in its metadata as `layers`. The
//! fixture keeps those layers and the peer's answers for them. Tensors and configuration files are kept byte for
//! byte.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tensor_file::{Tensor, TensorFile};
use crate::{Result, at};

/// What to trim, and where to put it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The directory of the checkpoint.
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// What a peer computes from it.
    #[arg(long, value_name = "FILE")]
    golden: PathBuf,
    /// Where `checkpoints/` and `goldens/` lie.
    #[arg(long, value_name = "DIR", default_value = "tests/fixtures")]
    out: PathBuf,
    /// Copy the checkpoint whole, and keep what the peer computes from all of it.
    #[arg(long)]
    whole: bool,
    /// A plain tensor to keep beside the final norm. May be given more than once.
    #[arg(long, value_name = "TENSOR")]
    keep: Vec<String>,
}

/// The configuration files of a checkpoint. A trimmed one has no embeddings, so it needs no tokenizer.
const CONFIGURATION: [&str; 3] = ["config.json", "generation_config.json", "quantize_config.json"];

/// Kept in every trimmed checkpoint: a plain tensor, as real checkpoints have them.
const FINAL_NORM: &str = "model.norm.weight";

/// What is kept of each layer of a golden.
const LAYER_PARTS: [&str; 7] = ["qzeros_orig", "qzeros_v2", "zeros", "x_m1", "x_m7", "y_m1", "y_m7"];
/// The dense matrix of a layer. Kept of one layer only, and only where it is small.
const DENSE: &str = "w_f32";
const MAX_DENSE_BYTES: usize = 256 << 10;
/// A batch of many rows. Kept of the same layer, and only with `--whole`.
const BATCH_PARTS: [&str; 2] = ["x_m64", "y_m64"];
/// What a peer computes from the whole model. Nobody can compute it from a trimmed one, so it goes with `--whole`.
const MODEL_PARTS: [&str; 3] = ["prompt_ids", "greedy_ids", "logits_f32"];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let name = arguments.checkpoint.file_name().ok_or("--checkpoint names no directory")?.to_string_lossy();
    let to = arguments.out.join("checkpoints").join(&*name);
    fs::create_dir_all(&to).map_err(at(&to))?;

    let golden = TensorFile::read(&arguments.golden)?;
    let layers = golden.metadata.get("layers").ok_or("the golden's metadata has no `layers`")?;
    let layers: Vec<String> = serde_json::from_str(layers).map_err(at(&arguments.golden))?;
    if arguments.whole {
        copy(&arguments.checkpoint, &to, |_| true)?;
    } else {
        copy(&arguments.checkpoint, &to, |name| CONFIGURATION.contains(&name))?;
        trim_checkpoint(arguments, &layers)?.write(&to.join("model.safetensors"))?;
    }

    let goldens = arguments.out.join("goldens");
    fs::create_dir_all(&goldens).map_err(at(&goldens))?;
    let path = goldens.join(format!("{name}.safetensors"));
    trim_golden(golden, &layers, arguments.whole).write(&path)?;
    println!("{} and {}: {}", to.display(), path.display(), layers.join(", "));
    Ok(())
}

/// Copies the files whose names are wanted, without their permissions.
fn copy(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    for name in file_names(from)?.iter().filter(|name| wanted(name)) {
        let bytes = fs::read(from.join(name)).map_err(at(&from.join(name)))?;
        fs::write(to.join(name), bytes).map_err(at(&to.join(name)))?;
    }
    Ok(())
}

/// The tensors of the golden's layers, and the plain ones that are to be kept, of all shards.
fn trim_checkpoint(arguments: &Arguments, layers: &[String]) -> Result<TensorFile> {
    let mut trimmed = TensorFile::default();
    trimmed.metadata.insert("format".into(), "pt".into());
    let wanted = |tensor: &Tensor| {
        let module = tensor.name.rsplit_once('.').map_or("", |(module, _)| module);
        layers.iter().any(|layer| layer == module)
            || tensor.name == FINAL_NORM
            || arguments.keep.contains(&tensor.name)
    };
    for name in file_names(&arguments.checkpoint)?.iter().filter(|name| name.ends_with(".safetensors")) {
        let shard = TensorFile::read(&arguments.checkpoint.join(name))?;
        trimmed.tensors.extend(shard.tensors.into_iter().filter(wanted));
    }
    for layer in layers {
        let qweight = format!("{layer}.qweight");
        if !trimmed.tensors.iter().any(|tensor| tensor.name == qweight) {
            return Err(format!("{}: there is no `{qweight}`", arguments.checkpoint.display()).into());
        }
    }
    Ok(trimmed)
}

fn trim_golden(golden: TensorFile, layers: &[String], whole: bool) -> TensorFile {
    // The smallest layer whose dense matrix is there.
    let dense = layers.iter().filter_map(|layer| {
        let name = format!("{layer}.{DENSE}");
        let tensor = golden.tensors.iter().find(|tensor| tensor.name == name)?;
        (tensor.bytes.len() <= MAX_DENSE_BYTES).then(|| (tensor.bytes.len(), layer.clone()))
    });
    let smallest = dense.min().map(|(_, layer)| layer);
    let wanted = |tensor: &Tensor| match tensor.name.rsplit_once('.') {
        None => whole && MODEL_PARTS.contains(&tensor.name.as_str()),
        Some((_, part)) if LAYER_PARTS.contains(&part) => true,
        Some((layer, part)) => {
            Some(layer) == smallest.as_deref() && (part == DENSE || whole && BATCH_PARTS.contains(&part))
        }
    };
    TensorFile { metadata: golden.metadata, tensors: golden.tensors.into_iter().filter(wanted).collect() }
}

fn file_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        if entry.path().is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}
