//! How much memory each backend would take, as far as that follows from the files.

use std::collections::HashSet;

use gptq_core::QuantLinear;
use gptq_core::backend::{BackendId, PlanReport};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::device::Device;
use serde::Serialize;

use crate::output::{Bytes, Page, count};

/// What a backend would hold of the layers that it accepts. What it arranges and shares beyond that is its own, and
/// known when it has done it.
#[derive(Serialize)]
pub(super) struct MemoryEstimate {
    backend: BackendId,
    /// Layers that it accepts.
    layers: usize,
    /// Packed bytes of those.
    packed_bytes: usize,
    /// Of the packed layers, what lies in host memory instead of a mapped file: g_idx, copies of misaligned tensors.
    host_bytes: usize,
}

/// For every backend that accepts a layer.
pub(super) fn estimates(checkpoint: &Checkpoint, plan: &PlanReport) -> Vec<MemoryEstimate> {
    let accepting = plan.asked.iter().filter(|asked| asked.accepts > 0);
    accepting
        .map(|asked| {
            let refused: HashSet<&str> =
                asked.refused.iter().flat_map(|refused| refused.layers.iter().map(|name| &**name)).collect();
            let accepted = checkpoint.layers().iter().filter(|layer| !refused.contains(layer.name()));
            estimate(asked.backend, accepted)
        })
        .collect()
}

fn estimate<'a>(backend: BackendId, accepted: impl Iterator<Item = &'a QuantLinear>) -> MemoryEstimate {
    let mut sum = MemoryEstimate { backend, layers: 0, packed_bytes: 0, host_bytes: 0 };
    for layer in accepted {
        sum.layers += 1;
        sum.packed_bytes += layer.info().packed_bytes;
        sum.host_bytes += layer.resident_bytes();
    }
    sum
}

/// Writes the estimates.
pub(super) fn write(estimates: &[MemoryEstimate], device: &Device, page: &mut Page) {
    if estimates.is_empty() {
        page.line("no backend accepts a layer there");
        return;
    }
    let rows: Vec<(&str, String)> =
        estimates.iter().map(|estimate| (estimate.backend.as_str(), estimate.text(device))).collect();
    page.fields(&rows);
    page.line(
        "what a backend arranges, shares and needs for each call comes on top: `gptq finalize` shows it",
    );
}

impl MemoryEstimate {
    fn text(&self, device: &Device) -> String {
        let place = match device {
            Device::Cpu => "",
            _ => ", and at least as much on the device",
        };
        format!(
            "{}: {} packed{place}\n{} in host memory outside mapped files",
            count(self.layers, "layer"),
            Bytes(self.packed_bytes),
            Bytes(self.host_bytes)
        )
    }
}
