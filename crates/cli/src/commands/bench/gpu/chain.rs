//! Layers one after the other as a decoder has them, all different, in one graph: what of a model's time is theirs.

use std::sync::Arc;

use gptq_core::backend::BackendId;
use gptq_core::device::Device;
use gptq_core::format::{Bits, GroupSize};
use gptq_core::post_init::FinalizedModel;
use gptq_core::tensor::DType;
use gptq_core::{LayerInfo, QuantLinear};
use gptq_cuda::timing::{LayerCalls, Replay};
use serde::Serialize;

use super::super::call::{self, Timing, too_many};
use super::super::job::Job;
use super::super::layer::{self, LayerSpec, Memory};
use super::super::report::{Launches, micros};
use super::{Bench, Runner, What};
use crate::failure::Result;
use crate::output::{Bytes, Column, Page, Report, Seconds};

/// All chains of a run.
#[derive(Serialize)]
pub(crate) struct Chains {
    machine: String,
    chains: Vec<Chain>,
    seconds: f64,
}

/// A chain of layers, and how fast backends call it.
#[derive(Serialize)]
struct Chain {
    /// How often the layers of a block follow one another.
    blocks: usize,
    /// The layers of a block.
    shapes: Vec<[usize; 2]>,
    bits: Bits,
    group_size: GroupSize,
    act_order: bool,
    /// Bytes of the packed layers of all blocks.
    bytes: usize,
    /// Of passes that only read the codes and scales, and the zero points where they differ: one for each layer.
    read_seconds: f64,
    cases: Vec<Case>,
}

/// A chain with one backend, type and number of rows.
#[derive(Serialize)]
struct Case {
    backend: Option<BackendId>,
    dtype: DType,
    rows: usize,
    launches: Launches,
    median_seconds: f64,
    best_seconds: f64,
    /// Rows of x by the median time.
    tokens_per_second: f64,
    /// The passes that only read, as a share of the median time.
    of_read: f64,
}

/// Times the layers of the job as chains, one for each width.
pub(crate) fn measure(job: &Job<'_>, blocks: usize, device: &Device, ordinal: usize) -> Result<Chains> {
    let started = std::time::Instant::now();
    let bench = Bench::open(job, device, ordinal)?;
    let mut widths: Vec<Bits> = job.specs.iter().map(|spec| spec.bits).collect();
    widths.dedup();
    let mut chains = Vec::new();
    for (index, bits) in widths.iter().enumerate() {
        job.bar.show_count("bench", index, widths.len());
        let specs: Vec<LayerSpec> = job.specs.iter().copied().filter(|spec| spec.bits == *bits).collect();
        chains.push(bench.chain(&specs, blocks)?);
    }
    Ok(Chains { machine: bench.machine(), chains, seconds: started.elapsed().as_secs_f64() })
}

impl Bench<'_> {
    fn chain(&self, specs: &[LayerSpec], blocks: usize) -> Result<Chain> {
        let mut of_block = Vec::with_capacity(specs.len());
        let mut read_of_block = 0.0;
        for spec in specs {
            let layer = spec.build()?;
            read_of_block += self.read_seconds(&layer)?;
            of_block.push(layer);
        }
        let mut layers = Vec::with_capacity(specs.len() * blocks);
        for block in 0..blocks {
            for (number, layer) in of_block.iter().enumerate() {
                layers.push(layer::copy(layer, format!("bench.{block}.{number}"), Memory::Shared)?);
            }
        }
        let model = |contestant| call::model(&layers, contestant, self.job);
        let models: Vec<Arc<FinalizedModel>> =
            self.job.contestants.iter().map(model).collect::<Result<_>>()?;
        let read_seconds = read_of_block * blocks as f64;
        let mut cases = Vec::new();
        for rows in &self.job.rows {
            cases.extend(self.turns(&models, rows.get(), read_seconds)?);
        }
        let infos = || of_block.iter().map(QuantLinear::info);
        let first: &LayerInfo = infos().next().ok_or_else(|| too_many(0, [0, 0]))?;
        Ok(Chain {
            blocks,
            shapes: infos().map(|info| [info.in_features, info.out_features]).collect(),
            bits: first.bits,
            group_size: first.group_size,
            act_order: first.act_order,
            bytes: infos().map(|info| info.packed_bytes).sum::<usize>() * blocks,
            read_seconds,
            cases,
        })
    }

    /// How long a pass takes that only reads the layer.
    fn read_seconds(&self, layer: &QuantLinear) -> Result<f64> {
        let reads = Arc::new(self.reads(layer)?);
        let Some(first) = self.types.first() else { return Err(too_many(0, [0, 0]).into()) };
        let calls = self.calls(reads.bytes(), 0.0, first.dtype);
        let mut read = Replay::of_reads(&reads, &first.operands, calls)?;
        let seconds = (0..self.rounds()).map(|_| read.seconds()).collect::<Result<_, _>>()?;
        Ok(Timing::new(1, first.dtype, calls, seconds).median_seconds)
    }

    /// All models in turn, each with one call of all its layers, round after round.
    fn turns(&self, models: &[Arc<FinalizedModel>], rows: usize, read_seconds: f64) -> Result<Vec<Case>> {
        let mut runners = Vec::new();
        let mut run = |what, replay| runners.push(Runner::new(what, rows, replay));
        for (number, (model, contestant)) in models.iter().zip(&self.job.contestants).enumerate() {
            let dtype = contestant.dtype;
            let Some(of) = self.types.iter().find(|of| of.dtype == dtype) else { continue };
            let record = |overlap| {
                let how = LayerCalls { dtype, rows, calls: model.layers().len(), overlap };
                Replay::of_layers(Arc::clone(model), &of.operands, how)
            };
            let replay = record(true)?;
            if replay.overlaps() {
                run(What::Layers(number, Launches::Plain), record(false)?);
                run(What::Layers(number, Launches::Overlapping), replay);
            } else {
                run(What::Layers(number, Launches::Plain), replay);
            }
        }
        self.rounds_of(&mut runners, || Ok(()))?;
        let case = |runner: Runner| {
            let calls = runner.replay.calls();
            let (What::Layers(number, launches), timing) = runner.finish(self) else { return None };
            // A replay tells the time of a call, which is one layer.
            let [median_seconds, best_seconds] =
                [timing.median_seconds, timing.best_seconds].map(|seconds| seconds * calls as f64);
            Some(Case {
                backend: models.get(number).and_then(|model| call::backend(model)),
                dtype: timing.dtype,
                rows,
                launches,
                median_seconds,
                best_seconds,
                tokens_per_second: rows as f64 / median_seconds,
                of_read: read_seconds / median_seconds,
            })
        };
        Ok(runners.into_iter().filter_map(case).collect())
    }
}

