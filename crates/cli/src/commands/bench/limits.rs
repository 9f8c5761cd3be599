//! What a machine can do at most.

use gptq_core::tensor::DType;
use serde::Serialize;

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

    /// Where the operations a second for x of this type are kept.
    pub(super) fn operations_mut(&mut self, dtype: DType) -> &mut f64 {
        match dtype {
            DType::F32 => &mut self.f32_operations_per_second,
            DType::BF16 => &mut self.bf16_operations_per_second,
            DType::F16 => &mut self.f16_operations_per_second,
        }
    }

    /// How long reading so many bytes takes, or so many operations with x of a type: whichever is longer.
    pub(super) fn seconds(&self, bytes: usize, operations: f64, dtype: DType) -> f64 {
        let reading = bytes as f64 / self.read_bytes_per_second;
        reading.max(operations / self.operations_per_second(dtype))
    }

    /// Of each the larger.
    pub(super) fn best(self, other: Self) -> Self {
        Self {
            read_bytes_per_second: self.read_bytes_per_second.max(other.read_bytes_per_second),
            f32_operations_per_second: self.f32_operations_per_second.max(other.f32_operations_per_second),
            bf16_operations_per_second: self.bf16_operations_per_second.max(other.bf16_operations_per_second),
            f16_operations_per_second: self.f16_operations_per_second.max(other.f16_operations_per_second),
        }
    }
}

/// Processes that wanted to run, averaged over the last minute; on Linux.
pub(super) fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
