//! What a checkpoint's directory holds beside weights and configuration: tokenizers, templates, licences, code.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::output::Staging;
use super::{FollowedLink, SkippedFile};
use crate::error::{Error, Result};

/// Files that are written anew.
const REWRITTEN: [&str; 3] = ["quantize_config.json", "quant_config.json", "config.json"];
/// Weights in Python's pickle format, or in other containers that can hold it.
const PICKLES: [&str; 6] = ["bin", "pt", "pth", "ckpt", "pkl", "pickle"];
/// Weights in other formats.
const OTHER_WEIGHTS: [&str; 8] = ["gguf", "ggml", "h5", "msgpack", "onnx", "ot", "npz", "tflite"];

/// What became of a directory's other files.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) skipped: Vec<SkippedFile>,
    pub(super) followed: Vec<FollowedLink>,
}

/// Copies into `staging` what `dir` holds beside its weights and configuration, byte for byte. `weights` are the
/// files whose tensors are written anew.
pub(super) fn carry(dir: &Path, weights: &[PathBuf], staging: &mut Staging) -> Result<Carried> {
    let mut carrying = Carrying { dir, weights, inside: inside(dir)?, carried: Carried::default() };
    carrying.directory(Path::new(""), staging)?;
    Ok(carrying.carried)
}

struct Carrying<'a> {
    dir: &'a Path,
    weights: &'a [PathBuf],
    /// Directories whose files belong to the checkpoint.
    inside: Vec<PathBuf>,
    carried: Carried,
}

impl Carrying<'_> {
    /// Copies the files of one directory, and of those in it. `at` is relative to the checkpoint's.
    fn directory(&mut self, at: &Path, staging: &mut Staging) -> Result<()> {
        let error = |source| Error::Io { path: self.dir.join(at), action: "list", source };
        let mut names = Vec::new();
        for entry in fs::read_dir(self.dir.join(at)).map_err(error)? {
            names.push(entry.map_err(error)?.file_name());
        }
        names.sort();
        for name in names {
            let (top, name) = (at.as_os_str().is_empty(), at.join(name));
            let path = self.dir.join(&name);
            let error = |source| Error::Io { path: path.clone(), action: "look at", source };
            let link = fs::symlink_metadata(&path).map_err(error)?.is_symlink();
            // A link to nothing is told as the system tells it: the copy would lack a file.
            let target = fs::metadata(&path).map_err(error)?;
            if target.is_dir() {
                match why_no_directory(&name, link) {
                    Some(why) => self.skip(name, why),
                    None => {
                        staging.create_dir(&name)?;
                        self.directory(&name, staging)?;
                    }
                }
            } else if top && (self.weights.contains(&path) || is_rewritten(&name)) {
                // It is in the new checkpoint already.
            } else if !target.is_file() {
                self.skip(name, "neither a file nor a directory");
            } else if let Some(why) = why_no_file(&name) {
                if !(top && is_index(&name)) {
                    self.skip(name, why);
                }
            } else {
                if link {
                    self.note_link(&name, &path.canonicalize().map_err(error)?);
                }
                staging.copy(&path, &name)?;
            }
        }
        Ok(())
    }

    fn skip(&mut self, name: PathBuf, why: &'static str) {
        tracing::debug!("{} is not carried along: {why}", name.display());
        self.carried.skipped.push(SkippedFile { name, why });
    }

    /// Links are followed, since caches are made of them. One that leaves the checkpoint is told: its contents may
    /// not be meant to travel.
    fn note_link(&mut self, name: &Path, target: &Path) {
        if !self.inside.iter().any(|dir| target.starts_with(dir)) {
            tracing::warn!("{} is a link to {}, which was copied", name.display(), target.display());
            self.carried.followed.push(FollowedLink { name: name.into(), target: target.into() });
        }
    }
}

/// The directory itself, and the one in which the Hub's cache keeps the contents of
/// `models--owner--name/snapshots/revision/`.
fn inside(dir: &Path) -> Result<Vec<PathBuf>> {
    let dir = dir.canonicalize().map_err(|source| Error::Io { path: dir.into(), action: "open", source })?;
    let snapshots = dir.parent().filter(|parent| parent.file_name() == Some(OsStr::new("snapshots")));
    let blobs = snapshots.and_then(Path::parent).map(|model| model.join("blobs"));
    Ok([Some(dir), blobs].into_iter().flatten().collect())
}

fn why_no_directory(name: &Path, link: bool) -> Option<&'static str> {
    if link {
        Some("a link to a directory")
    } else if name.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
        Some("a hidden directory")
    } else {
        None
    }
}

fn why_no_file(name: &Path) -> Option<&'static str> {
    if is_index(name) {
        return Some("an index of weights that are not carried along");
    }
    let extension = extension(name);
    if PICKLES.contains(&&*extension) {
        Some("weights in Python's pickle format, which are neither read nor passed on")
    } else if OTHER_WEIGHTS.contains(&&*extension) {
        Some("weights in another format")
    } else if extension == "safetensors" {
        // Under a configuration that has changed, what they hold could be read as something else.
        Some("weights that are not the checkpoint's")
    } else {
        None
    }
}

fn extension(name: &Path) -> String {
    name.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase()
}

/// `model.safetensors.index.json`, `pytorch_model.bin.index.json` and the like.
fn is_index(name: &Path) -> bool {
    let name = name.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(".index.json"));
    name.is_some_and(|weights| why_no_file(Path::new(weights)).is_some())
}

fn is_rewritten(name: &Path) -> bool {
    REWRITTEN.iter().any(|rewritten| name == Path::new(rewritten))
}
