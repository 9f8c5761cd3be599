//! `gptq tune`: what is best on this GPU, as options for the backends.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use gptq_core::backend::{BACKEND, Options, PlanRequest};
use gptq_core::device::Device;
use gptq_core::format::{Bits, GroupSize};
use gptq_core::tensor::DType;
use serde::Serialize;

use super::gpu::tune::{self, Crossing, OPTION, Times};
use super::job::{Contestant, Job};
use super::layer::{LayerSpec, Shape};
use super::report::micros;
use crate::failure::{Failure, Result};
use crate::output::{Bar, Column, Console, Page, Report, Seconds};
use crate::tensor_file::NewFile;

const LONG: &str = "\
Measure on this GPU what backends choose by size, and say it as options.

Few rows of x are multiplied from packed weights, many from the dense matrix, which is written first and multiplied by \
cuBLASLt. From how many rows that is faster depends on the GPU and on the layer; what is built in was measured on an H100. \
Both ways take turns at several numbers of rows.

The options go into a file with --out. Every command that runs layers takes it with --option-file, or from the environment \
variable GPTQ_OPTION_FILE; a program gives its text to Options::set_defaults.";

const HELP: &str = "\
Examples:
  gptq tune --device cuda:0 --out h200.options
  GPTQ_OPTION_FILE=h200.options gptq bench --device cuda:0";

/// Measure what is best on a GPU, as options for the backends.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_help = HELP)]
pub(crate) struct TuneCommand {
    /// The device: cuda, cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cuda:0")]
    device: Device,
    /// The backends, by names that `gptq backends` lists.
    #[arg(long = "backend", value_name = "NAME", value_delimiter = ',', default_value = "exllama_v2,marlin")]
    backends: Vec<BACKEND>,
    /// The layers: in_features x out_features [default: seven of 7B to 70B models].
    #[arg(long = "shape", visible_alias = "shapes", value_name = "KxN", value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// The type of x.
    #[arg(long, value_name = "DTYPE", default_value = "f16")]
    dtype: DType,
    /// How often both ways take their turn at each number of rows.
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: NonZeroUsize,
    /// Write the options to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file where it exists.
    #[arg(long)]
    force: bool,
}

/// What was measured, and the options that it makes.
#[derive(Serialize)]
struct Tuned {
    machine: String,
    crossings: Vec<Crossing>,
    options: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    seconds: f64,
}

impl TuneCommand {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let started = Instant::now();
        let file = self.out.as_ref().map(|path| NewFile::at(path, self.force)).transpose()?;
        let Device::Cuda(ordinal) = self.device else {
            return Err(Failure::NoTuning { device: self.device.clone() });
        };
        let bar = Bar::new(console);
        let (machine, crossings) = tune::measure(&self.job(&bar), &self.device, ordinal)?;
        drop(bar);
        let options = options(&crossings);
        if let Some(file) = file {
            file.write_text(&text(&machine, &options))?;
        }
        console.print(&Tuned {
            machine,
            crossings,
            options,
            file: self.out.as_ref().map(|path| path.display().to_string()),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn job<'a>(&self, bar: &'a Bar) -> Job<'a> {
        let shapes = if self.shapes.is_empty() { &Shape::OF_GPUS[..] } else { &self.shapes };
        let spec = |shape: &Shape| LayerSpec {
            shape: *shape,
            bits: Bits::FOUR,
            group_size: GroupSize::from_config(128).unwrap_or(GroupSize::PerColumn),
            act_order: false,
            asymmetric: false,
        };
        let contestant = |backend: &BACKEND| {
            let mut request = PlanRequest::new(backend.clone(), self.device.clone());
            request.x_dtype = Some(self.dtype);
            Contestant { request, dtype: self.dtype }
        };
        Job {
            specs: shapes.iter().map(spec).collect(),
            contestants: self.backends.iter().map(contestant).collect(),
            options: Options::default(),
            rows: tune::ROWS.into_iter().filter_map(NonZeroUsize::new).collect(),
            rows_by_turns: false,
            warm: false,
            rounds: Some(self.rounds),
            turn_seconds: None,
            copies_bytes: None,
            read_bytes: None,
            bar,
        }
    }
}

/// An assignment for each backend: of every shape the number of rows, 0 where the dense way was never faster.
fn options(crossings: &[Crossing]) -> Vec<String> {
    let mut options: Vec<(String, Vec<String>)> = Vec::new();
    for crossing in crossings {
        let Some(backend) = crossing.backend else { continue };
        let (k, n) = (crossing.in_features, crossing.out_features);
        let point = format!("{k}x{n}:{}", crossing.rows.unwrap_or(0));
        let key = format!("{backend}.{OPTION}");
        match options.iter_mut().find(|(known, _)| *known == key) {
            Some((_, points)) => points.push(point),
            None => options.push((key, vec![point])),
        }
    }
    options.into_iter().map(|(key, points)| format!("{key}={}", points.join(","))).collect()
}

/// The file: whose GPU it is for, and the options.
fn text(machine: &str, options: &[String]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("# gptq tune {version}: {machine}\n");
    for option in options {
        // Writing to a string cannot fail.
        _ = writeln!(text, "{option}");
    }
    text
}

const COLUMNS: [Column; 8] = [
    Column::Left("backend"),
    Column::Right("K"),
    Column::Right("N"),
    Column::Right("from M"),
    Column::Right("packed us"),
    Column::Right("dense us"),
    Column::Right("before: packed"),
    Column::Right("dense us"),
];

impl Report for Tuned {
    fn write_text(&self, page: &mut Page) {
        page.heading("machine");
        page.line(&self.machine);
        page.heading("the dense matrix is faster");
        let times = |times: Option<Times>| match times {
            Some(times) => [micros(times.fused_seconds), micros(times.dense_seconds)],
            None => Default::default(),
        };
        let row = |crossing: &Crossing| {
            let mut row = vec![
                crossing.backend.map_or_else(String::new, |backend| backend.to_string()),
                crossing.in_features.to_string(),
                crossing.out_features.to_string(),
                crossing.rows.map_or_else(|| "never".into(), |rows| rows.to_string()),
            ];
            row.extend(times(crossing.first_dense));
            row.extend(times(crossing.last_fused));
            row
        };
        let rows: Vec<Vec<String>> = self.crossings.iter().map(row).collect();
        page.table(&COLUMNS, &rows);
        page.heading("options");
        for option in &self.options {
            page.line(option);
        }
        match &self.file {
            Some(file) => page.line(format_args!("written to {file}, in {}", Seconds(self.seconds))),
            None => page.line(format_args!("measured in {}; --out FILE writes them", Seconds(self.seconds))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gptq_core::backend::BackendId;

    #[test]
    fn every_backend_gets_one_option_and_the_file_is_read_as_it_is_written() {
        const MINE: BackendId = BackendId::new("mine");
        let crossing = |backend, k, rows| Crossing {
            backend: Some(backend),
            in_features: k,
            out_features: 64,
            rows,
            last_fused: None,
            first_dense: None,
        };
        let crossings = [
            crossing(MINE, 32, Some(72)),
            crossing(BackendId::new("other"), 32, None),
            crossing(MINE, 64, None),
        ];
        let options = options(&crossings);
        assert_eq!(options, ["mine.dense_rows=32x64:72,64x64:0", "other.dense_rows=32x64:0"]);
        let mut read = Options::default();
        read.set_defaults(&text("a GPU", &options)).expect("a file of options");
        assert_eq!(read.read(MINE, OPTION).expect("text"), Some("32x64:72,64x64:0".to_owned()));
    }
}
