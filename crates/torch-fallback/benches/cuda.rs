//! `forward` on a GPU against its own limits: a read of as many bytes, a copy, and cuBLASLt on the dense matrix.
//!
//! ```text
//! GPTQ_KERNELS_DIR=kernels/out cargo bench -p gptq-torch-fallback --features cuda --bench cuda [-- decode prefill dense]
//! ```
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

#[path = "../../cuda/benches/limits/mod.rs"]
mod limits;
#[allow(dead_code)]
#[path = "../src/cuda/params.rs"]
mod params;
#[path = "../tests/cuda/support.rs"]
#[allow(dead_code)]
mod support;

use std::ptr;

use gptq_conformance::case::Case;
use gptq_core::device::{DeviceBuffer as _, Memory as _};
use gptq_core::post_init::FinalizedModel;
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_cuda::{
    CudaBuffer, CudaEvent, CudaStream, Gpu, Kernel, KernelImage, Kernels, Launch, Matmul, MatmulOperands,
    MatmulShape, Params, Workspace,
};

use limits::{COLD_BYTES, Limits, calls_for, context, graph_us, median};
use params::GptqDequantizeParams;
use support::{four_bits, in_act_order};

// SAFETY: made by `cargo xtask codegen` of the params.h of the family, whose kernels take it.
unsafe impl Params for GptqDequantizeParams {}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |name: &str| asked.is_empty() || asked.iter().any(|one| one == name);
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(rejection) => {
            println!("no benchmark without a GPU: {rejection}");
            return;
        }
    };
    println!("{}, driver for CUDA {}", gpu.info().name, gpu.info().driver);
    let limits = Limits::new(&gpu);
    let gigabyte = 480 << 20;
    println!(
        "read {:.0} GB/s, copy {:.0} GB/s (read and written)",
        gigabyte as f64 / limits.read_us(gigabyte) / 1e3,
        2.0 * gigabyte as f64 / limits.copy_us(gigabyte) / 1e3
    );
    if runs("dense") {
        dense(&gpu, &limits);
    }
    if runs("decode") {
        decode(&gpu, &limits);
    }
    if runs("prefill") {
        prefill(&gpu);
    }
}

/// Layers of one kind with memory of their own, enough that none stays in a cache.
fn cold_model(case: Case) -> (FinalizedModel, usize) {
    let bytes = case.outline().unwrap().info().packed_bytes;
    let copies = (COLD_BYTES / 2).div_ceil(bytes).clamp(2, 64);
    let layers = (0..copies).map(|number| case.noise(&number.to_string()).unwrap()).collect();
    (support::open(layers).unwrap(), bytes)
}

fn decode(gpu: &Gpu, limits: &Limits) {
    println!("\ndecode, f16: us of a call in a graph, and the part of a read of the packed bytes");
    println!("{:>16} {:>10} {:>8}  M: us (R)", "K x N", "kind", "read us");
    let shapes = [
        (8192, 28672),
        (28672, 8192),
        (8192, 8192),
        (4096, 14336),
        (4096, 11008),
        (11008, 4096),
        (4096, 4096),
    ];
    for (name, act_order, shapes) in [("plain", false, &shapes[..]), ("act-order", true, &shapes[..3])] {
        for &(k, n) in shapes {
            let case = four_bits(k, n);
            let (model, bytes) = cold_model(if act_order { in_act_order(case) } else { case });
            let read = limits.read_us(bytes);
            let mut line = format!("{:>16} {name:>10} {read:8.1} ", format!("{k} x {n}"));
            for rows in [1, 2, 4, 8, 9, 16, 64] {
                let us = forward_us(gpu, &model, [rows, k, n], bytes);
                line.push_str(&format!(" {rows}: {us:.1} ({:.3})", read / us));
            }
            println!("{line}");
        }
    }
}

fn forward_us(gpu: &Gpu, model: &FinalizedModel, [rows, k, n]: [usize; 3], bytes: usize) -> f64 {
    let x = gpu.allocate_buffer(rows * k * 2).unwrap();
    let mut out = gpu.allocate_buffer(rows * n * 2).unwrap();
    let layers = model.layers();
    graph_us(model.context().unwrap(), calls_for(bytes).min(96), |call, context| {
        let x = TensorRef::on_device(DType::F16, [rows, k], &x, 0).unwrap();
        let mut out = TensorMut::on_device(DType::F16, [rows, n], &mut out, 0).unwrap();
        layers[call % layers.len()].forward(&x, &mut out, context).unwrap();
    })
}

