//! Memory on a GPU: owned, or lent by an engine.
#![expect(unsafe_code, reason = "the door for engines that own their memory")]

use std::any::Any;
use std::fmt;

use gptq_core::device::{Device, DeviceBuffer};
use gptq_core::tensor::{DataMut, DataRef, TensorMut, TensorRef};
use gptq_core::{Error, Result};

use crate::gpu::{Gpu, failed};

/// A range of a GPU's memory.
///
/// Dropping one that is owned waits for all work of the device, or, while a graph is captured, leaves the memory to be
/// freed later. Work that is queued may so keep using it until then.
pub struct CudaBuffer {
    gpu: Gpu,
    address: u64,
    bytes: usize,
    owned: bool,
}

impl CudaBuffer {
    pub(crate) fn owning(gpu: Gpu, address: u64, bytes: usize) -> Self {
        Self { gpu, address, bytes, owned: true }
    }

    /// Memory that an engine owns, as a buffer, without a copy. Dropping the buffer leaves the memory alone.
    ///
    /// # Safety
    /// As long as the buffer lives, and until work that was queued with it is done:
    /// 1. `address` to `address + bytes` is memory of `gpu`, or memory that it can reach, in its primary context (as
    ///    everything is that the CUDA runtime allocates);
    /// 2. nobody else writes to it, nor reads while it is lent for writing, but in the order of the stream it is used
    ///    on.
    pub unsafe fn from_raw(gpu: &Gpu, address: u64, bytes: usize) -> Self {
        Self { gpu: gpu.clone(), address, bytes, owned: false }
    }

    /// The buffer behind core's trait.
    ///
    /// # Errors
    /// [`Error::Device`] where it is another crate's.
    pub fn of(buffer: &dyn DeviceBuffer) -> Result<&Self> {
        buffer.as_any().downcast_ref().ok_or_else(|| foreign("a buffer", buffer.device()))
    }

    /// Where it begins, for a field of a kernel's parameters. 0 where it is empty.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The GPU that it is on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The address of `bytes` bytes from `offset_bytes` on, which are within it.
    pub(crate) fn range(&self, offset_bytes: usize, bytes: usize, operation: &str) -> Result<u64> {
        match offset_bytes.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(self.address + offset_bytes as u64),
            _ => Err(failed(
                &self.gpu,
                operation,
                format!("{bytes} bytes from byte {offset_bytes} leave the buffer, which has {}", self.bytes),
            )),
        }
    }
}

/// The address of a matrix in a [`CudaBuffer`].
///
/// # Errors
/// [`Error::DeviceMismatch`] where it is in host memory; [`Error::Device`] where the buffer is another crate's.
pub fn address(tensor: &TensorRef<'_>) -> Result<u64> {
    match tensor.data() {
        // A tensor was checked to lie within its buffer when it was made.
        DataRef::Device(buffer, offset) => Ok(CudaBuffer::of(buffer)?.address + offset as u64),
        DataRef::Host(_) => Err(on_the_host()),
    }
}

/// The address of a matrix in a [`CudaBuffer`], to write to.
///
/// # Errors
/// As [`address`].
pub fn address_mut(tensor: &mut TensorMut<'_>) -> Result<u64> {
    match tensor.data() {
        DataMut::Device(buffer, offset) => Ok(CudaBuffer::of(buffer)?.address + offset as u64),
        DataMut::Host(_) => Err(on_the_host()),
    }
}

fn on_the_host() -> Error {
    Error::DeviceMismatch { what: "a tensor".into(), found: Device::Cpu, expected: Device::Cuda(0) }
}

/// A buffer or a stream that was not made by this crate.
pub(crate) fn foreign(what: &str, device: Device) -> Error {
    Error::Device {
        device,
        operation: format!("using {what}"),
        message:
            "it is not of gptq-cuda, or of another version of it; wrap its address with gptq_cuda's from_raw"
                .into(),
    }
}

impl DeviceBuffer for CudaBuffer {
    fn device(&self) -> Device {
        Device::Cuda(self.gpu.ordinal())
    }

    fn len_bytes(&self) -> usize {
        self.bytes
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl fmt::Debug for CudaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.owned { "owned" } else { "lent" };
        write!(f, "{} bytes at {:#x} of cuda:{}, {kind}", self.bytes, self.address, self.gpu.ordinal())
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.owned {
            self.gpu.free(self.address);
        }
    }
}
