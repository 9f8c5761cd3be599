//! Calls of a layer with everything around its tensors watched.

use std::panic::{AssertUnwindSafe, catch_unwind};

use gptq_core::device::{Context, DeviceBuffer, Memory};
use gptq_core::post_init::{FinalizedModel, Layer};
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, QuantLinear};

use crate::accuracy::{Accuracy, Activations};
use crate::case::{Built, Case};
use crate::element::decode;
use crate::oracle::Dense;
use crate::target::Target;

/// What fills the memory around tensors.
const GUARD: u8 = 0x5A;
/// What fills out before a call: NaN in every type.
const UNWRITTEN: u8 = 0xFF;
/// Elements before and after a tensor: 512 bytes of the narrowest type, so that the default offset is one to which
/// devices align.
const MARGIN: usize = 256;

/// A model of generated layers, and what its outputs have to be.
pub(crate) struct Rig<'t> {
    target: &'t Target,
    pub(crate) model: FinalizedModel,
    layers: Vec<(Case, Dense)>,
}

/// An output, and the call it came from.
pub(crate) struct Output {
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

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Where tensors start in the memory that holds them, in elements.
#[derive(Clone, Copy)]
pub(crate) struct Offsets {
    pub(crate) x: usize,
    pub(crate) out: usize,
}

impl Offsets {
    /// Where every device's vector loads are aligned.
    pub(crate) const ALIGNED: Self = Self { x: MARGIN, out: MARGIN };
}

impl Output {
    /// The elements as values.
    pub(crate) fn values(&self) -> Vec<f64> {
        decode(self.dtype, &self.bytes)
    }

    /// Where two outputs first differ in a bit.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<usize> {
        if self.bytes.len() != other.bytes.len() {
            return Some(0);
        }
        let byte = self.bytes.iter().zip(&other.bytes).position(|(a, b)| a != b)?;
        Some(byte / self.dtype.size_bytes())
    }
}

/// The name of the layer at an index.
pub(crate) fn layer_name(index: usize) -> String {
    format!("layers.{index}")
}

impl<'t> Rig<'t> {
    /// A model of one layer for each case.
    pub(crate) fn open(
        target: &'t Target,
        cases: &[Case],
        x_dtype: DType,
        max_input_length: Option<usize>,
    ) -> Result<Self, String> {
        let mut built = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            let made = case.build(&layer_name(index));
            built.push(made.map_err(|error| format!("{case}: the layer cannot be made: {error}"))?);
        }
        Self::of(target, &built, x_dtype, max_input_length)
    }

    /// A model of layers that are made already.
    pub(crate) fn of(
        target: &'t Target,
        built: &[Built],
        x_dtype: DType,
        max_input_length: Option<usize>,
    ) -> Result<Self, String> {
        Self::of_layers(
            target,
            built,
            built.iter().map(|built| built.layer.clone()).collect(),
            x_dtype,
            max_input_length,
        )
    }

    /// A model of `packed`, which must behave as the layers in `built` do.
    pub(crate) fn of_layers(
        target: &'t Target,
        built: &[Built],
        packed: Vec<QuantLinear>,
        x_dtype: DType,
        max_input_length: Option<usize>,
    ) -> Result<Self, String> {
        let model = target.open(packed, Some(x_dtype), max_input_length).map_err(|error| {
            let cases: Vec<String> = built.iter().map(|built| built.case.to_string()).collect();
            format!("{}: post_init failed: {}", cases.join("; "), error.report())
        })?;
        let layers = built.iter().map(|built| (built.case, Dense::of_values(&built.values))).collect();
        Ok(Self { target, model, layers })
    }

    /// A context of the model.
    pub(crate) fn context(&self) -> Result<Context, String> {
        self.model.context().map_err(|error| format!("no context: {}", error.report()))
    }

    /// A context with this much scratch.
    pub(crate) fn context_with(&self, scratch_bytes: usize) -> Result<Context, String> {
        let made = match self.model.memory() {
            None => Ok(Context::host(scratch_bytes)),
            Some(memory) => {
                memory.stream().and_then(|stream| Context::on_stream(&**memory, stream, scratch_bytes))
            }
        };
        made.map_err(|error| format!("no context of {scratch_bytes} bytes: {}", error.report()))
    }

    /// x for a layer.
    pub(crate) fn x(&self, index: usize, rows: usize, dtype: DType, seed: u64) -> Activations {
        let columns = self.layers.get(index).map_or(0, |(_, dense)| dense.rows());
        Activations::normal([rows, columns], dtype, seed)
    }

    /// The kind of a call, for messages.
    pub(crate) fn describe(&self, index: usize, x: &Activations) -> String {
        let case = self.layers.get(index).map(|(case, _)| case.to_string()).unwrap_or_default();
        format!("{case}; x {} [{}, {}]", x.dtype(), x.shape()[0], x.shape()[1])
    }

    /// Runs a layer.
    pub(crate) fn forward(
        &self,
        index: usize,
        x: &Activations,
        context: &mut Context,
    ) -> Result<Output, String> {
        self.forward_at(index, x, context, Offsets::ALIGNED)
    }

    /// Runs a layer and holds the output to the oracle.
    pub(crate) fn forward_right(
        &self,
        index: usize,
        x: &Activations,
        context: &mut Context,
    ) -> Result<Output, String> {
        let output = self.forward(index, x, context)?;
        self.judge(index, x, &output).map(|_| output)
    }

    /// Runs a layer with its tensors at given offsets.
    pub(crate) fn forward_at(
        &self,
        index: usize,
        x: &Activations,
        context: &mut Context,
        offsets: Offsets,
    ) -> Result<Output, String> {
        self.try_forward(index, x, context, offsets).map_err(|failure| self.explain(index, x, failure))
    }

    /// A failure, in words that name the case.
    pub(crate) fn explain(&self, index: usize, x: &Activations, failure: Failure) -> String {
        match failure {
            Failure::Error(error) => {
                format!("{}: forward failed: {}", self.describe(index, x), error.report())
            }
            Failure::Wrong(problem) => format!("{}: {problem}", self.describe(index, x)),
        }
    }

    /// Holds an output to the oracle, and says which part of the bound its error is.
    pub(crate) fn judge(&self, index: usize, x: &Activations, output: &Output) -> Result<f64, String> {
        self.judge_values(index, x, &output.values())
    }

    /// Holds values to the oracle, and says which part of the bound their error is.
    pub(crate) fn judge_values(&self, index: usize, x: &Activations, values: &[f64]) -> Result<f64, String> {
        let Some((_, dense)) = self.layers.get(index) else { return Err(format!("no layer {index}")) };
        let judged = Accuracy::of(dense, x, self.target.weights(), values);
        if judged.holds() {
            return Ok(if judged.error == 0.0 { 0.0 } else { judged.error / judged.bound });
        }
        let columns = dense.columns().max(1);
        Err(format!(
            "{}: relative error {:.3e}, expected at most {:.3e} (rounding alone makes {:.3e}); the element farthest \
             off is [{}, {}], expected {}, found {}",
            self.describe(index, x),
            judged.error,
            judged.bound,
            judged.floor,
            judged.worst / columns,
            judged.worst % columns,
            judged.expected,
            judged.found,
        ))
    }

    /// Runs a layer with its tensors at given offsets, and looks at everything around them afterwards.
    pub(crate) fn try_forward(
        &self,
        index: usize,
        x: &Activations,
        context: &mut Context,
        offsets: Offsets,
    ) -> Result<Output, Failure> {
        let layer = self.model.layer(&layer_name(index))?;
        let (dtype, [rows, _], n) = (x.dtype(), x.shape(), layer.info().out_features);
        let size = dtype.size_bytes();

        let mut x_memory = Framed::new(dtype, offsets.x, &x.to_bytes());
        let mut out_memory = Framed::new(dtype, offsets.out, &vec![UNWRITTEN; rows * n * size]);
        let x_before = x_memory.bytes().to_vec();
        let call = Call { layer, dtype, x_shape: x.shape(), out_shape: [rows, n] };
        // A panic of the backend becomes a failure that names the case. What it left half done is not looked at.
        catch_unwind(AssertUnwindSafe(|| match self.model.memory() {
            None => call.on_host(&x_memory, &mut out_memory, context),
            Some(memory) => call.on_device(&**memory, &mut x_memory, &mut out_memory, context),
        }))
        .map_err(|_| Failure::Wrong("forward panicked".into()))??;

        if x_memory.bytes() != x_before {
            return Err(Failure::Wrong("x was written to".into()));
        }
        if let Some(at) = out_memory.broken_guard() {
            let len = out_memory.inner().len();
            return Err(Failure::Wrong(format!(
                "out has {len} bytes, and byte {at} from its start was written"
            )));
        }
        let unwritten = |element: &[u8]| element.iter().all(|&byte| byte == UNWRITTEN);
        if let Some(at) = out_memory.inner().chunks_exact(size).position(unwritten) {
            return Err(Failure::Wrong(format!("out [{}, {}] was not written", at / n, at % n)));
        }
        Ok(Output { dtype, bytes: out_memory.inner().to_vec() })
    }
}

