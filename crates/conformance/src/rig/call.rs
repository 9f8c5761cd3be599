//! One call: its x and its out between guards, in host memory or on a device.

use gptq_core::device::{Context, DeviceBuffer, Memory};
use gptq_core::post_init::Layer;
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, Result};

use crate::accuracy::Activations;
use crate::element::decode;

/// What fills the memory around tensors.
const GUARD: u8 = 0x5A;
/// What fills out before a call: NaN in every type.
const UNWRITTEN: u8 = 0xFF;
/// Elements before and after a tensor: 512 bytes of the narrowest type, so that the default offset is one to which
/// devices align.
const MARGIN: usize = 256;

/// A call whose tensors are in place. It can be queued as often as one likes, and recorded.
pub struct Call<'r> {
    layer: &'r Layer,
    memory: Option<&'r dyn Memory>,
    dtype: DType,
    x_shape: [usize; 2],
    x: Placed,
    out: Placed,
    describe: String,
}

/// A tensor between guards: in host memory, and on the device where there is one.
struct Placed {
    host: Framed,
    /// The bytes of `host` as they were put there.
    before: Vec<u8>,
    buffer: Option<Box<dyn DeviceBuffer>>,
}

/// An output, and the call it came from.
pub struct Output {
    dtype: DType,
    bytes: Vec<u8>,
}

/// Why a call gave no output.
pub(crate) enum Failure {
    /// It answered with an error, or one came at synchronisation.
    Error(Error),
    /// It did something that it must not do.
    Wrong(String),
}

/// Where tensors start in the memory that holds them, in elements.
#[derive(Clone, Copy)]
pub(crate) struct Offsets {
    pub(crate) x: usize,
    pub(crate) out: usize,
}

impl<'r> Call<'r> {
    /// Puts x and an out that nobody has written into host memory, or into `memory`.
    pub(super) fn place(
        layer: &'r Layer,
        memory: Option<&'r dyn Memory>,
        x: &Activations,
        offsets: Offsets,
        describe: String,
    ) -> Result<Self> {
        let (dtype, [rows, _], n) = (x.dtype(), x.shape(), layer.info().out_features);
        let unwritten = vec![UNWRITTEN; rows * n * dtype.size_bytes()];
        let out = Placed::new(memory, Framed::new(dtype, offsets.out, &unwritten))?;
        let x_shape = x.shape();
        let x = Placed::new(memory, Framed::new(dtype, offsets.x, &x.to_bytes()))?;
        Ok(Self { layer, memory, dtype, x_shape, x, out, describe })
    }

    /// Queues the call on the context's stream. On the host it is done when this returns.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn queue(&mut self, context: &mut Context) -> Result<()> {
        let out_shape = [self.x_shape[0], self.layer.info().out_features];
        let x = match &self.x.buffer {
            None => TensorRef::from_bytes(self.dtype, self.x_shape, self.x.host.inner())?,
            Some(buffer) => TensorRef::on_device(self.dtype, self.x_shape, &**buffer, self.x.host.offset)?,
        };
        let offset = self.out.host.offset;
        let mut out = match &mut self.out.buffer {
            None => TensorMut::from_bytes(self.dtype, out_shape, self.out.host.inner_mut())?,
            Some(buffer) => TensorMut::on_device(self.dtype, out_shape, &mut **buffer, offset)?,
        };
        self.layer.forward(&x, &mut out, context)
    }

    /// Puts another x of the same shape and type in the place of the first, and forgets the output. Every call queued
    /// before was waited for.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn replace_x(&mut self, x: &Activations) -> Result<()> {
        let bytes = x.to_bytes();
        let inner = self.x.host.inner_mut();
        if (x.dtype(), bytes.len()) != (self.dtype, inner.len()) {
            return Err(Error::Shape {
                what: "x of a call".into(),
                found: x.shape().to_vec(),
                expected: format!("{:?} of {}, as before", self.x_shape, self.dtype),
            });
        }
        inner.copy_from_slice(&bytes);
        self.out.host.inner_mut().fill(UNWRITTEN);
        self.x.upload(self.memory)?;
        self.out.upload(self.memory)
    }

    /// The output, once the context was waited for.
    ///
    /// # Errors
    /// In words that name the case: where out was not written whole, or something beside it was.
    pub fn output(&mut self) -> Result<Output, String> {
        self.collect().map_err(|failure| failure.explain(&self.describe))
    }

    /// The output, and a look at everything around both tensors.
    pub(super) fn collect(&mut self) -> Result<Output, Failure> {
        self.x.download(self.memory)?;
        self.out.download(self.memory)?;
        if self.x.host.bytes() != self.x.before {
            return Err(Failure::Wrong("x was written to".into()));
        }
        let out = &self.out.host;
        if let Some(at) = out.broken_guard() {
            let len = out.inner().len();
            return Err(Failure::Wrong(format!(
                "out has {len} bytes, and byte {at} from its start was written"
            )));
        }
        let (size, n) = (self.dtype.size_bytes(), self.layer.info().out_features);
        let unwritten = |element: &[u8]| element.iter().all(|&byte| byte == UNWRITTEN);
        if let Some(at) = out.inner().chunks_exact(size).position(unwritten) {
            return Err(Failure::Wrong(format!("out [{}, {}] was not written", at / n, at % n)));
        }
        Ok(Output { dtype: self.dtype, bytes: out.inner().to_vec() })
    }
}

