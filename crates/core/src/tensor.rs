//! Lent views of activations, and the element types they come in.
//!
//! Core owns no tensor type. An engine lends what it has, a slice on the host or a buffer on a device, for the
//! time of one call.

use std::fmt;
use std::ops::Range;

use bytemuck::Pod;
use half::{bf16, f16};
use serde::Serialize;

use crate::device::{Device, DeviceBuffer};
use crate::error::{Error, Result};
use crate::shared::Shared;

/// An element type of activations, scales and biases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "a new element type changes what every backend must answer")]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    BF16,
}

impl DType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::BF16];

    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        })
    }
}

impl std::str::FromStr for DType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "f32" | "fp32" | "float32" => Ok(Self::F32),
            "f16" | "fp16" | "float16" | "half" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::BF16),
            _ => Err(format!("`{text}` is not one of f32, f16, bf16")),
        }
    }
}

/// A Rust type whose values a tensor can hold: `f32`, [`struct@f16`] or [`bf16`].
pub trait Element: Pod + Send + Sync + sealed::Sealed {
    /// The type's name at run time.
    const DTYPE: DType;

    /// The value as f32, exactly.
    fn widen(self) -> f32;

    /// The nearest value of this type; ties to even.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn widen(self) -> f32 {
        self
    }
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A row-major matrix, lent for reading. Contiguous: element `[i, j]` stands at `i · columns + j`.
#[derive(Clone, Copy)]
pub struct TensorRef<'a> {
    dtype: DType,
    shape: [usize; 2],
    data: DataRef<'a>,
}

/// Where the bytes of a [`TensorRef`] lie.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_enums, reason = "memory is the host's or a device's")]
pub enum DataRef<'a> {
    /// In host memory, aligned for the dtype, exactly as long as the shape needs.
    Host(&'a [u8]),
    /// In a device buffer, from a byte offset; the buffer is long enough.
    Device(&'a dyn DeviceBuffer, usize),
}

impl<'a> TensorRef<'a> {
    /// A host matrix of `[rows, columns]`.
    ///
    /// # Errors
    /// [`Error::TensorBytes`] unless `elements` holds exactly `rows · columns` values.
    pub fn host<T: Element>(elements: &'a [T], shape: [usize; 2]) -> Result<Self> {
        Self::from_bytes(T::DTYPE, shape, bytemuck::cast_slice(elements))
    }

    /// A host matrix given as native-endian bytes.
    ///
    /// # Errors
    /// [`Error::TensorBytes`] where the length does not fit the shape, or the bytes are not aligned for `dtype`.
    pub fn from_bytes(dtype: DType, shape: [usize; 2], bytes: &'a [u8]) -> Result<Self> {
        check_host_bytes(dtype, shape, bytes)?;
        Ok(Self { dtype, shape, data: DataRef::Host(bytes) })
    }

    /// A matrix in a device buffer, starting `offset_bytes` into it.
    ///
    /// # Errors
    /// [`Error::TensorBytes`] where the buffer ends before the matrix does, or the offset is not a multiple of
    /// the element size.
    pub fn on_device(
        dtype: DType,
        shape: [usize; 2],
        buffer: &'a dyn DeviceBuffer,
        offset_bytes: usize,
    ) -> Result<Self> {
        check_device_bytes(dtype, shape, buffer, offset_bytes)?;
        Ok(Self { dtype, shape, data: DataRef::Device(buffer, offset_bytes) })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Where the bytes lie.
    pub fn data(&self) -> DataRef<'a> {
        self.data
    }

    /// The device that holds the bytes.
    pub fn device(&self) -> Device {
        match self.data {
            DataRef::Host(_) => Device::Cpu,
            DataRef::Device(buffer, _) => buffer.device(),
        }
    }

    /// The elements, where they are `T` and in host memory.
    pub fn as_host<T: Element>(&self) -> Option<&'a [T]> {
        match self.data {
            DataRef::Host(bytes) if T::DTYPE == self.dtype => bytemuck::try_cast_slice(bytes).ok(),
            _ => None,
        }
    }
}

/// A row-major matrix, lent for writing. Laid out as [`TensorRef`].
pub struct TensorMut<'a> {
    dtype: DType,
    shape: [usize; 2],
    data: DataMut<'a>,
}

