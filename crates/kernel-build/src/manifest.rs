//! What a build made, and of what: the JSON file beside a fatbin.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::ptxas::Resources;

/// The manifest of a family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The family.
    pub family: String,
    /// A hash of everything that decides what is built: sources, headers, options, architectures, the compiler's
    /// version. It tells an unchanged family, not a forged one.
    pub source_hash: String,
    /// The compiler: `release 13.0, V13.0.88`.
    pub nvcc: String,
    /// The options that it was given.
    pub flags: Vec<String>,
    /// The architectures with machine code in the fatbin.
    pub architectures: Vec<Architecture>,
    /// The architecture whose PTX is in the fatbin, for every GPU after it. `None` where there is none that PTX can leave
    /// without leaving a GPU out.
    pub ptx: Option<Architecture>,
    /// Length of the file.
    pub fatbin_bytes: u64,
    /// Kernels that were allowed to spill, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allowed_spills: BTreeMap<String, String>,
    /// Its kernels, by name.
    pub kernels: BTreeMap<String, Kernel>,
}

/// A kernel of a family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kernel {
    /// The `.cu` file that defines it.
    pub source: String,
    /// What it takes, by architecture.
    pub resources: BTreeMap<Architecture, Resources>,
}

impl Manifest {
    /// The manifest at `path`, where there is one that can be read.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}
