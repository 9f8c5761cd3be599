//! From packed layers to layers that run: Optimum's `post_init_model` as one function.
//!
//! [`post_init`] opens the backends of a plan and calls their three steps in the one order that is right:
//! convert zero points, initialise buffers, set the maximum input length. What comes back is a
//! [`FinalizedModel`].

mod model;
mod report;

use std::time::Instant;

pub use model::{FinalizedModel, Layer, check_forward};
pub use report::{
    BackendBuffers, BackendConversion, BackendLength, Conversion, ConvertReport, InitReport, LengthReport,
    MemoryReport, NotNeeded, PostInitReport,
};

use crate::backend::dispatch::{Plan, Planned};
use crate::backend::{Backend, LayerId, LayerSource, Options, Outcome};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::quant_linear::QuantLinear;

/// What a user may say about post-initialisation.
#[derive(Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "users write it as a literal that ends in ..Default::default()"
)]
pub struct PostInitOptions<'a> {
    /// Rows of x (batch × sequence) in one call; step 3 runs only where it is given.
    pub max_input_length: Option<usize>,
    /// Options for the backends.
    pub backend_options: Options,
    /// Hears how far the work is.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

/// How far post-initialisation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The step under way.
    pub step: Step,
    /// Layers that this step is done with.
    pub layers: usize,
    /// Layers of the model.
    pub layers_total: usize,
    /// Packed bytes of those layers.
    pub bytes: usize,
    /// Packed bytes of the model.
    pub bytes_total: usize,
}

/// A step of post-initialisation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Step 1: zero points to the encoding that the kernels read.
    ConvertFormat,
    /// Step 2: buffers and weight arrangement.
    InitBuffers,
    /// Step 3: room for longer inputs.
    SetMaxInputLength,
}

/// Finalizes `checkpoint` as `plan` says: converts, initialises, sizes, in that order.
///
/// Where a step fails, everything that the steps before it allocated is freed before this returns.
///
/// # Errors
/// [`Error::PlanMismatch`] where the plan was made for another checkpoint, [`Error::Option`] for a backend option
/// that nobody understands, and whatever a backend's step answers.
pub fn post_init(checkpoint: Checkpoint, plan: Plan, options: PostInitOptions<'_>) -> Result<FinalizedModel> {
    check_plan(&checkpoint, &plan)?;
    let PostInitOptions { max_input_length, backend_options, mut progress } = options;
    let options: Vec<_> =
        plan.backends.iter().map(|planned| (planned.registration.id, planned.registration.options)).collect();
    backend_options.check(&options)?;

    let span = tracing::info_span!("post_init", device = %plan.device, layers = checkpoint.layers().len());
    let _entered = span.enter();
    let mut packed = checkpoint.layers().to_vec();
    let bytes_total = packed.iter().map(|layer| layer.info().packed_bytes).sum();
    let mut tell = |step, layers, bytes| {
        if let Some(progress) = &mut progress {
            progress(Progress { step, layers, layers_total: plan.names.len(), bytes, bytes_total });
        }
    };

    let mut backends = Vec::new();
    for planned in &plan.backends {
        backends.push((planned, (planned.registration.open)(&plan.device, &backend_options)?));
    }

    let convert = convert_format(&mut backends, &mut packed, &mut |l, b| tell(Step::ConvertFormat, l, b))?;
    let (linears, init) = init_buffers(&mut backends, &packed, &mut |l, b| tell(Step::InitBuffers, l, b))?;
    let length = max_input_length
        .map(|rows| {
            let report = set_max_input_length(&mut backends, rows)?;
            tell(Step::SetMaxInputLength, plan.names.len(), bytes_total);
            Ok(report)
        })
        .transpose()?;

    let report = PostInitReport { device: plan.device.clone(), convert, init, length };
    let opened = backends.into_iter().map(|(planned, backend)| (planned.clone(), backend)).collect();
    FinalizedModel::assemble(checkpoint, packed, linears, opened, plan, report)
}

type Opened<'a> = (&'a Planned, Box<dyn Backend>);

fn convert_format(
    backends: &mut [Opened<'_>],
    packed: &mut [QuantLinear],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ConvertReport> {
    let started = Instant::now();
    let (mut layers_done, mut bytes_done) = (0, 0);
    let mut entries = Vec::new();
    for (planned, backend) in backends {
        let mut entry = BackendConversion::new(planned.registration.id);
        for id in &planned.layers {
            let Some(layer) = packed.get_mut(id.index()) else { continue };
            let before = layer.info().zero_encoding;
            match backend.convert_format(layer)? {
                Outcome::NotNeeded(why) => entry.not_needed(why),
                Outcome::Done => entry.done(before, layer.info()),
            }
            layers_done += 1;
            bytes_done += layer.info().packed_bytes;
            progress(layers_done, bytes_done);
        }
        tracing::info!(backend = %entry.backend, layers = entry.layers_converted(), "converted zero points");
        entries.push(entry);
    }
    Ok(ConvertReport { backends: entries, seconds: started.elapsed().as_secs_f64() })
}

type Linears = Vec<(LayerId, Box<dyn crate::backend::Linear>)>;

fn init_buffers(
    backends: &mut [Opened<'_>],
    packed: &[QuantLinear],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Linears, InitReport)> {
    let started = Instant::now();
    let (mut layers_before, mut bytes_before) = (0, 0);
    let mut linears = Vec::new();
    let mut entries = Vec::new();
    for (planned, backend) in backends {
        let own: Vec<(LayerId, &QuantLinear)> =
            planned.layers.iter().filter_map(|id| Some((*id, packed.get(id.index())?))).collect();
        let mut on_progress = |layers, bytes| progress(layers_before + layers, bytes_before + bytes);
        let mut source = LayerSource::new(&own, &mut on_progress);
        let made = backend.init_buffers(&mut source)?;
        source.finish();
        layers_before += own.len();
        bytes_before += own.iter().map(|(_, layer)| layer.info().packed_bytes).sum::<usize>();

        let entry = BackendBuffers {
            backend: planned.registration.id,
            layers: made.len(),
            resident_bytes: made.iter().map(|(_, linear)| linear.resident_bytes()).sum(),
            buffers: backend.buffers(),
            scratch_bytes: backend.scratch_bytes(),
        };
        tracing::info!(
            backend = %entry.backend, layers = entry.layers, resident_bytes = entry.resident_bytes,
            scratch_bytes = entry.scratch_bytes, "initialised buffers"
        );
        entries.push(entry);
        linears.extend(made);
    }
    Ok((linears, InitReport { backends: entries, seconds: started.elapsed().as_secs_f64() }))
}

fn set_max_input_length(backends: &mut [Opened<'_>], rows: usize) -> Result<LengthReport> {
    let started = Instant::now();
    let mut entries = Vec::new();
    for (planned, backend) in backends {
        let outcome = backend.set_max_input_length(rows)?;
        entries.push(BackendLength { backend: planned.registration.id, outcome, buffers: backend.buffers() });
    }
    Ok(LengthReport { rows, backends: entries, seconds: started.elapsed().as_secs_f64() })
}

fn check_plan(checkpoint: &Checkpoint, plan: &Plan) -> Result<()> {
    let layers = checkpoint.layers();
    let problem = if layers.len() != plan.names.len() {
        format!("it has {} layers, the plan {}", layers.len(), plan.names.len())
    } else {
        match layers.iter().zip(&plan.names).find(|(layer, name)| layer.name() != &***name) {
            None => return Ok(()),
            Some((layer, name)) => format!("it has layer `{}` where the plan has `{name}`", layer.name()),
        }
    };
    Err(Error::PlanMismatch { problem })
}
