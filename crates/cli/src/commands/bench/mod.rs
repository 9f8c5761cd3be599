//! `gptq bench`: how fast layers run, beside what the machine can do.

mod call;
mod csv;
mod gpu;
mod host;
mod job;
mod layer;
mod limits;
mod report;
mod roofline;
mod tune;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use gptq_core::backend::{BACKEND, PlanRequest};
use gptq_core::device::Device;
use gptq_core::format::{Bits, GroupSize};
use gptq_core::tensor::DType;

use crate::args::BackendOptionArgs;
use crate::failure::{Failure, Result};
use crate::output::{Bar, Console, as_json};
use crate::tensor_file::NewFile;

use job::{Contestant, Job};
use layer::{LayerSpec, Shape};
use report::Benchmark;
pub(crate) use tune::TuneCommand;

const LONG: &str = "\
Time layers of random weights, and the machine beside them.

Every call takes the weights of another copy, in turn, so that they come from memory as they do when a model is \
decoded: the copies are together more than a cache holds. --warm takes one copy again and again instead.

A call is judged by the time that the machine's own limits leave it: reading the packed layer (codes, scales and zero \
points) at the rate at which the machine reads memory, or the multiplications at the rate at which it multiplies, \
whichever is longer. `of limit` is that time as a share of the time taken.

On a CPU both rates are measured before and after every round, and a call is held to the better ones of its round: \
`of limit` is the median over rounds. All cases of a layer take turns in every round, so that what disturbs the machine \
disturbs all of them alike. Times are medians over all calls. Other work on the machine shows in the load that is \
printed, and in the distance of best and median.

On a GPU (--device cuda:0) calls are recorded in a graph, which is replayed once a round; times are medians over \
rounds, by the GPU's clock. Backends take turns where several are named, and with --rows-by-turns all M: a GPU at its power \
limit lowers its clock within a tenth of a second, so that what is called later takes longer. R is the time of a pass that only reads the \
codes and scales (and zero points that differ), divided by the time taken. From 64 rows on cuBLASLt multiplies the \
dense matrix beside. Where a backend lets its kernels begin before the ones in front of them have ended (programmatic \
dependent launch), both figures are given: `overlapping`, as the backend runs, and `plain`.

With --chain the layers are called one after the other, as a decoder calls them, in blocks of different weights and in one \
graph. Tokens a second are what they alone would allow, beside one pass for each layer that only reads it.";

const HELP: &str = "\
Examples:
  gptq bench                                     three shapes of a 7B model, M = 1 to 512
  gptq bench --rows 1 --bits 2,3,4,8             decoding at every width
  gptq bench --shape 4096x11008 --dtype bf16 --warm
  gptq bench --csv bench.csv --plot roofline.svg --json > bench.json
  gptq bench --device cuda:0                     seven shapes, M = 1 to 8192
  gptq bench --device cuda:0 --backend exllama_v2,torch --rows 1,8,64 --act-order
  gptq bench --device cuda:0 --backend exllama_v2,marlin --chain     32 blocks of a 7B model, M = 1 and 16";

/// M where none is named: decoding, and prompts.
const ROWS_OF_HOSTS: [usize; 5] = [1, 8, 32, 128, 512];
/// M of chains.
const ROWS_OF_CHAINS: [usize; 2] = [1, 16];
/// The powers of two up to this.
const MOST_ROWS_OF_GPUS: usize = 8192;

