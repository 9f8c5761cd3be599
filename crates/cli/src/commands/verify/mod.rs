//! `gptq verify`: every layer, as it runs, against an oracle in f64.

mod judge;
mod report;
mod sample;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Args;
use gptq_conformance::{Activations, WeightRounding};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::device::Context;
use gptq_core::post_init::{FinalizedModel, Layer, PostInitOptions, post_init};
use gptq_core::tensor::DType;
use gptq_core::{Error, QuantLinear};

use crate::args::{BackendOptionArgs, OpenArgs, PlanArgs};
use crate::call::call;
use crate::failure::{Failure, Result};
use crate::output::{Bar, Console};
use crate::room;
use crate::tensor_file::Matrix;

use judge::judge;
use report::{Verification, VerifiedLayer};

const LONG: &str = "\
Run every layer on random x, as an application would run it, and compare the answers with an oracle.

The checkpoint is planned and finalized as by `gptq finalize`. The oracle uses none of its unpacking or conversion: it \
reads the packed words bit by bit as they stand in the files, and multiplies in f64. So a wrong conversion of zero \
points, a wrong arrangement of weights and a kernel that is wrong for one shape all show. What opening decides is not \
tried: the format, the group of each row, and zero points that had to be restored (3 bits, GPTQModel before 7).

  error  of y, relative to the right y (Frobenius norms)
  floor  the same error where nothing is done but rounding x and y to their type
  bound  what is allowed: 1.2 times the floor, and 1e-6 for f32

The bound leaves sums in f32 all the room they need and sums in f16 none. Where a backend rounds dequantized weights \
to the type of x before it multiplies, the floor counts that too, and the verdict says so.

Layers of up to 2^20 weights are compared in every column, larger ones in 256 columns spread over them, and in those \
whose output is not finite.";

const HELP: &str = "\
Examples:
  gptq verify path/to/model
  gptq verify path/to/model --device cuda:0 --backend marlin --dtype bf16 --rows 64
  gptq verify path/to/model --layer model.layers.0.mlp.down_proj --columns 4096

Exit code 1 where a layer is over the bound, or not finite where the oracle is.";

/// Run every layer on random x and compare the answers with an oracle in f64.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_help = HELP)]
pub(crate) struct Verify {
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// The type of x and y: f32, f16 or bf16. A backend that would have to narrow it is not chosen.
    #[arg(long, value_name = "DTYPE", default_value = "f16", help_heading = "Planning")]
    dtype: DType,
    #[command(flatten)]
    options: BackendOptionArgs,
    /// Rows of x (batch * sequence). Kernels change with it: one row is decoding, many are a prompt.
    #[arg(long, value_name = "M", default_value = "4", help_heading = "Comparing")]
    rows: NonZeroUsize,
    /// The seed of x, and of the choice of columns. The same seed gives the same run on every machine.
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "Comparing")]
    seed: u64,
    /// How many columns of each layer to compare; without it all of small layers and 256 of others.
    #[arg(long, value_name = "N", help_heading = "Comparing")]
    columns: Option<NonZeroUsize>,
    /// Only this layer. Can be given several times; the others are not finalized.
    #[arg(long = "layer", value_name = "NAME", help_heading = "Comparing")]
    layers: Vec<String>,
}

impl Verify {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let options = self.options.options()?;
        let started = Instant::now();
        let checkpoint = self.chosen(self.open.open()?)?;
        for layer in checkpoint.layers() {
            let shape = [layer.in_features(), layer.out_features()];
            room::for_x_and_y(&format!("layer `{}`", layer.name()), self.rows.get(), shape)?;
        }
        let plan = self.plan.request(Some(self.dtype)).plan(&checkpoint)?;
        let bar = Bar::new(console);
        let mut hear = |progress| bar.hear(progress);
        let options = PostInitOptions {
            backend_options: options,
            max_input_length: Some(self.rows.get()),
            progress: Some(&mut hear),
        };
        let model = post_init(checkpoint, plan, options)?;
        let ready_seconds = started.elapsed().as_secs_f64();

