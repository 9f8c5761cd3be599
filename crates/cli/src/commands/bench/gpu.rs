//! Layers on a GPU: calls recorded in graphs and replayed by turns, beside a pass that reads the same bytes and cuBLASLt on
//! the dense matrix.

pub(super) mod chain;
pub(super) mod tune;

use std::num::NonZeroUsize;
use std::sync::Arc;

use gptq_conformance::Activations;
use gptq_core::QuantLinear;
use gptq_core::device::Device;
use gptq_core::post_init::FinalizedModel;
use gptq_core::tensor::DType;
use gptq_cuda::Gpu;
use gptq_cuda::timing::{Dense, LayerCalls, Operands, Reads, Replay, Timing as Clock};
use half::{bf16, f16};

use crate::failure::{Failure, Result};

use super::call::{self, Timing, too_many};
use super::job::{Job, Outcome};
use super::layer::{self, LayerSpec, Memory, Shape};
use super::limits::Limits;
use super::report::{Launches, Measured};

/// Copies to rotate over take as much memory, where nothing else is asked for: five times an L2 cache of 50 MB.
const COPIES_BYTES: usize = 256 << 20;
/// Memory that is read when the bandwidth is measured, where nothing else is asked for.
const READ_BYTES: usize = 512 << 20;
const ROUNDS: usize = 11;
/// How long a graph takes, about. One launch of a graph costs some microseconds, which are a part of its time.
const TURN_SECONDS: f64 = 3e-3;
/// A graph has at least so many calls, and at most.
const CALLS: [usize; 2] = [2, 480];
/// No call takes less.
const LEAST_SECONDS: f64 = 4e-6;
/// From so many rows on cuBLASLt multiplies the dense matrix beside.
const DENSE_ROWS: usize = 64;
/// Up to so many rows the pass that reads takes turns with the calls.
const READ_ROWS: usize = 32;
/// Numbers of which x is made, again and again: an odd number, so that no two rows of x are alike.
const PATTERN: usize = (1 << 20) + 3;
/// Rows of W of which a dense matrix is made, again and again.
const STRIP_ROWS: usize = 512;
/// Rows and columns of the matrices by which the rate of multiplication is measured.
const SQUARE: usize = 8192;
/// The same for f32, which is multiplied without tensor cores.
const SQUARE_F32: usize = 4096;

/// x and out of one type.
struct OfType {
    dtype: DType,
    operands: Operands,
}

/// The GPU, what is measured on it with, and the best that was measured.
struct Bench<'a> {
    clock: Clock,
    types: Vec<OfType>,
    limits: Limits,
    job: &'a Job<'a>,
}

/// A layer's models, one for each contestant, and what they are compared with.
struct Rivals<'a> {
    layer: &'a QuantLinear,
    models: Vec<Arc<FinalizedModel>>,
    dense: Vec<Arc<Dense>>,
    read: Replay,
    read_seconds: Vec<f64>,
}

/// One that takes turns.
struct Runner {
    what: What,
    rows: usize,
    replay: Replay,
    seconds: Vec<f64>,
}

#[derive(Clone, Copy)]
enum What {
    /// Contestant of this number.
    Layers(usize, Launches),
    /// Products of cuBLASLt with x of this type.
    Dense(DType),
}

/// Times every case of the job. Everything that has the same M takes turns in every round, or all that has the same layer.
pub(super) fn measure(job: &Job<'_>, device: &Device, ordinal: usize) -> Result<Outcome> {
    let bench = Bench::open(job, device, ordinal)?;
    let mut measured = Vec::new();
    for (index, spec) in job.specs.iter().enumerate() {
        job.bar.show_count("bench", index, job.specs.len());
        measured.extend(bench.layer(*spec)?);
    }
    Ok(Outcome { machine: bench.machine(), limits: bench.limits, measured })
}

