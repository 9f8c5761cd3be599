//! `gptq bench`: how fast layers run, beside what the machine can do.

mod call;
mod csv;
mod layer;
mod machine;
mod report;
mod roofline;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use gptq_core::format::{Bits, GroupSize};
use gptq_core::tensor::DType;

use crate::args::{BackendOptionArgs, PlanArgs};
use crate::failure::Result;
use crate::output::{Bar, Console};
use crate::tensor_file::NewFile;

use call::Bench;
use layer::{LayerSpec, Shape};
use report::{Benchmark, Measured};

const LONG: &str = "\
Time layers of random weights, and the machine beside them.

Every call takes the weights of another copy, in turn, so that they come from memory as they do when a model is \
decoded: 512 MiB of copies are more than a cache holds. --warm takes one copy again and again instead.

A call is judged by the time that the machine's own limits leave it: reading the packed layer (codes, scales and zero \
points) at the rate at which the same threads read memory, or the multiplications at the rate at which they multiply \
what lies in registers, whichever is longer. `of limit` is that time as a share of the time taken. Both rates are \
measured in every round, between the calls, and the best of all rounds counts.

Cases take turns in every round, so that what disturbs the machine disturbs all of them alike. Times are medians over \
all calls. Other work on the machine shows in the load that is printed, and in the distance of best and median.";

const HELP: &str = "\
Examples:
  gptq bench                                     three shapes of a 7B model, M = 1 to 512
  gptq bench --rows 1 --bits 2,3,4,8             decoding at every width
  gptq bench --shape 4096x11008 --dtype bf16 --warm
  gptq bench --csv bench.csv --plot roofline.svg --json > bench.json";

/// Time layers beside the machine's own limits.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_help = HELP)]
pub(crate) struct BenchCommand {
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    options: BackendOptionArgs,
    /// The layers: in_features x out_features.
    #[arg(
        long = "shape",
        value_name = "KxN",
        value_delimiter = ',',
        default_value = "4096x4096,4096x11008,11008x4096",
        help_heading = "Layers"
    )]
    shapes: Vec<Shape>,
    /// The width of a code, 2 to 8; 5, 6 and 7 are packed in planes.
    #[arg(
        long, value_name = "BITS", value_delimiter = ',', default_value = "4", value_parser = bits,
        help_heading = "Layers"
    )]
    bits: Vec<Bits>,
    /// Rows that share a scale; -1 for one scale for each column.
    #[arg(
        long, value_name = "ROWS", default_value = "128", value_parser = group_size, allow_negative_numbers = true,
        help_heading = "Layers"
    )]
    group_size: GroupSize,
    /// Rows in random order of their groups (desc_act).
    #[arg(long, help_heading = "Layers")]
    act_order: bool,
    /// Random zero points.
    #[arg(long, help_heading = "Layers")]
    asymmetric: bool,
    /// Rows of x (batch * sequence): 1 is decoding, many are a prompt.
    #[arg(
        long,
        value_name = "M",
        value_delimiter = ',',
        default_value = "1,8,32,128,512",
        help_heading = "Calls"
    )]
    rows: Vec<NonZeroUsize>,
    /// The type of x and y: f32, f16 or bf16.
    #[arg(
        long = "dtype",
        value_name = "DTYPE",
        value_delimiter = ',',
        default_value = "bf16,f32,f16",
        help_heading = "Calls"
    )]
    dtypes: Vec<DType>,
    /// Take the same weights again and again: they come from whatever cache they fit into.
    #[arg(long, help_heading = "Calls")]
    warm: bool,
    /// How often all cases take their turn.
    #[arg(long, value_name = "N", default_value = "5", help_heading = "Calls")]
    rounds: NonZeroUsize,
    /// How long one case is called in one round.
    #[arg(long, value_name = "MILLISECONDS", default_value = "100", help_heading = "Calls")]
    turn: u32,
    /// Copies to rotate over take this much memory.
    #[arg(long, value_name = "MIB", default_value = "512", value_parser = mebibytes, help_heading = "Calls")]
    copies: usize,
    /// How much memory is read when the machine's bandwidth is measured.
    #[arg(long, value_name = "MIB", default_value = "1024", value_parser = mebibytes, help_heading = "Calls")]
    read: usize,
    /// Write the figures to this file, one case a line.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    csv: Option<PathBuf>,
    /// Draw all cases under the machine's limits (a roofline plot) into this SVG file.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    plot: Option<PathBuf>,
    /// Replace files that exist.
    #[arg(long, help_heading = "Output")]
    force: bool,
}

impl BenchCommand {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let started = Instant::now();
        let new_file =
            |path: &Option<PathBuf>| path.as_ref().map(|path| NewFile::at(path, self.force)).transpose();
        let (csv, plot) = (new_file(&self.csv)?, new_file(&self.plot)?);
        let mut machine = machine::of(self.plan.device(), self.read)?;
        let options = self.options.options()?;
        let load_before = machine::load();

        let specs: Vec<LayerSpec> = self
            .bits
            .iter()
            .flat_map(|&bits| self.shapes.iter().map(move |&shape| (bits, shape)))
            .map(|(bits, shape)| LayerSpec {
                shape,
                bits,
                group_size: self.group_size,
                act_order: self.act_order,
                asymmetric: self.asymmetric,
            })
            .collect();
        let bar = Bar::new(console);
        let mut measured = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            bar.show("bench", index, specs.len());
            let layer = spec.build()?;
            let count = if self.warm { 1 } else { self.copies.div_ceil(layer.info().packed_bytes) };
            let copies = layer::copies(&layer, count)?;
            let mut benches = Vec::new();
            for &dtype in &self.dtypes {
                let model = call::model(&copies, &self.plan.request(Some(dtype)), &options, &self.rows)?;
                for &rows in &self.rows {
                    benches.push(Bench::new(std::sync::Arc::clone(&model), rows.get(), dtype)?);
                }
            }
            for _ in 0..self.rounds.get() {
                machine.measure();
                for bench in &mut benches {
                    bench.turn(&*machine, f64::from(self.turn) * 1e-3)?;
                }
            }
            for bench in &mut benches {
                measured.push(Measured::new(bench.timing(), layer.info(), bench.backend()));
            }
        }
        drop(bar);

        let report = Benchmark::new(
            machine.name(),
            machine.limits(),
            self.warm,
            [load_before, machine::load()],
            measured,
            started.elapsed().as_secs_f64(),
        );
        if let Some(file) = csv {
            file.write_text(&csv::table(&report))?;
        }
        if let Some(file) = plot {
            file.write_text(&roofline::svg(&report))?;
        }
        console.print(&report)
    }
}

fn bits(text: &str) -> Result<Bits, String> {
    text.parse().ok().and_then(Bits::new).ok_or_else(|| "a width is 2 to 8 bits".to_owned())
}

fn group_size(text: &str) -> Result<GroupSize, String> {
    text.parse()
        .ok()
        .and_then(GroupSize::from_config)
        .ok_or_else(|| "a group size is a number of rows, or -1".to_owned())
}

/// So many mebibytes, in bytes: at least one, at most what a machine of today could have.
fn mebibytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=0x10_0000usize) => Ok(number << 20),
        _ => Err("write it as a number of MiB".to_owned()),
    }
}
