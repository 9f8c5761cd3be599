//! A model that is ready for inference.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::dispatch::{Plan, PlanReport, Planned};
use crate::backend::{Backend, BackendId, LayerId, Linear};
use crate::checkpoint::{Checkpoint, QuantizeConfig, SaveOptions, SaveReport, save};
use crate::device::{Context, Device, Memory};
use crate::error::{Error, Result};
use crate::quant_linear::{LayerInfo, QuantLinear};
use crate::tensor::{DType, TensorMut, TensorRef};

use super::report::{BackendLength, LengthReport, MemoryReport, PostInitReport};

/// Layers that are ready to run, with everything they share.
///
/// Threads share it; each brings a [`Context`] of its own. Dropping it frees all that its backends hold.
pub struct FinalizedModel {
    checkpoint: Checkpoint,
    layers: Vec<Layer>,
    // Locked only to change what the layers share. `forward` never takes it.
    backends: Mutex<Vec<(BackendId, Box<dyn Backend>)>>,
    memory: Option<Arc<dyn Memory>>,
    plan_report: PlanReport,
    report: PostInitReport,
    device: Device,
}

/// A layer that is ready to run.
pub struct Layer {
    packed: QuantLinear,
    backend: BackendId,
    device: Device,
    x_dtypes: &'static [DType],
    rounds_weights: bool,
    linear: Box<dyn Linear>,
}

impl FinalizedModel {
    pub(super) fn assemble(
        checkpoint: Checkpoint,
        packed: Vec<QuantLinear>,
        linears: Vec<(LayerId, Box<dyn Linear>)>,
        opened: Vec<(Planned, Box<dyn Backend>)>,
        plan: Plan,
        report: PostInitReport,
    ) -> Result<Self> {
        let mut slots: Vec<Option<Box<dyn Linear>>> = packed.iter().map(|_| None).collect();
        for (id, linear) in linears {
            if let Some(slot) = slots.get_mut(id.index()) {
                *slot = Some(linear);
            }
        }
        let mut owners: Vec<Option<&Planned>> = packed.iter().map(|_| None).collect();
        for (planned, _) in &opened {
            for id in &planned.layers {
                if let Some(owner) = owners.get_mut(id.index()) {
                    *owner = Some(planned);
                }
            }
        }
        let mut layers = Vec::with_capacity(packed.len());
        for (packed, (slot, owner)) in packed.into_iter().zip(slots.into_iter().zip(owners)) {
            let (Some(planned), Some(linear)) = (owner, slot) else {
                return Err(Error::Backend {
                    backend: owner.map_or(BackendId::new("none"), |planned| planned.registration.id),
                    message: format!(
                        "init_buffers did not return layer `{}`, which it was given; this is a defect of the backend",
                        packed.name()
                    ),
                    source: None,
                });
            };
            layers.push(Layer {
                packed,
                backend: planned.registration.id,
                device: plan.device.clone(),
                x_dtypes: planned.capabilities.x_dtypes,
                rounds_weights: planned.capabilities.rounds_weights,
                linear,
            });
        }
        let memory = common_memory(&opened, &plan.device)?;
        let backends =
            opened.into_iter().map(|(planned, backend)| (planned.registration.id, backend)).collect();
        Ok(Self {
            checkpoint,
            layers,
            backends: Mutex::new(backends),
            memory,
            plan_report: plan.report().clone(),
            report,
            device: plan.device,
        })
    }

    /// How the model was quantized, as its configuration says.
    pub fn quantize_config(&self) -> &QuantizeConfig {
        self.checkpoint.config()
    }

    /// The checkpoint it came from: its plain tensors, and its layers as they stand on disk.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Where its layers run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the three steps did.
    pub fn report(&self) -> &PostInitReport {
        &self.report
    }

    /// Which backend runs each layer, and why not another.
    pub fn plan_report(&self) -> &PlanReport {
        &self.plan_report
    }

    /// Every layer, in the checkpoint's order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The layer of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], with the most similar name there is.
    pub fn layer(&self, name: &str) -> Result<&Layer> {
        match self.checkpoint.layer_id(name) {
            Some(id) => self.layers.get(id.index()).ok_or(()),
            None => Err(()),
        }
        .map_err(|()| self.checkpoint.no_such_layer(name))
    }

