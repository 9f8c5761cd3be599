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

impl fmt::Display for PostInitReport {
    /// A line for each step, and one for each backend in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "post_init on {}", self.device)?;
        write!(f, "\n1 convert zero points, {:.3} s", self.convert.seconds)?;
        for entry in &self.convert.backends {
            write!(f, "\n  {:<12} {entry}", entry.backend)?;
        }
        write!(f, "\n2 initialise buffers, {:.3} s", self.init.seconds)?;
        for entry in &self.init.backends {
            write!(f, "\n  {:<12} {entry}", entry.backend)?;
        }
        match &self.length {
            None => write!(f, "\n3 set max input length: not asked for"),
            Some(length) => write!(f, "\n3 {length}"),
        }
    }
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

impl fmt::Display for BackendConversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for Conversion { from, to, layers, zeros } in &self.converted {
            parts.push(format!("{}: {zeros} zero points from {from} to {to}", Layers(*layers)));
        }
        if self.layers_unchanged > 0 {
            parts.push(format!("{}: right already", Layers(self.layers_unchanged)));
        }
        for NotNeeded { why, layers } in &self.not_needed {
            parts.push(format!("{}: not needed: {why}", Layers(*layers)));
        }
        f.write_str(&parts.join("; "))
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

impl fmt::Display for BackendBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} arranged, {} of scratch for each call",
            Layers(self.layers),
            Mebibytes(self.resident_bytes),
            Mebibytes(self.scratch_bytes)
        )?;
        write_buffers(f, &self.buffers)
    }
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

impl fmt::Display for LengthReport {
    /// A line for the step, and one for each backend.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set max input length to {}, {:.3} s", self.rows, self.seconds)?;
        for entry in &self.backends {
            write!(f, "\n  {:<12} ", entry.backend)?;
            match &entry.outcome {
                Outcome::Done => f.write_str("done")?,
                Outcome::NotNeeded(why) => write!(f, "not needed: {why}")?,
            }
            write_buffers(f, &entry.buffers)?;
        }
        Ok(())
    }
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
        write_buffers(f, &self.buffers)
    }
}

fn write_buffers(f: &mut fmt::Formatter<'_>, buffers: &[Buffer]) -> fmt::Result {
    for buffer in buffers {
        write!(f, "; {} {}", buffer.name, Mebibytes(buffer.bytes))?;
    }
    Ok(())
}

/// A number of layers.
struct Layers(usize);

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} layer{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

struct Mebibytes(usize);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Exact to the last digit shown for anything that fits a machine.
        write!(f, "{:.2} MiB", self.0 as f64 / f64::from(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ZeroDialect;

    #[test]
    fn the_report_reads_as_the_three_steps_with_a_line_for_each_backend() {
        const ID: BackendId = BackendId::new("mine");
        let mut conversion = BackendConversion::new(ID);
        let (from, to) = (ZeroEncoding::V1(ZeroDialect::FieldWrap), ZeroEncoding::V2);
        conversion.converted.push(Conversion { from, to, layers: 7, zeros: 1024 });
        conversion.layers_unchanged = 1;
        conversion.not_needed("the zero point is built in".into());
        let buffers = vec![Buffer::new("temp_dq", 3 << 20)];
        let mut report = PostInitReport {
            device: Device::Cpu,
            convert: ConvertReport { backends: vec![conversion], seconds: 0.25 },
            init: InitReport {
                backends: vec![BackendBuffers {
                    backend: ID,
                    layers: 9,
                    resident_bytes: 1 << 20,
                    buffers: buffers.clone(),
                    scratch_bytes: 1 << 19,
                }],
                seconds: 1.5,
            },
            length: None,
        };
        let before = "\
post_init on cpu
1 convert zero points, 0.250 s
  mine         7 layers: 1024 zero points from v1 (minus one, per field) to v2 (direct); 1 layer: right already; 1 \
layer: not needed: the zero point is built in
2 initialise buffers, 1.500 s
  mine         9 layers, 1.00 MiB arranged, 0.50 MiB of scratch for each call; temp_dq 3.00 MiB
";
        assert_eq!(report.to_string(), format!("{before}3 set max input length: not asked for"));

        let outcome = Outcome::NotNeeded("no buffer depends on it".into());
        let backends = vec![
            BackendLength { backend: ID, outcome, buffers: Vec::new() },
            BackendLength { backend: ID, outcome: Outcome::Done, buffers },
        ];
        report.length = Some(LengthReport { rows: 64, backends, seconds: 0.0 });
        let after = "\
3 set max input length to 64, 0.000 s
  mine         not needed: no buffer depends on it
  mine         done; temp_dq 3.00 MiB";
        assert_eq!(report.to_string(), format!("{before}{after}"));
    }
}
