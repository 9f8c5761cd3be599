//! A directory to write checkpoints into, in memory where the system has such a thing.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory that is removed when this is dropped, whatever has become of it.
#[derive(Debug)]
pub struct Place {
    parent: TempDir,
    dir: PathBuf,
}

impl Place {
    /// An empty directory: under `/dev/shm`, which is memory, or where temporary files go.
    pub fn new() -> Self {
        let parent = tempfile::Builder::new().prefix("gptq-hostile-").tempdir_in("/dev/shm");
        let parent = parent.or_else(|_| TempDir::new()).expect("a temporary directory");
        let dir = parent.path().join("checkpoint");
        fs::create_dir(&dir).expect("a directory in it");
        Self { parent, dir }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Leaves it there, for a person to look into.
    pub fn keep(self) -> PathBuf {
        _ = self.parent.keep();
        self.dir
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}
