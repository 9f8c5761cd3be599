//! `gptq finalize`: open, plan, and the three steps.

use std::num::NonZeroUsize;
use std::time::Instant;

use clap::Args;
use gptq_core::backend::{Buffer, Outcome, PlanReport};
use gptq_core::post_init::{
    BackendBuffers, BackendConversion, BackendLength, Conversion, MemoryReport, NotNeeded, PostInitOptions,
    PostInitReport, post_init,
};
use gptq_core::tensor::DType;
use serde::Serialize;

use crate::args::{BackendOptionArgs, OpenArgs, PlanArgs};
use crate::failure::Result;
use crate::output::findings::{GroupedFinding, grouped};
use crate::output::{Bar, Bytes, Console, Page, Report, Seconds, count};

const LONG: &str = "\
Make a checkpoint ready to run, and show each step with its time and counts.

This is what HuggingFace Optimum calls post_init_model. The checkpoint is opened and checked, a backend is chosen for \
every layer, and then:

1. Convert zero points. The file format gptq stores them minus one, gptq_v2 direct. Each backend brings those of its \
layers to the encoding that its kernels read. Weights are not touched.

2. Initialise buffers. Each backend arranges its layers on the device and makes what they share: scratch, act-order \
permutations, workspaces.

3. Set the maximum input length. Buffers that depend on the number of rows in one call (batch * sequence) are sized: \
only where --max-input-length is given, and only where something depends on it, as in ExLlama v1 with act-order \
layers. Other backends say why nothing does.

The program ends afterwards. It has shown that the model can be run, on what, in how much memory, and how long that \
takes to get ready.";

const HELP: &str = "\
Examples:
  gptq finalize path/to/model
  gptq finalize path/to/model --backend torch --json
  gptq finalize path/to/model --device cuda:0 --dtype f16 --max-input-length 4096";

/// Make a checkpoint ready to run: plan, convert, initialise, size; each step with its time and counts.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_help = HELP)]
pub(crate) struct Finalize {
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// The type that x will have: f32, f16 or bf16. A backend that would have to narrow it is not chosen.
    #[arg(long, value_name = "DTYPE", help_heading = "Planning")]
    dtype: Option<DType>,
    /// Rows of x (batch * sequence) in one call; runs step 3.
    ///
    /// Needed where a backend says that its buffers are too small for an input; without it, a backend whose buffers
    /// depend on the length reserves what it thinks usual.
    #[arg(long, value_name = "ROWS", help_heading = "Planning")]
    max_input_length: Option<NonZeroUsize>,
    #[command(flatten)]
    options: BackendOptionArgs,
}

/// What was done.
#[derive(Serialize)]
struct Finalized<'a> {
    directory: String,
    layers: usize,
    packed_bytes: usize,
    plain_tensors: usize,
    open_seconds: f64,
    plan_seconds: f64,
    total_seconds: f64,
    plan: &'a PlanReport,
    post_init: &'a PostInitReport,
    memory: MemoryReport,
    findings: Vec<GroupedFinding<'a>>,
}

impl Finalize {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let options = self.options.options()?;
        let started = Instant::now();
        let checkpoint = self.open.open()?;
        let open_seconds = started.elapsed().as_secs_f64();

        let planning = Instant::now();
        let plan = self.plan.request(self.dtype).plan(&checkpoint)?;
        let plan_seconds = planning.elapsed().as_secs_f64();

        let mut bar = Bar::new(console);
        let mut hear = |progress| bar.hear(progress);
        let model = post_init(
            checkpoint,
            plan,
            PostInitOptions {
                max_input_length: self.max_input_length.map(NonZeroUsize::get),
                backend_options: options,
                progress: Some(&mut hear),
            },
        )?;
        drop(bar);

        let memory = model.memory_report();
        console.print(&Finalized {
            directory: self.open.dir.display().to_string(),
            layers: model.layers().len(),
            packed_bytes: memory.packed_bytes,
            plain_tensors: model.checkpoint().tensors().len(),
            open_seconds,
            plan_seconds,
            total_seconds: started.elapsed().as_secs_f64(),
            plan: model.plan_report(),
            post_init: model.report(),
            memory,
            findings: grouped(model.checkpoint().findings()),
        })
    }
}

