//! What was measured, as a table and as data.

use gptq_core::LayerInfo;
use gptq_core::backend::BackendId;
use gptq_core::format::{Bits, GroupSize};
use gptq_core::tensor::DType;
use serde::Serialize;

use crate::output::{Column, Page, Report, Seconds, count};

use super::call::Timing;
use super::limits::Limits;

/// All cases of a run, and the machine.
#[derive(Serialize)]
pub(super) struct Benchmark {
    pub(super) machine: String,
    pub(super) limits: Limits,
    /// Whether one copy was called again and again.
    pub(super) warm: bool,
    /// Processes that wanted to run, before and after, where the system tells.
    load: [Option<f64>; 2],
    pub(super) cases: Vec<Case>,
    seconds: f64,
}

/// One layer, type and number of rows.
#[derive(Serialize)]
pub(super) struct Case {
    #[serde(flatten)]
    pub(super) measured: Measured,
    pub(super) bytes_per_second: f64,
    pub(super) operations_per_second: f64,
    /// What takes longer at the machine's limits.
    pub(super) bound: Bound,
    /// How long that takes.
    pub(super) limit_seconds: f64,
    /// As a share of the median time; on a host by the limits of each round, the median over rounds.
    pub(super) of_limit: f64,
    /// R: the pass that only reads, as a share of the median time.
    pub(super) of_read: Option<f64>,
    /// cuBLASLt on the dense matrix, as a share of the median time.
    pub(super) of_dense: Option<f64>,
}

/// What was measured of a case.
#[derive(Serialize)]
pub(super) struct Measured {
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) bits: Bits,
    pub(super) group_size: GroupSize,
    pub(super) act_order: bool,
    pub(super) symmetric: bool,
    pub(super) backend: Option<BackendId>,
    pub(super) dtype: DType,
    pub(super) rows: usize,
    /// Bytes of the packed layer.
    pub(super) bytes: usize,
    /// Two for each product and its sum.
    pub(super) operations: f64,
    pub(super) calls: usize,
    pub(super) median_seconds: f64,
    pub(super) best_seconds: f64,
    /// On a host: [`Case::of_limit`] by the limits of each round, the median over rounds.
    #[serde(skip)]
    pub(super) of_limit: Option<f64>,
    /// On a GPU: how kernels follow one another.
    pub(super) launches: Option<Launches>,
    /// On a GPU: a pass that reads the codes and scales, and the zero points where they differ, and nothing else.
    pub(super) read_seconds: Option<f64>,
    /// On a GPU, for many rows: cuBLASLt on the dense matrix.
    pub(super) dense_seconds: Option<f64>,
}

/// How the kernels of a graph follow one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Launches {
    /// Each begins when the one before has ended.
    Plain,
    /// One may begin before, and waits itself: programmatic dependent launch.
    Overlapping,
}

impl Launches {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Overlapping => "overlapping",
        }
    }
}

/// What limits a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    Memory,
    Multiplication,
}

impl Measured {
    pub(super) fn new(timing: Timing, info: &LayerInfo, backend: Option<BackendId>) -> Self {
        Self {
            in_features: info.in_features,
            out_features: info.out_features,
            bits: info.bits,
            group_size: info.group_size,
            act_order: info.act_order,
            symmetric: info.symmetric,
            backend,
            dtype: timing.dtype,
            rows: timing.rows,
            bytes: info.packed_bytes,
            operations: operations(timing.rows, info),
            calls: timing.calls,
            median_seconds: timing.median_seconds,
            best_seconds: timing.best_seconds,
            of_limit: None,
            launches: None,
            read_seconds: None,
            dense_seconds: None,
        }
    }
}

/// Two for each product and its sum.
pub(super) fn operations(rows: usize, info: &LayerInfo) -> f64 {
    2.0 * rows as f64 * info.in_features as f64 * info.out_features as f64
}

impl Case {
    fn new(measured: Measured, limits: &Limits) -> Self {
        let reading = measured.bytes as f64 / limits.read_bytes_per_second;
        let multiplying = measured.operations / limits.operations_per_second(measured.dtype);
        let bound = if reading > multiplying { Bound::Memory } else { Bound::Multiplication };
        let limit_seconds = limits.seconds(measured.bytes, measured.operations, measured.dtype);
        Self {
            bytes_per_second: measured.bytes as f64 / measured.median_seconds,
            operations_per_second: measured.operations / measured.median_seconds,
            bound,
            limit_seconds,
            of_limit: measured.of_limit.unwrap_or(limit_seconds / measured.median_seconds),
            of_read: measured.read_seconds.map(|seconds| seconds / measured.median_seconds),
            of_dense: measured.dense_seconds.map(|seconds| seconds / measured.median_seconds),
            measured,
        }
    }