/// Where the bytes of a [`TensorMut`] lie.
#[expect(clippy::exhaustive_enums, reason = "memory is the host's or a device's")]
pub enum DataMut<'a> {
    /// In host memory, aligned for the dtype, exactly as long as the shape needs.
    Host(&'a mut [u8]),
    /// In a device buffer, from a byte offset; the buffer is long enough.
    Device(&'a mut dyn DeviceBuffer, usize),
}

impl<'a> TensorMut<'a> {
    /// A host matrix of `[rows, columns]`.
    ///
    /// # Errors
    /// [`Error::TensorBytes`] unless `elements` holds exactly `rows · columns` values.
    pub fn host<T: Element>(elements: &'a mut [T], shape: [usize; 2]) -> Result<Self> {
        Self::from_bytes(T::DTYPE, shape, bytemuck::cast_slice_mut(elements))
    }

    /// A host matrix given as native-endian bytes.
    ///
    /// # Errors
    /// [`Error::TensorBytes`] where the length does not fit the shape, or the bytes are not aligned for `dtype`.
    pub fn from_bytes(dtype: DType, shape: [usize; 2], bytes: &'a mut [u8]) -> Result<Self> {
        check_host_bytes(dtype, shape, bytes)?;
        Ok(Self { dtype, shape, data: DataMut::Host(bytes) })
    }

    /// A matrix in a device buffer, starting `offset_bytes` into it.
    ///
    /// # Errors
    /// [`Error::TensorBytes`] where the buffer ends before the matrix does, or the offset is not a multiple of
    /// the element size.
    pub fn on_device(
        dtype: DType,
        shape: [usize; 2],
        buffer: &'a mut dyn DeviceBuffer,
        offset_bytes: usize,
    ) -> Result<Self> {
        check_device_bytes(dtype, shape, buffer, offset_bytes)?;
        Ok(Self { dtype, shape, data: DataMut::Device(buffer, offset_bytes) })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Where the bytes lie.
    pub fn data(&mut self) -> DataMut<'_> {
        match &mut self.data {
            DataMut::Host(bytes) => DataMut::Host(bytes),
            DataMut::Device(buffer, offset) => DataMut::Device(*buffer, *offset),
        }
    }

    /// The device that holds the bytes.
    pub fn device(&self) -> Device {
        match &self.data {
            DataMut::Host(_) => Device::Cpu,
            DataMut::Device(buffer, _) => buffer.device(),
        }
    }

    /// The elements, where they are `T` and in host memory.
    pub fn as_host<T: Element>(&mut self) -> Option<&mut [T]> {
        match &mut self.data {
            DataMut::Host(bytes) if T::DTYPE == self.dtype => bytemuck::try_cast_slice_mut(bytes).ok(),
            _ => None,
        }
    }
}

fn byte_len(dtype: DType, [rows, columns]: [usize; 2]) -> Option<usize> {
    rows.checked_mul(columns)?.checked_mul(dtype.size_bytes())
}

fn check_host_bytes(dtype: DType, shape: [usize; 2], bytes: &[u8]) -> Result<()> {
    let problem = if byte_len(dtype, shape) != Some(bytes.len()) {
        format!("{} bytes do not hold exactly [{}, {}] of {dtype}", bytes.len(), shape[0], shape[1])
    } else if bytes.as_ptr().align_offset(dtype.size_bytes()) != 0 {
        format!("the bytes are not aligned to the {} bytes of {dtype}; copy them", dtype.size_bytes())
    } else {
        return Ok(());
    };
    Err(Error::TensorBytes { what: "host tensor".into(), problem })
}

fn check_device_bytes(
    dtype: DType,
    shape: [usize; 2],
    buffer: &dyn DeviceBuffer,
    offset: usize,
) -> Result<()> {
    let end = byte_len(dtype, shape).and_then(|bytes| bytes.checked_add(offset));
    let problem = if end.is_none_or(|end| end > buffer.len_bytes()) {
        format!(
            "[{}, {}] of {dtype} from byte {offset} leaves the buffer's {} bytes",
            shape[0],
            shape[1],
            buffer.len_bytes()
        )
    } else if !offset.is_multiple_of(dtype.size_bytes()) {
        format!("offset {offset} is not a multiple of the {} bytes of {dtype}", dtype.size_bytes())
    } else {
        return Ok(());
    };
    Err(Error::TensorBytes { what: format!("tensor on {}", buffer.device()), problem })
}

/// Floating-point values that own a share of where they lie: the scales or the bias of a layer.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "one variant for each DType")]
pub enum Floats {
    /// IEEE binary32.
    F32(Shared<f32>),
    /// IEEE binary16.
    F16(Shared<f16>),
    /// The upper half of binary32.
    BF16(Shared<bf16>),
}

impl Floats {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::BF16(_) => DType::BF16,
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::BF16(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of `range`, widened to f32, into `out`, which is as long. Values outside leave `out` as it is.
    pub fn read(&self, range: Range<usize>, out: &mut [f32]) {
        fn widen<T: Element>(from: Option<&[T]>, to: &mut [f32]) {
            for (to, from) in to.iter_mut().zip(from.unwrap_or_default()) {
                *to = from.widen();
            }
        }
        match self {
            Self::F32(values) => widen(values.get(range), out),
            Self::F16(values) => widen(values.get(range), out),
            Self::BF16(values) => widen(values.get(range), out),
        }
    }

    /// How large the values are, and how many are not numbers. One pass over their bits.
    pub fn survey(&self) -> FloatSurvey {
        // Without its sign, a float orders as the integer of the same bits, and everything from infinity on is not
        // finite. Nearly always nothing is: the first pass is a plain maximum, which vectorizes.
        fn fold<I: Copy + Ord + Default>(bits: impl Iterator<Item = I> + Clone, infinity: I) -> (usize, I) {
            let largest = bits.clone().fold(I::default(), I::max);
            if largest < infinity {
                return (0, largest);
            }
            let finite = bits.clone().filter(|&bits| bits < infinity);
            (bits.filter(|&bits| bits >= infinity).count(), finite.fold(I::default(), I::max))
        }
        let (non_finite, largest) = match self {
            Self::F32(values) => {
                let (count, bits) = fold(values.iter().map(|v| v.abs().to_bits()), f32::INFINITY.to_bits());
                (count, f32::from_bits(bits))
            }
            Self::F16(values) => {
                let (count, bits) =
                    fold(values.iter().map(|v| v.to_bits() & 0x7FFF), f16::INFINITY.to_bits());
                (count, f16::from_bits(bits).to_f32())
            }
            Self::BF16(values) => {
                let (count, bits) =
                    fold(values.iter().map(|v| v.to_bits() & 0x7FFF), bf16::INFINITY.to_bits());
                (count, bf16::from_bits(bits).to_f32())
            }
        };
        FloatSurvey { non_finite, largest }
    }

    /// The values as native-endian bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => values.as_bytes(),
            Self::F16(values) => values.as_bytes(),
            Self::BF16(values) => values.as_bytes(),
        }
    }

    /// How many bytes lie in memory that is not a mapped file.
    pub fn resident_bytes(&self) -> usize {
        match self {
            Self::F32(values) => values.resident_bytes(),
            Self::F16(values) => values.resident_bytes(),
            Self::BF16(values) => values.resident_bytes(),
        }
    }
}

