//! Logits, greedy tokens and held-out loss of whole models, as GPTQModel computes them.
//!
//! The repository holds one whole model. `GPTQ_FIXTURES=FOLDER` runs the same on every checkpoint of a folder that has
//! a whole-model golden.

use candle_core::{D, DType};
use gptq_candle::Decoder;
use gptq_tests_golden::golden::{Golden, checkpoint_dir, fixtures, names};
use gptq_tests_golden::run::open;

use crate::support::{argmax, decoder, values};

/// The error of the logits, relative to their largest magnitude, that f32 may have: sums in another order.
const LOGITS_TOLERANCE: f32 = 1e-3;
/// Greedy tokens may part where the two likeliest are as close as this, relative to the largest magnitude.
const TIE: f32 = 1e-4;
/// By how much the mean negative log likelihood of held-out text may differ.
const LOSS_TOLERANCE: f32 = 0.002;

/// Every checkpoint whose golden was made with the whole model, and which is there whole.
fn whole_models() -> Vec<(String, Golden)> {
    let whole = |name: String| {
        let golden = Golden::open(&name);
        let embedded = open(&checkpoint_dir(&name)).tensor("model.embed_tokens.weight").is_some();
        (golden.i64("prompt_ids").is_some() && embedded).then_some((name, golden))
    };
    let models: Vec<_> = names().into_iter().filter_map(whole).collect();
    assert!(!models.is_empty(), "the fixtures have at least one whole model");
    models
}

fn tokens(golden: &Golden, name: &str) -> Vec<u32> {
    let ids = golden.i64(name).unwrap_or_else(|| panic!("the golden has `{name}`"));
    ids.data.into_iter().map(|id| u32::try_from(id).expect("a token")).collect()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

#[test]
fn the_logits_of_a_prompt_are_those_of_gptqmodel() {
    for (name, golden) in whole_models() {
        let model = decoder(&checkpoint_dir(&name), DType::F32);
        let prompt = tokens(&golden, "prompt_ids");
        let expected = golden.f32("logits_f32").expect("the golden has logits");
        let logits =
            model.forward(&prompt, &mut model.cache(prompt.len()).expect("a cache")).expect("logits");
        assert_eq!(logits.dims(), &expected.shape[..], "{name}");
        let found = values(&logits);
        let off: Vec<f32> = found.iter().zip(&expected.data).map(|(a, b)| a - b).collect();
        let error = largest(&off) / largest(&expected.data);
        println!("{name}: logits off by {error:.1e} of the largest");
        assert!(error <= LOGITS_TOLERANCE, "{name}: logits are off by {error:.2e} of the largest");
    }
}

/// Greedy tokens after the prompt, and after each the margin by which it won, relative to the largest logit.
fn greedy(model: &Decoder, prompt: &[u32], new: usize, eos: &[u32]) -> Vec<(u32, f32)> {
    let mut cache = model.cache(prompt.len() + new).expect("a cache");
    let mut next = prompt.to_vec();
    (0..new)
        .map(|_| {
            let mut logits = values(&model.next(&next, &mut cache).expect("logits"));
            for token in eos {
                logits[*token as usize] = f32::NEG_INFINITY;
            }
            let token = argmax(&logits);
            let best = logits[token];
            logits[token] = f32::NEG_INFINITY;
            let margin = (best - logits[argmax(&logits)]) / best.abs();
            let token = u32::try_from(token).expect("a token");
            next = vec![token];
            (token, margin)
        })
        .collect()
}

#[test]
fn greedy_tokens_are_those_of_gptqmodel() {
    for (name, golden) in whole_models() {
        let model = decoder(&checkpoint_dir(&name), DType::F32);
        let (prompt, expected) = (tokens(&golden, "prompt_ids"), tokens(&golden, "greedy_ids"));
        let expected = &expected[prompt.len()..];
        // The goldens were made with the end of the text ruled out.
        let found = greedy(&model, &prompt, expected.len(), &model.config().eos_token_ids);
        let parted = found.iter().zip(expected).position(|((token, _), expected)| token != expected);
        match parted {
            None => println!("{name}: {} greedy tokens", expected.len()),
            Some(at) => {
                let margin = found[at].1;
                println!("{name}: token {at} is a tie, won by {margin:.1e}");
                assert!(margin < TIE, "{name}: token {at} is {found:?}, expected {expected:?}");
            }
        }
    }
}

#[test]
fn the_loss_of_held_out_text_is_that_of_gptqmodel() {
    let folder = fixtures().join("goldens");
    let losses = std::fs::read(folder.join("kjv_val_nll.json")).expect("the losses");
    let losses: serde_json::Value = serde_json::from_slice(&losses).expect("JSON");
    let windows = Golden::open("kjv_val_windows").i64("windows").expect("the windows");
    let width = windows.shape[1];
    for (name, _) in whole_models() {
        let Some(expected) = losses[&name].as_f64() else { continue };
        let model = decoder(&checkpoint_dir(&name), DType::F32);
        let mut total = 0.0;
        let mut cache = model.cache(width - 1).expect("a cache");
        for window in windows.data.chunks_exact(width) {
            let window: Vec<u32> = window.iter().map(|id| u32::try_from(*id).expect("a token")).collect();
            cache.truncate(0);
            let logits = model.forward(&window[..width - 1], &mut cache).expect("logits");
            let log = candle_nn::ops::log_softmax(&logits, D::Minus1).expect("log softmax");
            let log = log.to_vec2::<f32>().expect("values");
            for (row, target) in log.iter().zip(&window[1..]) {
                total -= f64::from(row[*target as usize]);
            }
        }
        let predicted = windows.data.len() / width * (width - 1);
        let loss = total / predicted as f64;
        println!("{name}: loss {loss:.4}, GPTQModel's {expected:.4}");
        assert!(
            (loss - expected).abs() <= f64::from(LOSS_TOLERANCE),
            "{name}: loss {loss}, expected {expected}"
        );
    }
}
