//! CUDA graphs: calls of `forward`, recorded once and launched as one.
#![expect(unsafe_code, reason = "calls into the driver's C interface; launches")]

use std::fmt;

use cudarc::driver::result;
use cudarc::driver::sys::{
    self, CUgraph, CUgraphExec, CUgraphInstantiate_flags, CUstream, CUstreamCaptureMode,
};
use gptq_core::Result;
use gptq_core::device::Context;

use crate::gpu::{Gpu, failed};
use crate::status::During;
use crate::stream::CudaStream;

/// Work of a stream, recorded to be launched again. Owns the context that it was recorded with: the scratch that its
/// kernels write to is its own, one for each graph.
///
/// A stream takes part in a recording with all that anybody queues on it meanwhile. So what several threads use is no
/// stream to record on: record on one of the context's own, and [launch on](Self::launch_on) theirs.
pub struct Graph {
    gpu: Gpu,
    raw: CUgraphExec,
    /// The context's, lent.
    stream: CudaStream,
    context: Context,
}

// SAFETY: a graph of the driver may be used by any thread, by one at a time, as `&mut self` has it.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` queues on the stream of `context`. Nothing of it runs.
    ///
    /// `work` calls [`forward`](gptq_core::post_init::Layer::forward) as often as it likes. It must not synchronize; a
    /// forward of this workspace's backends does not. Run the same calls once before, so that what is loaded or chosen
    /// at the first call is there.
    ///
    /// # Errors
    /// What `work` returns; [`Error::Device`](gptq_core::Error::Device) where the context is not of a [`CudaStream`], or
    /// the driver refuses the recording.
    pub fn capture(mut context: Context, work: impl FnOnce(&mut Context) -> Result<()>) -> Result<Self> {
        let (gpu, stream) = match context.on_device() {
            Some((stream, _)) => {
                let stream = CudaStream::of(stream)?;
                (stream.gpu().clone(), stream.raw())
            }
            None => {
                return Err(gptq_core::Error::Device {
                    device: context.device(),
                    operation: "recording a graph".into(),
                    message: "the context is on the host".into(),
                });
            }
        };
        let graph = {
            let _capturing = gpu.capturing();
            let recording = Recording::begin(&gpu, stream)?;
            let done = work(&mut context);
            let graph = recording.end();
            done.and(graph)?
        };
        let _current = gpu.current()?;
        // SAFETY: the graph was just recorded. It is copied, and destroyed below.
        let executable = unsafe { result::graph::instantiate(graph.raw, CUgraphInstantiate_flags(0)) };
        let raw = executable.during(gpu.ordinal(), "making a recorded graph ready")?;
        // SAFETY: the context owns the stream, and both stay together.
        let stream = unsafe { CudaStream::from_raw(&gpu, stream.cast()) };
        Ok(Self { gpu: gpu.clone(), raw, stream, context })
    }

    /// The stream that it is launched on.
    pub fn stream(&self) -> &CudaStream {
        &self.stream
    }

    /// Queues the recorded work, on the stream it was recorded on.
    ///
    /// # Safety
    /// Everything that the recorded calls used is where it was: their x and out, and the model. Nothing else writes to
    /// them but in the order of the stream.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device).
    pub unsafe fn launch(&mut self) -> Result<()> {
        let _current = self.gpu.current()?;
        // SAFETY: both are alive: the stream is the context's. The caller promises the rest.
        unsafe { result::graph::launch(self.raw, self.stream.raw()) }
            .during(self.gpu.ordinal(), "launching a graph")
    }

    /// Queues the recorded work on another stream.
    ///
    /// # Safety
    /// As for [`launch`](Self::launch), with `stream` for its own. Of two launches on different streams the second comes
    /// when the first is done: both use the scratch of the graph.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device), also where the stream is another GPU's.
    pub unsafe fn launch_on(&mut self, stream: &CudaStream) -> Result<()> {
        if !self.gpu.same_device(stream.gpu()) {
            let message = format!("the stream is of cuda:{}", stream.gpu().ordinal());
            return Err(failed(&self.gpu, "launching a graph", message));
        }
        let _current = self.gpu.current()?;
        // SAFETY: both are alive, and of one primary context. The caller promises the rest.
        unsafe { result::graph::launch(self.raw, stream.raw()) }
            .during(self.gpu.ordinal(), "launching a graph")
    }

    /// Waits until every launch on its own stream is done.
    ///
    /// # Errors
    /// [`Error::Device`](gptq_core::Error::Device), also for launches that failed.
    pub fn synchronize(&self) -> Result<()> {
        self.context.synchronize()
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "graph on {:?}", self.context)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.context.synchronize();
        if let Ok(_current) = self.gpu.current() {
            // SAFETY: made in `capture`, and nobody has it any more. What is in flight on another stream goes on: the driver
            // frees the graph behind it, and the scratch that it writes to is freed when the device has done all its work.
            let _ = unsafe { result::graph::exec_destroy(self.raw) };
        }
    }
}

/// Lets this thread call what it may not while a stream records, until it is dropped: for work that a library does on the
/// side, at its first call, and that no graph needs.
pub(crate) struct AnyCall {
    /// What was allowed before. `None` where the driver did not answer.
    before: Option<CUstreamCaptureMode>,
}

impl AnyCall {
    pub(crate) fn allow() -> Self {
        Self { before: Self::exchange(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED) }
    }

    fn exchange(mut mode: CUstreamCaptureMode) -> Option<CUstreamCaptureMode> {
        // SAFETY: `mode` outlives the call.
        let status = unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
        status.result().is_ok().then_some(mode)
    }
}

impl Drop for AnyCall {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = Self::exchange(before);
        }
    }
}

/// A stream that records. Dropped, it stops, also where `work` panics.
struct Recording<'a> {
    gpu: &'a Gpu,
    stream: CUstream,
    active: bool,
}

impl<'a> Recording<'a> {
    fn begin(gpu: &'a Gpu, stream: CUstream) -> Result<Self> {
        let _current = gpu.current()?;
        // Other threads may go on allocating: only this one is held to what a recording allows.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive: it is the context's.
        unsafe { result::stream::begin_capture(stream, mode) }.during(gpu.ordinal(), "recording a graph")?;
        Ok(Self { gpu, stream, active: true })
    }

    fn end(mut self) -> Result<Recorded<'a>> {
        self.active = false;
        let raw = self.stop()?;
        let recorded = Recorded { gpu: self.gpu, raw };
        if raw.is_null() {
            return Err(failed(
                self.gpu,
                "recording a graph",
                "something that was called cannot be recorded",
            ));
        }
        Ok(recorded)
    }

    fn stop(&self) -> Result<CUgraph> {
        let _current = self.gpu.current()?;
        // SAFETY: the stream is alive and records.
        unsafe { result::stream::end_capture(self.stream) }.during(self.gpu.ordinal(), "recording a graph")
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if self.active
            && let Ok(raw) = self.stop()
        {
            drop(Recorded { gpu: self.gpu, raw });
        }
    }
}

/// A graph as it was recorded; destroyed when dropped.
struct Recorded<'a> {
    gpu: &'a Gpu,
    raw: CUgraph,
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null()
            && let Ok(_current) = self.gpu.current()
        {
            // SAFETY: it came out of a recording, and nobody has it any more.
            let _ = unsafe { result::graph::destroy(self.raw) };
        }
    }
}
