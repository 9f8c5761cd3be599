//! Runs every layer of a checkpoint on a backend that is asked for by name, and compares it with the backend `torch`:
//!
//! ```sh
//! cargo run -- ../fixtures/checkpoints/kjv-4bit-g128-sym-actorder dense_gemm
//! ```

use std::process::ExitCode;

use gptq_core::Result;
use gptq_core::backend::{BACKEND, dispatch};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::device::Device;
use gptq_core::post_init::{FinalizedModel, PostInitOptions, post_init};
use gptq_core::tensor::{TensorMut, TensorRef};

// The backends of this program. Without these lines they would not be in it.
use dense_gemm as _;
use gptq_torch_fallback as _;

/// Rows of x in the calls that are compared.
const ROWS: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, backend] = arguments.as_slice() else {
        eprintln!("usage: application DIR BACKEND");
        return ExitCode::from(2);
    };
    match run(dir, backend) {
        Ok(difference) if difference < 1e-5 => ExitCode::SUCCESS,
        Ok(difference) => {
            eprintln!("error: `{backend}` and `torch` differ by {difference:.1e}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {}", error.report());
            ExitCode::FAILURE
        }
    }
}

/// The largest relative difference between the outputs of a layer on `backend` and on `torch`.
fn run(dir: &str, backend: &str) -> Result<f64> {
    let plan = dispatch::plan(&Checkpoint::open(dir)?, BACKEND::Auto, Device::Cpu)?;
    println!("auto:\n{}\n", plan.report());

    let Ok(backend) = backend.parse();
    let asked = finalize(dir, backend)?;
    let torch = finalize(dir, BACKEND::Torch)?;
    println!("{}:\n{}\n", asked.plan_report().requested, asked.report());

    let mut worst = 0.0f64;
    for layer in asked.layers() {
        let (found, expected) = (output(&asked, layer.name())?, output(&torch, layer.name())?);
        let squares = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
        };
        let difference = squares(&mut found.iter().zip(&expected).map(|(a, b)| a - b))
            / squares(&mut expected.iter().copied());
        println!("{:<40} {:<12} differs from torch by {difference:.1e}", layer.name(), layer.backend());
        worst = worst.max(difference);
    }
    Ok(worst)
}

fn finalize(dir: &str, backend: BACKEND) -> Result<FinalizedModel> {
    let checkpoint = Checkpoint::open(dir)?;
    let plan = dispatch::plan(&checkpoint, backend, Device::Cpu)?;
    post_init(checkpoint, plan, PostInitOptions::default())
}

/// What a layer makes of an x of waves.
fn output(model: &FinalizedModel, name: &str) -> Result<Vec<f32>> {
    let layer = model.layer(name)?;
    let (k, n) = (layer.info().in_features, layer.info().out_features);
    let x: Vec<f32> = (0..ROWS * k).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut y = vec![f32::NAN; ROWS * n];
    let (x, mut out) = (TensorRef::host(&x, [ROWS, k])?, TensorMut::host(&mut y, [ROWS, n])?);
    layer.forward(&x, &mut out, &mut model.context()?)?;
    Ok(y)
}
