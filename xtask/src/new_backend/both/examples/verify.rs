//! Runs every layer of a checkpoint on this backend, and holds it to an oracle that computes in f64:
//!
//! ```sh
//! cargo run --release --example verify -- path/to/model
//! ```

use std::process::ExitCode;

use gptq_conformance::{Activations, verify};
use gptq_core::Result;
use gptq_core::backend::{BACKEND, PlanRequest, Registry};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::device::Device;
use gptq_core::post_init::{PostInitOptions, post_init};
use gptq_core::tensor::DType;

use my_backend::{ID, REGISTRATION};

fn main() -> ExitCode {
    let Some(dir) = std::env::args().nth(1) else {
        eprintln!("usage: verify DIR");
        return ExitCode::from(2);
    };
    match run(&dir) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", error.report());
            ExitCode::FAILURE
        }
    }
}

/// How many layers are wrong.
fn run(dir: &str) -> Result<usize> {
    let checkpoint = Checkpoint::open(dir)?;
    let mut request = PlanRequest::new(BACKEND::Other(ID.to_string()), Device::Cpu);
    request.registry = Registry::empty().with(REGISTRATION);
    request.x_dtype = Some(DType::F16);
    let plan = request.plan(&checkpoint)?;
    let model = post_init(checkpoint, plan, PostInitOptions::default())?;
    println!("{}\n", model.report());

    let mut context = model.context()?;
    let mut wrong = 0;
    for (seed, layer) in (0..).zip(model.layers()) {
        let (k, n) = (layer.info().in_features, layer.info().out_features);
        let x = Activations::normal([4, k], DType::F16, seed);
        let columns: Vec<usize> = (0..n).step_by(7).collect();
        let judged = verify(&model, layer, &x, &columns, &mut context)?;
        let verdict = if judged.holds() { "ok" } else { "WRONG" };
        let (error, bound) = (judged.error, judged.bound);
        println!(
            "{verdict:<6} error {error:.1e}, allowed {bound:.1e}  {}",
            layer.name()
        );
        wrong += usize::from(!judged.holds());
    }
    Ok(wrong)
}