    /// Runs one layer: `out = x · W (+ bias)`. See [`Layer::forward`].
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], or as [`Layer::forward`].
    pub fn forward(
        &self,
        name: &str,
        x: &TensorRef<'_>,
        out: &mut TensorMut<'_>,
        context: &mut Context,
    ) -> Result<()> {
        self.layer(name)?.forward(x, out, context)
    }

    /// The dense matrix of one layer, `[K, N]` row-major. See [`QuantLinear::dequantize`].
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn dequantize(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.layer(name)?.packed.dequantize())
    }

    /// Saves the model as the directory `out`: its layers as they are packed, whatever its backends made of them, and
    /// all that its checkpoint has beside them. The same files as [`Checkpoint::save`] writes; see [`save`].
    ///
    /// # Errors
    /// As [`Checkpoint::save`].
    pub fn save(&self, out: impl AsRef<Path>, options: &SaveOptions<'_>) -> Result<SaveReport> {
        let layers: Vec<_> = self.layers.iter().map(Layer::packed).collect();
        save::save(&self.checkpoint, &layers, out.as_ref(), options)
    }

    /// A context for this model's device, with a stream of its own and as much scratch as any layer needs now.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or [`Error::Device`] where no stream can be made.
    pub fn context(&self) -> Result<Context> {
        let scratch_bytes = self.scratch_bytes();
        match &self.memory {
            None => Ok(Context::host(scratch_bytes)),
            Some(memory) => Context::on_stream(&**memory, memory.stream()?, scratch_bytes),
        }
    }

    /// Scratch that a context needs to run every layer in as few launches as possible.
    pub fn scratch_bytes(&self) -> usize {
        self.lock().iter().map(|(_, backend)| backend.scratch_bytes()).max().unwrap_or(0)
    }

    /// How to move tensors to and from this model's device; `None` where it runs in host memory.
    pub fn memory(&self) -> Option<&Arc<dyn Memory>> {
        self.memory.as_ref()
    }

    /// Step 3 after the fact: makes room for `rows` rows of x (batch × sequence) in one call, more or fewer than
    /// before. Weights are not touched, other threads may be inside `forward`, contexts made before keep working.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; the old room still serves then.
    pub fn set_max_input_length(&self, rows: usize) -> Result<LengthReport> {
        let started = std::time::Instant::now();
        let mut entries = Vec::new();
        for (id, backend) in self.lock().iter_mut() {
            let outcome = backend.set_max_input_length(rows)?;
            entries.push(BackendLength { backend: *id, outcome, buffers: backend.buffers() });
        }
        Ok(LengthReport { rows, backends: entries, seconds: started.elapsed().as_secs_f64() })
    }

    /// Where its bytes lie.
    pub fn memory_report(&self) -> MemoryReport {
        let backends = self.lock();
        MemoryReport {
            packed_bytes: self.layers.iter().map(|layer| layer.packed.info().packed_bytes).sum(),
            host_bytes: self.layers.iter().map(|layer| layer.packed.resident_bytes()).sum(),
            layer_bytes: self.layers.iter().map(|layer| layer.linear.resident_bytes()).sum(),
            buffers: backends.iter().flat_map(|(_, backend)| backend.buffers()).collect(),
            scratch_bytes_per_context: backends.iter().map(|(_, b)| b.scratch_bytes()).max().unwrap_or(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(BackendId, Box<dyn Backend>)>> {
        // A panic inside a backend leaves what it shares in a state that the backend itself must keep usable; the
        // list of backends is never half-changed.
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of the plan's device. Backends that run on one device share its contexts, so that either all of them
/// work in host memory or all bring the memory of that device.
fn common_memory(opened: &[(Planned, Box<dyn Backend>)], device: &Device) -> Result<Option<Arc<dyn Memory>>> {
    let mut common = None;
    for (planned, backend) in opened {
        let memory = backend.memory();
        let found = memory.as_ref().map_or(Device::Cpu, |memory| memory.device());
        if found != *device {
            return Err(Error::DeviceMismatch {
                what: format!("the memory of backend `{}`", planned.registration.id),
                found,
                expected: device.clone(),
            });
        }
        common = common.or(memory);
    }
    Ok(common)
}

impl std::fmt::Debug for FinalizedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FinalizedModel of {} layers on {}", self.layers.len(), self.device)
    }
}

impl Layer {
    /// Its numbers and kinds, zero points as they are now.
    pub fn info(&self) -> &LayerInfo {
        self.packed.info()
    }

    /// Its name in the checkpoint.
    pub fn name(&self) -> &str {
        self.packed.name()
    }

    /// The packed layer it came from, zero points converted.
    pub fn packed(&self) -> &QuantLinear {
        &self.packed
    }

    /// The backend that runs it.
    pub fn backend(&self) -> BackendId {
        self.backend
    }

    /// The types that x may have.
    pub fn x_dtypes(&self) -> &'static [DType] {
        self.x_dtypes
    }

    /// Whether its backend rounds dequantized weights to x's type in some path. See
    /// [`Capabilities::rounds_weights`](crate::backend::Capabilities::rounds_weights).
    pub fn rounds_weights(&self) -> bool {
        self.rounds_weights
    }

    /// Bytes that this layer alone holds on its device, beside the packed layer.
    pub fn resident_bytes(&self) -> usize {
        self.linear.resident_bytes()
    }

    /// `out = x · W (+ bias)`: x `[M, K]`, out `[M, N]` of x's dtype, any M, both on this layer's device. Writes
    /// all of `out`, allocates nothing, does not wait: on a device other than the host, the result is there after
    /// [`Context::synchronize`].
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DtypeMismatch`] or [`Error::DeviceMismatch`] where x, out or the context do not
    /// fit; [`Error::Device`] where a launch fails.
    pub fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        check_forward(self.packed.info(), &self.device, self.x_dtypes, x, out, context)?;
        if x.shape()[0] == 0 {
            return Ok(());
        }
        self.linear.forward(x, out, context)
    }
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Layer `{}` on {} ({})", self.name(), self.device, self.backend)
    }
}

/// That x `[M, K]`, out `[M, N]` and the context fit a layer: shapes, dtypes, devices. [`Layer::forward`] has
/// called it before [`Linear::forward`]; backends whose memory safety rests on it call it again.
///
/// # Errors
/// [`Error::Shape`], [`Error::DtypeMismatch`], [`Error::DeviceMismatch`].
pub fn check_forward(
    layer: &LayerInfo,
    device: &Device,
    x_dtypes: &[DType],
    x: &TensorRef<'_>,
    out: &TensorMut<'_>,
    context: &Context,
) -> Result<()> {
    let LayerInfo { name, in_features: k, out_features: n, .. } = layer;
    let [m, x_columns] = x.shape();
    if x_columns != *k {
        let expected = format!("[M, {k}]");
        return Err(Error::Shape {
            what: format!("x of layer `{name}`"),
            found: x.shape().to_vec(),
            expected,
        });
    }
    if out.shape() != [m, *n] {
        let expected = format!("[{m}, {n}]");
        return Err(Error::Shape {
            what: format!("out of layer `{name}`"),
            found: out.shape().to_vec(),
            expected,
        });
    }
    if !x_dtypes.contains(&x.dtype()) {
        let expected = x_dtypes.iter().map(DType::to_string).collect::<Vec<_>>().join(" or ");
        return Err(Error::DtypeMismatch {
            what: format!("x of layer `{name}`"),
            found: x.dtype(),
            expected,
        });
    }
    if out.dtype() != x.dtype() {
        let expected = format!("{}, as x", x.dtype());
        return Err(Error::DtypeMismatch {
            what: format!("out of layer `{name}`"),
            found: out.dtype(),
            expected,
        });
    }
    for (what, found) in [("x", x.device()), ("out", out.device()), ("the context", context.device())] {
        if found != *device {
            let what = format!("{what} of layer `{name}`");
            return Err(Error::DeviceMismatch { what, found, expected: device.clone() });
        }
    }
    Ok(())
}