const COLUMNS: [Column; 8] = [
    Column::Left("backend"),
    Column::Left("x"),
    Column::Right("M"),
    Column::Left("launches"),
    Column::Right("us"),
    Column::Right("best us"),
    Column::Right("tokens/s"),
    Column::Right("R"),
];

impl Report for Chains {
    fn write_text(&self, page: &mut Page) {
        page.heading("machine");
        page.line(&self.machine);
        for chain in &self.chains {
            let shapes: Vec<String> = chain.shapes.iter().map(|[k, n]| format!("{k}x{n}")).collect();
            let act_order = if chain.act_order { ", act-order" } else { "" };
            page.heading(format_args!("{} blocks of {} layers", chain.blocks, shapes.len()));
            page.fields(&[
                (
                    "layers",
                    format!(
                        "{} of {} bits, group size {}{act_order}",
                        shapes.join(", "),
                        chain.bits,
                        chain.group_size
                    ),
                ),
                ("packed", Bytes(chain.bytes).to_string()),
                (
                    "passes that only read",
                    format!("{} us, {:.0} a second", micros(chain.read_seconds), chain.read_seconds.recip()),
                ),
            ]);
            let rows: Vec<Vec<String>> = chain.cases.iter().map(Case::row).collect();
            page.table(&COLUMNS, &rows);
        }
        page.line(format_args!("medians of all rounds, in {}", Seconds(self.seconds)));
    }
}

impl Case {
    fn row(&self) -> Vec<String> {
        vec![
            self.backend.map_or_else(String::new, |backend| backend.to_string()),
            self.dtype.to_string(),
            self.rows.to_string(),
            self.launches.name().to_owned(),
            micros(self.median_seconds),
            micros(self.best_seconds),
            format!("{:.0}", self.tokens_per_second),
            format!("{:.3}", self.of_read),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_tells_tokens_a_second_and_how_near_they_are_to_reading() {
        let case = Case {
            backend: None,
            dtype: DType::F16,
            rows: 16,
            launches: Launches::Plain,
            median_seconds: 2e-3,
            best_seconds: 1.5e-3,
            tokens_per_second: 8000.0,
            of_read: 0.5,
        };
        let chain = Chain {
            blocks: 32,
            shapes: vec![[64, 128], [128, 64]],
            bits: Bits::FOUR,
            group_size: GroupSize::PerColumn,
            act_order: false,
            bytes: 3 << 20,
            read_seconds: 1e-3,
            cases: vec![case],
        };
        let chains = Chains { machine: "a GPU".into(), chains: vec![chain], seconds: 1.0 };
        let mut page = Page::new(false);
        chains.write_text(&mut page);
        let text = page.into_text();
        assert!(
            text.contains("32 blocks of 2 layers") && text.contains("64x128, 128x64 of 4 bits"),
            "{text}"
        );
        assert!(text.contains("1000.0 us, 1000 a second"), "{text}");
        let case = text.lines().find(|line| line.contains("plain")).unwrap_or_default();
        assert!(case.ends_with("2000.0   1500.0      8000  0.500"), "{text}");
    }
}