/// Time layers beside the machine's own limits.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_help = HELP)]
pub(crate) struct BenchCommand {
    /// The backends: auto, or names that `gptq backends` lists; several take turns.
    #[arg(
        long = "backend",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "auto",
        help_heading = "Planning"
    )]
    backends: Vec<BACKEND>,
    /// The device: cpu, cuda, cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", help_heading = "Planning")]
    device: Device,
    #[command(flatten)]
    options: BackendOptionArgs,
    /// The layers: in_features x out_features [default: three of a 7B model; on a GPU seven of 7B to 70B models].
    #[arg(
        long = "shape",
        visible_alias = "shapes",
        value_name = "KxN",
        value_delimiter = ',',
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
    /// Call all layers one after the other, this often, each with weights of its own, in one graph. On a GPU.
    #[arg(
        long, value_name = "BLOCKS", num_args = 0..=1, default_missing_value = "32", conflicts_with_all = ["csv", "plot", "warm"],
        help_heading = "Calls"
    )]
    chain: Option<NonZeroUsize>,
    /// Rows of x (batch * sequence): 1 is decoding, many are a prompt [default: 1,8,32,128,512; on a GPU 1,2,4 .. 8192; of
    /// a chain 1,16].
    #[arg(long, value_name = "M", value_delimiter = ',', help_heading = "Calls")]
    rows: Vec<NonZeroUsize>,
    /// Let all M of a layer take turns on a GPU too, at whatever clock all of them together leave it: to compare one M with another.
    #[arg(long, conflicts_with = "chain", help_heading = "Calls")]
    rows_by_turns: bool,
    /// The type of x and y: f32, f16 or bf16 [default: all three; on a GPU f16].
    #[arg(long = "dtype", value_name = "DTYPE", value_delimiter = ',', help_heading = "Calls")]
    dtypes: Vec<DType>,
    /// Take the same weights again and again: they come from whatever cache they fit into.
    #[arg(long, help_heading = "Calls")]
    warm: bool,
    /// How often all cases take their turn [default: 5; on a GPU 11].
    #[arg(long, value_name = "N", help_heading = "Calls")]
    rounds: Option<NonZeroUsize>,
    /// How long one case is called in one round [default: 100; on a GPU 3].
    #[arg(long, value_name = "MILLISECONDS", help_heading = "Calls")]
    turn: Option<u32>,
    /// Copies to rotate over take this much memory, but are at most 16384 [default: 512; on a GPU 256].
    #[arg(long, value_name = "MIB", value_parser = mebibytes, help_heading = "Calls")]
    copies: Option<usize>,
    /// How much memory is read when the machine's bandwidth is measured [default: 1024; on a GPU 512].
    #[arg(long, value_name = "MIB", value_parser = mebibytes, help_heading = "Calls")]
    read: Option<usize>,
    /// Write the figures to this file, one case a line.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    csv: Option<PathBuf>,
    /// Write the whole report to this file, as --json prints it.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    report: Option<PathBuf>,
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
        let (csv, json, plot) = (new_file(&self.csv)?, new_file(&self.report)?, new_file(&self.plot)?);
        let load_before = limits::load();
        let bar = Bar::new(console);
        let job = self.job(&bar)?;
        if let Some(blocks) = self.chain {
            let chains = match &self.device {
                Device::Cuda(ordinal) => gpu::chain::measure(&job, blocks.get(), &self.device, *ordinal),
                other => Err(Failure::NoChain { device: other.clone() }),
            }?;
            drop(bar);
            if let Some(file) = json {
                file.write_text(&as_json(&chains)?)?;
            }
            return console.print(&chains);
        }
        let outcome = match &self.device {
            Device::Cpu => host::measure(&job),
            Device::Cuda(ordinal) => gpu::measure(&job, &self.device, *ordinal),
            other => Err(Failure::NoClock { device: other.clone() }),
        }?;
        drop(bar);

        let report = Benchmark::new(
            outcome.machine,
            outcome.limits,
            self.warm,
            [load_before, limits::load()],
            outcome.measured,
            started.elapsed().as_secs_f64(),
        );
        if let Some(file) = csv {
            file.write_text(&csv::table(&report))?;
        }
        if let Some(file) = json {
            file.write_text(&as_json(&report)?)?;
        }
        if let Some(file) = plot {
            file.write_text(&roofline::svg(&report))?;
        }
        console.print(&report)
    }

    /// What is asked for, and where nothing is, what suits the kind of device.
    fn job<'a>(&self, bar: &'a Bar) -> Result<Job<'a>> {
        let on_host = self.device == Device::Cpu;
        let shapes = match (self.shapes.as_slice(), on_host) {
            ([], _) if self.chain.is_some() => &Shape::OF_BLOCK[..],
            ([], true) => &Shape::OF_HOSTS[..],
            ([], false) => &Shape::OF_GPUS[..],
            (shapes, _) => shapes,
        };
        let dtypes = match (self.dtypes.as_slice(), on_host) {
            ([], true) => &[DType::BF16, DType::F32, DType::F16][..],
            ([], false) => &[DType::F16][..],
            (dtypes, _) => dtypes,
        };
        let rows: Vec<NonZeroUsize> = match (self.rows.as_slice(), on_host) {
            ([], _) if self.chain.is_some() => {
                ROWS_OF_CHAINS.into_iter().filter_map(NonZeroUsize::new).collect()
            }
            ([], true) => ROWS_OF_HOSTS.into_iter().filter_map(NonZeroUsize::new).collect(),
            ([], false) => {
                let powers = std::iter::successors(Some(1), |rows| Some(rows * 2));
                powers.take_while(|rows| *rows <= MOST_ROWS_OF_GPUS).filter_map(NonZeroUsize::new).collect()
            }
            (rows, _) => rows.to_vec(),
        };
        let specs = self.bits.iter().flat_map(|&bits| shapes.iter().map(move |&shape| (bits, shape)));
        let contestants = self.backends.iter().flat_map(|backend| dtypes.iter().map(move |&x| (backend, x)));
        Ok(Job {
            specs: specs
                .map(|(bits, shape)| LayerSpec {
                    shape,
                    bits,
                    group_size: self.group_size,
                    act_order: self.act_order,
                    asymmetric: self.asymmetric,
                })
                .collect(),
            contestants: contestants
                .map(|(backend, dtype)| {
                    let mut request = PlanRequest::new(backend.clone(), self.device.clone());
                    request.x_dtype = Some(dtype);
                    Contestant { request, dtype }
                })
                .collect(),
            options: self.options.options()?,
            rows,
            rows_by_turns: self.rows_by_turns,
            warm: self.warm,
            rounds: self.rounds,
            turn_seconds: self.turn.map(|milliseconds| f64::from(milliseconds) * 1e-3),
            copies_bytes: self.copies,
            read_bytes: self.read,
            bar,
        })
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
