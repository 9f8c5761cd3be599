//! What a decoder refuses, and says about it.

use candle_core::DType;
use gptq_candle::{Decoder, Error, ModelConfig};
use gptq_core::checkpoint::Checkpoint;
use gptq_tests_golden::golden::checkpoint_dir;
use gptq_tests_golden::run::open;

use crate::support::{decoder, weights};

const WHOLE: &str = "kjv-4bit-g128-sym";

#[test]
fn more_tokens_than_the_context_or_the_cache_holds_are_an_error() {
    let model = decoder(&checkpoint_dir(WHOLE), DType::F32);
    let error = model.cache(513).err().expect("the context is 512").to_string();
    assert!(error.contains("513 tokens") && error.contains("the model's context of 512"), "{error}");
    let mut cache = model.cache(4).expect("a cache");
    model.next(&[1, 2, 3], &mut cache).expect("three fit");
    let error = model.next(&[4, 5], &mut cache).expect_err("five do not").to_string();
    assert!(error.contains("5 tokens") && error.contains("a cache made for 4"), "{error}");
    model.next(&[4], &mut cache).expect("four fit, and the refused ones left nothing behind");
    assert_eq!(cache.len(), 4);
}

#[test]
fn a_cache_that_was_cut_goes_on_as_if_nothing_had_come_after() {
    let model = decoder(&checkpoint_dir(WHOLE), DType::F32);
    let mut cache = model.cache(8).expect("a cache");
    let first = model.forward(&[5, 6, 7], &mut cache).expect("logits");
    cache.truncate(1);
    let again = model.forward(&[6, 7], &mut cache).expect("logits");
    let (first, again) = (first.to_vec2::<f32>().expect("values"), again.to_vec2::<f32>().expect("values"));
    for (first, again) in first[2].iter().zip(&again[1]) {
        assert!((first - again).abs() < 1e-4, "{first} and {again}");
    }
}

#[test]
fn tokens_that_are_none_are_an_error_and_leave_the_cache_as_it_was() {
    let model = decoder(&checkpoint_dir(WHOLE), DType::F32);
    let mut cache = model.cache(8).expect("a cache");
    assert!(matches!(
        model.next(&[3, 2048], &mut cache),
        Err(Error::NoSuchToken { token: 2048, vocab_size: 2048 })
    ));
    assert!(
        model.next(&[], &mut cache).is_err() && model.forward(&[], &mut cache).is_err(),
        "nothing to go on from"
    );
    assert!(cache.is_empty());
}

#[test]
fn a_bias_that_the_architecture_needs_must_be_there() {
    let weights = weights(&checkpoint_dir(WHOLE), DType::F32);
    let mut config = ModelConfig::of(weights.checkpoint()).expect("a configuration");
    config.attention_bias = true;
    let error = Decoder::new(config, weights).expect_err("it has none").to_string();
    assert!(error.contains("`model.layers.0.self_attn.q_proj.bias`"), "{error}");
}

#[test]
fn layers_that_came_from_no_directory_make_up_no_model() {
    let whole = open(&checkpoint_dir(WHOLE));
    let bare = Checkpoint::from_layers(whole.config().clone(), whole.layers().to_vec());
    let error = ModelConfig::of(&bare).expect_err("nothing says what model");
    assert!(matches!(error, Error::NoModelConfig { .. }), "{error}");
}
