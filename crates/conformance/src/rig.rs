//! A model of generated layers, and calls of them with everything around their tensors watched.
//!
//! The checks stand on it, and so can tests of what only one kind of device has, such as recorded graphs:
//!
//! ```
//! use gptq_conformance::{Target, case::Case, fake, rig::Rig};
//! use gptq_core::tensor::DType;
//!
//! let target = Target::new(fake::FULL, "fake:0")?;
//! let rig = Rig::open(&target, &[Case::PLAIN], DType::F16, None)?;
//! let mut context = rig.context()?;
//! let x = rig.x(0, 3, DType::F16, 1); // 3 rows, seed 1
//! let mut call = rig.call(0, &x)?;
//! call.queue(&mut context).map_err(|error| error.to_string())?;
//! context.synchronize().map_err(|error| error.to_string())?;
//! rig.judge(0, &x, &call.output()?)?;
//! # Ok::<(), String>(())
//! ```

mod call;

use std::panic::{AssertUnwindSafe, catch_unwind};

use gptq_core::device::Context;
use gptq_core::post_init::{FinalizedModel, Layer};
use gptq_core::tensor::DType;
use gptq_core::{Error, QuantLinear};

use crate::accuracy::{Accuracy, Activations};
use crate::case::{Built, Case};
use crate::oracle::Dense;
use crate::random::SplitMix64;
use crate::target::Target;

pub use call::{Call, Output};
pub(crate) use call::{Failure, Offsets};

/// Columns that are compared of a layer of noise.
const SAMPLED_COLUMNS: usize = 64;

/// A model of generated layers, and what its outputs have to be.
pub struct Rig<'t> {
    target: &'t Target,
    pub(crate) model: FinalizedModel,
    layers: Vec<Known>,
}

/// What is known of a layer.
struct Known {
    case: Case,
    /// The columns that `dense` holds; `None`: all of them.
    columns: Option<Vec<usize>>,
    dense: Dense,
}

/// The name of the layer at an index.
pub(crate) fn layer_name(index: usize) -> String {
    format!("layers.{index}")
}

