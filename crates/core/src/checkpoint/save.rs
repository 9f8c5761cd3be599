//! Saving a checkpoint: all of it under its name, or nothing.
//!
//! A save writes into a directory of its own beside the one asked for, hidden and named after it
//! (`.{name}.partial-{process}-{n}`). When every file is on disk it is read back and compared, and only then renamed.
//! Whoever looks finds no directory or a complete one, also after a crash, a full disk or a power failure.
//!
//! What is written:
//!
//! * **Weights.** The tensors of quantized layers keep their names, shapes, dtypes and bytes, except `qzeros`, whose
//!   zero points are brought to the format asked for, and 3-bit layers that change between continuous and planar
//!   packing. All other tensors keep every byte. `qweight` goes from the mapping to the file without a copy.
//! * **Configuration.** Each file that says how the model was quantized is written again, with the format that it
//!   has now and otherwise as it was, to the last space. A `config.json` that said nothing says it too, since
//!   readers that know no other file would take the model for an unquantized one.
//! * **Everything else** in the directory: tokenizers, templates, licences, code, byte for byte. Weights of other
//!   formats stay behind, pickles above all; [`SaveReport::skipped`] names them.
//!
//! # Which zero points a format can hold
//!
//! `gptq_v2` holds all. `gptq` stores each minus one, and its writers never agreed on where a zero point of 0 goes:
//! a layer that has one is refused, unless the configuration names a GPTQModel whose dialect readers then know. A
//! layer is refused too where a reader would take its stored zero points for something else. Symmetric layers have
//! neither problem.

mod config_text;
mod configs;
mod encoding;
mod output;
mod proof;
mod shards;
mod side_files;
mod tensors;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Serialize, Serializer};

use self::output::{Finished, Output};
use super::{Checkpoint, CheckpointFormat};
use crate::error::Result;
use crate::quant_linear::QuantLinear;

/// The largest shard that the field's programs write, unless told otherwise: 5 GB.
pub const DEFAULT_MAX_SHARD_BYTES: usize = 5_000_000_000;

/// How to save a checkpoint.
#[derive(Clone, Copy)]
#[expect(
    clippy::exhaustive_structs,
    reason = "users write it as a literal that ends in ..Default::default()"
)]
pub struct SaveOptions<'a> {
    /// The format to save in. `None`: `gptq` where every layer is symmetric, since every reader takes that, else
    /// `gptq_v2`; what is `gptq_p` stays so.
    pub format: Option<CheckpointFormat>,
    /// Bytes of tensors in one weight file. A tensor that is larger gets a file of its own.
    pub max_shard_bytes: usize,
    /// Whether what was written is opened and compared before it gets its name: dequantized weights, zero points,
    /// plain tensors, configuration.
    pub prove: bool,
    /// Hears how far the work is. Called from several threads during the proof.
    pub progress: Option<&'a (dyn Fn(SaveProgress) + Sync)>,
}

impl Default for SaveOptions<'_> {
    fn default() -> Self {
        Self { format: None, max_shard_bytes: DEFAULT_MAX_SHARD_BYTES, prove: true, progress: None }
    }
}

/// How far a save is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SaveProgress {
    /// What is being done.
    pub step: SaveStep,
    /// Bytes of tensors that this step is done with.
    pub bytes: usize,
    /// Bytes of tensors of the checkpoint.
    pub bytes_total: usize,
}

/// A step of a save.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SaveStep {
    /// Weight files are written.
    Write,
    /// What was written is compared with what was to be saved.
    Prove,
}

/// What a save did.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SaveReport {
    /// The format it was saved in.
    pub format: CheckpointFormat,
    /// The files written, relative to the directory, in order.
    pub files: Vec<SavedFile>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Quantized layers.
    pub layers: usize,
    /// Zero points that are stored in other words than in the source.
    pub zeros_converted: usize,
    /// Whether it was opened and compared before it got its name.
    pub proved: bool,
    /// What in the source's directory was not carried along, and why.
    pub skipped: Vec<SkippedFile>,
    /// Links in the source's directory that lead out of it, whose contents were copied.
    pub followed: Vec<FollowedLink>,
    /// Directories beside it that look like those of other saves to the same name. Where no such save is under way,
    /// they are left from killed ones: nothing reads them, remove them.
    #[serde(serialize_with = "lossy_paths")]
    pub leftovers: Vec<PathBuf>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// A file that was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct SavedFile {
    /// Its name, relative to the directory.
    #[serde(serialize_with = "lossy_path")]
    pub name: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// A file or directory of the source that was not carried along.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct SkippedFile {
    /// Its name, relative to the source's directory.
    #[serde(serialize_with = "lossy_path")]
    pub name: PathBuf,
    /// Why not.
    pub why: &'static str,
}

