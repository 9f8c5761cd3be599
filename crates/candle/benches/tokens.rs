//! What a token costs: prefill and decode of a whole model, and the parts of a decoded token.
//!
//! `cargo bench -p gptq-candle --bench tokens -- DIR [dtype=f32] [prompt=512] [new=64] [after=5] [rounds=5]`

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark stops where something fails")]

use std::hint::black_box;
use std::time::Instant;

use candle_core::{DType, Device, Module, Tensor};
use gptq_candle::{Decoder, Linear, Weights};
use gptq_core::backend::{BACKEND, dispatch};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::post_init::{PostInitOptions, post_init};
use gptq_torch_fallback as _;
use rayon::prelude::*;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(dir) = arguments.iter().find(|argument| !argument.contains('=')) else {
        println!("nothing measured: give the directory of a whole checkpoint");
        return;
    };
    let option = |name: &str, default: usize| {
        let value = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        value.map_or(default, |value| value.parse().expect("a number"))
    };
    let dtype = match arguments.iter().find_map(|argument| argument.strip_prefix("dtype=")) {
        Some("bf16") => DType::BF16,
        Some("f16") => DType::F16,
        _ => DType::F32,
    };
    let (prompt, new, after) = (option("prompt", 512), option("new", 64), option("after", 5));
    let rounds = option("rounds", 5);

    let checkpoint = Checkpoint::open(dir).expect("a checkpoint");
    let plan = dispatch::plan(&checkpoint, BACKEND::Auto, gptq_core::device::Device::Cpu).expect("a plan");
    let model = post_init(checkpoint, plan, PostInitOptions::default()).expect("a model");
    let decoder =
        Decoder::load(Weights::new(model, dtype, &Device::Cpu).expect("weights")).expect("a decoder");
    let vocab = u32::try_from(decoder.config().vocab_size).expect("a vocabulary");
    let tokens: Vec<u32> = (0u32..).map(|i| (i * 7919 + 13) % vocab).take(prompt.max(after)).collect();
    let bytes = decoder.bytes_per_token();
    println!(
        "{dtype:?}, {} threads, {:.1} MB of weights for a token",
        rayon::current_num_threads(),
        bytes as f64 / 1e6
    );

    let bandwidth = read_bandwidth();
    let mut parts: Vec<(&str, Vec<f64>)> =
        ["prefill", "decode", "packed layers", "head"].map(|name| (name, Vec::new())).into();
    for _ in 0..=rounds {
        let times = [
            prefill(&decoder, &tokens[..prompt]) / prompt as f64,
            decode(&decoder, &tokens[..after], new) / new as f64,
            packed_layers(&decoder, dtype),
            head(&decoder, dtype),
        ];
        for ((_, all), time) in parts.iter_mut().zip(times) {
            all.push(time);
        }
    }
    for (name, times) in &mut parts {
        // The first round warms caches.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        let [best, median, worst] = [times[0], times[times.len() / 2], times[times.len() - 1]];
        println!(
            "{name:14} {:8.3} ms a token ({:.3} to {:.3}), {:7.1} tokens/s",
            median * 1e3,
            best * 1e3,
            worst * 1e3,
            1.0 / median
        );
    }
    let decode = parts[1].1[parts[1].1.len() / 2];
    let reads = bytes as f64 / decode;
    println!(
        "decode reads {:.1} GB/s, {:.0} % of the {:.1} GB/s that reading alone reaches",
        reads / 1e9,
        reads / bandwidth * 100.0,
        bandwidth / 1e9
    );
}

/// Bytes a second, all threads: the median over pieces that are together larger than any cache.
fn read_bandwidth() -> f64 {
    const PIECE: usize = 32 << 20;
    let memory = vec![1u64; 512 << 17];
    let share = PIECE / 8 / rayon::current_num_threads();
    let rates = memory.chunks(PIECE / 8).map(|piece| {
        let started = Instant::now();
        let folds = piece.par_chunks(share).map(|words| words.iter().fold(0, |folded, word| folded ^ word));
        black_box(folds.reduce(|| 0, |a, b| a ^ b));
        PIECE as f64 / started.elapsed().as_secs_f64()
    });
    let mut rates: Vec<f64> = rates.collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn prefill(decoder: &Decoder, tokens: &[u32]) -> f64 {
    let mut cache = decoder.cache(tokens.len()).expect("a cache");
    let started = Instant::now();
    black_box(decoder.next(tokens, &mut cache).expect("logits"));
    started.elapsed().as_secs_f64()
}

fn decode(decoder: &Decoder, tokens: &[u32], new: usize) -> f64 {
    let mut cache = decoder.cache(tokens.len() + new).expect("a cache");
    let argmax =
        |logits: Tensor| logits.argmax(0).and_then(|token| token.to_scalar::<u32>()).expect("a token");
    let mut token = argmax(decoder.next(tokens, &mut cache).expect("logits"));
    let started = Instant::now();
    for _ in 0..new {
        token = argmax(decoder.next(&[token], &mut cache).expect("logits"));
    }
    started.elapsed().as_secs_f64()
}

/// Every packed layer once, one after the other.
fn packed_layers(decoder: &Decoder, dtype: DType) -> f64 {
    let layers = decoder.weights().layers();
    let calls: Vec<_> = layers
        .model()
        .layers()
        .iter()
        .map(|layer| {
            let x = Tensor::ones((1, layer.info().in_features), dtype, &Device::Cpu).expect("x");
            (layers.linear(layer.name()).expect("a layer"), x)
        })
        .collect();
    // On a thread of the pool, as the decoder runs them.
    rayon::scope(|_| {
        let started = Instant::now();
        for (linear, x) in &calls {
            black_box(linear.forward(x).expect("y"));
        }
        started.elapsed().as_secs_f64()
    })
}

fn head(decoder: &Decoder, dtype: DType) -> f64 {
    let x = Tensor::ones((1, decoder.config().hidden_size), dtype, &Device::Cpu).expect("x");
    let head: &Linear = decoder.head();
    rayon::scope(|_| {
        let started = Instant::now();
        black_box(head.forward(&x).expect("logits"));
        started.elapsed().as_secs_f64()
    })
}
