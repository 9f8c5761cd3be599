//! The program `gptq`, as a user runs it on a GPU machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use gptq_conformance::{Summary, Target};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::tensor::DType;
use gptq_tests_golden::files::{CheckpointDir, Tensor};
use gptq_tests_golden::golden::{self, Golden, Tolerances, checkpoint_dir};
use gptq_tests_golden::run::relative_error;
use safetensors::SafeTensors;

use crate::goldens::{accepts, tolerances};

/// The variable that names the program. Without it, the one that cargo built beside the tests.
pub const PROGRAM: &str = "GPTQ_PROGRAM";

/// `gptq finalize` and `gptq verify` end well for a checkpoint that the backend runs whole, and `gptq forward` writes what
/// GPTQModel computes, for the first and the last layer of its golden that the backend accepts. In f32 where the backend
/// has it, else in f16.
///
/// # Errors
/// As every check of `gptq_conformance`.
pub fn agrees_with_golden(target: &Target, name: &str) -> Result<Summary, String> {
    let mut summary = Summary::default();
    let Some(program) = program() else {
        summary.skipped = Some(format!("there is no program gptq beside the tests; name it in {PROGRAM}"));
        return Ok(summary);
    };
    let gptq = |arguments: &[&str]| run(&program, arguments, target);
    let (dir, golden) = (checkpoint_dir(name), Golden::open(name));
    let dir_text = dir.display().to_string();
    let checkpoint = Checkpoint::open(&dir).map_err(|error| error.report())?;
    let dtype = [DType::F32, DType::F16]
        .into_iter()
        .find(|&dtype| checkpoint.layers().iter().any(|layer| accepts(target, layer, dtype)));
    let Some(dtype) = dtype else {
        summary.declined += 1;
        return Ok(summary);
    };
    if checkpoint.layers().iter().all(|layer| accepts(target, layer, dtype)) {
        gptq(&["finalize", &dir_text])?;
        gptq(&["verify", &dir_text, "--dtype", &dtype.to_string(), "--rows", "17"])?;
        summary.ran += 2;
    }
    let layers: Vec<String> = golden
        .layers()
        .into_iter()
        .filter(|layer| checkpoint.layer(layer).is_ok_and(|layer| accepts(target, layer, dtype)))
        .collect();
    let ends = [layers.first(), layers.last()];
    for layer in ends.into_iter().flatten() {
        forward_agrees(&gptq, tolerances(target), &dir_text, &golden, layer, dtype)?;
        summary.ran += 1;
    }
    Ok(summary)
}

/// With the largest batch that the golden has of the layer.
fn forward_agrees(
    gptq: &dyn Fn(&[&str]) -> Result<(), String>,
    tolerances: Tolerances,
    dir: &str,
    golden: &Golden,
    layer: &str,
    dtype: DType,
) -> Result<(), String> {
    let batch = |rows| {
        let side = |side| golden.f32(&format!("{layer}.{side}_m{rows}"));
        side("x").zip(side("y"))
    };
    let Some((x, expected)) = golden::ROWS.into_iter().rev().find_map(batch) else {
        return Err(format!("{dir}: the golden has no batch of {layer}"));
    };
    let folder = CheckpointDir::empty();
    folder.weights("x.safetensors", &[Tensor::floats("x".into(), &x.shape, &x.data, dtype)]);
    let (input, output) = (folder.path().join("x.safetensors"), folder.path().join("y.safetensors"));
    let [input_text, output_text] = [&input, &output].map(|path| path.display().to_string());
    gptq(&["forward", dir, "--layer", layer, "--input", &input_text, "--output", &output_text])?;
    let y = read(&output, "y")?;
    let error = relative_error(&y, &expected.data);
    let tolerance = tolerances.iter().find(|(of, _)| *of == dtype).map_or(0.0, |(_, bound)| *bound);
    if error.is_nan() || error > tolerance {
        return Err(format!(
            "{dir}: gptq forward --layer {layer}, x {dtype}: off by {error:.2e}, over {tolerance:.0e}"
        ));
    }
    Ok(())
}

/// Runs the program on the target's backend and device.
fn run(program: &Path, arguments: &[&str], target: &Target) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).args(["--backend", target.registration().id.as_str()]);
    command.args(["--device", &target.device().to_string()]);
    let done = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
    if done.status.success() {
        return Ok(());
    }
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Err(format!("gptq {}: {}\n{}", arguments.join(" "), done.status, said.concat()))
}

fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(PROGRAM) {
        return Some(path.into());
    }
    // Of target/debug/deps/gpu-0123456789abcdef.
    let beside = std::env::current_exe().ok()?.parent()?.parent()?.join("gptq");
    beside.is_file().then_some(beside)
}

/// A tensor of a file, as f32.
fn read(path: &Path, tensor: &str) -> Result<Vec<f32>, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| told(&error))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| told(&error))?;
    let view = file.tensor(tensor).map_err(|error| told(&error))?;
    match view.dtype() {
        safetensors::Dtype::F32 => {
            Ok(view.data().as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect())
        }
        safetensors::Dtype::F16 => {
            Ok(view.data().as_chunks().0.iter().map(|two| half::f16::from_le_bytes(*two).to_f32()).collect())
        }
        other => Err(told(&format!("`{tensor}` is {other:?}"))),
    }
}