/// x and out that are large enough for every case, one of each for every type.
fn operands(clock: &Clock, job: &Job<'_>) -> Result<Vec<OfType>> {
    let mut types: Vec<OfType> = Vec::new();
    for contestant in &job.contestants {
        let dtype = contestant.dtype;
        if types.iter().any(|of| of.dtype == dtype) {
            continue;
        }
        let square = square(dtype);
        let bytes = |width: fn(&Shape) -> usize| {
            let width = job.specs.iter().map(|spec| width(&spec.shape)).max().unwrap_or(0);
            let needed = job.most_rows().checked_mul(width)?.max(square * square);
            needed.checked_mul(dtype.size_bytes())
        };
        let (Some(x_bytes), Some(out_bytes)) = (bytes(|shape| shape.k), bytes(|shape| shape.n)) else {
            return Err(too_many(job.most_rows(), [0, 0]).into());
        };
        let pattern = Activations::normal([1, PATTERN], dtype, 1).to_bytes();
        types.push(OfType { dtype, operands: clock.operands(&pattern, x_bytes, out_bytes)? });
    }
    Ok(types)
}

fn square(dtype: DType) -> usize {
    if dtype == DType::F32 { SQUARE_F32 } else { SQUARE }
}

impl<'a> Bench<'a> {
    /// Opens the GPU, and measures its limits.
    fn open(job: &'a Job<'a>, device: &Device, ordinal: usize) -> Result<Self> {
        let refused = |rejection| Failure::Gpu { device: device.clone(), rejection: Box::new(rejection) };
        let gpu = Gpu::open(ordinal).map_err(refused)?;
        let clock = Clock::open(&gpu).map_err(refused)?;
        let mut bench = Self { types: operands(&clock, job)?, clock, limits: Limits::default(), job };
        bench.measure_limits()?;
        Ok(bench)
    }

    fn machine(&self) -> String {
        let info = self.clock.gpu().info();
        format!(
            "{}, {} multiprocessors, {} MB of L2 cache, driver for CUDA {}",
            info.name,
            info.multiprocessors,
            info.l2_bytes / 1_000_000,
            info.driver
        )
    }

    fn rounds(&self) -> usize {
        self.job.rounds.map_or(ROUNDS, NonZeroUsize::get)
    }

    /// How many calls of about so many bytes and operations are recorded in a graph.
    fn calls(&self, bytes: usize, operations: f64, dtype: DType) -> usize {
        let reading = bytes as f64 / self.limits.read_bytes_per_second;
        let multiplying = operations / self.limits.operations_per_second(dtype);
        calls(self.job.turn_seconds.unwrap_or(TURN_SECONDS), reading.max(multiplying))
    }

    /// The rate of a pass over much memory, and of a large product of every type.
    fn measure_limits(&mut self) -> Result<()> {
        let rounds = self.rounds();
        let Some(first) = self.types.first() else { return Ok(()) };
        let piece = Activations::normal([1, PATTERN], DType::F16, 2).to_bytes();
        let pieces = self.job.read_bytes.unwrap_or(READ_BYTES).div_ceil(piece.len());
        let reads = Arc::new(self.clock.reads(&vec![piece.as_slice(); pieces], 1)?);
        let mut replay = Replay::of_reads(&reads, &first.operands, 4)?;
        self.limits.read_bytes_per_second = reads.bytes() as f64 / best(&mut replay, rounds)?;
        for of in &self.types {
            let size = square(of.dtype);
            let pattern = Activations::normal([1, PATTERN], of.dtype, 3).to_bytes();
            let dense = Arc::new(self.clock.dense(&pattern, of.dtype, [size; 2], 1)?);
            let mut replay = Replay::of_products(&dense, &of.operands, size, 2)?;
            let operations = 2.0 * (size as f64).powi(3);
            *self.limits.operations_mut(of.dtype) = operations / best(&mut replay, rounds)?;
        }
        Ok(())
    }

    /// Every case of one layer.
    fn layer(&self, spec: LayerSpec) -> Result<Vec<Measured>> {
        let layer = spec.build()?;
        let mut rivals = self.rivals(spec, &layer)?;
        let mut measured = Vec::new();
        let at_once = if self.job.rows_by_turns { self.job.rows.len() } else { 1 };
        for rows in self.job.rows.chunks(at_once.max(1)) {
            measured.extend(self.rows(&mut rivals, rows)?);
        }
        // The pass is the same for every M: all its times count for all of them.
        let read = Timing::new(1, DType::F16, 1, rivals.read_seconds).median_seconds;
        for measured in &mut measured {
            measured.read_seconds = Some(read);
        }
        Ok(measured)
    }

