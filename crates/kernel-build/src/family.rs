//! A folder of kernels that are built, loaded and versioned together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A folder of `.cu` files, with what they need to compile.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Family {
    /// Its name: the folder's.
    pub name: String,
    /// The folder. It is on the include path.
    pub folder: PathBuf,
    /// Folders on the include path.
    pub include: Vec<PathBuf>,
    /// Options for nvcc, after `-std=c++17`.
    pub flags: Vec<String>,
    /// Kernels that may spill.
    pub allowed_spills: Vec<AllowedSpill>,
}

/// A kernel that may spill registers.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal by whoever allows one")]
pub struct AllowedSpill {
    /// The name of the `__global__` function.
    pub kernel: String,
    /// Why it costs nothing that matters.
    pub reason: String,
}

impl Family {
    /// The family in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { name, folder, include: Vec::new(), flags: Vec::new(), allowed_spills: Vec::new() }
    }

    /// Adds a folder to the include path.
    #[must_use]
    pub fn include(mut self, folder: impl Into<PathBuf>) -> Self {
        self.include.push(folder.into());
        self
    }

    /// Its `.cu` files, by name.
    ///
    /// # Errors
    /// [`Error::NoSources`] where there are none, [`Error::Io`].
    pub fn sources(&self) -> Result<Vec<PathBuf>> {
        let mut sources: Vec<PathBuf> =
            entries(&self.folder)?.into_iter().filter(|path| has_extension(path, &["cu"])).collect();
        sources.sort();
        if sources.is_empty() {
            return Err(Error::NoSources { folder: self.folder.clone() });
        }
        Ok(sources)
    }

    /// Every file that a build of it may read: what its folder and the include path hold of sources and headers. A
    /// build script prints a `rerun-if-changed` for each.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn inputs(&self) -> Result<Vec<PathBuf>> {
        let mut found = BTreeSet::new();
        for folder in std::iter::once(&self.folder).chain(&self.include) {
            collect(folder, &mut found)?;
        }
        Ok(found.into_iter().collect())
    }
}

fn collect(folder: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        if path.is_dir() {
            collect(&path, found)?;
        } else if has_extension(&path, &["cu", "cuh", "h", "hpp", "inl", "inc"]) {
            found.insert(path);
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension))
}
