//! `forward` against the machine's own limits, in one interleaved run.
//!
//! ```text
//! cargo bench -p gptq-torch-fallback -- bits=4 dtype=bf16,f32 m=1,8,512 shape=4096x11008 rounds=5 warm=1 isa=avx2
//! ```

#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::hint::black_box;
use std::time::Instant;

use gptq_core::backend::{Linear, Options};
use gptq_core::device::Context;
use gptq_core::format::packing::words_for;
use gptq_core::format::{Bits, GroupSize, Packing, ZeroEncoding};
use gptq_core::tensor::{Element, Floats, TensorMut, TensorRef};
use gptq_core::{Part, QuantLinear, QuantLinearParts};
use half::{bf16, f16};
use rayon::prelude::*;

/// One `forward` of a layer, with x and output of its own.
type Call = Box<dyn FnMut(&dyn Linear)>;
/// A way of reading memory.
type Sum<'a> = &'a (dyn Fn(&[u64]) -> u64 + Sync);

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

fn layer(bits: Bits, packing: Packing, k: usize, n: usize, group: i64, asym: bool, act: bool) -> QuantLinear {
    let group_size = GroupSize::from_config(group).unwrap();
    let groups = group_size.groups(k);
    let mut state = 1u64;
    let mut word = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 32) as u32
    };
    let qweight: Vec<u32> = (0..words_for(bits, k) * n).map(|_| word()).collect();
    let qzeros: Vec<u32> = if asym {
        (0..words_for(bits, n) * groups).map(|_| word()).collect()
    } else {
        gptq_core::format::packing::pack(&vec![bits.symmetric_zero() as u8; n], bits, packing).repeat(groups)
    };
    let g_idx = act.then(|| {
        let mut rows: Vec<i32> = (0..k).map(|row| (row / group_size.rows(k)) as i32).collect();
        for i in (1..k).rev() {
            rows.swap(i, word() as usize % (i + 1));
        }
        Part::in_memory(vec![k], rows.into())
    });
    QuantLinear::new(QuantLinearParts {
        name: "bench".into(),
        bits,
        packing,
        group_size,
        zero_encoding: ZeroEncoding::V2,
        qweight: Part::in_memory(vec![words_for(bits, k), n], qweight.into()),
        qzeros: Part::in_memory(vec![groups, words_for(bits, n)], qzeros.into()),
        scales: Part::in_memory(
            vec![groups, n],
            Floats::from((0..groups * n).map(|i| f16::from_f32(0.01 + i as f32 * 1e-9)).collect::<Vec<_>>()),
        ),
        g_idx,
        bias: None,
    })
    .unwrap()
}

/// The layer with words of its own.
fn copy(layer: &QuantLinear) -> QuantLinear {
    let info = layer.info();
    let (k, n) = (info.in_features, info.out_features);
    QuantLinear::new(QuantLinearParts {
        name: "copy".into(),
        bits: info.bits,
        packing: info.packing,
        group_size: info.group_size,
        zero_encoding: ZeroEncoding::V2,
        qweight: Part::in_memory(vec![words_for(info.bits, k), n], layer.qweight().to_vec().into()),
        qzeros: Part::in_memory(
            vec![info.groups, words_for(info.bits, n)],
            layer.zeros().words().to_vec().into(),
        ),
        scales: Part::in_memory(
            vec![info.groups, n],
            match layer.scales() {
                Floats::F16(values) => Floats::F16(values.to_vec().into()),
                other => other.clone(),
            },
        ),
        g_idx: layer.group_index().act_order().map(|order| {
            Part::in_memory(
                vec![k],
                order.groups_of_rows().iter().map(|g| *g as i32).collect::<Vec<_>>().into(),
            )
        }),
        bias: None,
    })
    .unwrap()
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

/// Bytes a second that all threads read together from `words`: the median of pieces, the best of several loops.
fn bandwidth(words: &[u64]) -> f64 {
    const PIECE: usize = 32 << 20;
    let threads = rayon::current_num_threads();
    let loops: [Sum<'_>; 3] = [&sum_lanes, &sum_wide, &sum_two_streams];
    let rate = |sum: Sum<'_>| {
        let mut rates: Vec<f64> = words
            .chunks(PIECE / 8)
            .map(|piece| {
                let started = Instant::now();
                let total: u64 =
                    piece.par_chunks(piece.len().div_ceil(threads)).map(sum).reduce(|| 0, u64::wrapping_add);
                black_box(total);
                size_of_val(piece) as f64 / started.elapsed().as_secs_f64()
            })
            .collect();
        median(&mut rates)
    };
    loops.into_iter().map(rate).fold(0.0, f64::max)
}

fn sum_lanes(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum ^ word)
}

fn sum_wide(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was just detected.
        #[allow(unsafe_code)]
        return unsafe { sum_avx512(words) };
    }
    sum_lanes(words)
}

fn sum_two_streams(words: &[u64]) -> u64 {
    let (low, high) = words.split_at(words.len() / 2);
    low.chunks(512).zip(high.chunks(512)).fold(0, |sum, (low, high)| sum ^ sum_wide(low) ^ sum_wide(high))
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f")]
unsafe fn sum_avx512(words: &[u64]) -> u64 {
    use std::arch::x86_64::*;
    let mut sums = [_mm512_setzero_si512(); 8];
    for chunk in words.chunks_exact(64) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: a chunk has 64 words.
            let loaded = unsafe { _mm512_loadu_si512(chunk.as_ptr().add(i * 8).cast()) };
            *sum = _mm512_xor_si512(*sum, loaded);
        }
    }
    let sum = sums.into_iter().fold(_mm512_setzero_si512(), |a, b| _mm512_xor_si512(a, b));
    _mm512_reduce_add_epi64(sum) as u64
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
    let group: i64 = argument("group", "128").parse().unwrap();
    let millis: f64 = argument("ms", "60").parse().unwrap();
    let packing = if argument("planar", "0") == "1" { Packing::Planar } else { Packing::Continuous };
    let shapes = argument("shape", "4096x4096,4096x11008,11008x4096");

    let stream = vec![1u64; STREAM_BYTES / 8];
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
                let original = layer(bits, packing, k, n, group, asym, act == "1");
                let info = original.info().clone();
                let count = if warm { 1 } else { COLD_BYTES.div_ceil(info.packed_bytes) };
                let copies: Vec<QuantLinear> = (0..count).map(|_| copy(&original)).collect();
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
                                weight_bytes: info.packed_bytes,
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
                    read.push(bandwidth(&stream));
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
