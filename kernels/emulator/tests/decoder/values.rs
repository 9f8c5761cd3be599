//! Vectors of every type of activations.

use gptq_core::tensor::{DType, Element, bf16, f16};
use gptq_emulator::Buffer;

/// Numbers between -1 and 1 that a seed decides.
pub(crate) fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 2654435 + seed * 40503 + i * i % 89) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// The same as a kernel reads them.
pub(crate) fn rounded(values: &[f32], dtype: DType) -> Vec<f64> {
    let one = |value: f32| match dtype {
        DType::F32 => value,
        DType::F16 => f16::from_f32(value).widen(),
        DType::BF16 => bf16::from_f32(value).widen(),
    };
    values.iter().map(|value| f64::from(one(*value))).collect()
}

pub(crate) fn to_bytes(values: &[f32], dtype: DType) -> Vec<u8> {
    fn of<T: Element>(values: &[f32]) -> Vec<u8> {
        let values: Vec<T> = values.iter().map(|value| T::narrow(*value)).collect();
        bytemuck::cast_slice(&values).to_vec()
    }
    match dtype {
        DType::F32 => of::<f32>(values),
        DType::F16 => of::<f16>(values),
        DType::BF16 => of::<bf16>(values),
    }
}

pub(crate) fn from_bytes(bytes: &[u8], dtype: DType) -> Vec<f64> {
    fn of<T: Element>(bytes: &[u8]) -> Vec<f64> {
        let element = |bytes: &[u8]| f64::from(bytemuck::pod_read_unaligned::<T>(bytes).widen());
        bytes.chunks_exact(size_of::<T>()).map(element).collect()
    }
    match dtype {
        DType::F32 => of::<f32>(bytes),
        DType::F16 => of::<f16>(bytes),
        DType::BF16 => of::<bf16>(bytes),
    }
}

pub(crate) fn input(name: &str, values: &[f32], dtype: DType) -> Buffer<u8> {
    Buffer::input(name, &to_bytes(values, dtype))
}

/// That every element is the nearest of its type to the expected, or one beside it.
#[track_caller]
pub(crate) fn assert_close(found: &[f64], expected: &[f64], dtype: DType, case: &str) {
    assert_eq!(found.len(), expected.len(), "{case}: as many elements");
    let unit = match dtype {
        DType::F32 => 2e-5,
        DType::F16 => 1.0 / 1024.0,
        DType::BF16 => 1.0 / 128.0,
    };
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = unit * expected.abs().max(0.01);
        assert!(
            (found - expected).abs() <= allowed,
            "{case}, {dtype}: element {at} is {found}, expected {expected} within {allowed:.1e}"
        );
    }
}
