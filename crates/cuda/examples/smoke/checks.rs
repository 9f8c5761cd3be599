//! What is checked on a GPU: by the example `smoke`, and by the test `gpu`.
#![expect(unsafe_code, reason = "launches")]

use std::error::Error;
use std::time::Instant;

use gptq_core::device::{Context, DeviceBuffer as _, Memory as _, Stream as _};
use gptq_core::tensor::{DType, Element};
use gptq_cuda::{
    CudaBuffer, CudaEvent, CudaStream, CudaVersion, Gpu, Graph, Kernel, KernelImage, Kernels, Launch, Matmul,
    MatmulOperands, MatmulShape, Params, Workspace,
};
use half::{bf16, f16};

use super::params::GptqTestScaleParams;

/// A note for the reader, or what is wrong.
type Outcome = Result<String, Box<dyn Error>>;
type Check = fn(&Gpu) -> Outcome;

pub(crate) const ALL: [(&str, Check); 11] = [
    ("bytes come back as they went, from small to staged", bytes_come_back),
    ("a range outside a buffer is refused", ranges_are_checked),
    ("threads upload at once", threads_upload),
    ("kernels run with their parameters and shared memory", kernels_run),
    ("a kernel with other parameters is refused", parameters_are_compared),
    ("products agree with f64, in all types, panels and with bias", products_agree),
    ("a product gives the same bits again", products_repeat),
    ("a graph replays what was recorded", graphs_replay),
    ("memory dropped while a graph is recorded is freed later", drops_wait_for_graphs),
    ("more memory than there is gives an error, and nothing stays", memory_runs_out),
    ("an engine's memory and stream serve as they are", engines_lend),
];

// SAFETY: made by `cargo xtask codegen` from the params.h of the family `scale`, whose kernels take it.
unsafe impl Params for GptqTestScaleParams {}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

/// Numbers that look random and are the same on every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// From -1 to 1.
    fn values<T: Element>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| T::narrow((self.next() & 0xffff) as f32 / 32768.0 - 1.0)).collect()
    }
}

fn as_bytes<T: Element>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

fn uploaded<T: Element>(gpu: &Gpu, values: &[T]) -> gptq_core::Result<CudaBuffer> {
    let mut buffer = gpu.allocate_buffer(size_of_val(values))?;
    gpu.upload(&as_bytes(values), &mut buffer, 0)?;
    Ok(buffer)
}

