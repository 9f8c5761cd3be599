//! `check`: the goldens of whole models, with every backend in every type that it runs.

use std::path::Path;

use candle_core::{D, DType, Device};
use gptq_candle::Decoder;
use gptq_core::backend::BACKEND;
use gptq_tests_golden::golden::{Golden, checkpoint_dir, fixtures, names};

use crate::Result;
use crate::model::{backend, device, dtype, how, load};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Backends, as `gptq` names them.
    #[arg(long, value_delimiter = ',', default_value = "torch,marlin,exllama_v2,exllama_v1", value_parser = backend)]
    backends: Vec<BACKEND>,
    /// Types of activations.
    #[arg(long, value_delimiter = ',', default_value = "f32,f16,bf16", value_parser = dtype)]
    dtypes: Vec<DType>,
}

/// How far an answer may be off, and still be right, in a type of activations.
struct Tolerance {
    /// Of the logits, relative to the largest. Also how close the likeliest tokens are where greedy texts may part.
    logits: f32,
    /// Of the mean negative log likelihood.
    loss: f64,
}

impl Tolerance {
    fn of(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self { logits: 1e-4, loss: 0.002 },
            DType::F16 => Self { logits: 5e-3, loss: 0.005 },
            _ => Self { logits: 3e-2, loss: 0.02 },
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let device = device()?;
    let losses = std::fs::read(fixtures().join("goldens/kjv_val_nll.json"))?;
    let losses: serde_json::Value = serde_json::from_slice(&losses)?;
    let windows = Golden::open("kjv_val_windows").i64("windows").ok_or("kjv_val_windows has no `windows`")?;
    let width = windows.shape[1];
    let windows: Vec<Vec<u32>> = windows.data.chunks_exact(width).map(tokens).collect::<Result<_>>()?;
    println!("{:28} {:10} {:4}  logits off  greedy  loss (off)", "checkpoint", "backend", "type");
    let (mut ran, mut wrong) = (0, Vec::new());
    for name in names() {
        let golden = Golden::open(&name);
        let dir = checkpoint_dir(&name);
        if golden.i64("prompt_ids").is_none() || !is_whole(&dir) {
            continue;
        }
        for backend in &arguments.backends {
            for dtype in &arguments.dtypes {
                let case = format!("{name:28} {:10} {:4}", backend.to_string(), dtype.as_str());
                let decoder = match load(&dir, backend, *dtype, &device) {
                    Ok(decoder) => decoder,
                    // The first line says that it does not run this; the rest is about each layer.
                    Err(refusal) => {
                        println!(
                            "{case}  not run: {}",
                            refusal.to_string().lines().next().unwrap_or_default()
                        );
                        continue;
                    }
                };
                if ran == 0 {
                    println!("{}", how(&decoder));
                }
                ran += 1;
                let expected_loss = losses[&name].as_f64();
                match check(&decoder, &golden, &windows, expected_loss, &Tolerance::of(*dtype)) {
                    Ok(line) => println!("{case}  {line}"),
                    Err(error) => {
                        println!("{case}  WRONG: {error}");
                        wrong.push(case);
                    }
                }
            }
        }
    }
    if ran == 0 {
        return Err("nothing was checked: no fixture is a whole model that these backends run".into());
    }
    match wrong.len() {
        0 => {
            println!("{ran} checked, all right");
            Ok(())
        }
        count => Err(format!("{count} of {ran} are wrong").into()),
    }
}

/// Whether it has more than its quantized layers.
fn is_whole(dir: &Path) -> bool {
    gptq_tests_golden::run::open(dir).tensor("model.embed_tokens.weight").is_some()
}

fn tokens(ids: &[i64]) -> Result<Vec<u32>> {
    Ok(ids.iter().map(|id| u32::try_from(*id)).collect::<std::result::Result<_, _>>()?)
}

fn check(
    decoder: &Decoder,
    golden: &Golden,
    windows: &[Vec<u32>],
    expected_loss: Option<f64>,
    tolerance: &Tolerance,
) -> Result<String> {
    let ids =
        |name: &str| tokens(&golden.i64(name).ok_or_else(|| format!("the golden has no `{name}`"))?.data);
    let (prompt, greedy) = (ids("prompt_ids")?, ids("greedy_ids")?);
    let expected = golden.f32("logits_f32").ok_or("the golden has no `logits_f32`")?;

    let mut cache = decoder.cache(prompt.len())?;
    let logits = decoder.forward(&prompt, &mut cache)?.to_device(&Device::Cpu)?;
    let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
    let largest =
        |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, |most: f32, value| most.max(value.abs()));
    let off = largest(&mut logits.iter().zip(&expected.data).map(|(a, b)| a - b))
        / largest(&mut expected.data.iter().copied());
    let numbers = logits.iter().all(|logit| logit.is_finite());
    if !numbers || logits.len() != expected.data.len() || off > tolerance.logits {
        return Err(format!("logits are off by {off:.1e} of the largest").into());
    }
    let greedy = follow(decoder, &prompt, &greedy[prompt.len()..], tolerance.logits)?;
    let Some(expected_loss) = expected_loss else { return Ok(format!("{off:10.1e}  {greedy:6}")) };
    let loss = loss(decoder, windows)?;
    let loss_off = loss - expected_loss;
    if loss_off.is_nan() || loss_off.abs() > tolerance.loss {
        return Err(format!("the loss is {loss:.4}, expected {expected_loss:.4}").into());
    }
    Ok(format!("{off:10.1e}  {greedy:6}  {loss:.4} ({loss_off:+.4})"))
}

/// How many greedy tokens are the expected ones. They may part only where two were as close as `tie`.
fn follow(decoder: &Decoder, prompt: &[u32], expected: &[u32], tie: f32) -> Result<String> {
    let mut cache = decoder.cache(prompt.len() + expected.len())?;
    let mut next = prompt.to_vec();
    for (at, &expected_token) in expected.iter().enumerate() {
        let mut logits: Vec<f32> = decoder.next(&next, &mut cache)?.to_vec1()?;
        // The goldens were made with the end of the text ruled out.
        for token in &decoder.config().eos_token_ids {
            logits[*token as usize] = f32::NEG_INFINITY;
        }
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let size = logits
            .iter()
            .filter(|logit| logit.is_finite())
            .fold(0.0, |most: f32, logit| most.max(logit.abs()));
        let behind = (best - logits[expected_token as usize]) / size;
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(format!("token {at} has logits that are no numbers").into());
        }
        if behind > 0.0 {
            return match behind <= tie {
                true => Ok(format!("{at}, tie")),
                false => {
                    Err(format!("greedy token {at} is behind by {behind:.1e} of the largest logit").into())
                }
            };
        }
        next = vec![expected_token];
    }
    Ok(expected.len().to_string())
}

/// The mean negative log likelihood of the windows.
fn loss(decoder: &Decoder, windows: &[Vec<u32>]) -> Result<f64> {
    let (mut total, mut predicted) = (0.0, 0);
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
    let mut cache = decoder.cache(longest)?;
    for window in windows {
        cache.truncate(0);
        let logits = decoder.forward(&window[..window.len() - 1], &mut cache)?.to_device(&Device::Cpu)?;
        let log = candle_nn::ops::log_softmax(&logits, D::Minus1)?.to_vec2::<f32>()?;
        for (row, target) in log.iter().zip(&window[1..]) {
            total -= f64::from(row[*target as usize]);
            predicted += 1;
        }
    }
    Ok(total / f64::from(predicted))
}
