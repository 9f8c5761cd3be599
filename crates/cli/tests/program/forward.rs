//! `gptq forward`.

use std::path::Path;

use gptq_core::backend::{BACKEND, dispatch};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::device::Device;
use gptq_core::post_init::{FinalizedModel, PostInitOptions, post_init};
use gptq_core::tensor::{DType, TensorMut, TensorRef};
// The library that this test compares with finds the backend only if it is linked into the test too.
use gptq_torch_fallback as _;
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::json;

use crate::support::{
    Run, UP_PROJ, WHOLE, assert_says, checkpoint, gptq, names_in, read_tensor, scratch, write_tensor,
};

fn forward(name: &str, layer: &str, input: &Path, output: &Path, more: &[&str]) -> Run {
    let dir = checkpoint(name);
    let [dir, input, output] = [&dir, input, output].map(|path| path.to_str().expect("a path that is text"));
    let mut args = vec!["forward", dir, "--layer", layer, "--input", input, "--output", output];
    args.extend(more);
    gptq(&args)
}

/// Values of both signs, none of them round in f16 or bf16.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 33.0).collect()
}

fn bytes_of(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
    }
}

const DTYPES: [(DType, Dtype); 3] =
    [(DType::F32, Dtype::F32), (DType::F16, Dtype::F16), (DType::BF16, Dtype::BF16)];

fn finalized(name: &str) -> FinalizedModel {
    let checkpoint = Checkpoint::open(checkpoint(name)).expect("it opens");
    let plan = dispatch::plan(&checkpoint, BACKEND::Auto, Device::Cpu).expect("a plan");
    post_init(checkpoint, plan, PostInitOptions::default()).expect("a model")
}

/// What the library computes, as bytes. Every shape here has bytes that fill whole f32, which aligns them.
fn expected(model: &FinalizedModel, layer: &str, dtype: DType, rows: usize, x: &[u8]) -> Vec<u8> {
    let layer = model.layer(layer).expect("the layer");
    let (k, n) = (layer.info().in_features, layer.info().out_features);
    let mut aligned_x = vec![0.0f32; x.len() / 4];
    bytemuck::cast_slice_mut(&mut aligned_x).copy_from_slice(x);
    let mut y = vec![0.0f32; rows * n * dtype.size_bytes() / 4];
    let x = TensorRef::from_bytes(dtype, [rows, k], bytemuck::cast_slice(&aligned_x)).expect("x");
    let mut out = TensorMut::from_bytes(dtype, [rows, n], bytemuck::cast_slice_mut(&mut y)).expect("out");
    layer.forward(&x, &mut out, &mut model.context().expect("a context")).expect("it runs");
    bytemuck::cast_slice(&y).to_vec()
}

#[test]
fn the_output_is_what_the_library_computes_to_the_last_bit() {
    let dir = scratch();
    for name in [WHOLE, "kjv-3bit-g32-asym-v1", "kjv-4bit-g128-sym-actorder", "kjv-4bit-dynamic-lmhead"] {
        let model = finalized(name);
        let layer = model.layers().first().expect("a layer");
        let (k, n, rows) = (layer.info().in_features, layer.info().out_features, 5);
        for (dtype, stored) in DTYPES {
            let [input, output] = ["x", "y"].map(|file| dir.path().join(format!("{name}-{dtype}-{file}")));
            let x = bytes_of(&values(rows * k), dtype);
            write_tensor(&input, "x", stored, &[rows, k], &x);
            let text = forward(name, layer.name(), &input, &output, &[]).success();
            assert_says(&text, &["torch, cpu", &format!("[{rows}, {n}] {dtype}")]);
            let (tensor, found, shape, y) = read_tensor(&output);
            assert_eq!((tensor.as_str(), found, shape), ("y", stored, vec![rows, n]), "{name} in {dtype}");
            let expected = expected(&model, layer.name(), dtype, rows, &x);
            assert!(y == expected, "{name}: {} in {dtype} differs from the library", layer.name());
            assert!(y.iter().any(|byte| *byte != 0), "{name} in {dtype}: the output is not all zero");
        }
    }
}

