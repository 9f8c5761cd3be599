//! What a GPU's memory gives, measured in the run of a benchmark, and how a benchmark measures. For the benches of all
//! CUDA backends: `#[path = "../../cuda/benches/limits/mod.rs"] mod limits;`
#![allow(
    unsafe_code,
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

#[path = "../../src/timing/params.rs"]
mod params;

use std::ptr;

use gptq_core::device::{Context, DeviceBuffer as _, Memory as _};
use gptq_cuda::{
    CudaBuffer, CudaEvent, CudaStream, Gpu, Graph, Kernel, KernelImage, Kernels, Launch, Params,
};

use params::{GPTQ_LIMITS_THREADS, GptqLimitsCopyParams, GptqLimitsReadParams};

// SAFETY: made by `cargo xtask codegen` of the params.h of the family, whose kernels take it.
unsafe impl Params for GptqLimitsReadParams {}
// SAFETY: as above.
unsafe impl Params for GptqLimitsCopyParams {}

/// Replays of a graph of which the median counts.
const REPLAYS: usize = 11;
/// Bytes that calls go round, so that nothing stays in the L2 cache.
pub const COLD_BYTES: usize = 480 << 20;
/// Blocks on a multiprocessor that are tried.
const BLOCKS: [u32; 4] = [1, 2, 3, 4];

/// Kernels that read and copy.
pub struct Limits {
    gpu: Gpu,
    read: Kernel<GptqLimitsReadParams>,
    copy: Kernel<GptqLimitsCopyParams>,
    cold: CudaBuffer,
    to: CudaBuffer,
}

impl Limits {
    pub fn new(gpu: &Gpu) -> Self {
        let kernels = Kernels::load(gpu, &KernelImage::find("limits", None).unwrap()).unwrap();
        let buffer = || {
            let mut buffer = gpu.allocate_buffer(COLD_BYTES).unwrap();
            CudaStream::new(gpu).unwrap().fill(&mut buffer, 0x5a).unwrap();
            buffer
        };
        let (cold, to) = (buffer(), buffer());
        gpu.synchronize().unwrap();
        let (read, copy) =
            (kernels.kernel("gptq_limits_read").unwrap(), kernels.kernel("gptq_limits_copy").unwrap());
        Self { gpu: gpu.clone(), read, copy, cold, to }
    }

    /// Microseconds of reading so many bytes that no cache holds: the best of several grids.
    pub fn read_us(&self, bytes: usize) -> f64 {
        self.best(bytes, |grid, offset, stream| {
            let from = ptr::without_provenance((self.cold.address() + offset) as usize);
            let count = (bytes / 16) as u64;
            let params = GptqLimitsReadParams { from, count, sink: ptr::null_mut() };
            // SAFETY: the buffer holds the range and outlives the graph; the kernel writes nothing.
            unsafe { self.read.launch(stream, &grid, &params) }.unwrap();
        })
    }

    /// Microseconds of a copy that reads and writes so many bytes each.
    pub fn copy_us(&self, bytes: usize) -> f64 {
        self.best(bytes, |grid, offset, stream| {
            let from = ptr::without_provenance((self.cold.address() + offset) as usize);
            let to = ptr::without_provenance_mut((self.to.address() + offset) as usize);
            let params = GptqLimitsCopyParams { from, to, count: (bytes / 16) as u64 };
            // SAFETY: as above, and nothing else uses what is written.
            unsafe { self.copy.launch(stream, &grid, &params) }.unwrap();
        })
    }

    fn best(&self, bytes: usize, launch: impl Fn(Launch, u64, &CudaStream)) -> f64 {
        let slices = (COLD_BYTES / bytes.max(1)).max(1);
        let bytes = bytes.min(COLD_BYTES);
        let time = |blocks: u32| {
            let grid = [self.gpu.info().multiprocessors * blocks, 1, 1];
            let grid = Launch::new(grid, [GPTQ_LIMITS_THREADS, 1, 1]);
            graph_us(context(&self.gpu, 0), calls_for(bytes), |call, context| {
                let (stream, _) = context.on_device().unwrap();
                let offset = (call % slices * bytes / 16 * 16) as u64;
                launch(grid, offset, CudaStream::of(stream).unwrap());
            })
        };
        BLOCKS.into_iter().map(time).fold(f64::INFINITY, f64::min)
    }
}

/// A context of its own stream.
pub fn context(gpu: &Gpu, scratch_bytes: usize) -> Context {
    Context::on_stream(gpu, gpu.stream().unwrap(), scratch_bytes).unwrap()
}

/// Calls in a graph, so that it takes a millisecond or more and goes round cold memory.
pub fn calls_for(bytes: usize) -> usize {
    (COLD_BYTES * 6 / bytes.max(1)).clamp(24, 480)
}

/// Microseconds of a call, from a graph of `calls` calls: the median of several replays. `call` is told its number.
pub fn graph_us(context: Context, calls: usize, mut call: impl FnMut(usize, &mut Context)) -> f64 {
    let mut context = context;
    // Once before: what is chosen or loaded at the first call is no part of the graph.
    call(0, &mut context);
    context.synchronize().unwrap();
    let mut graph = Graph::capture(context, |context| {
        (0..calls).for_each(|number| call(number, context));
        Ok(())
    })
    .unwrap();
    // SAFETY: callers keep what was recorded until this returns.
    unsafe { graph.launch() }.unwrap();
    let times = (0..REPLAYS).map(|_| {
        let start = CudaEvent::record(graph.stream()).unwrap();
        // SAFETY: as above.
        unsafe { graph.launch() }.unwrap();
        f64::from(CudaEvent::record(graph.stream()).unwrap().milliseconds_since(&start).unwrap())
    });
    median(times.collect()) * 1e3 / calls as f64
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes of a buffer: for reports.
pub fn len(buffer: &CudaBuffer) -> usize {
    buffer.len_bytes()
}
