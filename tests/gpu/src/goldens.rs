//! Real checkpoints, on a backend and a device, against what GPTQModel computes from them.

use gptq_conformance::{Summary, Target, WeightRounding};
use gptq_core::QuantLinear;
use gptq_core::checkpoint::Checkpoint;
use gptq_core::tensor::DType;
use gptq_tests_golden::golden::{
    Golden, ROWS, TOLERANCES, TOLERANCES_OF_ROUNDED_WEIGHTS, Tolerances, checkpoint_dir,
};
use gptq_tests_golden::run::{forward, relative_error};

/// Every layer that the golden is about and the backend accepts: outputs for every batch and every dtype.
///
/// # Errors
/// As every check of `gptq_conformance`.
pub fn agree(target: &Target, name: &str) -> Result<Summary, String> {
    let golden = Golden::open(name);
    let checkpoint = Checkpoint::open(checkpoint_dir(name)).map_err(|error| error.report())?;
    let mut summary = Summary::default();
    let mut worst = 0.0f64;
    for (dtype, tolerance) in tolerances(target) {
        let of_golden = |layer: &&QuantLinear| golden.layers().iter().any(|name| name == layer.name());
        let all: Vec<&QuantLinear> = checkpoint.layers().iter().filter(of_golden).collect();
        let (accepted, declined): (Vec<&QuantLinear>, Vec<&QuantLinear>) =
            all.into_iter().partition(|layer| accepts(target, layer, dtype));
        summary.declined += declined.len();
        if accepted.is_empty() {
            continue;
        }
        let layers = accepted.into_iter().cloned().collect();
        let model = target
            .open(layers, Some(dtype), Some(64))
            .map_err(|error| format!("{name}, x {dtype}: {}", error.report()))?;
        for layer in model.layers() {
            for rows in ROWS {
                let batch = |side| golden.f32(&format!("{}.{side}_m{rows}", layer.name()));
                let (Some(x), Some(y)) = (batch("x"), batch("y")) else { continue };
                let error = relative_error(&forward(&model, layer.name(), &x.data, rows, dtype), &y.data);
                if error.is_nan() || error > tolerance {
                    return Err(format!(
                        "{name}: {}, x {dtype} [{rows}, K]: off by {error:.2e}, over {tolerance:.0e}",
                        layer.name()
                    ));
                }
                worst = worst.max(error / tolerance);
                summary.ran += 1;
            }
        }
    }
    if summary.ran > 0 {
        summary.worst = Some(worst);
    }
    Ok(summary)
}

/// What the backend's outputs may be off by.
pub(crate) fn tolerances(target: &Target) -> Tolerances {
    match target.weights() {
        WeightRounding::Exact => TOLERANCES,
        WeightRounding::ToX => TOLERANCES_OF_ROUNDED_WEIGHTS,
    }
}

/// Whether the backend accepts a layer with such x.
pub(crate) fn accepts(target: &Target, layer: &QuantLinear, x_dtype: DType) -> bool {
    let accepted = target.capabilities().and_then(|capabilities| {
        capabilities.accept(layer.info(), Some(x_dtype))?;
        target.registration().accepts.map_or(Ok(()), |accepts| accepts(target.device(), layer.info()))
    });
    accepted.is_ok()
}
