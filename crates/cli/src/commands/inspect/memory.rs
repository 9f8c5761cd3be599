//! How much memory each backend would take, as far as that follows from the files.

use std::collections::HashSet;

use gptq_core::QuantLinear;
use gptq_core::backend::{BackendId, PlanReport, Registry, ZeroOperand};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::device::Device;
use gptq_core::format::ZeroEncoding;
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
    /// Of the packed layers, what lies in host memory instead of a mapped file: g_idx, copies of misaligned tensors,
    /// converted zero points.
    host_bytes: usize,
    /// Of these, zero points that step 1 would convert.
    converted_zeros_bytes: usize,
}

/// For every backend that accepts a layer.
pub(super) fn estimates(
    checkpoint: &Checkpoint,
    plan: &PlanReport,
    registry: &Registry,
) -> Vec<MemoryEstimate> {
    plan.asked
        .iter()
        .filter(|asked| asked.accepts > 0)
        .filter_map(|asked| {
            let found = registry.iter().find(|registration| registration.id == asked.backend)?;
            let operand = found.probe(&plan.device).ok()?.zeros;
            let refused: HashSet<&str> =
                asked.refused.iter().flat_map(|refused| refused.layers.iter().map(|name| &**name)).collect();
            let accepted = checkpoint.layers().iter().filter(|layer| !refused.contains(layer.name()));
            Some(estimate(asked.backend, operand, accepted))
        })
        .collect()
}

fn estimate<'a>(
    backend: BackendId,
    operand: ZeroOperand,
    accepted: impl Iterator<Item = &'a QuantLinear>,
) -> MemoryEstimate {
    let mut sum =
        MemoryEstimate { backend, layers: 0, packed_bytes: 0, host_bytes: 0, converted_zeros_bytes: 0 };
    let mut symmetric = HashSet::new();
    for layer in accepted {
        let info = layer.info();
        sum.layers += 1;
        sum.packed_bytes += info.packed_bytes;
        sum.host_bytes += layer.resident_bytes();
        if !converts(operand, info.zero_encoding) {
            continue;
        }
        sum.host_bytes -= layer.zeros().resident_bytes();
        // Symmetric layers of one shape have the same zero points, which are kept once.
        let shape = (info.bits, info.packing, info.groups, info.out_features);
        if !info.symmetric || symmetric.insert(shape) {
            sum.converted_zeros_bytes += size_of_val(layer.zeros().words());
        }
    }
    sum.host_bytes += sum.converted_zeros_bytes;
    sum
}

/// Whether step 1 rewrites zero points that are stored like this.
fn converts(operand: ZeroOperand, stored: ZeroEncoding) -> bool {
    match operand {
        ZeroOperand::V2 => stored != ZeroEncoding::V2,
        ZeroOperand::V1 => !matches!(stored, ZeroEncoding::V1(_)),
        _ => false,
    }
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
            "{}: {} packed{place}\n{} in host memory outside mapped files, {} of it converted zero points",
            count(self.layers, "layer"),
            Bytes(self.packed_bytes),
            Bytes(self.host_bytes),
            Bytes(self.converted_zeros_bytes)
        )
    }
}
