//! What must hold of every directory, whatever is in it.

use std::path::Path;

use gptq_core::backend::{BACKEND, PlanRequest, Registry};
use gptq_core::checkpoint::{Checkpoint, CheckpointFormat, OpenOptions, Reading, SaveOptions};
use gptq_core::device::{Context, Device};
use gptq_core::post_init::{Layer, PostInitOptions, post_init};
use gptq_core::tensor::{Element, TensorMut, TensorRef};
use half::{bf16, f16};

use crate::rng::Rng;

/// Layers of a checkpoint that are run.
const LAYERS: usize = 2;

/// What became of a directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// It opened, and ran.
    Ran,
    /// It was refused, with an error of this kind.
    Refused(&'static str),
}

/// Opens the checkpoint in `dir`. Where it opens, finalizes it and runs its first layers on the backend `torch`:
/// a row of x each in f32, f16 and bf16, and a row of the dense matrix, which has to be what a single 1 in x gives.
///
/// # Panics
/// Where anything panics, where what opened does not run, or where the two ways to read a weight disagree.
pub fn exercise(dir: &Path, reading: Reading, rng: &mut Rng) -> Outcome {
    let options = OpenOptions { reading, ..OpenOptions::default() };
    let checkpoint = match Checkpoint::open_with(dir, &options) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            assert!(error.report().lines().all(|line| !line.is_empty()), "{error:?} says nothing");
            return Outcome::Refused(error.kind());
        }
    };
    for finding in checkpoint.findings() {
        assert!(!finding.to_string().is_empty());
    }
    let mut request = PlanRequest::new(BACKEND::Torch, Device::Cpu);
    request.registry = Registry::empty().with(gptq_torch_fallback::REGISTRATION);
    let plan = request.plan(&checkpoint).expect("torch runs every layer");
    let model = post_init(checkpoint, plan, PostInitOptions::default()).expect("what opens finalizes");
    let mut context = model.context().expect("host memory");
    for layer in model.layers().iter().take(LAYERS) {
        let k = rng.below(layer.info().in_features);
        forward_one_hot::<f16>(layer, k, &mut context);
        forward_one_hot::<bf16>(layer, k, &mut context);
        let out = forward_one_hot::<f32>(layer, k, &mut context);
        assert_is_row(layer, k, &out);
    }
    Outcome::Ran
}

/// Saves the checkpoint in `dir`, which opens, to `out`, which is not there: it reads back as what it was, or the format
/// has no room for a layer, or for what the configuration says of layers that are not there. Then nothing is left.
///
/// # Panics
/// Where anything panics, or is refused for another reason.
pub fn save(dir: &Path, out: &Path, format: Option<CheckpointFormat>) {
    let checkpoint = Checkpoint::open(dir).expect("what opened once");
    match checkpoint.save(out, &SaveOptions { format, ..SaveOptions::default() }) {
        Ok(report) => assert!(report.proved),
        Err(error) => {
            assert!(matches!(error.kind(), "NotStorable" | "Unsupported"), "{}", error.report());
            assert!(!out.exists(), "{} is there, although: {}", out.display(), error.report());
        }
    }
}

fn forward_one_hot<T: Element>(layer: &Layer, k: usize, context: &mut Context) -> Vec<T> {
    let info = layer.info();
    let mut x = vec![T::narrow(0.0); info.in_features];
    x[k] = T::narrow(1.0);
    let mut out = vec![T::narrow(0.0); info.out_features];
    let x = TensorRef::host(&x, [1, info.in_features]).expect("K elements");
    let mut out_tensor = TensorMut::host(&mut out, [1, info.out_features]).expect("N elements");
    layer.forward(&x, &mut out_tensor, context).expect("what finalizes runs");
    out
}

/// `out` is row `k` of the dense matrix and the bias. Not asked of columns with a scale or a bias that is no number,
/// which a row of zeros multiplies.
fn assert_is_row(layer: &Layer, k: usize, out: &[f32]) {
    let packed = layer.packed();
    let mut row = vec![0.0; out.len()];
    packed.dequantized_rows().read(k, &mut row);
    let mut bias = vec![0.0; out.len()];
    if let Some(stored) = packed.bias() {
        stored.read(0..out.len(), &mut bias);
    }
    for (n, ((out, row), bias)) in out.iter().zip(&row).zip(&bias).enumerate() {
        assert!(
            !out.is_finite() || *out == row + bias,
            "layer `{}`, row {k}, column {n}: forward answers {out}, the dense row is {row} and the bias {bias}",
            layer.name()
        );
    }
}