#[test]
fn the_json_says_what_ran_where() {
    let dir = scratch();
    let [input, output] = ["x", "y"].map(|file| dir.path().join(file));
    write_tensor(&input, "x", Dtype::F32, &[2, 256], &bytes_of(&values(512), DType::F32));
    let more = ["--json", "--backend", "torch", "--device", "cpu", "--no-mmap"];
    let json = forward(WHOLE, UP_PROJ, &input, &output, &more).json();
    assert_eq!((&json["backend"], &json["device"]), (&json!("torch"), &json!("cpu")));
    assert_eq!(json["layer"]["name"], UP_PROJ);
    assert_eq!(json["x"], json!({"shape": [2, 256], "dtype": "f32", "not_finite": 0}));
    assert_eq!(json["y"], json!({"shape": [2, 768], "dtype": "f32", "not_finite": 0}));
    assert_eq!(json["plan"]["x_dtype"], "f32", "the plan knows the type of x");
    assert_eq!(names_in(dir.path()), ["x", "y"], "nothing else is left");
}

#[test]
fn values_that_overflow_are_counted_and_explained() {
    let dir = scratch();
    let [input, output] = ["x", "y"].map(|file| dir.path().join(file));
    write_tensor(&input, "x", Dtype::F16, &[1, 256], &bytes_of(&[60000.0; 256], DType::F16));
    let text = forward(WHOLE, UP_PROJ, &input, &output, &[]).success();
    assert_says(&text, &["not finite (f16 ends at 65504: try bf16 or f32)"]);
}

#[test]
fn no_row_at_all_gives_no_row() {
    let dir = scratch();
    let [input, output] = ["x", "y"].map(|file| dir.path().join(file));
    write_tensor(&input, "x", Dtype::BF16, &[0, 256], &[]);
    forward(WHOLE, UP_PROJ, &input, &output, &[]).success();
    assert_eq!(read_tensor(&output).2, [0, 768]);
}

#[test]
fn an_input_that_does_not_fit_is_refused_with_what_was_found() {
    let dir = scratch();
    let [input, output] = ["x", "y"].map(|file| dir.path().join(file));
    let refusal = |name: &str, dtype, shape: &[usize], bytes: &[u8]| {
        write_tensor(&input, name, dtype, shape, bytes);
        forward(WHOLE, UP_PROJ, &input, &output, &[]).failure()
    };
    let row = bytes_of(&values(256), DType::F32);
    assert_says(&refusal("x", Dtype::F32, &[256], &row), &["`x`", "[256]", "two dimensions", "[1, K]"]);
    assert_says(&refusal("x", Dtype::F32, &[2, 128], &row), &["[2, 128]", "[M, 256]", UP_PROJ]);
    assert_says(&refusal("x", Dtype::I32, &[1, 256], &row), &["I32", "F32, F16 or BF16"]);
    assert_says(&refusal("input", Dtype::F32, &[1, 256], &row), &["no tensor is called `x`", "`input`"]);
    std::fs::write(&input, "not a tensor").expect("written");
    let error = forward(WHOLE, UP_PROJ, &input, &output, &[]).failure();
    assert_says(&error, &["not a valid safetensors file"]);
    let error = forward(WHOLE, UP_PROJ, &dir.path().join("absent"), &output, &[]).failure();
    assert_says(&error, &["absent: cannot read", "caused by"]);
    assert_eq!(names_in(dir.path()), ["x"], "no output is written");
}

#[test]
fn an_existing_output_is_replaced_by_force_only() {
    let dir = scratch();
    let [input, output] = ["x", "y"].map(|file| dir.path().join(file));
    write_tensor(&input, "x", Dtype::F32, &[1, 256], &bytes_of(&values(256), DType::F32));
    std::fs::write(&output, "precious").expect("written");
    assert_says(&forward(WHOLE, UP_PROJ, &input, &output, &[]).failure(), &["exists already", "--force"]);
    assert_eq!(std::fs::read(&output).expect("still there"), b"precious");
    forward(WHOLE, UP_PROJ, &input, &output, &["--force"]).success();
    assert_eq!(read_tensor(&output).0, "y");
}

#[test]
fn a_backend_or_a_layer_that_is_not_there_is_an_error() {
    let dir = scratch();
    let [input, output] = ["x", "y"].map(|file| dir.path().join(file));
    write_tensor(&input, "x", Dtype::F32, &[1, 256], &bytes_of(&values(256), DType::F32));
    let error = forward(WHOLE, UP_PROJ, &input, &output, &["--backend", "nonsense"]).failure();
    assert_says(&error, &["`nonsense` is not linked", "linked: ", "torch"]);
    let error = forward(WHOLE, "up_proj", &input, &output, &[]).failure();
    assert_says(&error, &["no quantized layer is called `up_proj`", "the nearest is"]);
    let error = forward(WHOLE, UP_PROJ, &input, &output, &["--option", "torch.x=1"]).failure();
    assert_says(&error, &["torch.x"]);
}
