//! The report of `gptq inspect`.

use std::collections::BTreeMap;

use gptq_core::QuantLinear;
use gptq_core::backend::PlanReport;
use gptq_core::checkpoint::{Checkpoint, QuantizeConfig, Reading, Severity};
use gptq_core::format::GroupIndexKind;
use serde::Serialize;

use super::config;
use super::layers::{self, LayerGroup, LayerRow};
use super::memory::{self, MemoryEstimate};
use super::zeros::ZeroPoints;
use crate::args::OpenArgs;
use crate::output::findings::{GroupedFinding, grouped};
use crate::output::{Bytes, Column, Page, Report, count};

/// What a checkpoint holds, and who can run it.
#[derive(Serialize)]
pub(super) struct Inspection<'a> {
    directory: String,
    reading: Reading,
    files: Vec<WeightFile>,
    config: &'a QuantizeConfig,
    zero_points: Option<ZeroPoints<'a>>,
    g_idx: Vec<GroupIndexCount>,
    layer_count: usize,
    /// How many layers have each width.
    layers_by_bits: BTreeMap<usize, usize>,
    packed_bytes: usize,
    #[serde(flatten)]
    layers: Layers<'a>,
    plan: &'a PlanReport,
    memory: Vec<MemoryEstimate>,
    plain_tensors: PlainTensors,
    findings: Vec<GroupedFinding<'a>>,
}

#[derive(Serialize)]
struct WeightFile {
    path: String,
    /// `None` where it can no longer be asked.
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct GroupIndexCount {
    kind: GroupIndexKind,
    layers: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Layers<'a> {
    Each { layers: Vec<LayerRow<'a>> },
    Summary { layer_groups: Vec<LayerGroup<'a>> },
}

/// Tensors that belong to no quantized layer: embeddings, norms, modules left in floating point.
#[derive(Serialize)]
struct PlainTensors {
    count: usize,
    bytes: usize,
    by_dtype: BTreeMap<String, Tally>,
}

#[derive(Default, Serialize)]
struct Tally {
    count: usize,
    bytes: usize,
}

impl<'a> Inspection<'a> {
    pub(super) fn of(
        open: &OpenArgs,
        checkpoint: &'a Checkpoint,
        plan: &'a PlanReport,
        summary: bool,
    ) -> Self {
        let infos = || checkpoint.layers().iter().map(QuantLinear::info);
        let mut layers_by_bits = BTreeMap::new();
        for info in infos() {
            *layers_by_bits.entry(info.bits.get()).or_default() += 1;
        }
        let rows = layers::rows(checkpoint, plan);
        Self {
            directory: open.dir.display().to_string(),
            reading: open.reading(),
            files: checkpoint
                .files()
                .iter()
                .map(|file| WeightFile {
                    path: file.display().to_string(),
                    bytes: std::fs::metadata(file).ok().map(|metadata| metadata.len()),
                })
                .collect(),
            config: checkpoint.config(),
            zero_points: checkpoint.zero_evidence().map(ZeroPoints::new),
            g_idx: g_idx_kinds(checkpoint),
            layer_count: checkpoint.layers().len(),
            layers_by_bits,
            packed_bytes: infos().map(|info| info.packed_bytes).sum(),
            layers: if summary {
                Layers::Summary { layer_groups: layers::groups(rows) }
            } else {
                Layers::Each { layers: rows }
            },
            plan,
            memory: memory::estimates(checkpoint, plan),
            plain_tensors: PlainTensors::of(checkpoint),
            findings: grouped(checkpoint.findings()),
        }
    }

    /// How many findings are warnings.
    pub(super) fn warnings(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Warning).count()
    }

    /// How many layers nobody can run.
    pub(super) fn layers_without_backend(&self) -> usize {
        self.plan.assignments.iter().filter(|assignment| assignment.backend.is_none()).count()
    }
}

fn g_idx_kinds(checkpoint: &Checkpoint) -> Vec<GroupIndexCount> {
    let all = [
        GroupIndexKind::Absent,
        GroupIndexKind::Trivial,
        GroupIndexKind::AllZero,
        GroupIndexKind::SingleGroup,
        GroupIndexKind::Permutation,
    ];
    let counts = all.into_iter().map(|kind| {
        let layers = checkpoint.layers().iter().filter(|layer| layer.info().g_idx == kind).count();
        GroupIndexCount { kind, layers }
    });
    counts.filter(|count| count.layers > 0).collect()
}

impl PlainTensors {
    fn of(checkpoint: &Checkpoint) -> Self {
        let mut by_dtype: BTreeMap<String, Tally> = BTreeMap::new();
        for tensor in checkpoint.tensors() {
            let tally = by_dtype.entry(format!("{:?}", tensor.dtype()).to_ascii_lowercase()).or_default();
            tally.count += 1;
            tally.bytes += tensor.bytes().len();
        }
        Self {
            count: checkpoint.tensors().len(),
            bytes: by_dtype.values().map(|tally| tally.bytes).sum(),
            by_dtype,
        }
    }
}

impl Report for Inspection<'_> {
    fn write_text(&self, page: &mut Page) {
        page.heading(&self.directory);
        self.write_files(page);
        page.heading("configuration");
        config::write(self.config, page);
        if let Some(zero_points) = &self.zero_points {
            page.heading("zero points");
            zero_points.write(page);
        }
        page.heading("g_idx");
        self.write_g_idx(page);
        self.write_layers(page);
        self.write_backends(page);
        page.heading(format_args!("memory on {}, estimated", self.plan.device));
        memory::write(&self.memory, &self.plan.device, page);
        page.heading("plain tensors");
        self.plain_tensors.write(page);
        page.heading("findings");
        if self.findings.is_empty() {
            page.line("none");
        }
        for finding in &self.findings {
            page.line(finding);
        }
    }
}

impl Inspection<'_> {
    fn write_files(&self, page: &mut Page) {
        let how = match self.reading {
            Reading::Copy => "read into memory",
            _ => "mapped",
        };
        for file in &self.files {
            let name = std::path::Path::new(&file.path).file_name().unwrap_or_default().to_string_lossy();
            let size = file.bytes.and_then(|bytes| usize::try_from(bytes).ok());
            page.line(match size {
                Some(bytes) => format!("{name}  {}, {how}", Bytes(bytes)),
                None => format!("{name}  {how}"),
            });
        }
    }

