//! Calls of one case: a layer's copies in turn, with the same x.

use std::num::NonZeroUsize;
use std::sync::Arc;

use gptq_conformance::Activations;
use gptq_core::backend::{BackendId, Options, PlanRequest};
use gptq_core::checkpoint::config::ConfigSource;
use gptq_core::checkpoint::{Checkpoint, QuantizeConfig};
use gptq_core::device::{Context, DeviceBuffer};
use gptq_core::post_init::{FinalizedModel, PostInitOptions, post_init};
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, QuantLinear};
use serde_json::json;

use crate::failure::Result;
use crate::tensor_file::Matrix;

use super::machine::Machine;

/// A model whose layers are the copies, finalized for calls of up to the largest of `rows`.
pub(super) fn model(
    copies: &[QuantLinear],
    request: &PlanRequest,
    options: &Options,
    rows: &[NonZeroUsize],
) -> Result<Arc<FinalizedModel>> {
    let bits = copies.first().map_or(4, |copy| copy.info().bits.get());
    let config = QuantizeConfig::from_json(&json!({ "bits": bits }), ConfigSource::file("(bench)"))?;
    let checkpoint = Checkpoint::from_layers(config, copies.to_vec());
    let plan = request.plan(&checkpoint)?;
    let options = PostInitOptions {
        max_input_length: rows.iter().max().map(|rows| rows.get()),
        backend_options: options.clone(),
        progress: None,
    };
    Ok(Arc::new(post_init(checkpoint, plan, options)?))
}

/// x and y, where the layers run.
enum Operands {
    Host { x: Matrix, y: Matrix },
    Device { x: Box<dyn DeviceBuffer>, y: Box<dyn DeviceBuffer> },
}

/// One case, and how long its calls took.
pub(super) struct Bench {
    model: Arc<FinalizedModel>,
    dtype: DType,
    x_shape: [usize; 2],
    y_shape: [usize; 2],
    operands: Operands,
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

impl Bench {
    pub(super) fn new(model: Arc<FinalizedModel>, rows: usize, dtype: DType) -> Result<Self> {
        let info = model.layers().first().map(gptq_core::post_init::Layer::info);
        let (k, n) = info.map_or((0, 0), |info| (info.in_features, info.out_features));
        let too_large = || Error::TensorBytes {
            what: "x or y of the benchmark".into(),
            problem: format!(
                "{rows} rows of {k} and {n} values have more bytes than can be counted; ask for fewer"
            ),
        };
        let x = Matrix::of(&Activations::normal([rows, k], dtype, 1)).ok_or_else(too_large)?;
        let y = Matrix::zeros(dtype, [rows, n]).ok_or_else(too_large)?;
        let operands = match model.memory() {
            None => Operands::Host { x, y },
            Some(memory) => {
                let mut buffer = memory.allocate(x.bytes().len())?;
                memory.upload(x.bytes(), &mut *buffer, 0)?;
                Operands::Device { x: buffer, y: memory.allocate(y.bytes().len())? }
            }
        };
        let context = model.context()?;
        let (x_shape, y_shape) = ([rows, k], [rows, n]);
        let mut bench =
            Self { model, dtype, x_shape, y_shape, operands, context, next: 0, seconds: Vec::new() };
        // The first call meets cold code and fresh pages.
        bench.call()?;
        bench.context.synchronize()?;
        Ok(bench)
    }

    /// Calls the copies in turn for about `seconds`, and at least twice.
    pub(super) fn turn(&mut self, machine: &dyn Machine, seconds: f64) -> Result<()> {
        let (mut spent, mut calls) = (0.0, 0);
        while spent < seconds || calls < 2 {
            let taken = machine.time(self)?;
            self.seconds.extend_from_slice(&taken);
            spent += taken.iter().sum::<f64>();
            calls += taken.len();
        }
        Ok(())
    }

    /// Calls the next copy.
    pub(super) fn call(&mut self) -> Result<()> {
        let layers = self.model.layers();
        let Some(layer) = layers.get(self.next % layers.len()) else { return Ok(()) };
        self.next += 1;
        let (x, mut y) = match &mut self.operands {
            Operands::Host { x, y } => (
                TensorRef::from_bytes(self.dtype, self.x_shape, x.bytes())?,
                TensorMut::from_bytes(self.dtype, self.y_shape, y.bytes_mut())?,
            ),
            Operands::Device { x, y } => (
                TensorRef::on_device(self.dtype, self.x_shape, &**x, 0)?,
                TensorMut::on_device(self.dtype, self.y_shape, &mut **y, 0)?,
            ),
        };
        Ok(layer.forward(&x, &mut y, &mut self.context)?)
    }

    /// The stream on which it runs.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn backend(&self) -> Option<BackendId> {
        self.model.layers().first().map(gptq_core::post_init::Layer::backend)
    }

    pub(super) fn timing(&mut self) -> Timing {
        self.seconds.sort_by(f64::total_cmp);
        let at = |index: usize| self.seconds.get(index).copied().unwrap_or(f64::NAN);
        Timing {
            rows: self.x_shape[0],
            dtype: self.dtype,
            calls: self.seconds.len(),
            median_seconds: at(self.seconds.len() / 2),
            best_seconds: at(0),
        }
    }
}
