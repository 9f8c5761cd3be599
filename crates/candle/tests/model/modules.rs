//! Single layers as modules.

use std::thread;

use candle_core::{DType, Device, Module, Tensor};
use gptq_candle::{Error, Linear, Weights};
use gptq_core::device::Device as CoreDevice;
use gptq_tests_golden::golden::checkpoint_dir;
use gptq_tests_golden::run::{finalize, forward, open};

use crate::support::{values, weights};

const NAME: &str = "kjv-4bit-dynamic-lmhead";
const DOWN: &str = "model.layers.0.mlp.down_proj";
/// A rule left it in f16.
const PLAIN: &str = "model.layers.0.self_attn.k_proj";

fn x(rows: usize, width: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * width).map(|i| ((i * 29) % 61) as f32 / 30.0 - 1.0).collect();
    Tensor::from_vec(values, (rows, width), &Device::Cpu).expect("a tensor")
}

#[test]
fn a_module_gives_what_the_layer_gives_in_every_dtype_and_of_the_shape_of_x() {
    let model = finalize(open(&checkpoint_dir(NAME)));
    for (dtype, core) in [
        (DType::F32, gptq_core::tensor::DType::F32),
        (DType::F16, gptq_core::tensor::DType::F16),
        (DType::BF16, gptq_core::tensor::DType::BF16),
    ] {
        let linear = weights(&checkpoint_dir(NAME), dtype).linear(DOWN, 768, 256).expect("a layer");
        assert!(matches!(linear, Linear::Packed(_)));
        let x = x(6, 768);
        let expected = forward(&model, DOWN, &values(&x), 6, core);
        let cubic = x.to_dtype(dtype).and_then(|x| x.reshape((2, 3, 768))).expect("the same x");
        let y = linear.forward(&cubic).expect("it runs");
        assert_eq!((y.dims(), y.dtype()), (&[2, 3, 256][..], dtype));
        let y = values(&y.to_dtype(DType::F32).expect("widened"));
        assert!(y == expected, "{dtype:?}: not the same to the last bit");
    }
}

#[test]
fn x_that_is_not_contiguous_is_read_as_what_it_is() {
    let linear = weights(&checkpoint_dir(NAME), DType::F32).linear(DOWN, 768, 256).expect("a layer");
    let x = x(5, 768);
    let transposed = x.t().and_then(|x| x.contiguous()).and_then(|x| x.t()).expect("the same values");
    assert!(!transposed.is_contiguous());
    let tail = x.narrow(0, 2, 3).expect("the last rows");
    // Other numbers of rows may be added up in another order: what is compared has as many.
    let copied = tail.force_contiguous().expect("a copy of them");
    let y = |x: &Tensor| values(&linear.forward(x).expect("it runs"));
    assert!(y(&transposed) == y(&x), "transposed");
    assert!(y(&tail) == y(&copied), "the last rows");
}

#[test]
fn x_that_does_not_fit_is_an_error_that_names_the_layer() {
    let weights = weights(&checkpoint_dir(NAME), DType::F32);
    let linear = weights.linear(DOWN, 768, 256).expect("a layer");
    for (wrong, says) in [
        (x(2, 256), "expected [.., 768]"),
        (x(2, 768).to_dtype(DType::F64).expect("f64"), "expected f32, f16 or bf16"),
    ] {
        let error = linear.forward(&wrong).expect_err("it does not fit").to_string();
        assert!(error.contains(DOWN) && error.contains(says), "{error}");
    }
    let plain = weights.linear(PLAIN, 256, 128).expect("a layer");
    for rows in [2, 20] {
        assert!(plain.forward(&x(rows, 768)).is_err(), "{rows} rows");
    }
}

