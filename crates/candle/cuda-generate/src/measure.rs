//! `measure`: what a prompt and the tokens after it cost.

use std::time::Instant;

use candle_core::Tensor;
use gptq_candle::Decoder;
use gptq_core::device::Memory;
use gptq_cuda::Gpu;

use crate::Result;
use crate::model::{Model, device, how};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: Model,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens of the prompt before those that are timed one by one.
    #[arg(long, default_value_t = 16)]
    after: usize,
    /// New tokens.
    #[arg(long, default_value_t = 128)]
    new: usize,
    /// Rounds, after one that does not count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { model, prompt, after, new, rounds } = arguments;
    // Opened first, so that what it takes itself does not count.
    let (gpu, device) = (Gpu::open(0)?, device()?);
    device.synchronize()?;
    let free = || gpu.available_bytes().unwrap_or(0);
    let before = free();
    let started = Instant::now();
    let decoder = model.load(&device)?;
    device.synchronize()?;
    let loaded = before.saturating_sub(free());
    let seconds = started.elapsed().as_secs_f64();
    println!("{}, {:?}, backend {:?}", gpu.info().name, model.dtype, model.backend);
    println!("loaded in {seconds:.1} s; {:.2} GB of weights for a token", gb(decoder.bytes_per_token()));

    println!("{}", how(&decoder));

    let vocabulary = u32::try_from(decoder.config().vocab_size)?;
    let tokens: Vec<u32> = (0u32..).map(|i| (i * 7919 + 13) % vocabulary).take(*prompt.max(after)).collect();
    let mut most = loaded;
    let mut parts = [("prefill", Vec::new()), ("decode", Vec::new())];
    for _ in 0..=*rounds {
        parts[0].1.push(prefill(&decoder, &tokens[..*prompt])? / *prompt as f64);
        most = most.max(before.saturating_sub(free()));
        parts[1].1.push(decode(&decoder, &tokens[..*after], *new)? / *new as f64);
        most = most.max(before.saturating_sub(free()));
    }
    for (name, times) in &mut parts {
        // The first round loads and chooses.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        let [best, median, worst] =
            [times[0], times[times.len() / 2], times[times.len() - 1]].map(|time| time * 1e3);
        println!("{name:8} {median:7.3} ms a token ({best:.3} to {worst:.3}), {:7.1} tokens/s", 1e3 / median);
    }
    println!("memory: {:.2} GB once loaded, {:.2} GB at most", gb(loaded), gb(most));
    Ok(())
}

fn gb(bytes: usize) -> f64 {
    bytes as f64 / 1e9
}

fn argmax(logits: &Tensor) -> Result<u32> {
    Ok(logits.argmax(0)?.to_scalar()?)
}

/// Seconds from the tokens of a prompt to the one after it.
fn prefill(decoder: &Decoder, tokens: &[u32]) -> Result<f64> {
    let mut cache = decoder.cache(tokens.len())?;
    decoder.weights().device().synchronize()?;
    let started = Instant::now();
    argmax(&decoder.next(tokens, &mut cache)?)?;
    Ok(started.elapsed().as_secs_f64())
}

/// Seconds of `new` tokens, each of which is known before the next is begun.
fn decode(decoder: &Decoder, tokens: &[u32], new: usize) -> Result<f64> {
    let mut cache = decoder.cache(tokens.len() + new + 1)?;
    let mut token = argmax(&decoder.next(tokens, &mut cache)?)?;
    // Once more before time counts: what the first single token of a sequence prepares is for all that follow.
    token = argmax(&decoder.next(&[token], &mut cache)?)?;
    let started = Instant::now();
    for _ in 0..new {
        token = argmax(&decoder.next(&[token], &mut cache)?)?;
    }
    Ok(started.elapsed().as_secs_f64())
}