        let layers = self.verify_all(&model, &bar)?;
        drop(bar);
        let failed = layers.iter().filter(|layer| !layer.is_right()).count();
        let total = layers.len();
        console.print(&Verification {
            directory: self.open.dir.display().to_string(),
            device: model.device().clone(),
            dtype: self.dtype,
            rows: self.rows.get(),
            seed: self.seed,
            failed,
            layers,
            plan: model.plan_report(),
            ready_seconds,
            total_seconds: started.elapsed().as_secs_f64(),
        })?;
        match failed {
            0 => Ok(()),
            failed => Err(Failure::Inaccurate { dir: self.open.dir.clone(), failed, layers: total }),
        }
    }

    /// The checkpoint, or a model of only the layers that were named.
    fn chosen(&self, checkpoint: Checkpoint) -> Result<Checkpoint> {
        if self.layers.is_empty() {
            return Ok(checkpoint);
        }
        for name in &self.layers {
            checkpoint.layer(name)?;
        }
        let named = |layer: &&QuantLinear| self.layers.iter().any(|name| name == layer.name());
        let layers = checkpoint.layers().iter().filter(named).cloned().collect();
        Ok(Checkpoint::from_layers(checkpoint.config().clone(), layers))
    }

    /// Runs and judges every layer. Layers run one at a time; the oracle, which takes longer, works on as many as
    /// there are processors.
    fn verify_all<'m>(&self, model: &'m FinalizedModel, bar: &Bar) -> Result<Vec<VerifiedLayer<'m>>> {
        let pairs: Vec<(&QuantLinear, &Layer)> =
            model.checkpoint().layers().iter().zip(model.layers()).collect();
        let bytes_total = pairs.iter().map(|(packed, _)| packed.info().packed_bytes).sum();
        let context = Mutex::new(model.context()?);
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || -> Result<Vec<(usize, VerifiedLayer<'m>)>> {
            let mut verified = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((packed, layer)) = pairs.get(index) else { return Ok(verified) };
                verified.push((index, self.verify(model, packed, layer, index, &context)?));
                let more = packed.info().packed_bytes;
                bar.show("verify", done.fetch_add(more, Ordering::Relaxed) + more, bytes_total);
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(pairs.len());
        let mut verified = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut all = work()?;
            for other in others {
                all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok::<_, Failure>(all)
        })?;
        verified.sort_by_key(|(index, _)| *index);
        Ok(verified.into_iter().map(|(_, layer)| layer).collect())
    }

    fn verify<'m>(
        &self,
        model: &FinalizedModel,
        packed: &QuantLinear,
        layer: &'m Layer,
        index: usize,
        context: &Mutex<Context>,
    ) -> Result<VerifiedLayer<'m>> {
        let (k, n) = (packed.in_features(), packed.out_features());
        let rows = self.rows.get();
        let seed = sample::mix(self.seed).wrapping_add(index as u64);
        let too_large = || Error::TensorBytes {
            what: format!("x or y of layer `{}`", packed.name()),
            problem: format!("{rows} rows have more bytes than can be counted; pass fewer --rows"),
        };
        let x = Activations::normal([rows, k], self.dtype, seed);
        let x_matrix = Matrix::of(&x).ok_or_else(too_large)?;
        let mut y = Matrix::zeros(self.dtype, [rows, n]).ok_or_else(too_large)?;
        // Not a number in every type: what a layer leaves unwritten shows.
        y.bytes_mut().fill(0xff);
        let forward_seconds = {
            let mut context = context.lock().unwrap_or_else(PoisonError::into_inner);
            call(model, layer, &x_matrix, &mut y, &mut context)?
        };
        let wanted = sample::how_many(k, n, self.columns.map(NonZeroUsize::get));
        let weights = if layer.rounds_weights() { WeightRounding::ToX } else { WeightRounding::Exact };
        let judgement = judge(packed, weights, &x, &y, sample::columns(n, wanted, seed))?;
        Ok(VerifiedLayer::new(layer, forward_seconds, judgement))
    }
}