    fn rivals<'l>(&self, spec: LayerSpec, layer: &'l QuantLinear) -> Result<Rivals<'l>> {
        let reads = Arc::new(self.reads(layer)?);
        let Some(first) = self.types.first() else { return Err(too_many(0, [0, 0]).into()) };
        let calls = self.calls(reads.bytes(), 0.0, first.dtype);
        let mut read = Replay::of_reads(&reads, &first.operands, calls)?;
        let read_seconds = (0..self.rounds()).map(|_| read.seconds()).collect::<Result<_, _>>()?;
        let copies = layer::copies(layer, self.copies(reads.bytes()), Memory::Shared)?;
        let model = |contestant| call::model(&copies, contestant, self.job);
        let models = self.job.contestants.iter().map(model).collect::<Result<_>>()?;
        let mut dense = Vec::new();
        if self.job.most_rows() >= DENSE_ROWS {
            let strip = spec.strip(STRIP_ROWS).build()?.dequantize();
            for of in &self.types {
                let Shape { k, n } = spec.shape;
                let copies = self.copies(k * n * of.dtype.size_bytes());
                dense.push(Arc::new(self.clock.dense(
                    &encoded(&strip, of.dtype),
                    of.dtype,
                    [k, n],
                    copies,
                )?));
            }
        }
        Ok(Rivals { layer, models, dense, read, read_seconds })
    }

    /// Copies of so many bytes that calls rotate over.
    fn copies(&self, bytes: usize) -> usize {
        if self.job.warm { 1 } else { copies(self.job.copies_bytes.unwrap_or(COPIES_BYTES), bytes) }
    }

    /// The bytes that a kernel has to read of a layer.
    fn reads(&self, layer: &QuantLinear) -> Result<Reads> {
        let zeros = layer.zeros().words();
        let mut parts = vec![layer.qweight().as_bytes(), layer.scales().as_bytes()];
        // Where all zero points are the same, none needs to be read.
        if !layer.info().symmetric {
            parts.push(bytemuck::cast_slice(zeros));
        }
        let bytes = parts.iter().map(|part| part.len()).sum();
        Ok(self.clock.reads(&parts, self.copies(bytes))?)
    }

    /// Every case of these M: all of them in turn, round after round.
    fn rows(&self, rivals: &mut Rivals<'_>, all_rows: &[NonZeroUsize]) -> Result<Vec<Measured>> {
        let mut runners = Vec::new();
        for rows in all_rows {
            runners.extend(self.runners(rivals, rows.get())?);
        }
        let reads = all_rows.iter().any(|rows| rows.get() <= READ_ROWS);
        self.rounds_of(&mut runners, || {
            if reads {
                rivals.read_seconds.push(rivals.read.seconds()?);
            }
            Ok(())
        })?;
        let times: Vec<(What, Timing)> = runners.into_iter().map(|runner| runner.finish(self)).collect();
        let dense = |timing: &Timing| {
            let is_its = |(what, of): &&(What, Timing)| matches!(what, What::Dense(_)) && of.is_like(timing);
            times.iter().find(is_its).map(|(_, of)| of.median_seconds)
        };
        let of_layers = |(what, timing): &(What, Timing)| {
            let What::Layers(number, launches) = *what else { return None };
            let backend = rivals.models.get(number).and_then(|model| call::backend(model));
            let mut measured = Measured::new(*timing, rivals.layer.info(), backend);
            measured.launches = Some(launches);
            measured.dense_seconds = dense(timing);
            Some(measured)
        };
        Ok(times.iter().filter_map(of_layers).collect())
    }

    /// All of them in turn, round after round; `between` at the end of each.
    fn rounds_of(&self, runners: &mut [Runner], mut between: impl FnMut() -> Result<()>) -> Result<()> {
        let count = runners.len();
        for round in 0..=self.rounds() {
            for turn in 0..count {
                // Whoever comes first in one round comes last in the next.
                let Some(runner) = runners.get_mut((round + turn) % count) else { continue };
                let seconds = runner.replay.seconds()?;
                // A graph goes to the GPU when it is launched for the first time.
                if round > 0 {
                    runner.seconds.push(seconds);
                }
            }
            between()?;
        }
        Ok(())
    }

    fn runners(&self, rivals: &Rivals<'_>, rows: usize) -> Result<Vec<Runner>> {
        let info = rivals.layer.info();
        let operations = 2.0 * rows as f64 * info.in_features as f64 * info.out_features as f64;
        let mut runners = Vec::new();
        let mut run = |what, replay| runners.push(Runner::new(what, rows, replay));
        for (number, (model, contestant)) in rivals.models.iter().zip(&self.job.contestants).enumerate() {
            let dtype = contestant.dtype;
            let Some(of) = self.types.iter().find(|of| of.dtype == dtype) else { continue };
            let calls = self.calls(info.packed_bytes, operations, dtype);
            let record = |overlap| {
                let how = LayerCalls { dtype, rows, calls, overlap };
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
        if rows >= DENSE_ROWS {
            for (of, dense) in self.types.iter().zip(&rivals.dense) {
                let bytes = info.in_features * info.out_features * of.dtype.size_bytes();
                let calls = self.calls(bytes, operations, of.dtype);
                run(What::Dense(of.dtype), Replay::of_products(dense, &of.operands, rows, calls)?);
            }
        }
        Ok(runners)
    }
}

impl Runner {
    fn new(what: What, rows: usize, replay: Replay) -> Self {
        Self { what, rows, replay, seconds: Vec::new() }
    }

    fn finish(self, bench: &Bench<'_>) -> (What, Timing) {
        let dtype = match self.what {
            What::Dense(dtype) => dtype,
            What::Layers(number, _) => {
                bench.job.contestants.get(number).map_or(DType::F16, |contestant| contestant.dtype)
            }
        };
        let calls = self.replay.calls() * self.seconds.len();
        (self.what, Timing::new(self.rows, dtype, calls, self.seconds))
    }
}

/// The shortest of several replays.
fn best(replay: &mut Replay, rounds: usize) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..rounds {
        least = least.min(replay.seconds()?);
    }
    Ok(least)
}

