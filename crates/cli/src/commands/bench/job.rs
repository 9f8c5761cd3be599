//! What is to be timed, and what came of it.

use std::num::NonZeroUsize;

use gptq_core::backend::{Options, PlanRequest};
use gptq_core::tensor::DType;

use crate::output::Bar;

use super::layer::LayerSpec;
use super::limits::Limits;
use super::report::Measured;

/// What is to be timed. What is `None` is for the device to choose.
pub(super) struct Job<'a> {
    pub(super) specs: Vec<LayerSpec>,
    /// Who runs each of them; several take turns.
    pub(super) contestants: Vec<Contestant>,
    pub(super) options: Options,
    pub(super) rows: Vec<NonZeroUsize>,
    /// Whether all numbers of rows of a layer take turns, on a GPU: on a CPU they always do.
    pub(super) rows_by_turns: bool,
    /// Whether one copy is called again and again.
    pub(super) warm: bool,
    pub(super) rounds: Option<NonZeroUsize>,
    pub(super) turn_seconds: Option<f64>,
    pub(super) copies_bytes: Option<usize>,
    pub(super) read_bytes: Option<usize>,
    pub(super) bar: &'a Bar,
}

impl Job<'_> {
    /// The largest M.
    pub(super) fn most_rows(&self) -> usize {
        self.rows.iter().map(|rows| rows.get()).max().unwrap_or(1)
    }
}

/// A backend, and the type of x and y that it is called with.
pub(super) struct Contestant {
    pub(super) request: PlanRequest,
    pub(super) dtype: DType,
}

/// What was measured, and on what.
pub(super) struct Outcome {
    pub(super) machine: String,
    pub(super) limits: Limits,
    pub(super) measured: Vec<Measured>,
}
