//! What the three steps did, as data.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::backend::{BackendId, Buffer, Outcome};
use crate::device::Device;
use crate::format::ZeroEncoding;
use crate::quant_linear::LayerInfo;

/// What the three steps of post-initialisation did.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PostInitReport {
    /// Where the layers run.
    pub device: Device,
    /// Step 1.
    pub convert: ConvertReport,
    /// Step 2.
    pub init: InitReport,
    /// Step 3, where a length was given.
    pub length: Option<LengthReport>,
}

/// Step 1: zero points to the encoding that the kernels read.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ConvertReport {
    /// Each backend, in the plan's order.
    pub backends: Vec<BackendConversion>,
    /// How long it took.
    pub seconds: f64,
}

impl ConvertReport {
    /// How many zero points were rewritten.
    pub fn zeros_converted(&self) -> usize {
        self.backends.iter().map(|entry| entry.zeros_converted).sum()
    }

    /// Whether anything was rewritten: the flag that Optimum's conversion returns.
    pub fn converted(&self) -> bool {
        self.zeros_converted() > 0
    }
}

/// What one backend converted.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BackendConversion {
    /// The backend.
    pub backend: BackendId,
    /// Layers whose zero points were rewritten.
    pub layers_converted: usize,
    /// Zero points in them.
    pub zeros_converted: usize,
    /// Layers that were in the right encoding already.
    pub layers_unchanged: usize,
    /// Layers that need no conversion, and why.
    pub layers_not_needed: usize,
    /// Why those need none.
    pub why_not_needed: Option<Cow<'static, str>>,
}

impl BackendConversion {
    pub(super) fn new(backend: BackendId) -> Self {
        Self {
            backend,
            layers_converted: 0,
            zeros_converted: 0,
            layers_unchanged: 0,
            layers_not_needed: 0,
            why_not_needed: None,
        }
    }

    pub(super) fn done(&mut self, before: ZeroEncoding, layer: &LayerInfo) {
        if before == layer.zero_encoding {
            self.layers_unchanged += 1;
        } else {
            self.layers_converted += 1;
            self.zeros_converted += layer.groups * layer.out_features;
        }
    }

    pub(super) fn not_needed(&mut self, why: Cow<'static, str>) {
        self.layers_not_needed += 1;
        self.why_not_needed = Some(why);
    }
}

/// Step 2: buffers and weight arrangement.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InitReport {
    /// Each backend, in the plan's order.
    pub backends: Vec<BackendBuffers>,
    /// How long it took.
    pub seconds: f64,
}

/// What one backend holds after step 2.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BackendBuffers {
    /// The backend.
    pub backend: BackendId,
    /// Layers it made ready.
    pub layers: usize,
    /// Bytes that those layers hold on the device, beside the packed layers.
    pub resident_bytes: usize,
    /// What it allocated for the whole model.
    pub buffers: Vec<Buffer>,
    /// Scratch that one call in flight needs.
    pub scratch_bytes: usize,
}

/// Step 3: room for longer inputs.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LengthReport {
    /// Rows of x (batch × sequence) in one call.
    pub rows: usize,
    /// Each backend, in the plan's order.
    pub backends: Vec<BackendLength>,
    /// How long it took.
    pub seconds: f64,
}

/// What step 3 did in one backend.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BackendLength {
    /// The backend.
    pub backend: BackendId,
    /// Whether anything depends on the length.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What it holds for the whole model now.
    pub buffers: Vec<Buffer>,
}

/// Where a finalized model's bytes lie.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MemoryReport {
    /// Packed bytes of all layers, wherever they lie.
    pub packed_bytes: usize,
    /// Of the packed layers, what lies in host memory instead of a mapped file: converted zero points, g_idx,
    /// copies of misaligned tensors.
    pub host_bytes: usize,
    /// What the backends' layers hold on the device.
    pub layer_bytes: usize,
    /// What the backends allocated for the whole model.
    pub buffers: Vec<Buffer>,
    /// Scratch of each context.
    pub scratch_bytes_per_context: usize,
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packed, {} of it in host memory; {} arranged by backends; {} of scratch for each context",
            Mebibytes(self.packed_bytes),
            Mebibytes(self.host_bytes),
            Mebibytes(self.layer_bytes),
            Mebibytes(self.scratch_bytes_per_context),
        )?;
        for buffer in &self.buffers {
            write!(f, "; {} {}", buffer.name, Mebibytes(buffer.bytes))?;
        }
        Ok(())
    }
}

struct Mebibytes(usize);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Exact to the last digit shown for anything that fits a machine.
        write!(f, "{:.2} MiB", self.0 as f64 / f64::from(1 << 20))
    }
}
