//! `gptq finalize`: open, plan, and the three steps.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use gptq_core::Error;
use gptq_core::backend::{Buffer, Outcome, PlanReport};
use gptq_core::checkpoint::SaveReport;
use gptq_core::post_init::{
    BackendBuffers, BackendConversion, BackendLength, Conversion, MemoryReport, NotNeeded, PostInitOptions,
    PostInitReport, post_init,
};
use gptq_core::tensor::DType;
use serde::Serialize;

use crate::args::{BackendOptionArgs, OpenArgs, PlanArgs, SaveFormatArg, ShardArgs};
use crate::failure::Result;
use crate::output::findings::{GroupedFinding, grouped};
use crate::output::{Bar, Bytes, Console, Page, Report, Seconds, count, saved};

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
takes to get ready. With --save it also writes the model, as `gptq convert` does: layers as they are packed, whatever \
the backends made of them.";

const HELP: &str = "\
Examples:
  gptq finalize path/to/model
  gptq finalize path/to/model --backend torch --json
  gptq finalize path/to/model --device cuda:0 --dtype f16 --max-input-length 4096
  gptq finalize path/to/model --save path/to/out --format gptq_v2";

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
    /// Write the finalized model to this directory, which is absent or empty, and prove that its weights are the same.
    #[arg(long, value_name = "OUT", help_heading = "Saving")]
    save: Option<PathBuf>,
    /// The file format to save in. Without it gptq where every layer is symmetric, else gptq_v2; gptq_p stays gptq_p.
    #[arg(long, value_name = "FORMAT", requires = "save", help_heading = "Saving")]
    format: Option<SaveFormatArg>,
    #[command(flatten)]
    shards: ShardArgs,
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
    /// Where --save was given: what was written, and where.
    saved: Option<SaveReport>,
    saved_to: Option<String>,
    findings: Vec<GroupedFinding<'a>>,
}

impl Finalize {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let options = self.options.options()?;
        if let Some(out) = &self.save {
            check_vacant(out)?;
        }
        let started = Instant::now();
        let checkpoint = self.open.open()?;
        let open_seconds = started.elapsed().as_secs_f64();

        let planning = Instant::now();
        let plan = self.plan.request(self.dtype).plan(&checkpoint)?;
        let plan_seconds = planning.elapsed().as_secs_f64();

        let bar = Bar::new(console);
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
        let hear_save = |progress| bar.hear_save(progress);
        let save_options = self.shards.options(self.format, &hear_save);
        let ready_seconds = started.elapsed().as_secs_f64();
        let saved = self.save.as_ref().map(|out| model.save(out, &save_options)).transpose()?;
        drop(bar);

        let memory = model.memory_report();
        console.print(&Finalized {
            directory: self.open.dir.display().to_string(),
            layers: model.layers().len(),
            packed_bytes: memory.packed_bytes,
            plain_tensors: model.checkpoint().tensors().len(),
            open_seconds,
            plan_seconds,
            total_seconds: ready_seconds,
            plan: model.plan_report(),
            post_init: model.report(),
            memory,
            saved,
            saved_to: self.save.as_ref().map(|out| out.display().to_string()),
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
        if let (Some(report), Some(out)) = (&self.saved, &self.saved_to) {
            page.heading(format_args!("saved as {} in {}", report.format, Seconds(report.seconds)));
            page.line(out);
            saved::write(report, page);
        }
    }
}

/// That nothing stands where the model is to be saved. Saving looks again; asked before the work too, so that the work
/// is not lost.
fn check_vacant(out: &Path) -> Result<()> {
    let problem = match fs::symlink_metadata(out) {
        Err(_) => return Ok(()),
        Ok(found) if !found.is_dir() => "it is not a directory",
        Ok(_) => match fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
            Ok(true) => "the directory is not empty",
            _ => return Ok(()),
        },
    };
    Err(Error::Output { path: out.into(), problem: problem.into() }.into())
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