impl<'t> Rig<'t> {
    /// A model of one layer for each case.
    ///
    /// # Errors
    /// In words that name the cases, where a layer cannot be made or the target cannot open the model.
    pub fn open(
        target: &'t Target,
        cases: &[Case],
        x_dtype: DType,
        max_input_length: Option<usize>,
    ) -> Result<Self, String> {
        let mut built = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            built.push(case.build(&layer_name(index)).map_err(|error| not_made(case, &error))?);
        }
        Self::of(target, &built, x_dtype, max_input_length)
    }

    /// A model of one layer of [noise](Case::noise) for each case, of which 64 columns are compared: the first, the
    /// last, and others anywhere. For the shapes of real models.
    ///
    /// # Errors
    /// As [`Rig::open`].
    pub fn of_noise(
        target: &'t Target,
        cases: &[Case],
        x_dtype: DType,
        max_input_length: Option<usize>,
    ) -> Result<Self, String> {
        let (mut packed, mut layers) = (Vec::new(), Vec::new());
        for (index, case) in cases.iter().enumerate() {
            let layer = case.noise(&layer_name(index)).map_err(|error| not_made(case, &error))?;
            let columns = sampled(case);
            let dense = Dense::of_layer(&layer, &columns).map_err(|error| not_made(case, &error))?;
            packed.push(layer);
            layers.push(Known { case: *case, columns: Some(columns), dense });
        }
        Self::assemble(target, layers, packed, x_dtype, max_input_length)
    }

    /// A model of layers that are made already.
    pub(crate) fn of(
        target: &'t Target,
        built: &[Built],
        x_dtype: DType,
        max_input_length: Option<usize>,
    ) -> Result<Self, String> {
        let packed = built.iter().map(|built| built.layer.clone()).collect();
        Self::of_layers(target, built, packed, x_dtype, max_input_length)
    }

    /// A model of `packed`, which must behave as the layers in `built` do.
    pub(crate) fn of_layers(
        target: &'t Target,
        built: &[Built],
        packed: Vec<QuantLinear>,
        x_dtype: DType,
        max_input_length: Option<usize>,
    ) -> Result<Self, String> {
        let known =
            |built: &Built| Known { case: built.case, columns: None, dense: Dense::of_values(&built.values) };
        Self::assemble(target, built.iter().map(known).collect(), packed, x_dtype, max_input_length)
    }

    fn assemble(
        target: &'t Target,
        layers: Vec<Known>,
        packed: Vec<QuantLinear>,
        x_dtype: DType,
        max_input_length: Option<usize>,
    ) -> Result<Self, String> {
        let cases = || layers.iter().map(|known| known.case.to_string()).collect::<Vec<_>>().join("; ");
        // A panic of the backend becomes a failure that names the case.
        let opened = catch_unwind(AssertUnwindSafe(|| target.open(packed, Some(x_dtype), max_input_length)));
        let model = opened
            .map_err(|_| format!("{}: post_init panicked", cases()))?
            .map_err(|error| format!("{}: post_init failed: {}", cases(), error.report()))?;
        Ok(Self { target, model, layers })
    }

    /// The model.
    pub fn model(&self) -> &FinalizedModel {
        &self.model
    }

    /// A context of the model.
    ///
    /// # Errors
    /// In words, where there is no memory or no stream.
    pub fn context(&self) -> Result<Context, String> {
        self.model.context().map_err(|error| format!("no context: {}", error.report()))
    }

    /// A context with this much scratch.
    pub(crate) fn context_with(&self, scratch_bytes: usize) -> Result<Context, String> {
        let made = match self.model.memory() {
            None => Ok(Context::host(scratch_bytes)),
            Some(memory) => {
                memory.stream().and_then(|stream| Context::on_stream(&**memory, stream, scratch_bytes))
            }
        };
        made.map_err(|error| format!("no context of {scratch_bytes} bytes: {}", error.report()))
    }

    /// x `[rows, K]` for the layer at `index`, of the normal distribution.
    pub fn x(&self, index: usize, rows: usize, dtype: DType, seed: u64) -> Activations {
        let columns = self.layers.get(index).map_or(0, |known| known.dense.rows());
        Activations::normal([rows, columns], dtype, seed)
    }

    /// The kind of a call, for messages.
    pub fn describe(&self, index: usize, x: &Activations) -> String {
        let case = self.layers.get(index).map(|known| known.case.to_string()).unwrap_or_default();
        format!("{case}; x {} [{}, {}]", x.dtype(), x.shape()[0], x.shape()[1])
    }

    /// A call of the layer at `index`, its x and its out in place, nothing queued yet.
    ///
    /// # Errors
    /// In words that name the case, where there is no memory for them.
    pub fn call(&self, index: usize, x: &Activations) -> Result<Call<'_>, String> {
        self.call_at(index, x, Offsets::ALIGNED).map_err(|error| self.explain(index, x, error.into()))
    }

    fn call_at(&self, index: usize, x: &Activations, offsets: Offsets) -> Result<Call<'_>, Error> {
        let layer = self.model.layer(&layer_name(index))?;
        Call::place(layer, self.model.memory().map(|memory| &**memory), x, offsets, self.describe(index, x))
    }

    /// Runs a layer, and looks at everything around its tensors afterwards. The output is held to nothing yet.
    ///
    /// # Errors
    /// In words that name the case, and what went wrong.
    pub fn forward(&self, index: usize, x: &Activations, context: &mut Context) -> Result<Output, String> {
        self.forward_at(index, x, context, Offsets::ALIGNED)
    }

    /// Runs a layer and holds the output to the oracle.
    ///
    /// # Errors
    /// In words that name the case, and what was expected and found.
    pub fn forward_right(
        &self,
        index: usize,
        x: &Activations,
        context: &mut Context,
    ) -> Result<Output, String> {
        let output = self.forward(index, x, context)?;
        self.judge(index, x, &output).map(|_| output)
    }

    /// Runs a layer with its tensors at given offsets.
    pub(crate) fn forward_at(
        &self,
        index: usize,
        x: &Activations,
        context: &mut Context,
        offsets: Offsets,
    ) -> Result<Output, String> {
        self.try_forward(index, x, context, offsets).map_err(|failure| self.explain(index, x, failure))
    }

    /// A failure, in words that name the case.
    pub(crate) fn explain(&self, index: usize, x: &Activations, failure: Failure) -> String {
        failure.explain(&self.describe(index, x))
    }

    /// Holds an output to the oracle, and says which part of the bound its error is.
    ///
    /// # Errors
    /// In words that name the case, and what was expected and found, where it is over the bound.
    pub fn judge(&self, index: usize, x: &Activations, output: &Output) -> Result<f64, String> {
        self.judge_values(index, x, &output.values())
    }

    /// Holds values to the oracle, and says which part of the bound their error is.
    pub(crate) fn judge_values(&self, index: usize, x: &Activations, values: &[f64]) -> Result<f64, String> {
        let Some(Known { case, columns, dense }) = self.layers.get(index) else {
            return Err(format!("no layer {index}"));
        };
        let judged = match columns {
            None => Accuracy::of(dense, x, self.target.weights(), values),
            Some(columns) => {
                let rows = values.chunks_exact(case.out_features);
                let of_row = |row: &[f64]| columns.iter().map(|&column| row[column]).collect::<Vec<_>>();
                let chosen: Vec<f64> = rows.flat_map(of_row).collect();
                Accuracy::of(dense, x, self.target.weights(), &chosen)
            }
        };
        if judged.holds() {
            return Ok(if judged.error == 0.0 { 0.0 } else { judged.error / judged.bound });
        }
        let (row, column) = (judged.worst / dense.columns().max(1), judged.worst % dense.columns().max(1));
        Err(format!(
            "{}: relative error {:.3e}, expected at most {:.3e} (rounding alone makes {:.3e}); the element farthest \
             off is [{row}, {}], expected {}, found {}",
            self.describe(index, x),
            judged.error,
            judged.bound,
            judged.floor,
            columns.as_ref().map_or(column, |columns| columns[column]),
            judged.expected,
            judged.found,
        ))
    }

    /// Runs a layer with its tensors at given offsets, and looks at everything around them afterwards.
    pub(crate) fn try_forward(
        &self,
        index: usize,
        x: &Activations,
        context: &mut Context,
        offsets: Offsets,
    ) -> Result<Output, Failure> {
        let mut call = self.call_at(index, x, offsets)?;
        // A panic of the backend becomes a failure that names the case. What it left half done is not looked at.
        catch_unwind(AssertUnwindSafe(|| call.queue(context).and_then(|()| context.synchronize())))
            .map_err(|_| Failure::Wrong("forward panicked".into()))??;
        call.collect()
    }
}

