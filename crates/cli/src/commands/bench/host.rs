//! Layers on the host: every call timed by the clock, beside what the machine reads and multiplies.

use std::num::NonZeroUsize;
use std::sync::Arc;

use gptq_torch_fallback::limits::{Multiplication, ReadBandwidth, multiply_rate};

use crate::failure::Result;
use crate::room;

use super::call::{self, Bench, median};
use super::job::{Job, Outcome};
use super::layer::{self, Memory, Shape};
use super::limits::Limits;
use super::report::{Measured, operations};

/// Copies to rotate over take as much memory, where nothing else is asked for: more than caches hold.
const COPIES_BYTES: usize = 512 << 20;
/// Memory that is read when the bandwidth is measured, where nothing else is asked for.
const READ_BYTES: usize = 1 << 30;
const ROUNDS: usize = 5;
const TURN_SECONDS: f64 = 0.1;

/// Times every case of the job. All cases of a layer take turns in every round.
pub(super) fn measure(job: &Job<'_>) -> Result<Outcome> {
    let read_bytes = job.read_bytes.unwrap_or(READ_BYTES);
    room::for_bytes(|| "memory to read".into(), Some(read_bytes), "pass a smaller --read")?;
    for Shape { k, n } in job.specs.iter().map(|spec| spec.shape) {
        room::for_x_and_y("the benchmark", job.most_rows(), [k, n])?;
    }
    let memory = ReadBandwidth::new(read_bytes);
    let mut limits = Limits::default();
    let mut measured = Vec::new();
    for (index, spec) in job.specs.iter().enumerate() {
        job.bar.show_count("bench", index, job.specs.len());
        let layer = spec.build()?;
        let bytes = layer.info().packed_bytes;
        let count =
            if job.warm { 1 } else { layer::copies_of(job.copies_bytes.unwrap_or(COPIES_BYTES), bytes) };
        room::for_bytes(|| "copies of a layer".into(), count.checked_mul(bytes), "pass a smaller --copies")?;
        let copies = layer::copies(&layer, count, Memory::Own)?;
        let mut benches = Vec::new();
        for contestant in &job.contestants {
            let model = call::model(&copies, contestant, job)?;
            for &rows in &job.rows {
                benches.push(Bench::new(Arc::clone(&model), rows.get(), contestant.dtype)?);
            }
        }
        let mut of_limit = vec![Vec::new(); benches.len()];
        for _ in 0..job.rounds.map_or(ROUNDS, NonZeroUsize::get) {
            let before = of_machine(&memory);
            let mut seconds = Vec::with_capacity(benches.len());
            for bench in &mut benches {
                seconds.push(bench.turn(job.turn_seconds.unwrap_or(TURN_SECONDS))?);
            }
            // A machine that others share reads faster in one second than in the next: a call is held to its round.
            let of_round = before.best(of_machine(&memory));
            limits = limits.best(of_round);
            for ((shares, bench), seconds) in of_limit.iter_mut().zip(&benches).zip(seconds) {
                let (rows, dtype) = bench.rows_and_dtype();
                let operations = operations(rows, layer.info());
                shares.push(of_round.seconds(bytes, operations, dtype) / seconds);
            }
        }
        for (bench, shares) in benches.into_iter().zip(of_limit) {
            let backend = bench.backend();
            let mut case = Measured::new(bench.timing(), layer.info(), backend);
            case.of_limit = median(shares);
            measured.push(case);
        }
    }
    Ok(Outcome { machine: name(), limits, measured })
}

/// What the machine is, for whoever reads the figures.
fn name() -> String {
    let threads = gptq_torch_fallback::limits::threads();
    let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line =
            described.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    match (field("model name"), field("cpu family"), field("model")) {
        (Some(name), Some(family), Some(model)) => {
            format!("{name}, family {family} model {model}, {threads} threads")
        }
        _ => format!("{}, {threads} threads", std::env::consts::ARCH),
    }
}

/// Its limits, measured once more.
fn of_machine(memory: &ReadBandwidth) -> Limits {
    let rate = |what| multiply_rate(what).unwrap_or(0.0);
    let f32 = rate(Multiplication::F32);
    let bf16 = rate(Multiplication::Bf16Pairs);
    Limits {
        read_bytes_per_second: memory.measure(),
        f32_operations_per_second: f32,
        // Processors without instructions for a type widen it.
        bf16_operations_per_second: if bf16 > 0.0 { bf16 } else { f32 },
        f16_operations_per_second: f32,
    }
}
