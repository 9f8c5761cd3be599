//! What a backend is: one way of running GPTQ layers on one kind of device.
//!
//! A backend crate describes itself with a [`Registration`]: a name, what it can run (data, asked without side
//! effects), and how to open it. [`dispatch`] decides which backend runs which layer;
//! [`post_init`](crate::post_init) opens the chosen ones and calls the three steps of [`Backend`] in order.
//! Nothing here knows any backend by more than its registration.

mod capabilities;
pub mod dispatch;
mod name;
mod options;
mod registry;
mod rejection;

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;

pub use capabilities::{Capabilities, GroupSizes, Speed, ZeroOperand};
pub use dispatch::{Asked, Assignment, Plan, PlanReport, PlanRequest};
pub use name::{BACKEND, BackendId};
pub use options::{OptionSpec, Options};
pub use registry::{API_VERSION, Condition, Open, Probe, Registration, Registry};
pub use rejection::Rejection;

pub use crate::quant_linear::LayerId;

use crate::device::{Context, Memory};
use crate::error::Result;
use crate::quant_linear::QuantLinear;
use crate::tensor::{TensorMut, TensorRef};

/// One way of running GPTQ layers on one device, opened for one model.
///
/// Methods stand in the order in which [`post_init`](crate::post_init::post_init) calls them. A backend holds no
/// state outside itself: two models in one process have two backends.
pub trait Backend: Send + Sync {
    /// Step 1. Brings the zero points of `layer` to the encoding that this backend's kernels read, usually with
    /// [`QuantLinear::convert_zeros`]. Called once for each of its layers. [`Outcome::NotNeeded`] where the
    /// kernels read no zero points; a layer that is in the right encoding already is simply done.
    ///
    /// # Errors
    /// Where the layer's zero points cannot be brought to that encoding.
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome>;

    /// Step 2. Takes its layers one at a time, arranges them on the device, and sizes what they share. Called
    /// once. Returns every layer it was given, in any order.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) or [`Error::Device`](crate::Error::Device); nothing that
    /// was allocated outlives the backend.
    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>>;

    /// Step 3. Makes room for `rows` rows of x (batch × sequence) in one call. Called where the user gives a
    /// length, after step 2 and at any time later, also while other threads are inside
    /// [`Linear::forward`]. [`Outcome::NotNeeded`] where nothing depends on it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory); the old room still serves then.
    fn set_max_input_length(&mut self, rows: usize) -> Result<Outcome>;

    /// Bytes of scratch that one call in flight needs, known after steps 2 and 3. Contexts get the maximum over
    /// the backends of a model. A context with less still works, with more launches, down to what one row needs.
    fn scratch_bytes(&self) -> usize;

    /// What step 2 and step 3 allocated for the whole model, beside the layers themselves.
    fn buffers(&self) -> Vec<Buffer> {
        Vec::new()
    }

    /// How to allocate, upload and download on this backend's device. `None`: it works in host memory.
    fn memory(&self) -> Option<Arc<dyn Memory>> {
        None
    }
}

/// A layer that is ready to run. Made by a [`Backend`], called through
/// [`Layer::forward`](crate::post_init::Layer::forward).
pub trait Linear: Send + Sync {
    /// `out = x · W (+ bias)`: x `[M, K]`, out `[M, N]` of x's dtype, both on this layer's device, on the context's
    /// stream. Writes all of `out`. Allocates nothing on a device and never synchronises, so that a graph can capture
    /// it; gives the same bits for the same input. x and out promise the alignment of an element and no more.
    ///
    /// The caller has checked shapes, dtypes and devices, and M is at least 1. More rows than the context's scratch
    /// has room for are run in pieces. An implementation whose memory safety rests on these checks repeats them
    /// with [`check_forward`](crate::post_init::check_forward).
    ///
    /// # Errors
    /// [`Error::ScratchTooSmall`](crate::Error::ScratchTooSmall), or
    /// [`Error::Device`](crate::Error::Device) where a launch fails.
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()>;

    /// Bytes that this layer alone holds on its device, beside the packed layer it came from.
    fn resident_bytes(&self) -> usize;
}

/// What a step did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "outcome", content = "why", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a step either did something or says why not")]
pub enum Outcome {
    /// It did what it is there for.
    Done,
    /// Nothing depends on it, and why.
    NotNeeded(Cow<'static, str>),
}

/// Memory that a backend holds for a whole model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Buffer {
    /// What it is called in the field: `temp_dq`, `temp_state`, `workspace`.
    pub name: &'static str,
    /// Its size.
    pub bytes: usize,
}

impl Buffer {
    /// A buffer of `bytes` bytes.
    pub fn new(name: &'static str, bytes: usize) -> Self {
        Self { name, bytes }
    }
}

/// The layers that a backend is to arrange, handed out one at a time so that a loader never needs more than the
/// model and one layer.
pub struct LayerSource<'a> {
    layers: &'a [(LayerId, &'a QuantLinear)],
    taken: usize,
    bytes_taken: usize,
    on_progress: &'a mut dyn FnMut(usize, usize),
}

impl<'a> LayerSource<'a> {
    /// The given layers. `on_progress(layers, bytes)` hears how many layers, and how many packed bytes of them,
    /// are arranged; a layer counts when the next one is asked for.
    pub fn new(
        layers: &'a [(LayerId, &'a QuantLinear)],
        on_progress: &'a mut dyn FnMut(usize, usize),
    ) -> Self {
        Self { layers, taken: 0, bytes_taken: 0, on_progress }
    }

    /// The layers still to come, to size what they will need before the first is taken.
    pub fn upcoming(&self) -> impl ExactSizeIterator<Item = &'a QuantLinear> + use<'a> {
        self.layers.get(self.taken..).unwrap_or_default().iter().map(|(_, layer)| *layer)
    }

    /// The next layer: a clone that shares the packed words.
    pub fn next_layer(&mut self) -> Option<(LayerId, QuantLinear)> {
        let (id, layer) = *self.layers.get(self.taken)?;
        self.report();
        self.taken += 1;
        self.bytes_taken += layer.info().packed_bytes;
        Some((id, layer.clone()))
    }

    fn report(&mut self) {
        (self.on_progress)(self.taken, self.bytes_taken);
    }

    /// Reports the last layer as arranged.
    pub(crate) fn finish(mut self) {
        self.report();
    }
}