/// How large some values are.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct FloatSurvey {
    /// How many are infinite or not a number.
    pub non_finite: usize,
    /// The largest magnitude of the others.
    pub largest: f32,
}

impl From<Vec<f32>> for Floats {
    fn from(values: Vec<f32>) -> Self {
        Self::F32(values.into())
    }
}

impl From<Vec<f16>> for Floats {
    fn from(values: Vec<f16>) -> Self {
        Self::F16(values.into())
    }
}

impl From<Vec<bf16>> for Floats {
    fn from(values: Vec<bf16>) -> Self {
        Self::BF16(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_tensor_refuses_a_wrong_length_an_overflowing_shape_and_misaligned_bytes() {
        let words = [0u32; 3];
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        assert!(TensorRef::from_bytes(DType::F32, [1, 2], &bytes[..8]).is_ok());
        for (shape, bytes, why) in [
            ([1, 2], &bytes[..7], "too short"),
            ([1, 2], bytes, "too long"),
            ([usize::MAX, 2], bytes, "the product overflows"),
            ([1, 2], &bytes[1..9], "misaligned"),
        ] {
            let error = TensorRef::from_bytes(DType::F32, shape, bytes).err();
            assert!(matches!(error, Some(Error::TensorBytes { .. })), "{why}");
        }
    }

    #[test]
    fn elements_come_back_only_as_what_they_are() {
        let values = [f16::from_f32(0.5); 4];
        let tensor = TensorRef::host(&values, [2, 2]).unwrap();
        assert_eq!(tensor.as_host::<f16>(), Some(&values[..]));
        assert_eq!(tensor.as_host::<bf16>(), None, "same size, another type");
        assert_eq!(tensor.device(), Device::Cpu);
    }

    #[test]
    fn a_survey_counts_what_is_not_finite_and_finds_the_largest_of_the_rest() {
        let values = [1.0, -3.0, f32::NAN, f32::NEG_INFINITY, 2.0, -f32::NAN];
        let expected = FloatSurvey { non_finite: 3, largest: 3.0 };
        assert_eq!(Floats::from(values.to_vec()).survey(), expected);
        assert_eq!(Floats::from(values.map(f16::from_f32).to_vec()).survey(), expected);
        assert_eq!(Floats::from(values.map(bf16::from_f32).to_vec()).survey(), expected);
        assert_eq!(Floats::from(Vec::<f32>::new()).survey(), FloatSurvey::default());
    }

    #[test]
    fn a_matrix_without_rows_is_a_tensor() {
        assert!(TensorRef::host::<f32>(&[], [0, 64]).is_ok());
    }
}
