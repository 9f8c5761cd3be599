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
        self.backends.iter().flat_map(|entry| &entry.converted).map(|conversion| conversion.zeros).sum()
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
    /// Layers whose zero points were rewritten, by the encodings they came from and went to.
    pub converted: Vec<Conversion>,
    /// Layers that were in the right encoding already.
    pub layers_unchanged: usize,
    /// Layers that need no conversion, by reason.
    pub not_needed: Vec<NotNeeded>,
}

/// Layers whose zero points were brought from one encoding to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Conversion {
    /// How they were stored.
    pub from: ZeroEncoding,
    /// How they are stored now.
    pub to: ZeroEncoding,
    /// How many layers.
    pub layers: usize,
    /// Zero points in them.
    pub zeros: usize,
}

/// Layers for which a step has nothing to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct NotNeeded {
    /// Why.
    pub why: Cow<'static, str>,
    /// How many layers.
    pub layers: usize,
}

impl BackendConversion {
    pub(super) fn new(backend: BackendId) -> Self {
        Self { backend, converted: Vec::new(), layers_unchanged: 0, not_needed: Vec::new() }
    }

    pub(super) fn done(&mut self, from: ZeroEncoding, layer: &LayerInfo) {
        let (to, zeros) = (layer.zero_encoding, layer.groups * layer.out_features);
        if from == to {
            self.layers_unchanged += 1;
            return;
        }
        match self.converted.iter_mut().find(|entry| (entry.from, entry.to) == (from, to)) {
            Some(entry) => {
                entry.layers += 1;
                entry.zeros += zeros;
            }
            None => self.converted.push(Conversion { from, to, layers: 1, zeros }),
        }
    }

    pub(super) fn not_needed(&mut self, why: Cow<'static, str>) {
        match self.not_needed.iter_mut().find(|entry| entry.why == why) {
            Some(entry) => entry.layers += 1,
            None => self.not_needed.push(NotNeeded { why, layers: 1 }),
        }
    }

    /// How many layers were rewritten.
    pub fn layers_converted(&self) -> usize {
        self.converted.iter().map(|conversion| conversion.layers).sum()
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
