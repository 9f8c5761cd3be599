//! The report of `gptq verify`.

use std::sync::Arc;

use gptq_core::backend::{BackendId, PlanReport};
use gptq_core::device::Device;
use gptq_core::post_init::Layer;
use gptq_core::tensor::DType;
use serde::Serialize;

use super::judge::{Element, Floor, Judgement, Verdict};
use crate::output::{Column, Page, Report, Seconds, count};

/// How every layer answered.
#[derive(Serialize)]
pub(super) struct Verification<'m> {
    pub(super) directory: String,
    pub(super) device: Device,
    /// The type of x and y.
    pub(super) dtype: DType,
    /// M: rows of x.
    pub(super) rows: usize,
    pub(super) seed: u64,
    /// Layers that do not answer as the oracle does.
    pub(super) failed: usize,
    pub(super) layers: Vec<VerifiedLayer<'m>>,
    pub(super) plan: &'m PlanReport,
    /// Until the model was finalized.
    pub(super) ready_seconds: f64,
    pub(super) total_seconds: f64,
}

/// How one layer answered.
#[derive(Serialize)]
pub(super) struct VerifiedLayer<'m> {
    name: &'m Arc<str>,
    backend: BackendId,
    in_features: usize,
    out_features: usize,
    forward_seconds: f64,
    #[serde(flatten)]
    judgement: Judgement,
}

impl<'m> VerifiedLayer<'m> {
    pub(super) fn new(layer: &'m Layer, forward_seconds: f64, judgement: Judgement) -> Self {
        let info = layer.info();
        Self {
            name: &info.name,
            backend: layer.backend(),
            in_features: info.in_features,
            out_features: info.out_features,
            forward_seconds,
            judgement,
        }
    }

    /// Whether it answers as the oracle does.
    pub(super) fn is_right(&self) -> bool {
        self.judgement.verdict == Verdict::Ok
    }

    fn cells(&self) -> Vec<String> {
        let Judgement { columns, error, floor, bound, .. } = self.judgement;
        vec![
            self.name.to_string(),
            self.backend.to_string(),
            self.in_features.to_string(),
            self.out_features.to_string(),
            columns.to_string(),
            format!("{error:.2e}"),
            format!("{floor:.2e}"),
            format!("{bound:.2e}"),
            self.judgement.text(),
        ]
    }
}

impl Judgement {
    fn text(&self) -> String {
        let mut text = match (self.verdict, self.floor_counts) {
            (Verdict::Ok, Floor::XAndY) => "ok".to_owned(),
            (Verdict::Ok, Floor::Weights) => "ok, weights rounded first".to_owned(),
            (Verdict::OverBound, _) => "OVER THE BOUND".to_owned(),
            (Verdict::NotFinite, _) => "NOT FINITE".to_owned(),
        };
        if self.columns_not_finite > 0 {
            let columns = count(self.columns_not_finite, "column");
            text.push_str(&format!(" ({columns} not finite in the file's own scales)"));
        }
        text
    }
}

impl Report for Verification<'_> {
    fn write_text(&self, page: &mut Page) {
        page.heading(&self.directory);
        for line in self.plan.to_string().lines() {
            page.line(line);
        }
        page.heading(format_args!(
            "{} on {}, x {} [{}, K], seed {}",
            count(self.layers.len(), "layer"),
            self.device,
            self.dtype,
            self.rows,
            self.seed
        ));
        let columns = [
            Column::Left("layer"),
            Column::Left("by"),
            Column::Right("K"),
            Column::Right("N"),
            Column::Right("columns"),
            Column::Right("error"),
            Column::Right("floor"),
            Column::Right("bound"),
            Column::Left("verdict"),
        ];
        let rows: Vec<Vec<String>> = self.layers.iter().map(VerifiedLayer::cells).collect();
        page.table(&columns, &rows);

        let wrong: Vec<_> = self.layers.iter().filter(|layer| !layer.is_right()).collect();
        if !wrong.is_empty() {
            page.heading("wrong");
        }
        for layer in wrong {
            page.line(self.explain(layer));
        }

        page.heading(format_args!(
            "{} of {} right, in {}",
            self.layers.len() - self.failed,
            count(self.layers.len(), "layer"),
            Seconds(self.total_seconds)
        ));
        page.line(self.summary());
    }
}

impl Verification<'_> {
    /// What is wrong with a layer, at the element that is farthest off.
    fn explain(&self, layer: &VerifiedLayer<'_>) -> String {
        let Judgement { not_as_finite, worst, columns, error, bound, .. } = &layer.judgement;
        let Element { row, column, found, expected } = worst;
        let what = match not_as_finite {
            0 => format!("error {error:.2e}, at most {bound:.2e} is allowed; farthest off is"),
            number => {
                let hint = match self.dtype {
                    DType::F16 => " (f16 ends at 65504: try bf16 or f32)",
                    _ => "",
                };
                let outputs = count(*number, "output");
                format!("{outputs} in {columns} columns not as finite as the oracle's{hint}; the first is")
            }
        };
        format!("{}: {what} y[{row}, {column}], expected {expected:.6}, found {found:.6}", layer.name)
    }

    /// The layer that is nearest to its bound, and how much was compared.
    fn summary(&self) -> String {
        let compared: usize = self.layers.iter().map(|layer| layer.judgement.columns).sum();
        let all: usize = self.layers.iter().map(|layer| layer.out_features).sum();
        let nearest =
            self.layers.iter().max_by(|a, b| a.judgement.of_bound().total_cmp(&b.judgement.of_bound()));
        let worst = match nearest {
            Some(layer) if layer.judgement.of_bound().is_finite() => {
                let Judgement { error, floor, .. } = layer.judgement;
                format!(
                    "worst error {error:.2e} beside a floor of {floor:.2e}, {:.2} of the bound: {}; ",
                    layer.judgement.of_bound(),
                    layer.name
                )
            }
            Some(layer) => format!("worst is {}; ", layer.name),
            None => String::new(),
        };
        format!("{worst}{compared} of {} compared", count(all, "column"))
    }
}