/// What a layer of any model makes of x, as values `[M, N]`.
pub(crate) fn output_of(
    model: &FinalizedModel,
    layer: &Layer,
    x: &Activations,
    context: &mut Context,
) -> Result<Vec<f64>, Error> {
    let memory = model.memory().map(|memory| &**memory);
    let mut call = Call::place(layer, memory, x, Offsets::ALIGNED, layer.name().to_owned())?;
    call.queue(context)?;
    context.synchronize()?;
    match call.collect() {
        Ok(output) => Ok(output.values()),
        Err(Failure::Error(error)) => Err(error),
        Err(Failure::Wrong(problem)) => Err(Error::Backend {
            backend: layer.backend(),
            message: format!("layer `{}`: {problem}", layer.name()),
            source: None,
        }),
    }
}

fn not_made(case: &Case, error: &Error) -> String {
    format!("{case}: the layer cannot be made: {error}")
}

/// Columns of a layer: both ends, and others anywhere, in order.
fn sampled(case: &Case) -> Vec<usize> {
    let n = case.out_features;
    if n <= SAMPLED_COLUMNS {
        return (0..n).collect();
    }
    let mut random = SplitMix64::new(case.seed, "columns");
    let mut columns = vec![0, 1, n - 2, n - 1];
    while columns.len() < SAMPLED_COLUMNS {
        let column = random.below(n);
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    columns.sort_unstable();
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    #[test]
    fn noise_is_held_to_the_columns_that_were_read_back() {
        let target = Target::new(fake::FULL, "fake:0").unwrap();
        let case = Case { sym: false, bias: true, out_features: 200, ..Case::PLAIN };
        let rig = Rig::of_noise(&target, &[case], DType::F16, None).unwrap();
        let x = rig.x(0, 3, DType::F16, 1);
        let output = rig.forward_right(0, &x, &mut rig.context().unwrap()).unwrap();

        let columns = sampled(&case);
        assert_eq!((columns.len(), columns[0], columns[63]), (64, 0, 199));
        let mut values = output.values();
        values[2 * 200 + columns[40]] += 1.0;
        let problem = rig.judge_values(0, &x, &values).unwrap_err();
        assert!(problem.contains(&format!("[2, {}]", columns[40])), "{problem}");
        let between = (0..200).find(|column| !columns.contains(column)).unwrap();
        let mut values = output.values();
        values[between] += 1.0;
        assert!(rig.judge_values(0, &x, &values).is_ok(), "a column that is not looked at");
    }
}