/// How many copies of so many bytes take `total` bytes: never less than two, of which one is out of the cache while the other
/// is read.
fn copies(total: usize, bytes: usize) -> usize {
    layer::copies_of(total, bytes).max(2)
}

/// How many calls of `call` seconds fill a turn.
fn calls(turn: f64, call: f64) -> usize {
    let [least, most] = CALLS;
    let needed = turn / call.max(LEAST_SECONDS);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
    let calls = needed.round().clamp(least as f64, most as f64) as usize;
    calls
}

/// Numbers as bytes of a type.
fn encoded(numbers: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        DType::F16 => numbers.iter().flat_map(|number| f16::from_f32(*number).to_le_bytes()).collect(),
        DType::BF16 => numbers.iter().flat_map(|number| bf16::from_f32(*number).to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_leave_the_cache_before_their_turn_comes_again() {
        for shape in Shape::OF_GPUS {
            let bytes = shape.k * shape.n / 2;
            let count = copies(COPIES_BYTES, bytes);
            assert!(
                count * bytes >= COPIES_BYTES && (count - 1) * bytes < COPIES_BYTES.max(2 * bytes),
                "{shape}"
            );
        }
        assert_eq!([copies(1, 100), copies(1000, 0)], [2, 1000]);
        assert_eq!(copies(COPIES_BYTES, 1), layer::MOST_COPIES, "of a layer of one weight");
    }

    #[test]
    fn a_graph_fills_its_turn_within_reason() {
        assert_eq!(calls(3e-3, 40e-6), 75);
        assert_eq!(calls(3e-3, 0.0), 480, "no call takes less than four microseconds, and 480 are enough");
        assert_eq!(calls(3e-3, 1.0), 2);
        assert_eq!(calls(3e-3, f64::NAN), 480, "a rate that was not measured");
    }

    #[test]
    fn numbers_are_written_in_the_type_of_x() {
        assert_eq!(encoded(&[1.0], DType::F16), 0x3c00u16.to_le_bytes());
        assert_eq!(encoded(&[1.0], DType::BF16), 0x3f80u16.to_le_bytes());
        assert_eq!(encoded(&[1.0], DType::F32), 1.0f32.to_le_bytes());
    }
}