    /// Operations for each byte of the packed layer.
    pub(super) fn intensity(&self) -> f64 {
        self.measured.operations / self.measured.bytes as f64
    }
}

impl Benchmark {
    pub(super) fn new(
        machine: String,
        limits: Limits,
        warm: bool,
        load: [Option<f64>; 2],
        measured: Vec<Measured>,
        seconds: f64,
    ) -> Self {
        let cases = measured.into_iter().map(|measured| Case::new(measured, &limits)).collect();
        Self { machine, limits, warm, load, cases, seconds }
    }
}

impl Report for Benchmark {
    fn write_text(&self, page: &mut Page) {
        let giga = |rate: f64| format!("{:.1} G", rate * 1e-9);
        page.heading("machine");
        let load = match self.load {
            [Some(before), Some(after)] => format!("{before} before, {after} after"),
            _ => "unknown".into(),
        };
        let multiplies: Vec<String> = [DType::F32, DType::BF16, DType::F16]
            .into_iter()
            .map(|dtype| (dtype, self.limits.operations_per_second(dtype)))
            // What no case needs is not measured.
            .filter(|(_, rate)| *rate > 0.0)
            .map(|(dtype, rate)| format!("{}FLOP/s in {dtype}", giga(rate)))
            .collect();
        page.fields(&[
            ("what", self.machine.clone()),
            ("reads", format!("{}B/s", giga(self.limits.read_bytes_per_second))),
            ("multiplies", multiplies.join(", ")),
            ("load", load),
        ]);
        page.heading("layers");
        if self.cases.iter().any(|case| case.of_read.is_some()) {
            let rows: Vec<Vec<String>> = self.cases.iter().map(Case::row_of_gpu).collect();
            page.table(&COLUMNS_OF_GPU, &rows);
        } else {
            let rows: Vec<Vec<String>> = self.cases.iter().map(Case::row).collect();
            page.table(&COLUMNS, &rows);
        }
        page.line(format_args!(
            "{}, medians of all {}, weights {}, in {}",
            count(self.cases.len(), "case"),
            if self.cases.iter().any(|case| case.measured.launches.is_some()) { "rounds" } else { "calls" },
            if self.warm { "as warm as a cache keeps them" } else { "from memory" },
            Seconds(self.seconds)
        ));
    }
}

const COLUMNS: [Column; 13] = [
    Column::Right("K"),
    Column::Right("N"),
    Column::Right("bits"),
    Column::Left("kind"),
    Column::Left("x"),
    Column::Right("M"),
    Column::Left("backend"),
    Column::Right("time"),
    Column::Right("best"),
    Column::Right("GB/s"),
    Column::Right("GFLOP/s"),
    Column::Right("of limit"),
    Column::Left("bound by"),
];

const COLUMNS_OF_GPU: [Column; 14] = [
    Column::Right("K"),
    Column::Right("N"),
    Column::Right("bits"),
    Column::Left("kind"),
    Column::Left("x"),
    Column::Right("M"),
    Column::Left("backend"),
    Column::Left("launches"),
    Column::Right("us"),
    Column::Right("R"),
    Column::Right("GB/s"),
    Column::Right("TFLOP/s"),
    Column::Right("dense us"),
    Column::Right("of it"),
];

impl Case {
    /// What was called: the beginning of every row.
    fn what(&self) -> Vec<String> {
        let measured = &self.measured;
        let kind = match (measured.act_order, measured.symmetric) {
            (false, true) => "sym",
            (false, false) => "asym",
            (true, true) => "sym act-order",
            (true, false) => "asym act-order",
        };
        vec![
            measured.in_features.to_string(),
            measured.out_features.to_string(),
            measured.bits.to_string(),
            kind.to_owned(),
            measured.dtype.to_string(),
            measured.rows.to_string(),
            measured.backend.map_or_else(String::new, |backend| backend.to_string()),
        ]
    }