impl Output {
    /// The elements as values, `[M, N]`.
    pub fn values(&self) -> Vec<f64> {
        decode(self.dtype, &self.bytes)
    }

    /// Where two outputs first differ in a bit: the index of an element.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        if self.bytes.len() != other.bytes.len() {
            return Some(0);
        }
        let byte = self.bytes.iter().zip(&other.bytes).position(|(a, b)| a != b)?;
        Some(byte / self.dtype.size_bytes())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Failure {
    pub(super) fn explain(self, describe: &str) -> String {
        match self {
            Self::Error(error) => format!("{describe}: forward failed: {}", error.report()),
            Self::Wrong(problem) => format!("{describe}: {problem}"),
        }
    }
}

impl Offsets {
    /// Where every device's vector loads are aligned.
    pub(crate) const ALIGNED: Self = Self { x: MARGIN, out: MARGIN };
}

impl Placed {
    fn new(memory: Option<&dyn Memory>, host: Framed) -> Result<Self> {
        let buffer = memory.map(|memory| memory.allocate(host.bytes().len())).transpose()?;
        let mut placed = Self { host, before: Vec::new(), buffer };
        placed.upload(memory)?;
        Ok(placed)
    }

    fn upload(&mut self, memory: Option<&dyn Memory>) -> Result<()> {
        self.before = self.host.bytes().to_vec();
        match (memory, &mut self.buffer) {
            (Some(memory), Some(buffer)) => memory.upload(&self.before, &mut **buffer, 0),
            _ => Ok(()),
        }
    }

    fn download(&mut self, memory: Option<&dyn Memory>) -> Result<()> {
        match (memory, &self.buffer) {
            (Some(memory), Some(buffer)) => memory.download(&**buffer, 0, self.host.bytes_mut()),
            _ => Ok(()),
        }
    }
}

/// A tensor's bytes between guards, from a multiple of 16 bytes on, so that offsets from there are misaligned for sure.
struct Framed {
    words: Vec<u128>,
    offset: usize,
    len: usize,
}

impl Framed {
    /// `inner` from element `offset` on, and a margin after it.
    fn new(dtype: DType, offset: usize, inner: &[u8]) -> Self {
        let (offset, len) = (offset * dtype.size_bytes(), inner.len());
        let bytes = offset + len + MARGIN * dtype.size_bytes();
        let mut framed =
            Self { words: vec![u128::from_ne_bytes([GUARD; 16]); bytes.div_ceil(16)], offset, len };
        framed.inner_mut().copy_from_slice(inner);
        framed
    }

    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words)
    }

    fn inner(&self) -> &[u8] {
        &self.bytes()[self.offset..][..self.len]
    }

    fn inner_mut(&mut self) -> &mut [u8] {
        let (offset, len) = (self.offset, self.len);
        &mut self.bytes_mut()[offset..][..len]
    }

    /// Where a guard byte was overwritten, counted from the start of the tensor.
    fn broken_guard(&self) -> Option<i128> {
        let inner = self.offset..self.offset + self.len;
        let broken =
            self.bytes().iter().enumerate().find(|(at, byte)| !inner.contains(at) && **byte != GUARD)?;
        Some(broken.0 as i128 - self.offset as i128)
    }
}