    fn write_g_idx(&self, page: &mut Page) {
        let meaning = |kind| match kind {
            GroupIndexKind::Absent => "no tensor: rows in order",
            GroupIndexKind::Trivial => "row k is in group k / group_size: rows in order",
            GroupIndexKind::AllZero => {
                "zeros where there are several groups, which means none: rows in order"
            }
            GroupIndexKind::SingleGroup => "one group holds all rows: nothing to order",
            GroupIndexKind::Permutation => "act-order",
        };
        let kinds: Vec<(String, String)> = self
            .g_idx
            .iter()
            .map(|entry| {
                let layers = count(entry.layers, "layer");
                (entry.kind.to_string(), format!("{layers} ({})", meaning(entry.kind)))
            })
            .collect();
        let fields: Vec<(&str, String)> =
            kinds.iter().map(|(kind, text)| (kind.as_str(), text.clone())).collect();
        page.fields(&fields);
    }

    fn write_layers(&self, page: &mut Page) {
        let widths: Vec<String> =
            self.layers_by_bits.iter().map(|(bits, layers)| format!("{layers} of {bits} bits")).collect();
        let layers = count(self.layer_count, "layer");
        page.heading(format_args!("{layers}, {}: {}", Bytes(self.packed_bytes), widths.join(", ")));
        match &self.layers {
            Layers::Each { layers } => {
                let columns: Vec<Column> =
                    [Column::Left("layer")].into_iter().chain(layers::COLUMNS).collect();
                let rows: Vec<Vec<String>> = layers
                    .iter()
                    .map(|layer| [layer.info.name.to_string()].into_iter().chain(layer.cells()).collect())
                    .collect();
                page.table(&columns, &rows);
            }
            Layers::Summary { layer_groups } => {
                let columns: Vec<Column> = [Column::Left("layers"), Column::Right("count")]
                    .into_iter()
                    .chain(layers::COLUMNS)
                    .collect();
                let rows: Vec<Vec<String>> = layer_groups.iter().map(LayerGroup::cells).collect();
                page.table(&columns, &rows);
                page.line("K to bytes are those of one layer");
            }
        }
    }

    fn write_backends(&self, page: &mut Page) {
        let x = self.plan.x_dtype.map(|dtype| format!(", x in {dtype}")).unwrap_or_default();
        page.heading(format_args!("backends on {}{x}", self.plan.device));
        for line in self.plan.to_string().lines() {
            page.line(line);
        }
        for warning in &self.plan.warnings {
            page.line(format_args!("warning: {warning}"));
        }
        let homeless = self.layers_without_backend();
        if homeless > 0 {
            let layers = count(self.layer_count, "layer");
            page.line(format_args!("no backend there for {homeless} of {layers}"));
        }
    }
}

impl PlainTensors {
    fn write(&self, page: &mut Page) {
        let types: Vec<String> = self
            .by_dtype
            .iter()
            .map(|(dtype, tally)| format!("{} {dtype} ({})", tally.count, Bytes(tally.bytes)))
            .collect();
        page.line(match types.is_empty() {
            true => "none".to_owned(),
            false => {
                format!("{}, {}: {}", count(self.count, "tensor"), Bytes(self.bytes), types.join(", "))
            }
        });
    }
}