/// The dense matrix alone, whole, against a copy that reads and writes as many bytes.
fn dense(gpu: &Gpu, limits: &Limits) {
    println!("\nthe dense matrix in f16: us, us of a copy of as many bytes, and the part of it");
    let kernels = Kernels::load(gpu, &KernelImage::find("dequantize", None).unwrap()).unwrap();
    let blocks: Kernel<GptqDequantizeParams> = kernels.kernel("gptq_dequantize_blocks_b4_f16").unwrap();
    for (k, n) in [(8192usize, 28672usize), (4096, 4096), (4096, 11008)] {
        let packed = four_bits(k, n).noise("layer").unwrap();
        let part = |bytes: &[u8]| uploaded(gpu, bytes);
        let (qweight, scales) = (packed.qweight().as_bytes(), packed.scales().as_bytes());
        let zeros =
            part(&packed.zeros().words().iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
        let scales = part(scales);
        let copies: Vec<CudaBuffer> =
            (0..(COLD_BYTES / 2).div_ceil(qweight.len()).clamp(2, 32)).map(|_| part(qweight)).collect();
        let out = gpu.allocate_buffer(2 * k * n).unwrap();
        let bytes = packed.info().packed_bytes + 2 * k * n;
        let us = graph_us(context(gpu, 0), calls_for(bytes), |call, context| {
            let (stream, _) = context.on_device().unwrap();
            let params = GptqDequantizeParams {
                qweight: at(&copies[call % copies.len()]),
                qzeros: at(&zeros),
                scales: at(&scales),
                g_idx: ptr::null(),
                w_rows: ptr::null(),
                out: at::<std::ffi::c_void>(&out).cast_mut(),
                in_features: k as u32,
                out_features: n as u32,
                group_rows: 128,
                first_column: 0,
                columns: n as u32,
                out_stride: n as u32,
                scale_dtype: params::GPTQ_DTYPE_F16,
                g_idx_bytes: 0,
            };
            let launch = Launch::new([n.div_ceil(1024) as u32, k as u32 / 32, 1], [128, 1, 1]);
            // SAFETY: the buffers hold the layer and its dense matrix, and outlive the graph.
            unsafe { blocks.launch(CudaStream::of(stream).unwrap(), &launch, &params) }.unwrap();
        });
        let copy = limits.copy_us(bytes / 2);
        println!("{:>16} {us:8.1} {copy:8.1} {:.3}", format!("{k} x {n}"), copy / us);
    }
}

fn uploaded(gpu: &Gpu, bytes: &[u8]) -> CudaBuffer {
    let mut buffer = gpu.allocate_buffer(bytes.len()).unwrap();
    gpu.upload(bytes, &mut buffer, 0).unwrap();
    buffer
}

fn at<T>(buffer: &CudaBuffer) -> *const T {
    ptr::without_provenance(buffer.address() as usize)
}

/// forward and cuBLASLt on the whole dense matrix, by turns.
fn prefill(gpu: &Gpu) {
    const ROUNDS: usize = 11;
    println!("\nprefill, f16: ms of forward, ms of cuBLASLt on the dense matrix, and their ratio; by turns");
    let matmul = Matmul::open(gpu).unwrap();
    for (act_order, k, n) in [
        (false, 8192usize, 28672usize),
        (false, 4096, 4096),
        (false, 4096, 11008),
        (false, 28672, 8192),
        (false, 11008, 4096),
        (true, 8192, 8192),
    ] {
        let case = four_bits(k, n);
        let packed = if act_order { in_act_order(case) } else { case }.noise("layer").unwrap();
        // Random weights: products of equal numbers draw less power, and run faster.
        let narrow: Vec<u8> =
            packed.dequantize().iter().flat_map(|w| half::f16::from_f32(*w).to_le_bytes()).collect();
        let dense_matrix = uploaded(gpu, &narrow);
        let model = support::open(vec![packed]).unwrap();
        for rows in [4096usize, 1024, 256, 64, 16] {
            let x = gptq_conformance::Activations::normal([rows, k], DType::F16, 1);
            let x_buffer = uploaded(gpu, &x.to_bytes());
            let mut out = gpu.allocate_buffer(2 * rows * n).unwrap();
            let mut context = model.context().unwrap();
            let stream = CudaStream::new(gpu).unwrap();
            let scratch = gpu.allocate_buffer(Matmul::WORKSPACE_BYTES).unwrap();
            let operands = MatmulOperands {
                x: x_buffer.address(),
                w: dense_matrix.address(),
                out: out.address(),
                bias: None,
            };
            let shape = MatmulShape::dense(DType::F16, rows, n, k);
            let workspace = Workspace { address: scratch.address(), bytes: scratch.len_bytes() };
            let calls = ((2e-3 * 6e14 / (2.0 * (rows * k * n) as f64)) as usize).clamp(3, 100);
            let (mut of_forward, mut of_dense) = (Vec::new(), Vec::new());
            for round in 0..=ROUNDS {
                let ms = {
                    let (own, _) = context.on_device().unwrap();
                    let own = CudaStream::of(own).unwrap();
                    // SAFETY: lent for the time of this block; the context lives on.
                    let own = unsafe { CudaStream::from_raw(gpu, own.as_raw()) };
                    let start = CudaEvent::record(&own).unwrap();
                    for _ in 0..calls {
                        let x = TensorRef::on_device(DType::F16, [rows, k], &x_buffer, 0).unwrap();
                        let mut out = TensorMut::on_device(DType::F16, [rows, n], &mut out, 0).unwrap();
                        model.forward("layer", &x, &mut out, &mut context).unwrap();
                    }
                    CudaEvent::record(&own).unwrap().milliseconds_since(&start).unwrap()
                };
                let start = CudaEvent::record(&stream).unwrap();
                for _ in 0..calls {
                    // SAFETY: the buffers hold the matrices and live until the times are read.
                    unsafe { matmul.run(&stream, &shape, &operands, workspace) }.unwrap();
                }
                let dense_ms = CudaEvent::record(&stream).unwrap().milliseconds_since(&start).unwrap();
                // The first round chooses algorithms.
                if round > 0 {
                    of_forward.push(f64::from(ms) / calls as f64);
                    of_dense.push(f64::from(dense_ms) / calls as f64);
                }
            }
            let (forward, dense) = (median(of_forward), median(of_dense));
            let tflops = 2.0 * (rows * k * n) as f64 / forward / 1e9;
            println!(
                "{:>16} {} M = {rows:5} {forward:9.4} {dense:9.4} {:.3}  {tflops:.0} TFLOP/s",
                format!("{k} x {n}"),
                if act_order { "act-order" } else { "plain    " },
                dense / forward
            );
        }
    }
}
