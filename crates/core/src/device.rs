//! Devices, their memory and their streams, as small traits: core names no vendor.
//!
//! Everything runs on a [`Device`]. On the host nothing more is needed. Elsewhere a backend brings a [`Memory`],
//! which allocates [`DeviceBuffer`]s and makes [`Stream`]s; a [`Context`] joins a stream with the scratch that
//! one call at a time may use on it.
//!
//! Backends of one device must understand one another's buffers and streams. Those for CUDA all use the types of
//! `gptq-cuda`.

use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// Where layers run.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Device {
    /// The host processor.
    Cpu,
    /// The CUDA device of this ordinal, as the driver counts (`CUDA_VISIBLE_DEVICES` applies).
    Cuda(usize),
    /// A kind of device that a third-party backend brings, and its ordinal.
    Other(Arc<str>, usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Other(kind, ordinal) => write!(f, "{kind}:{ordinal}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    /// Reads `cpu`, `cuda`, `cuda:1` or `KIND:ORDINAL`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, ordinal) = match text.split_once(':') {
            None => (text, 0),
            Some((kind, ordinal)) => {
                let parsed = ordinal.parse().map_err(|_| {
                    format!("`{text}`: `{ordinal}` is not a device ordinal; write cpu, cuda or cuda:N")
                })?;
                (kind, parsed)
            }
        };
        match kind.to_ascii_lowercase().as_str() {
            "" => Err(format!("`{text}` names no device; write cpu, cuda or cuda:N")),
            "cpu" if ordinal == 0 => Ok(Self::Cpu),
            "cpu" => Err(format!("`{text}`: there is one cpu; write cpu")),
            "cuda" => Ok(Self::Cuda(ordinal)),
            kind => Ok(Self::Other(kind.into(), ordinal)),
        }
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Memory on a device that is not the host.
///
/// A buffer may be dropped while work that uses it is still queued: its owner frees it in stream order, or waits.
pub trait DeviceBuffer: Send + Sync {
    /// The device that holds it.
    fn device(&self) -> Device;
    /// Its length in bytes.
    fn len_bytes(&self) -> usize;
    /// The concrete type, for the backends that know it.
    fn as_any(&self) -> &dyn Any;
    /// The concrete type, for the backends that know it.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// A queue of work on a device. Work of one stream runs in order; streams do not wait for one another.
pub trait Stream: Send {
    /// The device it belongs to.
    fn device(&self) -> Device;
    /// Waits until everything queued so far is done.
    ///
    /// # Errors
    /// [`Error::Device`], also for work that failed after it was queued.
    fn synchronize(&self) -> Result<()>;
    /// The concrete type, for the backends that know it.
    fn as_any(&self) -> &dyn Any;
}

/// How memory on a device is allocated, filled and read.
///
/// `upload` and `download` return when the bytes have arrived. They wait for no stream: call
/// [`Context::synchronize`] before a download.
pub trait Memory: Send + Sync {
    /// The device.
    fn device(&self) -> Device;
    /// A buffer of `bytes` bytes with undefined contents, aligned for any element type (256 bytes or more).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn allocate(&self, bytes: usize) -> Result<Box<dyn DeviceBuffer>>;
    /// Copies `from` into `to`, starting `offset_bytes` into it.
    ///
    /// # Errors
    /// [`Error::Device`], also where the bytes do not fit.
    fn upload(&self, from: &[u8], to: &mut dyn DeviceBuffer, offset_bytes: usize) -> Result<()>;
    /// Fills `to` from `from`, starting `offset_bytes` into it.
    ///
    /// # Errors
    /// [`Error::Device`], also where `from` ends before.
    fn download(&self, from: &dyn DeviceBuffer, offset_bytes: usize, to: &mut [u8]) -> Result<()>;
    /// A stream of its own.
    ///
    /// # Errors
    /// [`Error::Device`].
    fn stream(&self) -> Result<Box<dyn Stream>>;
    /// Bytes that can still be allocated, where the device tells.
    fn available_bytes(&self) -> Option<usize> {
        None
    }
}

/// A stream and its scratch: what one call at a time needs beside its tensors.
///
/// The caller owns it, makes one per stream (and one per captured graph), and passes it to every
/// [`forward`](crate::post_init::Layer::forward). `&mut` is the proof that nobody else writes to the scratch:
/// calls that share a context are ordered by its stream.
pub struct Context {
    place: Place,
}

enum Place {
    Host(Vec<CacheLine>),
    Device { stream: Box<dyn Stream>, scratch: Box<dyn DeviceBuffer> },
}

/// The unit of host scratch: keeps it aligned for the widest vector loads.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

impl Context {
    /// A context for the host with room for `scratch_bytes`.
    pub fn host(scratch_bytes: usize) -> Self {
        Self { place: Place::Host(vec![CacheLine([0; 64]); scratch_bytes.div_ceil(64)]) }
    }

    /// A context on `stream`, with `scratch_bytes` of `memory`, which belongs to the same device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or [`Error::DeviceMismatch`] where the stream is another device's.
    pub fn on_stream(memory: &dyn Memory, stream: Box<dyn Stream>, scratch_bytes: usize) -> Result<Self> {
        if stream.device() != memory.device() {
            return Err(Error::DeviceMismatch {
                what: "the stream of the context".into(),
                found: stream.device(),
                expected: memory.device(),
            });
        }
        let scratch = memory.allocate(scratch_bytes)?;
        Ok(Self { place: Place::Device { stream, scratch } })
    }

    /// The device it belongs to.
    pub fn device(&self) -> Device {
        match &self.place {
            Place::Host(_) => Device::Cpu,
            Place::Device { stream, .. } => stream.device(),
        }
    }

    /// How much scratch there is.
    pub fn scratch_bytes(&self) -> usize {
        match &self.place {
            Place::Host(lines) => size_of_val(lines.as_slice()),
            Place::Device { scratch, .. } => scratch.len_bytes(),
        }
    }

    /// The scratch of a host context, aligned to 64 bytes. Its contents are whatever the last call left there.
    pub fn host_scratch(&mut self) -> Option<&mut [u8]> {
        match &mut self.place {
            Place::Host(lines) => Some(bytemuck::cast_slice_mut(lines)),
            Place::Device { .. } => None,
        }
    }

    /// The scratch of a host context as f32, for backends that need nothing else.
    ///
    /// # Errors
    /// [`Error::DeviceMismatch`] where it is a device's.
    pub fn host_floats(&mut self) -> Result<&mut [f32]> {
        let found = self.device();
        match &mut self.place {
            Place::Host(lines) => Ok(bytemuck::cast_slice_mut(lines)),
            Place::Device { .. } => {
                Err(Error::DeviceMismatch { what: "the context".into(), found, expected: Device::Cpu })
            }
        }
    }

    /// The stream and the scratch of a device context.
    pub fn on_device(&mut self) -> Option<(&dyn Stream, &mut dyn DeviceBuffer)> {
        match &mut self.place {
            Place::Host(_) => None,
            Place::Device { stream, scratch } => Some((&**stream, &mut **scratch)),
        }
    }

    /// Waits until every call made with this context is done. Nothing to wait for on the host.
    ///
    /// # Errors
    /// [`Error::Device`], also for calls that failed after they were queued.
    pub fn synchronize(&self) -> Result<()> {
        match &self.place {
            Place::Host(_) => Ok(()),
            Place::Device { stream, .. } => stream.synchronize(),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context on {} with {} bytes of scratch", self.device(), self.scratch_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_parses_from_what_it_prints() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3), Device::Other("npu".into(), 1)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["", ":1", "cpu:1", "cuda:", "cuda:-1", "cuda:x"] {
            assert!(wrong.parse::<Device>().is_err(), "`{wrong}` is no device");
        }
    }

    #[test]
    fn host_scratch_is_aligned_and_no_smaller_than_asked() {
        let mut context = Context::host(100);
        let scratch = context.host_scratch().unwrap();
        assert!(scratch.len() >= 100 && scratch.as_ptr().align_offset(64) == 0);
        assert_eq!(context.host_floats().unwrap().len(), 128 / 4, "whole cache lines");
        assert!(Context::host(0).on_device().is_none());
    }
}
