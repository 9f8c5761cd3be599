//! Lent views of activations, and the element types they come in.
//!
//! Core owns no tensor type. An engine lends what it has, a slice on the host or a buffer on a device, for the
//! time of one call.

mod floats;

use std::fmt;
use std::ops::Range;

use bytemuck::Pod;
use serde::Serialize;

pub use floats::{FloatSurvey, Floats};
pub use half::{bf16, f16};

use crate::device::{Device, DeviceBuffer};
use crate::error::{Error, Result};

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

    /// The elements of `range`, counted row by row and widened to f32, into `to`, which is as long. Whatever the dtype,
    /// for backends that compute in f32 on the host. Elements outside leave `to` as it is.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] where they are not in host memory.
    pub fn read(&self, range: Range<usize>, to: &mut [f32]) -> Result<()> {
        fn widen<T: Element>(from: &[u8], range: Range<usize>, to: &mut [f32]) {
            let from: &[T] = bytemuck::try_cast_slice(from).unwrap_or_default();
            for (to, from) in to.iter_mut().zip(from.get(range).unwrap_or_default()) {
                *to = from.widen();
            }
        }
        let DataRef::Host(bytes) = self.data else { return Err(not_on_the_host("x", self.device())) };
        match self.dtype {
            DType::F32 => widen::<f32>(bytes, range, to),
            DType::F16 => widen::<f16>(bytes, range, to),
            DType::BF16 => widen::<bf16>(bytes, range, to),
        }
        Ok(())
    }
}

fn not_on_the_host(what: &str, found: Device) -> Error {
    Error::DeviceMismatch { what: what.into(), found, expected: Device::Cpu }
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

    /// Writes `from`, each value rounded to the nearest of this dtype, to the elements of `range`, counted row by row.
    /// The counterpart of [`TensorRef::read`]. A range that leaves the matrix writes nothing.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] where they are not in host memory.
    pub fn write(&mut self, range: Range<usize>, from: &[f32]) -> Result<()> {
        fn narrow<T: Element>(to: &mut [u8], range: Range<usize>, from: &[f32]) {
            let to: &mut [T] = bytemuck::try_cast_slice_mut(to).unwrap_or_default();
            for (to, from) in to.get_mut(range).unwrap_or_default().iter_mut().zip(from) {
                *to = T::narrow(*from);
            }
        }
        let device = self.device();
        let DataMut::Host(bytes) = &mut self.data else { return Err(not_on_the_host("out", device)) };
        match self.dtype {
            DType::F32 => narrow::<f32>(bytes, range, from),
            DType::F16 => narrow::<f16>(bytes, range, from),
            DType::BF16 => narrow::<bf16>(bytes, range, from),
        }
        Ok(())
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
    fn elements_of_every_type_are_read_and_written_as_f32() {
        fn round_trip<T: Element>() {
            let mut out = [T::narrow(-1.0); 6];
            let mut tensor = TensorMut::host(&mut out, [2, 3]).unwrap();
            tensor.write(2..5, &[0.5, 2.0, 1.0 + f32::EPSILON]).unwrap();
            tensor.write(5..7, &[9.0, 9.0]).unwrap();
            let mut wide = [7.0; 4];
            let tensor = TensorRef::host(&out, [2, 3]).unwrap();
            tensor.read(1..5, &mut wide).unwrap();
            tensor.read(4..7, &mut wide).unwrap();
            let last = T::narrow(1.0 + f32::EPSILON).widen();
            assert_eq!(wide, [-1.0, 0.5, 2.0, last], "{}", T::DTYPE);
            assert_eq!(out.map(T::widen), [-1.0, -1.0, 0.5, 2.0, last, -1.0], "{}", T::DTYPE);
        }
        round_trip::<f32>();
        round_trip::<f16>();
        round_trip::<bf16>();
    }

    #[test]
    fn a_matrix_without_rows_is_a_tensor() {
        assert!(TensorRef::host::<f32>(&[], [0, 64]).is_ok());
    }
}
