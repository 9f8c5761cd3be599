//! How long work takes on a GPU: calls recorded in a graph, replayed between two events.
//!
//! A [`Replay`] is one such graph: layers of a model called in turn, passes that only read memory, or products of cuBLASLt
//! with a dense matrix. Enough copies of the weights lie side by side that those of a call have left the L2 cache when their
//! turn comes again. A graph leaves out what the host costs, and a time is that of a call with the gap between two.
//!
//! ```no_run
//! use std::sync::Arc;
//! use gptq_core::tensor::DType;
//! use gptq_cuda::{Gpu, timing::{LayerCalls, Replay, Timing}};
//!
//! # fn example(model: Arc<gptq_core::post_init::FinalizedModel>) -> Result<(), Box<dyn std::error::Error>> {
//! let timing = Timing::open(&Gpu::open(0)?)?;
//! let operands = timing.operands(&[0x3c; 64], 2 * 4096, 2 * 4096)?;
//! let calls = LayerCalls { dtype: DType::F16, rows: 1, calls: 200, overlap: true };
//! println!("{} s a call", Replay::of_layers(model, &operands, calls)?.seconds()?);
//! # Ok(()) }
//! ```
#![expect(unsafe_code, reason = "launches graphs, a kernel that reads, and cuBLASLt")]

mod params;
mod products;
mod reads;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use gptq_core::Result;
use gptq_core::backend::Rejection;
use gptq_core::device::{Context, DeviceBuffer, Memory};
use gptq_core::post_init::FinalizedModel;
use gptq_core::tensor::{DType, TensorMut, TensorRef};

use crate::buffer::CudaBuffer;
use crate::event::CudaEvent;
use crate::gpu::{Gpu, failed};
use crate::graph::Graph;
use crate::image::KernelImage;
use crate::kernel::{Kernel, Kernels};
use crate::matmul::Matmul;
use crate::stream::CudaStream;

use params::GptqLimitsReadParams;
pub use products::Dense;
pub use reads::Reads;

/// The family's fatbin, where it was built before this crate.
const EMBEDDED: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/limits.rs"));
/// The family of kernels.
const FAMILY: &str = "limits";

/// What is measured with, on one GPU.
#[derive(Clone)]
pub struct Timing {
    gpu: Gpu,
    read: Arc<Kernel<GptqLimitsReadParams>>,
    matmul: Arc<Matmul>,
}

impl Timing {
    /// Loads the kernel that reads, and cuBLASLt.
    ///
    /// # Errors
    /// [`Rejection`], as for a backend: no kernels, none for this GPU, no cuBLASLt.
    pub fn open(gpu: &Gpu) -> Result<Self, Rejection> {
        let image = KernelImage::find(FAMILY, EMBEDDED)?;
        let read = Kernels::load(gpu, &image)?.kernel("gptq_limits_read").map_err(|error| {
            Rejection::other(error.to_string(), "build the kernels again: `cargo xtask build-kernels`")
        })?;
        Ok(Self { gpu: gpu.clone(), read: Arc::new(read), matmul: Arc::new(Matmul::open(gpu)?) })
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// x of `x_bytes` bytes, in which `pattern` comes again and again, and room for `out_bytes` of out.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](gptq_core::Error::OutOfMemory), [`Error::Device`](gptq_core::Error::Device).
    pub fn operands(&self, pattern: &[u8], x_bytes: usize, out_bytes: usize) -> Result<Operands> {
        let mut x = self.gpu.allocate_buffer(x_bytes)?;
        fill(&self.gpu, &mut x, pattern)?;
        let out = self.gpu.allocate_buffer(out_bytes)?;
        let workspace = self.gpu.allocate_buffer(Matmul::WORKSPACE_BYTES)?;
        Ok(Operands { gpu: self.gpu.clone(), buffers: Arc::new(Mutex::new(Buffers { x, out, workspace })) })
    }
}

impl fmt::Debug for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timing on {:?}", self.gpu)
    }
}

/// x and out of calls that are timed one after the other, each of which takes from their beginning what it needs. Clones
/// share them.
#[derive(Clone)]
pub struct Operands {
    gpu: Gpu,
    /// Locked while anything that uses them runs.
    buffers: Arc<Mutex<Buffers>>,
}

struct Buffers {
    x: CudaBuffer,
    out: CudaBuffer,
    /// Of cuBLASLt.
    workspace: CudaBuffer,
}

impl Operands {
    fn lock(&self) -> std::sync::MutexGuard<'_, Buffers> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Operands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffers = self.lock();
        write!(f, "x {:?}, out {:?}", buffers.x, buffers.out)
    }
}