impl Report for Finalized<'_> {
    fn write_text(&self, page: &mut Page) {
        let PostInitReport { convert, init, length, .. } = self.post_init;
        page.heading(format_args!("open    {}", Seconds(self.open_seconds)));
        page.line(&self.directory);
        page.line(format_args!(
            "{}, {} packed; {}",
            count(self.layers, "quantized layer"),
            Bytes(self.packed_bytes),
            count(self.plain_tensors, "plain tensor")
        ));

        page.heading(format_args!("plan    {}", Seconds(self.plan_seconds)));
        page.line(format_args!("{} on {}", self.plan.requested, self.plan.device));
        for line in self.plan.to_string().lines() {
            page.line(line);
        }

        page.heading(format_args!("step 1  convert zero points    {}", Seconds(convert.seconds)));
        let rows: Vec<_> = convert.backends.iter().map(|b| (b.backend.as_str(), conversion(b))).collect();
        page.fields(&rows);

        page.heading(format_args!("step 2  initialise buffers    {}", Seconds(init.seconds)));
        let rows: Vec<_> = init.backends.iter().map(|b| (b.backend.as_str(), buffers(b))).collect();
        page.fields(&rows);

        match length {
            None => {
                page.heading("step 3  set max input length    not asked for");
                page.line("--max-input-length ROWS runs it");
            }
            Some(length) => {
                page.heading(format_args!(
                    "step 3  set max input length to {}    {}",
                    count(length.rows, "row"),
                    Seconds(length.seconds)
                ));
                let rows: Vec<_> = length.backends.iter().map(|b| (b.backend.as_str(), sized(b))).collect();
                page.fields(&rows);
            }
        }

        page.heading("memory");
        page.fields(&memory(&self.memory));
        page.heading(format_args!("ready in {}", Seconds(self.total_seconds)));
    }
}

fn conversion(entry: &BackendConversion) -> String {
    let mut parts = Vec::new();
    for Conversion { from, to, layers, zeros, .. } in &entry.converted {
        let (layers, zeros) = (count(*layers, "layer"), count(*zeros, "zero point"));
        parts.push(format!("{layers}: {zeros} rewritten from {from} to {to}"));
    }
    if entry.layers_unchanged > 0 {
        let layers = count(entry.layers_unchanged, "layer");
        parts.push(format!("{layers}: already in the encoding that the kernels read"));
    }
    for NotNeeded { why, layers, .. } in &entry.not_needed {
        parts.push(format!("{}: not needed: {why}", count(*layers, "layer")));
    }
    parts.join("\n")
}

fn buffers(entry: &BackendBuffers) -> String {
    format!(
        "{} ready\n{} arranged on the device beside the packed layers\n{} of scratch for each call in flight\n{}",
        count(entry.layers, "layer"),
        Bytes(entry.resident_bytes),
        Bytes(entry.scratch_bytes),
        shared(&entry.buffers)
    )
}

fn sized(entry: &BackendLength) -> String {
    match &entry.outcome {
        Outcome::Done => format!("done; {}", shared(&entry.buffers)),
        Outcome::NotNeeded(why) => format!("not needed: {why}"),
    }
}

fn shared(buffers: &[Buffer]) -> String {
    if buffers.is_empty() {
        return "no buffers for the whole model".into();
    }
    let list: Vec<String> = buffers.iter().map(|b| format!("{} {}", b.name, Bytes(b.bytes))).collect();
    format!("buffers for the whole model: {}", list.join(", "))
}

fn memory(report: &MemoryReport) -> Vec<(&'static str, String)> {
    let buffers = report.buffers.iter().map(|buffer| buffer.bytes).sum();
    vec![
        ("packed layers", Bytes(report.packed_bytes).to_string()),
        ("in host memory", format!("{} of them outside mapped files", Bytes(report.host_bytes))),
        ("arranged layers", Bytes(report.layer_bytes).to_string()),
        ("shared buffers", Bytes(buffers).to_string()),
        ("scratch", format!("{} for each context", Bytes(report.scratch_bytes_per_context))),
    ]
}