fn downloaded<T: Element>(gpu: &Gpu, buffer: &CudaBuffer) -> gptq_core::Result<Vec<T>> {
    let mut values = vec![T::zeroed(); buffer.len_bytes() / size_of::<T>()];
    gpu.download(buffer, 0, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

fn bytes_come_back(gpu: &Gpu) -> Outcome {
    let mut rate = 0.0;
    for bytes in [0, 1, 4097, (1 << 20) - 1, 1 << 20, (5 << 20) + 3, 200 << 20] {
        let sent = Noise(bytes as u64).bytes(bytes);
        let mut buffer = gpu.allocate_buffer(bytes + 8)?;
        let start = Instant::now();
        gpu.upload(&sent, &mut buffer, 8)?;
        rate = bytes as f64 / start.elapsed().as_secs_f64() / 1e9;
        let mut received = vec![0; bytes];
        gpu.download(&buffer, 8, &mut received)?;
        ensure(sent == received, || format!("{bytes} bytes came back changed"))?;
    }
    Ok(format!("200 MB went up at {rate:.1} GB/s"))
}

fn ranges_are_checked(gpu: &Gpu) -> Outcome {
    let mut buffer = gpu.allocate_buffer(16)?;
    for (offset, bytes) in [(0, 17), (16, 1), (usize::MAX, 1)] {
        ensure(gpu.upload(&vec![0; bytes], &mut buffer, offset).is_err(), || format!("upload to {offset}"))?;
        ensure(gpu.download(&buffer, offset, &mut vec![0; bytes]).is_err(), || {
            format!("download from {offset}")
        })?;
    }
    Ok("17 bytes do not fit in 16".into())
}

fn threads_upload(gpu: &Gpu) -> Outcome {
    let results: Vec<Result<bool, gptq_core::Error>> = std::thread::scope(|scope| {
        let one = |seed: u64| {
            let sent = Noise(seed).bytes(50 << 20);
            let mut buffer = gpu.allocate_buffer(sent.len())?;
            let mut received = vec![0; sent.len()];
            gpu.upload(&sent, &mut buffer, 0)?;
            gpu.download(&buffer, 0, &mut received)?;
            Ok(sent == received)
        };
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || one(seed))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    ensure(results.len() == 4, || "a thread panicked".into())?;
    for result in results {
        ensure(result?, || "bytes of one thread came back as another's".into())?;
    }
    Ok("4 threads, 50 MB each".into())
}

fn scale_kernels(gpu: &Gpu) -> Result<Kernels, Box<dyn Error>> {
    Ok(Kernels::load(gpu, &KernelImage::find("scale", None)?)?)
}

/// Queues `kernel` on all of `values`, in blocks of 256.
fn launch(
    kernel: &Kernel<GptqTestScaleParams>,
    stream: &CudaStream,
    values: &CudaBuffer,
    factor: f32,
) -> gptq_core::Result<()> {
    let count = u32::try_from(values.len_bytes() / 4).unwrap_or(0);
    let params = GptqTestScaleParams { values: values.address(), count, factor };
    let grid = Launch::new([count.div_ceil(256), 1, 1], [256, 1, 1]).shared_bytes(1024);
    // SAFETY: `values` holds `count` floats, and callers keep it until they have synchronized.
    unsafe { kernel.launch(stream, &grid, &params) }
}

fn kernels_run(gpu: &Gpu) -> Outcome {
    let kernels = scale_kernels(gpu)?;
    let scale = kernels.kernel::<GptqTestScaleParams>("gptq_test_scale_f32")?;
    let halve = kernels.kernel::<GptqTestScaleParams>("gptq_test_halve_f32")?;
    let values: Vec<f32> = Noise(1).values(1000);
    let buffer = uploaded(gpu, &values)?;
    let stream = CudaStream::new(gpu)?;
    launch(&scale, &stream, &buffer, 6.0)?;
    launch(&halve, &stream, &buffer, 0.0)?;
    stream.synchronize()?;
    let expected: Vec<f32> = values.iter().map(|value| value * 6.0 * 0.5).collect();
    ensure(downloaded::<f32>(gpu, &buffer)? == expected, || "wrong values".into())?;

    halve.allow_shared_bytes(64 << 10)?;
    let beyond = halve.allow_shared_bytes(gpu.info().shared_bytes_per_block + 1024);
    ensure(beyond.is_err(), || "more shared memory than the GPU has was given".into())?;
    Ok(format!(
        "two files in one image; {} blocks of 256 on a multiprocessor",
        scale.blocks_per_multiprocessor(256, 0)?
    ))
}

fn parameters_are_compared(gpu: &Gpu) -> Outcome {
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Longer([u64; 5]);
    // SAFETY: it is never launched; it is here to be refused.
    unsafe impl Params for Longer {}

    let kernels = scale_kernels(gpu)?;
    let missing = kernels
        .kernel::<GptqTestScaleParams>("gptq_test_no_such_kernel")
        .err()
        .map(|error| error.to_string());
    ensure(missing.is_some_and(|text| text.contains("no_such_kernel")), || {
        "a kernel that is not there was found".into()
    })?;
    match kernels.kernel::<Longer>("gptq_test_scale_f32") {
        Err(error) => Ok(error.to_string()),
        Ok(_) if gpu.info().driver < (CudaVersion { major: 12, minor: 4 }) => {
            Ok("not told by this driver".into())
        }
        Ok(_) => Err("parameters of 40 bytes were taken for those of 16".into()),
    }
}

/// x [m, k], W [k, n], and their product in f64.
struct Problem<T> {
    x: Vec<T>,
    w: Vec<T>,
    bias: Vec<T>,
    product: Vec<f64>,
}

impl<T: Element> Problem<T> {
    fn new(m: usize, n: usize, k: usize) -> Self {
        let mut noise = Noise((m * 1_000_003 + n * 1009 + k) as u64);
        let (x, w, bias) = (noise.values::<T>(m * k), noise.values::<T>(k * n), noise.values::<T>(n));
        let mut product = vec![0.0; m * n];
        for row in 0..m {
            let sums = &mut product[row * n..][..n];
            for i in 0..k {
                let factor = f64::from(x[row * k + i].widen());
                for (sum, weight) in sums.iter_mut().zip(&w[i * n..][..n]) {
                    *sum += factor * f64::from(weight.widen());
                }
            }
        }
        Self { x, w, bias, product }
    }
}

/// The relative Frobenius error of `found`.
fn error_of<T: Element>(found: &[T], expected: &[f64]) -> f64 {
    let difference: f64 = found.iter().zip(expected).map(|(f, e)| (f64::from(f.widen()) - e).powi(2)).sum();
    (difference / expected.iter().map(|e| e * e).sum::<f64>()).sqrt()
}

fn product_agrees<T: Element>(
    gpu: &Gpu,
    matmul: &Matmul,
    [m, n, k]: [usize; 3],
    bound: f64,
) -> Result<f64, Box<dyn Error>> {
    let problem = Problem::<T>::new(m, n, k);
    let stream = CudaStream::new(gpu)?;
    let (x, w, bias) =
        (uploaded(gpu, &problem.x)?, uploaded(gpu, &problem.w)?, uploaded(gpu, &problem.bias)?);
    let mut worst: f64 = 0.0;
    // All of out; then the same with a bias, in a wider out, with hardly any workspace.
    for (out_stride, bias_address, workspace_bytes) in
        [(n, None, Matmul::WORKSPACE_BYTES), (n + 64, Some(bias.address()), 0)]
    {
        let mut out = gpu.allocate_buffer(m * out_stride * size_of::<T>())?;
        stream.fill(&mut out, 0xff)?;
        let workspace = gpu.allocate_buffer(workspace_bytes)?;
        let shape = MatmulShape::dense(T::DTYPE, m, n, k).with_out_stride(out_stride);
        let operands =
            MatmulOperands { x: x.address(), w: w.address(), out: out.address(), bias: bias_address };
        let workspace_range = Workspace { address: workspace.address(), bytes: workspace_bytes };
        // SAFETY: the buffers hold the matrices of `shape` and live until the stream is synchronized.
        unsafe { matmul.run(&stream, &shape, &operands, workspace_range) }?;
        stream.synchronize()?;
        let wide = downloaded::<T>(gpu, &out)?;
        let found: Vec<T> = wide.chunks(out_stride).flat_map(|row| row[..n].iter().copied()).collect();
        let expected: Vec<f64> = problem
            .product
            .iter()
            .enumerate()
            .map(|(i, sum)| sum + bias_address.map_or(0.0, |_| f64::from(problem.bias[i % n].widen())))
            .collect();
        let error = error_of(&found, &expected);
        ensure(error <= bound, || format!("[{m}, {k}] x [{k}, {n}] {}: error {error:.2e}", T::DTYPE))?;
        let untouched =
            as_bytes(&wide[n.min(wide.len())..out_stride.min(wide.len())]).iter().all(|byte| *byte == 0xff);
        ensure(untouched, || "columns outside the panel were written".into())?;
        worst = worst.max(error);
    }
    Ok(worst)
}

fn products_agree(gpu: &Gpu) -> Outcome {
    let matmul = Matmul::open(gpu)?;
    let mut worst = [0.0f64; 3];
    for size in [[1, 256, 512], [3, 64, 96], [17, 200, 304], [18, 200, 304], [128, 384, 256], [33, 8, 4096]] {
        worst[0] = worst[0].max(product_agrees::<f16>(gpu, &matmul, size, 3e-4)?);
        worst[1] = worst[1].max(product_agrees::<bf16>(gpu, &matmul, size, 2.5e-3)?);
        worst[2] = worst[2].max(product_agrees::<f32>(gpu, &matmul, size, 3e-6)?);
    }
    // Odd sizes: no type is aligned.
    worst[0] = worst[0].max(product_agrees::<f16>(gpu, &matmul, [5, 37, 41], 3e-4)?);
    worst[2] = worst[2].max(product_agrees::<f32>(gpu, &matmul, [5, 37, 41], 1e-6)?);
    let tflops = product_rate(gpu, &matmul, 4096)?;
    Ok(format!(
        "{matmul:?}; worst errors f16 {:.1e}, bf16 {:.1e}, f32 {:.1e}; f16 4096 x 4096 x 4096 at {tflops:.0} TFLOP/s",
        worst[0], worst[1], worst[2]
    ))
}

/// TFLOP/s of an f16 product of square matrices.
fn product_rate(gpu: &Gpu, matmul: &Matmul, size: usize) -> Result<f64, Box<dyn Error>> {
    let stream = CudaStream::new(gpu)?;
    let values: Vec<f16> = Noise(3).values(size * size);
    let (x, w, out) =
        (uploaded(gpu, &values)?, uploaded(gpu, &values)?, gpu.allocate_buffer(2 * size * size)?);
    let scratch = gpu.allocate_buffer(Matmul::WORKSPACE_BYTES)?;
    let operands = MatmulOperands { x: x.address(), w: w.address(), out: out.address(), bias: None };
    let workspace = Workspace { address: scratch.address(), bytes: scratch.len_bytes() };
    let shape = MatmulShape::dense(DType::F16, size, size, size);
    let mut times = Vec::new();
    for _ in 0..8 {
        let start = CudaEvent::record(&stream)?;
        for _ in 0..8 {
            // SAFETY: the buffers hold the matrices of `shape` and live until the times are read.
            unsafe { matmul.run(&stream, &shape, &operands, workspace) }?;
        }
        times.push(CudaEvent::record(&stream)?.milliseconds_since(&start)?);
    }
    times.sort_by(f32::total_cmp);
    Ok(8.0 * 2.0 * (size as f64).powi(3) / (f64::from(times[4]) * 1e9))
}

fn products_repeat(gpu: &Gpu) -> Outcome {
    let matmul = Matmul::open(gpu)?;
    let stream = CudaStream::new(gpu)?;
    let (m, n, k) = (7, 128, 8192);
    let problem = Problem::<f16>::new(m, n, k);
    let (x, w) = (uploaded(gpu, &problem.x)?, uploaded(gpu, &problem.w)?);
    let scratch = gpu.allocate_buffer(Matmul::WORKSPACE_BYTES)?;
    let workspace = Workspace { address: scratch.address(), bytes: scratch.len_bytes() };
    let mut first = None;
    for _ in 0..20 {
        let out = gpu.allocate_buffer(m * n * 2)?;
        let operands = MatmulOperands { x: x.address(), w: w.address(), out: out.address(), bias: None };
        // SAFETY: the buffers hold the matrices of the shape and live until the stream is synchronized.
        unsafe { matmul.run(&stream, &MatmulShape::dense(DType::F16, m, n, k), &operands, workspace) }?;
        stream.synchronize()?;
        let bits = as_bytes(&downloaded::<f16>(gpu, &out)?);
        ensure(first.get_or_insert_with(|| bits.clone()) == &bits, || "the bits differ".into())?;
    }
    Ok("20 times, K = 8192 split".into())
}

fn graphs_replay(gpu: &Gpu) -> Outcome {
    let kernels = scale_kernels(gpu)?;
    let scale = kernels.kernel::<GptqTestScaleParams>("gptq_test_scale_f32")?;
    let matmul = Matmul::open(gpu)?;
    let values = uploaded(gpu, &[1.0f32; 512])?;
    let (m, n, k) = (4, 32, 128);
    let problem = Problem::<f32>::new(m, n, k);
    let (x, w) = (uploaded(gpu, &problem.x)?, uploaded(gpu, &problem.w)?);
    let mut out = gpu.allocate_buffer(m * n * 4)?;
    let operands = MatmulOperands { x: x.address(), w: w.address(), out: out.address(), bias: None };
    let multiply = |context: &mut Context| {
        let Some((stream, scratch)) = context.on_device() else { return Ok(()) };
        let workspace = Workspace { address: CudaBuffer::of(scratch)?.address(), bytes: scratch.len_bytes() };
        let shape = MatmulShape::dense(DType::F32, m, n, k);
        // SAFETY: the buffers hold the matrices of the shape and live until the graph is dropped.
        unsafe { matmul.run(CudaStream::of(stream)?, &shape, &operands, workspace) }
    };
    let mut context = Context::on_stream(gpu, gpu.stream()?, Matmul::WORKSPACE_BYTES)?;
    // Once before: cuBLASLt loads a kernel when it first runs it, which cannot be recorded.
    multiply(&mut context)?;
    context.synchronize()?;
    gpu.upload(&vec![0; out.len_bytes()], &mut out, 0)?;
    let mut graph = Graph::capture(context, |context| {
        if let Some((stream, _)) = context.on_device() {
            launch(&scale, CudaStream::of(stream)?, &values, 2.0)?;
            launch(&scale, CudaStream::of(stream)?, &values, 3.0)?;
        }
        multiply(context)
    })?;
    ensure(downloaded::<f32>(gpu, &values)? == [1.0; 512], || "recording ran the kernels".into())?;
    // SAFETY: what was recorded is still there, and each launch is done before the next.
    unsafe { graph.launch() }?;
    graph.synchronize()?;
    let other = CudaStream::new(gpu)?;
    // SAFETY: as above.
    unsafe { graph.launch_on(&other) }?;
    other.synchronize()?;
    ensure(downloaded::<f32>(gpu, &values)? == [36.0; 512], || "two replays are not a factor of 36".into())?;
    let error = error_of(&downloaded::<f32>(gpu, &out)?, &problem.product);
    ensure(error < 1e-6, || format!("the product in the graph has error {error:.1e}"))?;

    let refused = Graph::capture(Context::on_stream(gpu, gpu.stream()?, 0)?, |context| context.synchronize());
    ensure(refused.is_err(), || "waiting was recorded".into())?;
    let refused = Graph::capture(Context::host(0), |_| Ok(()));
    ensure(refused.is_err(), || "a context on the host was recorded".into())?;
    Ok("two kernels and a product, on its own stream and on another; a recording that waits is an error"
        .into())
}

fn drops_wait_for_graphs(gpu: &Gpu) -> Outcome {
    let bytes = 256 << 20;
    let scale = scale_kernels(gpu)?.kernel::<GptqTestScaleParams>("gptq_test_scale_f32")?;
    let values = uploaded(gpu, &[1.0f32; 512])?;
    // Of another that has opened the same GPU: it knows of the recording all the same.
    let opened = Gpu::open(gpu.info().ordinal).map_err(|rejection| format!("opened twice: {rejection}"))?;
    let dropped = opened.allocate_buffer(bytes)?;
    let context = Context::on_stream(gpu, gpu.stream()?, 0)?;
    let before = gpu.available_bytes().unwrap_or(0);
    let mut graph = Graph::capture(context, |context| {
        drop(dropped);
        let Some((stream, _)) = context.on_device() else { return Ok(()) };
        launch(&scale, CudaStream::of(stream)?, &values, 2.0)
    })?;
    // SAFETY: what was recorded is still there.
    unsafe { graph.launch() }?;
    graph.synchronize()?;
    ensure(downloaded::<f32>(gpu, &values)? == [2.0; 512], || "the recording was broken".into())?;
    drop(opened.allocate_buffer(1)?);
    let after = gpu.available_bytes().unwrap_or(0);
    ensure(after >= before + bytes / 2, || format!("{before} bytes were free before, {after} after"))?;
    Ok("256 MB were freed by the next call".into())
}

fn memory_runs_out(gpu: &Gpu) -> Outcome {
    let before = gpu.available_bytes().unwrap_or(0);
    let mut held = Vec::new();
    let error = loop {
        match gpu.allocate_buffer(4 << 30) {
            Ok(buffer) => held.push(buffer),
            Err(error) => break error,
        }
    };
    let is_the_error = matches!(error, gptq_core::Error::OutOfMemory { needed: 4_294_967_296, .. });
    ensure(is_the_error, || format!("another error: {error}"))?;
    drop(held);
    let after = gpu.available_bytes().unwrap_or(0);
    // Others may use the GPU meanwhile.
    ensure(after + (64 << 20) >= before, || format!("{before} bytes were free before, {after} after"))?;
    Ok(error.to_string())
}

fn engines_lend(gpu: &Gpu) -> Outcome {
    let other = Gpu::open(gpu.info().ordinal)?;
    let scale = scale_kernels(gpu)?.kernel::<GptqTestScaleParams>("gptq_test_scale_f32")?;
    let owned = uploaded(&other, &[1.0f32; 300])?;
    let stream = CudaStream::new(&other)?;
    {
        // SAFETY: `owned` and `stream` outlive this block, and nobody else uses them in it.
        let (values, stream) = unsafe {
            (
                CudaBuffer::from_raw(gpu, owned.address(), owned.len_bytes()),
                CudaStream::from_raw(gpu, stream.as_raw()),
            )
        };
        launch(&scale, &stream, &values, 5.0)?;
        stream.synchronize()?;
    }
    ensure(downloaded::<f32>(gpu, &owned)? == [5.0; 300], || "wrong values".into())?;
    Ok("buffers of one Gpu work with another of the same device".into())
}