/// How the layers of a model are called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal by whoever calls")]
pub struct LayerCalls {
    /// The type of x and out.
    pub dtype: DType,
    /// M.
    pub rows: usize,
    /// How many calls are recorded: one after the other, the layers in turn.
    pub calls: usize,
    /// Whether launches may overlap where the backend asks for it (programmatic dependent launch).
    pub overlap: bool,
}

/// Calls recorded in a graph, with all that they use.
pub struct Replay {
    graph: Graph,
    calls: usize,
    overlaps: bool,
    operands: Operands,
    /// Kept until the graph is gone.
    _uses: Box<dyn Any + Send>,
}

impl Replay {
    /// Calls of the layers of `model` in turn, each with the first rows of x. The first is called once before, so that nothing
    /// that is chosen or loaded at a first call is recorded.
    ///
    /// # Errors
    /// As [`Layer::forward`](gptq_core::post_init::Layer::forward) and [`Graph::capture`];
    /// [`Error::TensorBytes`](gptq_core::Error::TensorBytes) where the operands are shorter than a call needs.
    pub fn of_layers(model: Arc<FinalizedModel>, operands: &Operands, how: LayerCalls) -> Result<Self> {
        let LayerCalls { dtype, rows, calls, overlap } = how;
        let gpu = &operands.gpu;
        let stream = CudaStream::new(gpu)?;
        let stream = if overlap { stream } else { stream.without_overlap() };
        let scratch_bytes = model.scratch_bytes();
        let replay =
            Self::record(gpu, stream, scratch_bytes, calls, operands, |number, context, buffers| {
                let layers = model.layers();
                let Some(layer) = layers.get(number % layers.len().max(1)) else {
                    return Err(failed(gpu, "timing a model", "it has no layers"));
                };
                let (k, n) = (layer.info().in_features, layer.info().out_features);
                let Buffers { x, out, .. } = buffers;
                let x = TensorRef::on_device(dtype, [rows, k], x, 0)?;
                let mut out = TensorMut::on_device(dtype, [rows, n], out, 0)?;
                layer.forward(&x, &mut out, context)
            })?;
        Ok(Self { _uses: Box::new(model), ..replay })
    }

    /// Records `calls` calls, each of which is told its number, after one that runs. Nobody else has the operands meanwhile.
    fn record(
        gpu: &Gpu,
        stream: CudaStream,
        scratch_bytes: usize,
        calls: usize,
        operands: &Operands,
        mut call: impl FnMut(usize, &mut Context, &mut Buffers) -> Result<()>,
    ) -> Result<Self> {
        let mut buffers = operands.lock();
        let mut context = Context::on_stream(gpu, Box::new(stream), scratch_bytes)?;
        let calls = calls.max(1);
        let first = call(0, &mut context, &mut buffers);
        context.synchronize().and(first)?;
        let mut overlaps = false;
        let graph = Graph::capture(context, |context| {
            (0..calls).try_for_each(|number| call(number, context, &mut buffers))?;
            if let Some((stream, _)) = context.on_device() {
                overlaps = CudaStream::of(stream)?.has_overlapped();
            }
            Ok(())
        })?;
        drop(buffers);
        Ok(Self { graph, calls, overlaps, operands: operands.clone(), _uses: Box::new(()) })
    }

    /// How many calls one replay makes.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Whether launches of it may overlap the ones before.
    pub fn overlaps(&self) -> bool {
        self.overlaps
    }

    /// Replays the calls once, and waits: seconds of a call, by the GPU's clock.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device), also for work that failed.
    pub fn seconds(&mut self) -> Result<f64> {
        let _alone = self.operands.lock();
        let milliseconds = Self::milliseconds(&mut self.graph);
        if milliseconds.is_err() {
            // Nothing may be in flight when the operands are given back. What went wrong is reported already.
            let _ = self.graph.synchronize();
        }
        Ok(f64::from(milliseconds?) * 1e-3 / self.calls as f64)
    }

    fn milliseconds(graph: &mut Graph) -> Result<f32> {
        let start = CudaEvent::record(graph.stream())?;
        // SAFETY: what was recorded uses the operands, which are locked by whoever calls, the context, which is the graph's,
        // and what `_uses` keeps and nobody writes to.
        unsafe { graph.launch() }?;
        CudaEvent::record(graph.stream())?.milliseconds_since(&start)
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls as {:?}", self.calls, self.graph)
    }
}

/// Writes `pattern` again and again until the buffer is full.
fn fill(gpu: &Gpu, buffer: &mut CudaBuffer, pattern: &[u8]) -> Result<()> {
    let mut at = 0;
    while at < buffer.len_bytes() && !pattern.is_empty() {
        let bytes = pattern.len().min(buffer.len_bytes() - at);
        gpu.upload(pattern.get(..bytes).unwrap_or(pattern), buffer, at)?;
        at += bytes;
    }
    Ok(())
}
