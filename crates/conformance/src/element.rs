//! Elements of activations as bytes, and as f64.

use gptq_core::tensor::DType;
use half::{bf16, f16};

/// The nearest f32.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what it is for")]
pub(crate) fn to_f32(value: f64) -> f32 {
    value as f32
}

/// The nearest f16; of two that are equally near, the even one.
///
/// `half` converts from f64 after it has cut off the lower half of the mantissa, so that what lies a little above the
/// middle of two values counts as the middle.
pub(crate) fn to_f16(value: f64) -> f16 {
    f16::from_f32(to_odd_f32(value))
}

/// The nearest bf16; of two that are equally near, the even one.
pub(crate) fn to_bf16(value: f64) -> bf16 {
    bf16::from_f32(to_odd_f32(value))
}

/// The f32 towards zero, its last bit set where something was lost. Rounding that again to 16 bits is rounding once
/// (Boldo and Melquiond, "When double rounding is odd", IMACS 2005).
fn to_odd_f32(value: f64) -> f32 {
    let near = to_f32(value);
    let wide = f64::from(near);
    if wide == value || near.is_nan() {
        return near;
    }
    let towards_zero = near.to_bits() - u32::from(wide.abs() > value.abs());
    f32::from_bits(towards_zero | 1)
}

/// The nearest value of `dtype`.
pub(crate) fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => to_f32(value).into(),
        DType::F16 => to_f16(value).to_f64(),
        DType::BF16 => to_bf16(value).to_f64(),
    }
}

/// Values as the bytes of a tensor.
pub(crate) fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|&value| to_f32(value).to_ne_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&value| to_f16(value).to_ne_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&value| to_bf16(value).to_ne_bytes()).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The neighbours of a value in a 16-bit type and the value in the middle of them, all exact in f64.
    fn neighbours(below: u16, to_f64: fn(u16) -> f64) -> (f64, f64, f64) {
        let (low, high) = (to_f64(below), to_f64(below + 1));
        (low, f64::midpoint(low, high), high)
    }

    #[test]
    fn what_lies_a_hair_beside_the_middle_goes_to_the_nearer_side() {
        let f16_of = |bits| f16::from_bits(bits).to_f64();
        let bf16_of = |bits| bf16::from_bits(bits).to_f64();
        // Normal numbers, powers of two, subnormal numbers and the smallest one; even and odd below.
        for below in [0x3c00u16, 0x3c01, 0x3bff, 0x0400, 0x03ff, 0x0123, 0x0001, 0x0000, 0x7bfe] {
            for (dtype, (low, middle, high)) in
                [(DType::F16, neighbours(below, f16_of)), (DType::BF16, neighbours(below, bf16_of))]
            {
                let even = if below % 2 == 0 { low } else { high };
                for (value, expected) in [
                    (low, low),
                    (middle.next_down(), low),
                    (middle, even),
                    (middle.next_up(), high),
                    (high, high),
                ] {
                    assert_eq!(round(dtype, value), expected, "{dtype}: {value:e} above {below:#06x}");
                    assert_eq!(round(dtype, -value), -expected, "{dtype}: {:e}", -value);
                }
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_infinite_and_what_is_no_number_stays_none() {
        for (value, expected) in [
            (65519.99, 65504.0),
            (65520.0, f64::INFINITY),
            (1e300, f64::INFINITY),
            (f64::INFINITY, f64::INFINITY),
            (1e-300, 0.0),
        ] {
            assert_eq!(round(DType::F16, value), expected, "{value:e}");
        }
        assert_eq!(round(DType::BF16, f64::from(f32::MAX)), f64::INFINITY);
        assert!(DType::ALL.iter().all(|&dtype| round(dtype, f64::NAN).is_nan()));
    }

    #[test]
    fn elements_read_back_as_they_were_written() {
        for dtype in DType::ALL {
            let values = [0.0, -1.5, 1024.0, f64::INFINITY];
            assert_eq!(decode(dtype, &encode(dtype, &values)), values, "{dtype}");
        }
    }
}