struct Call<'a> {
    layer: &'a Layer,
    dtype: DType,
    x_shape: [usize; 2],
    out_shape: [usize; 2],
}

impl Call<'_> {
    fn on_host(&self, x: &Framed, out: &mut Framed, context: &mut Context) -> Result<(), Error> {
        let x = TensorRef::from_bytes(self.dtype, self.x_shape, x.inner())?;
        let mut out = TensorMut::from_bytes(self.dtype, self.out_shape, out.inner_mut())?;
        self.layer.forward(&x, &mut out, context)?;
        context.synchronize()
    }

    fn on_device(
        &self,
        memory: &dyn Memory,
        x: &mut Framed,
        out: &mut Framed,
        context: &mut Context,
    ) -> Result<(), Error> {
        let x_buffer = uploaded(memory, x.bytes())?;
        let mut out_buffer = uploaded(memory, out.bytes())?;
        {
            let x = TensorRef::on_device(self.dtype, self.x_shape, &*x_buffer, x.offset)?;
            let mut out = TensorMut::on_device(self.dtype, self.out_shape, &mut *out_buffer, out.offset)?;
            self.layer.forward(&x, &mut out, context)?;
        }
        context.synchronize()?;
        memory.download(&*x_buffer, 0, x.bytes_mut())?;
        memory.download(&*out_buffer, 0, out.bytes_mut())
    }
}

fn uploaded(memory: &dyn Memory, bytes: &[u8]) -> Result<Box<dyn DeviceBuffer>, Error> {
    let mut buffer = memory.allocate(bytes.len())?;
    memory.upload(bytes, &mut *buffer, 0)?;
    Ok(buffer)
}

/// A tensor's bytes between guards, aligned for any element type.
struct Framed {
    words: Vec<u64>,
    offset: usize,
    len: usize,
}

impl Framed {
    /// `inner` from element `offset` on, and a margin after it.
    fn new(dtype: DType, offset: usize, inner: &[u8]) -> Self {
        let (offset, len) = (offset * dtype.size_bytes(), inner.len());
        let bytes = offset + len + MARGIN * dtype.size_bytes();
        let mut framed = Self { words: vec![u64::from_ne_bytes([GUARD; 8]); bytes.div_ceil(8)], offset, len };
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
