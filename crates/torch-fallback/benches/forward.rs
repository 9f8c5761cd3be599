//! `forward` against the machine's own limits, in one interleaved run.
//!
//! ```text
//! cargo bench -p gptq-torch-fallback -- bits=4 dtype=bf16,f32 m=1,8,512 shape=4096x11008 rounds=5 warm=1 isa=avx2
//! ```

#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::hint::black_box;
use std::time::Instant;

use gptq_conformance::case::{Case, GIdx};
use gptq_core::QuantLinear;
use gptq_core::backend::{Linear, Options};
use gptq_core::device::Context;
use gptq_core::format::{Bits, GroupSize, Packing};
use gptq_core::tensor::{Element, TensorMut, TensorRef};
use gptq_torch_fallback::limits::ReadBandwidth;
use half::{bf16, f16};

/// One `forward` of a layer, with x and output of its own.
type Call = Box<dyn FnMut(&dyn Linear)>;

/// Packed bytes to rotate over, so that weights come from memory.
const COLD_BYTES: usize = 640 << 20;
const STREAM_BYTES: usize = 1 << 30;

struct Bench {
    name: String,
    linears: Vec<Box<dyn Linear>>,
    weight_bytes: usize,
    flops: f64,
    call: Call,
    seconds: Vec<f64>,
    cpu: Vec<f64>,
}

fn call<T: Element>(m: usize, k: usize, n: usize) -> Call {
    let x: Vec<T> = (0..m * k).map(|i| T::narrow(((i * 7919) % 1000) as f32 / 500.0 - 1.0)).collect();
    let mut out = vec![T::narrow(0.0); m * n];
    let mut context = Context::host(64 << 20);
    Box::new(move |linear| {
        let x = TensorRef::host(&x, [m, k]).unwrap();
        let mut out = TensorMut::host(&mut out, [m, n]).unwrap();
        linear.forward(black_box(&x), black_box(&mut out), &mut context).unwrap();
    })
}

/// Seconds that all threads of this process ran: on a machine that others use too, this says what a call costs.
#[allow(unsafe_code)]
fn cpu_seconds() -> f64 {
    #[cfg(target_os = "linux")]
    {
        unsafe extern "C" {
            fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
        }
        let mut time = [0; 2];
        // SAFETY: a timespec is two 64-bit integers on 64-bit Linux; 2 is CLOCK_PROCESS_CPUTIME_ID.
        unsafe { clock_gettime(2, &raw mut time) };
        time[0] as f64 + time[1] as f64 * 1e-9
    }
    #[cfg(not(target_os = "linux"))]
    0.0
}

fn argument<'a>(arguments: &'a [String], name: &str, default: &'a str) -> &'a str {
    arguments.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('=')).unwrap_or(default)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name, default| argument(&arguments, name, default).to_owned();
    let rounds: usize = argument("rounds", "5").parse().unwrap();
    let warm = argument("warm", "0") == "1";
    let asym = argument("asym", "0") == "1";
    let acts = argument("act", "0");
    let group_size = GroupSize::from_config(argument("group", "128").parse().unwrap()).unwrap();
    let millis: f64 = argument("ms", "60").parse().unwrap();
    let packing = if argument("planar", "0") == "1" { Packing::Planar } else { Packing::Continuous };
    let shapes = argument("shape", "4096x4096,4096x11008,11008x4096");

    let memory = ReadBandwidth::new(STREAM_BYTES);
    let mut limits = Vec::new();
    println!("{} threads", rayon::current_num_threads());
    println!(
        "{:36} {:>9} {:>9} {:>9} {:>7} {:>8} {:>8} {:>6}",
        "case", "median ms", "min ms", "cpu ms", "GB/s", "GFLOP/s", "by cpu", "of read"
    );
    for bits in argument("bits", "4").split(',') {
        let bits = Bits::new(bits.parse().unwrap()).unwrap();
        for shape in shapes.split(',') {
            let (k, n) =
                shape.split_once('x').map(|(k, n)| (k.parse().unwrap(), n.parse().unwrap())).unwrap();
            for act in acts.split(',') {
                let case = Case {
                    bits,
                    packing,
                    group_size,
                    sym: !asym,
                    g_idx: if act == "1" { GIdx::ActOrder } else { GIdx::Absent },
                    in_features: k,
                    out_features: n,
                    ..Case::PLAIN
                };
                let weight_bytes = case.outline().unwrap().info().packed_bytes;
                let count = if warm { 1 } else { COLD_BYTES.div_ceil(weight_bytes) };
                let copies: Vec<QuantLinear> = (0..count).map(|_| case.noise("bench").unwrap()).collect();
                let mut benches = Vec::new();
                for isa in argument("isa", "").split(',') {
                    let mut options = Options::default();
                    if !isa.is_empty() {
                        options.set("torch", "isa", isa);
                    }
                    for dtype in argument("dtype", "bf16,f32").split(',') {
                        for m in argument("m", "1").split(',') {
                            let m: usize = m.parse().unwrap();
                            benches.push(Bench {
                                name: format!("{bits} bits {k}x{n} M={m} {dtype} {isa} act={act}"),
                                linears: copies
                                    .iter()
                                    .map(|l| gptq_torch_fallback::linear(l.clone(), &options).unwrap())
                                    .collect(),
                                weight_bytes,
                                flops: 2.0 * (m * k * n) as f64,
                                call: match dtype {
                                    "f32" => call::<f32>(m, k, n),
                                    "f16" => call::<f16>(m, k, n),
                                    _ => call::<bf16>(m, k, n),
                                },
                                seconds: Vec::new(),
                                cpu: Vec::new(),
                            });
                        }
                    }
                }
                let mut read = Vec::new();
                for _ in 0..rounds {
                    read.push(memory.measure());
                    for bench in &mut benches {
                        let started = Instant::now();
                        for i in 0.. {
                            let (before, cpu) = (Instant::now(), cpu_seconds());
                            (bench.call)(&*bench.linears[i % bench.linears.len()]);
                            bench.seconds.push(before.elapsed().as_secs_f64());
                            bench.cpu.push((cpu_seconds() - cpu) / rayon::current_num_threads() as f64);
                            if started.elapsed().as_secs_f64() * 1e3 > millis && i > 1 {
                                break;
                            }
                        }
                    }
                }
                let limit = read.iter().copied().fold(0.0, f64::max);
                println!("read: median {:.1}, best {:.1} GB/s", median(&mut read.clone()) / 1e9, limit / 1e9);
                limits.push(limit);
                for bench in &mut benches {
                    let middle = median(&mut bench.seconds);
                    let rate = bench.weight_bytes as f64 / middle;
                    let cpu = median(&mut bench.cpu);
                    println!(
                        "{:36} {:9.3} {:9.3} {:9.3} {:7.1} {:8.1} {:8.1} {:5.0}% (min {:.0}%)",
                        bench.name,
                        middle * 1e3,
                        bench.seconds[0] * 1e3,
                        cpu * 1e3,
                        rate / 1e9,
                        bench.flops / middle / 1e9,
                        bench.flops / cpu / 1e9,
                        rate / median(&mut read.clone()) * 100.0,
                        bench.weight_bytes as f64 / bench.seconds[0] / limit * 100.0
                    );
                }
            }
        }
    }
}