/// A link whose contents were copied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct FollowedLink {
    /// Its name, relative to the source's directory.
    #[serde(serialize_with = "lossy_path")]
    pub name: PathBuf,
    /// The file it leads to.
    #[serde(serialize_with = "lossy_path")]
    pub target: PathBuf,
}

impl Checkpoint {
    /// Saves the checkpoint as the directory `out`, which must not exist or be empty, in a directory that exists.
    /// `out` appears complete or not at all, and an empty directory is replaced by a new one: see [`save`](self).
    ///
    /// # Errors
    /// * [`Output`](crate::Error::Output) where `out` holds something, or is, holds or lies in the directory that this
    ///   checkpoint was opened from.
    /// * [`NotStorable`](crate::Error::NotStorable) where the format has no room for a layer, before anything is
    ///   written.
    /// * [`Io`](crate::Error::Io) where a file cannot be read or written, or the disk is full.
    /// * [`SavedDiffers`](crate::Error::SavedDiffers) where the proof fails.
    ///
    /// After any of them `out` is as it was.
    pub fn save(&self, out: impl AsRef<Path>, options: &SaveOptions<'_>) -> Result<SaveReport> {
        let layers: Vec<_> = self.layers.iter().collect();
        save(self, &layers, out.as_ref(), options)
    }
}

/// Saves `layers`, which are those of `checkpoint` with their zero points in whatever encoding, and all that
/// `checkpoint` has beside them.
pub(crate) fn save(
    checkpoint: &Checkpoint,
    layers: &[&QuantLinear],
    out: &Path,
    options: &SaveOptions<'_>,
) -> Result<SaveReport> {
    let started = Instant::now();
    let format = options.format.unwrap_or_else(|| encoding::most_readable(checkpoint, layers));
    let _span = tracing::info_span!("save", out = %out.display(), %format).entered();

    let place = Output::check(out, checkpoint.dir())?;
    encoding::check_packing(layers, format)?;
    let configs = configs::rewrite(checkpoint, format)?;
    configs.check(layers, format)?;
    let encodings = encoding::choose(layers, format, configs.read())?;
    let tensors = tensors::list(checkpoint, layers, format, &encodings)?;
    let shards = shards::divide(tensors, options.max_shard_bytes);

    let mut staging = place.create()?;
    for file in configs.files() {
        staging.write(Path::new(&file.name), file.text.as_bytes())?;
    }
    let side = match checkpoint.dir() {
        Some(dir) => side_files::carry(dir, checkpoint.files(), &mut staging)?,
        None => side_files::Carried::default(),
    };
    shards.write(&mut staging, options)?;

    let mut notes: Vec<_> = encoding::caution(layers, format, configs.read()).into_iter().collect();
    if options.prove {
        notes.extend(proof::prove(&staging, checkpoint, layers, format, options)?);
    }
    let zeros_converted = tensors::zeros_converted(checkpoint, layers, format, &encodings);
    let Finished { files, leftovers, note } = staging.finish()?;
    notes.extend(note);
    let bytes = files.iter().map(|file| file.bytes).sum();
    tracing::info!(layers = layers.len(), zeros = zeros_converted, bytes, "saved");
    Ok(SaveReport {
        format,
        bytes,
        files,
        layers: layers.len(),
        zeros_converted,
        proved: options.prove,
        skipped: side.skipped,
        followed: side.followed,
        leftovers,
        notes,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Names on disk may hold bytes that are not text; a report about them must not fail for that.
fn lossy_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn lossy_paths<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.display().to_string()))
}
