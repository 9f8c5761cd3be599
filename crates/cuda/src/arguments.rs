//! What parameters and launches of kernels are filled with: addresses as pointers, and numbers in 32 bits.

use std::ffi::c_void;
use std::ptr;

use gptq_core::backend::Rejection;
use gptq_core::device::{Context, Device};
use gptq_core::tensor::DType;
use gptq_core::{Error, LayerInfo, Result};

use crate::bias::Bias;
use crate::buffer::CudaBuffer;
use crate::stream::CudaStream;

/// A device address, as parameters have it.
#[expect(clippy::cast_possible_truncation, reason = "CUDA is for hosts of 64 bits")]
pub fn pointer<T>(address: u64) -> *const T {
    ptr::without_provenance(address as usize)
}

/// A number that a backend has seen to fit when it accepted the layer. One that does not would be a defect there, and makes
/// a launch fail.
pub fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The stream and the scratch of a call's context.
///
/// # Errors
/// [`Error::DeviceMismatch`] where the context is of the host, [`Error::Device`] where it is another crate's.
pub fn stream_and_scratch<'a>(
    layer: &LayerInfo,
    device: &Device,
    context: &'a mut Context,
) -> Result<(&'a CudaStream, &'a CudaBuffer)> {
    let found = context.device();
    let (stream, scratch) = context.on_device().ok_or_else(|| Error::DeviceMismatch {
        what: format!("the context of layer `{}`", layer.name),
        found,
        expected: device.clone(),
    })?;
    Ok((CudaStream::of(stream)?, CudaBuffer::of(scratch)?))
}

/// For a call with x of a type that a backend has accepted and has no kernels for: a defect there, and no answer.
pub fn no_kernels(layer: &LayerInfo, found: DType) -> Error {
    Error::DtypeMismatch {
        what: format!("x of layer `{}`", layer.name),
        found,
        expected: "one that kernels of the layer are loaded for".into(),
    }
}

/// The number of an element type in parameters, as dtype.h of the kernels has it.
pub const fn dtype_code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
    }
}

/// The address and the type of a bias as parameters have them; null where there is none.
pub fn bias_of(bias: Option<Bias>) -> (*const c_void, u32) {
    bias.map_or((ptr::null(), 0), |bias| (pointer(bias.address), dtype_code(bias.dtype)))
}

/// How many blocks of `size` hold `total`.
pub fn blocks(total: usize, size: usize) -> u32 {
    count(total.div_ceil(size))
}

/// Whether the `[in_features, out_features]` of a layer are at most what kernels count to.
///
/// # Errors
/// Which of them is more.
pub fn accepts(layer: &LayerInfo, [most_in, most_out]: [usize; 2]) -> std::result::Result<(), Rejection> {
    for (what, size, most) in
        [("in_features", layer.in_features, most_in), ("out_features", layer.out_features, most_out)]
    {
        if size > most {
            return Err(Rejection::other(
                format!("the layer's {what} is {size}, and its kernels count to {most}"),
                "split the module, or choose another backend",
            ));
        }
    }
    Ok(())
}