    fn row(&self) -> Vec<String> {
        let measured = &self.measured;
        let mut row = self.what();
        row.extend([
            Seconds(measured.median_seconds).to_string(),
            Seconds(measured.best_seconds).to_string(),
            format!("{:.1}", self.bytes_per_second * 1e-9),
            format!("{:.1}", self.operations_per_second * 1e-9),
            format!("{:.0} %", self.of_limit * 100.0),
            match self.bound {
                Bound::Memory => "memory".to_owned(),
                Bound::Multiplication => "multiplication".to_owned(),
            },
        ]);
        row
    }

    fn row_of_gpu(&self) -> Vec<String> {
        let measured = &self.measured;
        let ratio = |of: Option<f64>| of.map_or_else(String::new, |of| format!("{of:.3}"));
        let mut row = self.what();
        row.extend([
            measured.launches.map_or("", Launches::name).to_owned(),
            micros(measured.median_seconds),
            ratio(self.of_read),
            format!("{:.0}", self.bytes_per_second * 1e-9),
            format!("{:.1}", self.operations_per_second * 1e-12),
            measured.dense_seconds.map_or_else(String::new, micros),
            ratio(self.of_dense),
        ]);
        row
    }
}

/// Microseconds with as many digits as say something.
pub(super) fn micros(seconds: f64) -> String {
    let micros = seconds * 1e6;
    if micros < 100.0 { format!("{micros:.2}") } else { format!("{micros:.1}") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run with a case of each bound.
    pub(crate) fn example() -> Benchmark {
        let limits = Limits {
            read_bytes_per_second: 10e9,
            f32_operations_per_second: 100e9,
            bf16_operations_per_second: 200e9,
            f16_operations_per_second: 100e9,
        };
        let measured = |rows: usize, dtype, median_seconds| Measured {
            in_features: 1000,
            out_features: 2000,
            bits: Bits::FOUR,
            group_size: GroupSize::PerColumn,
            act_order: false,
            symmetric: true,
            backend: None,
            dtype,
            rows,
            bytes: 1_000_000,
            operations: 4e6 * rows as f64,
            calls: 7,
            median_seconds,
            best_seconds: median_seconds * 0.9,
            of_limit: None,
            launches: None,
            read_seconds: None,
            dense_seconds: None,
        };
        let cases = vec![measured(1, DType::BF16, 125e-6), measured(100, DType::F32, 8e-3)];
        Benchmark::new("a machine".into(), limits, false, [Some(0.5), None], cases, 1.0)
    }

    #[test]
    fn a_case_is_held_to_the_limit_that_takes_longer() {
        let cases = example().cases;
        assert_eq!((cases[0].bound, cases[0].of_limit), (Bound::Memory, 0.8));
        assert_eq!((cases[1].bound, cases[1].of_limit), (Bound::Multiplication, 0.5));
        assert_eq!(cases[1].intensity(), 400.0);
    }

    /// The same on a GPU: the pass that reads takes 100 us, cuBLASLt 6 ms.
    pub(crate) fn example_on_gpu() -> Benchmark {
        let Benchmark { machine, limits, cases, .. } = example();
        let measured = cases.into_iter().map(|case| Measured {
            launches: Some(if case.measured.rows == 1 { Launches::Overlapping } else { Launches::Plain }),
            read_seconds: Some(100e-6),
            dense_seconds: (case.measured.rows > 1).then_some(6e-3),
            ..case.measured
        });
        Benchmark::new(machine, limits, false, [None, None], measured.collect(), 1.0)
    }

    #[test]
    fn a_case_on_a_gpu_is_held_to_a_pass_that_reads_and_to_the_dense_matrix() {
        let benchmark = example_on_gpu();
        let of = |case: &Case| (case.of_read, case.of_dense);
        assert_eq!(
            benchmark.cases.iter().map(of).collect::<Vec<_>>(),
            [(Some(0.8), None), (Some(0.0125), Some(0.75))]
        );
        let mut page = Page::new(false);
        benchmark.write_text(&mut page);
        let text = page.into_text();
        let line = |number: &str| text.lines().find(|line| line.contains(number)).unwrap_or("").to_owned();
        assert!(line("overlapping").ends_with("overlapping   125.0  0.800     8      0.0"), "{text}");
        assert!(line("plain").ends_with("8000.0  0.013     0      0.0    6000.0  0.750"), "{text}");
    }
}
