//! The machine that runs the calls: its clock, and its limits.

use std::time::Instant;

use gptq_core::device::Device;
use gptq_core::tensor::DType;
use gptq_torch_fallback::limits::{Multiplication, ReadBandwidth, multiply_rate};
use serde::Serialize;

use crate::failure::{Failure, Result};

use super::call::Bench;

/// What a device brings so that layers can be timed on it.
pub(super) trait Machine {
    /// What it is, for whoever reads the figures.
    fn name(&self) -> String;
    /// Measures its limits once more.
    fn measure(&mut self);
    /// The best that was measured.
    fn limits(&self) -> Limits;
    /// Makes one call or several, and returns the seconds of each.
    fn time(&self, bench: &mut Bench) -> Result<Vec<f64>>;
}

/// What a machine can do at most. 0 where nothing was measured.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(super) struct Limits {
    /// Bytes that it reads from memory in a second.
    pub(super) read_bytes_per_second: f64,
    /// Operations a second with f32 (two for a product and its sum).
    pub(super) f32_operations_per_second: f64,
    /// The same with bf16, summed in f32.
    pub(super) bf16_operations_per_second: f64,
    /// The same with f16, summed in f32.
    pub(super) f16_operations_per_second: f64,
}

impl Limits {
    /// Operations a second for x of this type.
    pub(super) fn operations_per_second(&self, dtype: DType) -> f64 {
        match dtype {
            DType::F32 => self.f32_operations_per_second,
            DType::BF16 => self.bf16_operations_per_second,
            DType::F16 => self.f16_operations_per_second,
        }
    }

    /// Of each the larger.
    fn best(self, other: Self) -> Self {
        Self {
            read_bytes_per_second: self.read_bytes_per_second.max(other.read_bytes_per_second),
            f32_operations_per_second: self.f32_operations_per_second.max(other.f32_operations_per_second),
            bf16_operations_per_second: self.bf16_operations_per_second.max(other.bf16_operations_per_second),
            f16_operations_per_second: self.f16_operations_per_second.max(other.f16_operations_per_second),
        }
    }
}

/// The machine that `device` names. `read_bytes`: how much to read when its bandwidth is measured.
pub(super) fn of(device: &Device, read_bytes: usize) -> Result<Box<dyn Machine>> {
    match device {
        Device::Cpu => {
            Ok(Box::new(Cpu { memory: ReadBandwidth::new(read_bytes), limits: Limits::default() }))
        }
        _ => Err(Failure::NoClock { device: device.clone() }),
    }
}

/// Processes that wanted to run, averaged over the last minute; on Linux.
pub(super) fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

struct Cpu {
    memory: ReadBandwidth,
    limits: Limits,
}

impl Machine for Cpu {
    fn name(&self) -> String {
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

    fn measure(&mut self) {
        let rate = |what| multiply_rate(what).unwrap_or(0.0);
        let f32 = rate(Multiplication::F32);
        let bf16 = rate(Multiplication::Bf16Pairs);
        self.limits = self.limits.best(Limits {
            read_bytes_per_second: self.memory.measure(),
            f32_operations_per_second: f32,
            // Processors without instructions for a type widen it.
            bf16_operations_per_second: if bf16 > 0.0 { bf16 } else { f32 },
            f16_operations_per_second: f32,
        });
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn time(&self, bench: &mut Bench) -> Result<Vec<f64>> {
        let started = Instant::now();
        bench.call()?;
        bench.context().synchronize()?;
        Ok(vec![started.elapsed().as_secs_f64()])
    }
}
