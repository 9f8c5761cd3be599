//! What the driver answers, as errors of core.

use cudarc::driver::DriverError;
use gptq_core::device::Device;
use gptq_core::{Error, Result};

/// Gives a status of the driver its device and what was tried.
pub(crate) trait During<T> {
    /// `operation` completes the sentence "cuda:0: .. failed".
    fn during(self, ordinal: usize, operation: impl Into<String>) -> Result<T>;
}

impl<T> During<T> for Result<T, DriverError> {
    fn during(self, ordinal: usize, operation: impl Into<String>) -> Result<T> {
        self.map_err(|error| device_error(ordinal, operation, describe(error)))
    }
}

pub(crate) fn device_error(
    ordinal: usize,
    operation: impl Into<String>,
    message: impl Into<String>,
) -> Error {
    Error::Device { device: Device::Cuda(ordinal), operation: operation.into(), message: message.into() }
}

/// `CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered`.
pub(crate) fn describe(error: DriverError) -> String {
    let name = error
        .error_name()
        .map_or_else(|_| format!("{:?}", error.0), |name| name.to_string_lossy().into_owned());
    match error.error_string() {
        Ok(text) => format!("{name}: {}", text.to_string_lossy()),
        Err(_) => name,
    }
}
