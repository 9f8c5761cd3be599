//! Layers of the backend `torch` beside what other crates do with matrices of the same shape, by turns in one process:
//! a dense product in f32 by `gemm`, and candle's product with weights in Q4_0.
//!
//! ```text
//! cargo run --release -p gptq-bench-peers [-- m=1,8,32,128,512 shape=4096x4096,4096x11008 rounds=5 turn=100]
//! ```
//!
//! Every call takes other weights, from 512 MB of copies. Times are medians; "worked" is the time that each processor
//! worked for a call, which says what it costs on a machine that others use as well. Both are printed as a ratio to ours.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run may end")]

mod ours;
mod peers;
mod timing;

use std::num::NonZeroUsize;

/// Bytes of copies that a subject rotates over.
const COPIES_BYTES: usize = 512 << 20;

/// How many copies of so many bytes.
fn copies(bytes: usize) -> usize {
    COPIES_BYTES.div_ceil(bytes)
}

/// Numbers of which neighbours look unrelated, from -1 to 1.
fn random(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |name: &str, default: &str| {
        let given = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        given.unwrap_or(default).to_owned()
    };
    let rounds: NonZeroUsize = argument("rounds", "5").parse().unwrap();
    let turn = argument("turn", "100").parse::<f64>().unwrap() * 1e-3;
    println!("{} threads; ratios are to x in f32 of ours", rayon::current_num_threads());
    for shape in argument("shape", "4096x4096,4096x11008,11008x4096").split(',') {
        let (k, n) = shape.split_once('x').map(|(k, n)| (k.parse().unwrap(), n.parse().unwrap())).unwrap();
        let layers = ours::layers(k, n);
        let dense = peers::dense(k, n);
        let quantized = peers::quantized(k, n);
        for m in argument("m", "1,8,32,128,512").split(',') {
            let m: usize = m.parse().unwrap();
            let mut subjects = vec![
                ours::subject::<f32>("torch, x in f32", &layers, m, k, n),
                ours::subject::<half::bf16>("torch, x in bf16", &layers, m, k, n),
                ours::subject::<half::f16>("torch, x in f16", &layers, m, k, n),
                peers::gemm_f32(&dense, m, k, n),
                peers::candle_q4_0(&quantized, m, k),
            ];
            for _ in 0..rounds.get() {
                subjects.iter_mut().for_each(|subject| subject.turn(turn));
            }
            let ours = subjects[0].times();
            for subject in &mut subjects {
                let times = subject.times();
                println!(
                    "{k:>6} x {n:<6} M = {m:<4} {:18} {:9.3} ms ({:5.2}) worked {:9.3} ms ({:5.2}) {:7.1} GFLOP/s worked",
                    subject.name,
                    times.median * 1e3,
                    times.median / ours.median,
                    times.worked * 1e3,
                    times.worked / ours.worked,
                    2e-9 * (m * k * n) as f64 / times.worked,
                );
            }
        }
    }
}