#[test]
fn a_plain_layer_runs_from_the_file_for_few_rows_and_for_many() {
    for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F16, 2e-3), (DType::BF16, 2e-2)] {
        let weights = weights(&checkpoint_dir(NAME), dtype);
        let linear = weights.linear(PLAIN, 256, 128).expect("a layer");
        assert!(matches!(linear, Linear::Dense(_)) && linear.weight_bytes() == 256 * 128 * 2);
        let w = weights.tensor(&format!("{PLAIN}.weight"), &[128, 256]).expect("its matrix");
        let w = w.to_dtype(DType::F32).and_then(|w| w.t()).expect("transposed");
        for rows in [1, 2, 5, 8, 9, 40] {
            let x = x(rows, 256);
            let expected = values(&x.matmul(&w).expect("a product"));
            let y = linear.forward(&x.to_dtype(dtype).expect("narrowed")).expect("it runs");
            assert_eq!((y.dims(), y.dtype()), (&[rows, 128][..], dtype));
            let y = values(&y.to_dtype(DType::F32).expect("widened"));
            let error =
                y.iter().zip(&expected).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
            assert!(error <= tolerance, "{dtype:?}, {rows} rows: off by {error:.1e}");
        }
    }
}

#[test]
fn threads_share_a_model_and_each_gets_its_own_answer() {
    let linear = weights(&checkpoint_dir(NAME), DType::F32).linear(DOWN, 768, 256).expect("a layer");
    let inputs: Vec<Tensor> = (1..9).map(|rows| x(rows, 768)).collect();
    let alone: Vec<_> = inputs.iter().map(|x| values(&linear.forward(x).expect("it runs"))).collect();
    thread::scope(|scope| {
        for (x, expected) in inputs.iter().zip(&alone) {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert!(values(&linear.forward(x).expect("it runs")) == *expected);
                }
            });
        }
    });
}

#[test]
fn running_a_model_copies_no_packed_weights() {
    let weights = weights(&checkpoint_dir("kjv-4bit-g128-sym"), DType::F32);
    let decoder = gptq_candle::Decoder::load(weights).expect("a decoder");
    let mut cache = decoder.cache(8).expect("a cache");
    decoder.next(&[1, 2, 3], &mut cache).expect("logits");
    let memory = decoder.weights().layers().model().memory_report();
    assert_eq!(memory.layer_bytes, 0, "what layers hold beside the mapped file");
    assert!(memory.buffers.is_empty(), "{:?}", memory.buffers);
    assert!(memory.host_bytes < memory.packed_bytes / 500, "only converted zero points: {memory:?}");
}

#[test]
fn what_the_checkpoint_has_not_or_has_otherwise_is_an_error_with_its_name() {
    let weights = weights(&checkpoint_dir(NAME), DType::F32);
    let missing = weights.linear("model.layers.9.mlp.up_proj", 256, 768).expect_err("there are four layers");
    assert!(missing.to_string().contains("`model.layers.9.mlp.up_proj.weight`"), "{missing}");
    let shape = weights.linear(DOWN, 256, 768).expect_err("it is the other way round").to_string();
    assert!(shape.contains(DOWN) && shape.contains("[768, 256]") && shape.contains("[256, 768]"), "{shape}");
    let shape = weights.tensor("model.norm.weight", &[257]).expect_err("it has 256").to_string();
    assert!(shape.contains("model.norm.weight") && shape.contains("[257]"), "{shape}");
    let token = weights.matrix("model.embed_tokens.weight", [2048, 256]).expect("embeddings");
    let token = token.rows(&[5, 2048], DType::F32, &Device::Cpu).expect_err("there are 2048").to_string();
    assert!(token.contains("token 2048") && token.contains("vocabulary of 2048"), "{token}");
}

#[test]
fn activations_of_a_dtype_that_no_backend_runs_are_refused() {
    let model = finalize(open(&checkpoint_dir(NAME)));
    assert_eq!(*model.device(), CoreDevice::Cpu);
    let error = Weights::new(model, DType::U8, &Device::Cpu).expect_err("no float");
    assert!(matches!(error, Error::Candle(_)) && error.to_string().contains("f32, f16 or bf16"), "{error}");
}
