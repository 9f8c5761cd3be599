//! Calls of one case on the host: a layer's copies in turn, with the same x.

use std::sync::Arc;
use std::time::Instant;

use gptq_conformance::Activations;
use gptq_core::backend::{BackendId, Options};
use gptq_core::checkpoint::config::ConfigSource;
use gptq_core::checkpoint::{Checkpoint, QuantizeConfig};
use gptq_core::device::Context;
use gptq_core::post_init::{FinalizedModel, Layer, PostInitOptions, post_init};
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, QuantLinear};
use serde_json::json;

use crate::failure::Result;
use crate::tensor_file::Matrix;

use super::job::{Contestant, Job};

/// A model whose layers are the copies, finalized for calls of up to the most rows of the job.
pub(super) fn model(
    copies: &[QuantLinear],
    contestant: &Contestant,
    job: &Job<'_>,
) -> Result<Arc<FinalizedModel>> {
    model_with(copies, contestant, job, job.options.clone())
}

/// The same with other options.
pub(super) fn model_with(
    copies: &[QuantLinear],
    contestant: &Contestant,
    job: &Job<'_>,
    options: Options,
) -> Result<Arc<FinalizedModel>> {
    let bits = copies.first().map_or(4, |copy| copy.info().bits.get());
    let config = QuantizeConfig::from_json(&json!({ "bits": bits }), ConfigSource::file("(bench)"))?;
    let checkpoint = Checkpoint::from_layers(config, copies.to_vec());
    let plan = contestant.request.plan(&checkpoint)?;
    let options =
        PostInitOptions { max_input_length: Some(job.most_rows()), backend_options: options, progress: None };
    Ok(Arc::new(post_init(checkpoint, plan, options)?))
}

/// The backend that runs the layers of such a model.
pub(super) fn backend(model: &FinalizedModel) -> Option<BackendId> {
    model.layers().first().map(Layer::backend)
}

/// One case, and how long its calls took.
pub(super) struct Bench {
    model: Arc<FinalizedModel>,
    x: Matrix,
    y: Matrix,
    context: Context,
    /// The copy whose turn it is.
    next: usize,
    seconds: Vec<f64>,
}

/// How long the calls of a case took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) rows: usize,
    pub(super) dtype: DType,
    pub(super) calls: usize,
    pub(super) median_seconds: f64,
    pub(super) best_seconds: f64,
}

impl Timing {
    /// Of `seconds`, each of one call or the mean of several.
    pub(super) fn new(rows: usize, dtype: DType, calls: usize, mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |index: usize| seconds.get(index).copied().unwrap_or(f64::NAN);
        Self { rows, dtype, calls, median_seconds: at(seconds.len() / 2), best_seconds: at(0) }
    }

    /// Whether the other is of as many rows, of the same type.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.rows, self.dtype) == (other.rows, other.dtype)
    }
}

/// `None` where there is nothing.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Bench {
    pub(super) fn new(model: Arc<FinalizedModel>, rows: usize, dtype: DType) -> Result<Self> {
        let info = model.layers().first().map(Layer::info);
        let (k, n) = info.map_or((0, 0), |info| (info.in_features, info.out_features));
        let too_large = || too_many(rows, [k, n]);
        let x = Matrix::of(&Activations::normal([rows, k], dtype, 1)).ok_or_else(too_large)?;
        let y = Matrix::zeros(dtype, [rows, n]).ok_or_else(too_large)?;
        let context = model.context()?;
        let mut bench = Self { model, x, y, context, next: 0, seconds: Vec::new() };
        // The first call meets cold code and fresh pages.
        bench.call()?;
        Ok(bench)
    }

    /// Calls the copies in turn for about `seconds`, and at least twice. Answers the median of the turn.
    pub(super) fn turn(&mut self, seconds: f64) -> Result<f64> {
        let (mut spent, first) = (0.0, self.seconds.len());
        while spent < seconds || self.seconds.len() < first + 2 {
            let started = Instant::now();
            self.call()?;
            let taken = started.elapsed().as_secs_f64();
            self.seconds.push(taken);
            spent += taken;
        }
        Ok(median(self.seconds.iter().skip(first).copied().collect()).unwrap_or(f64::NAN))
    }

    /// Calls the next copy.
    fn call(&mut self) -> Result<()> {
        let layers = self.model.layers();
        let Some(layer) = layers.get(self.next % layers.len()) else { return Ok(()) };
        self.next += 1;
        let x = TensorRef::from_bytes(self.x.dtype(), self.x.shape(), self.x.bytes())?;
        let (dtype, shape) = (self.y.dtype(), self.y.shape());
        let mut y = TensorMut::from_bytes(dtype, shape, self.y.bytes_mut())?;
        Ok(layer.forward(&x, &mut y, &mut self.context)?)
    }

    pub(super) fn rows_and_dtype(&self) -> (usize, DType) {
        (self.x.shape()[0], self.x.dtype())
    }

    pub(super) fn backend(&self) -> Option<BackendId> {
        backend(&self.model)
    }

    pub(super) fn timing(self) -> Timing {
        let [rows, _] = self.x.shape();
        Timing::new(rows, self.x.dtype(), self.seconds.len(), self.seconds)
    }
}

/// That x or y is larger than can be counted.
pub(super) fn too_many(rows: usize, [k, n]: [usize; 2]) -> Error {
    Error::TensorBytes {
        what: "x or y of the benchmark".into(),
        problem: format!(
            "{rows} rows of {k} and {n} values have more bytes than can be counted; ask for fewer"
        ),
    }
}
