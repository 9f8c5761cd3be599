//! Why a backend cannot run a layer, or cannot run here at all.

use serde::Serialize;

use crate::device::Device;
use crate::format::{Bits, Packing};
use crate::tensor::DType;

/// A no, with what was needed, what was there, and what would fix it. Never a panic, never a link error.
///
/// Serializes with its kind under `kind`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rejection {
    // ---- this machine ------------------------------------------------------------------------------------
    /// It was built against another version of the interface.
    #[error(
        "it was built for version {found} of the backend interface, this program has {expected}; rebuild it"
    )]
    ApiVersion {
        /// The version it was built for.
        found: u32,
        /// The version of this program.
        expected: u32,
    },
    /// It does not run on this kind of device.
    #[error("it runs on {supported}, not on {device}; choose another device or backend")]
    DeviceKind {
        /// The device asked for.
        device: Device,
        /// The kinds that it runs on.
        supported: String,
    },
    /// The device's driver is not installed, or too old.
    #[error("{found}; {remedy}")]
    Driver {
        /// What was found.
        found: String,
        /// What to install.
        remedy: String,
    },
    /// The machine has no device of this ordinal.
    #[error("there is no {device}: {found}")]
    NoSuchDevice {
        /// The device asked for.
        device: Device,
        /// What there is.
        found: String,
    },
    /// The device is too old, or of a kind that its kernels were not built for.
    #[error("{device} has compute capability {found}, it needs {needed}; {remedy}")]
    ComputeCapability {
        /// The device.
        device: Device,
        /// What the device has.
        found: String,
        /// What the kernels need.
        needed: String,
        /// What to do next.
        remedy: String,
    },
    /// Its kernels were not built.
    #[error("its kernels are missing ({looked_for}); {remedy}")]
    KernelsMissing {
        /// Where they were searched.
        looked_for: String,
        /// The command that builds them.
        remedy: String,
    },

    // ---- this layer --------------------------------------------------------------------------------------
    /// A width that it has no kernel for.
    #[error("the layer has {found} bits, it runs {}", list(supported))]
    Bits {
        /// The layer's width.
        found: Bits,
        /// The widths that it runs.
        supported: Vec<Bits>,
    },
    /// A packing that it cannot read.
    #[error("the layer is packed in the {found} layout (format gptq_p), which it does not read")]
    Packing {
        /// The layer's packing.
        found: Packing,
    },
    /// A group size that it has no kernel for.
    #[error("the layer has group size {found}, it runs {supported}")]
    GroupSize {
        /// The layer's group size; −1 is per column.
        found: i64,
        /// The group sizes that it runs.
        supported: String,
    },
    /// A last group that is shorter than the others.
    #[error(
        "the layer's last group is short (K = {in_features}, group size {group_size}), which it does not run"
    )]
    ShortLastGroup {
        /// K.
        in_features: usize,
        /// Rows of a full group.
        group_size: usize,
    },
    /// Zero points of its own, for a backend whose zero point is fixed.
    #[error("the layer's zero points are not all 2^(bits-1), and its zero point is fixed there")]
    Asymmetric,
    /// A real permutation in `g_idx`.
    #[error("the layer is act-order (its g_idx is a permutation), which it does not run")]
    ActOrder,
    /// Groups of unequal size, for a backend that sorts rows into equal groups.
    #[error("the layer's g_idx gives groups of unequal size, and it needs {group_size} rows in each")]
    RaggedGroups {
        /// Rows of a full group.
        group_size: usize,
    },
    /// A bias.
    #[error("the layer has a bias, which it does not add")]
    Bias,
    /// A K that its tiles do not divide.
    #[error("the layer's in_features is {found}, it needs a multiple of {multiple}")]
    InFeatures {
        /// K.
        found: usize,
        /// What K must be a multiple of.
        multiple: usize,
    },
    /// An N that its tiles do not divide.
    #[error("the layer's out_features is {found}, it needs a multiple of {multiple}")]
    OutFeatures {
        /// N.
        found: usize,
        /// What N must be a multiple of.
        multiple: usize,
    },
    /// Scales of a type that it would have to narrow.
    #[error("the layer's scales are {found}, it reads {}", list(supported))]
    ScaleDtype {
        /// The scales' type.
        found: DType,
        /// The types that it reads.
        supported: Vec<DType>,
    },
    /// Activations of a type that it would have to narrow.
    #[error("x is {found}, it computes in {}", list(supported))]
    ActivationDtype {
        /// x's type.
        found: DType,
        /// The types that it computes in.
        supported: Vec<DType>,
    },
    /// Only a slow path is left, and the request asks for a fast one.
    #[error(
        "it runs this layer an order of magnitude below the device's limit, and the plan asks for better"
    )]
    TooSlow,
    /// A reason of its own.
    #[error("{reason}; {remedy}")]
    Other {
        /// What is missing or wrong.
        reason: String,
        /// What would fix it.
        remedy: String,
    },
}

impl Rejection {
    /// A reason that no other variant names.
    pub fn other(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Other { reason: reason.into(), remedy: remedy.into() }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
