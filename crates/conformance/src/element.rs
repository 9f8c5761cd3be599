//! Elements of activations as bytes, and as f64.

use gptq_core::tensor::DType;
use half::{bf16, f16};

/// The nearest f32.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what it is for")]
pub(crate) fn to_f32(value: f64) -> f32 {
    value as f32
}

/// The nearest value of `dtype`.
pub(crate) fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => to_f32(value).into(),
        DType::F16 => f16::from_f64(value).to_f64(),
        DType::BF16 => bf16::from_f64(value).to_f64(),
    }
}

/// Values as the bytes of a tensor.
pub(crate) fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|&value| to_f32(value).to_ne_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&value| f16::from_f64(value).to_ne_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&value| bf16::from_f64(value).to_ne_bytes()).collect(),
    }
}

/// The bytes of a tensor as values.
pub(crate) fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let two = |bytes: &[u8]| bytes.try_into().unwrap_or_default();
    match dtype {
        DType::F32 => bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap_or_default()).into())
            .collect(),
        DType::F16 => bytes.chunks_exact(2).map(|bytes| f16::from_ne_bytes(two(bytes)).to_f64()).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|bytes| bf16::from_ne_bytes(two(bytes)).to_f64()).collect(),
    }
}
