//! What must hold of every directory, whatever is in it.

use std::path::Path;

use gptq_core::backend::{BACKEND, PlanRequest, Registry};
use gptq_core::checkpoint::{Checkpoint, CheckpointFormat, OpenOptions, Reading, SaveOptions, Survey};
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

/// Surveys the directory `dir`, and opens the checkpoint in it. Where it opens, finalizes it and runs its first layers on
/// the backend `torch`: a single 1 in x in f32, f16 and bf16, which has to give a row of the dense matrix.
///
/// # Panics
/// Where anything panics, where the survey counts other tensors than were opened, where what opened does not run, or
/// where the two ways to read a weight disagree.
pub fn exercise(dir: &Path, reading: Reading, rng: &mut Rng) -> Outcome {
    let survey = Survey::of(dir, reading);
    let options = OpenOptions { reading, ..OpenOptions::default() };
    let checkpoint = match Checkpoint::open_with(dir, &options) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            assert!(error.report().lines().all(|line| !line.is_empty()), "{error:?} says nothing");
            return Outcome::Refused(error.kind());
        }
    };
    assert_counts(&survey, &checkpoint);
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
        let row = Row::of(layer, k);
        row.assert_answered(&forward_one_hot::<f16>(layer, k, &mut context));
        row.assert_answered(&forward_one_hot::<bf16>(layer, k, &mut context));
        row.assert_answered(&forward_one_hot::<f32>(layer, k, &mut context));
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

/// What was surveyed by names alone is what was opened.
fn assert_counts(survey: &Survey, checkpoint: &Checkpoint) {
    let weights = survey.weights.as_ref().expect("weights that open");
    assert_eq!(weights.complete, checkpoint.layers().len(), "modules in {weights:?}");
    let of_incomplete: usize = weights.incomplete.iter().map(|module| module.found.len()).sum();
    assert_eq!(
        weights.plain_tensors + of_incomplete,
        checkpoint.tensors().len(),
        "plain tensors in {weights:?}"
    );
}

/// A row of the dense matrix and the bias: what a single 1 in x gives.
struct Row<'a> {
    layer: &'a str,
    k: usize,
    sums: Vec<f32>,
    /// The columns that a row of zeros spoils, since a scale or the bias is no number, or a weight is too large for one.
    spoiled: Vec<bool>,
}

impl<'a> Row<'a> {
    fn of(layer: &'a Layer, k: usize) -> Self {
        let packed = layer.packed();
        let (n, groups) = (packed.out_features(), layer.info().groups);
        let mut sums = vec![0.0; n];
        packed.dequantized_rows().read(k, &mut sums);
        let mut bias = vec![0.0; n];
        if let Some(stored) = packed.bias() {
            stored.read(0..n, &mut bias);
        }
        let mut spoiled: Vec<bool> = bias.iter().map(|bias| !bias.is_finite()).collect();
        let mut scales = vec![0.0; n];
        // Codes of up to 8 bits.
        let largest = layer.info().bits.max_code() as f32;
        for group in 0..groups {
            packed.scales().read(group * n..(group + 1) * n, &mut scales);
            for (spoiled, scale) in spoiled.iter_mut().zip(&scales) {
                *spoiled |= !(scale * largest).is_finite();
            }
        }
        sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
        Self { layer: layer.name(), k, sums, spoiled }
    }

    /// That `out` is this row, rounded to its type.
    fn assert_answered<T: Element>(&self, out: &[T]) {
        assert_eq!(out.len(), self.sums.len(), "columns of layer `{}`", self.layer);
        for (n, ((out, sum), spoiled)) in out.iter().zip(&self.sums).zip(&self.spoiled).enumerate() {
            let (out, expected) = (out.widen(), T::narrow(*sum).widen());
            assert!(
                out == expected || (*spoiled && !out.is_finite()),
                "layer `{}`, row {}, column {n}: forward answers {out} in {}, the dense row and the bias are {sum}{}",
                self.layer,
                self.k,
                T::DTYPE,
                if *spoiled { ", or no number" } else { "" },
            );
        }
    }
}
