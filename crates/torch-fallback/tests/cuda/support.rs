//! Layers of any size, and models of them on a GPU.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gptq_conformance::Target;
use gptq_conformance::case::{Case, GIdx};
use gptq_core::format::{Bits, GroupSize};
use gptq_core::post_init::FinalizedModel;
use gptq_core::{Error, QuantLinear};
use gptq_cuda::Gpu;

/// The first GPU, for one test at a time: some fill its memory.
pub(crate) struct Alone {
    gpu: Gpu,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Alone {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

/// The first GPU; `None`, with a line that says so, where there is none and none is required.
pub(crate) fn gpu(test: &str) -> Option<Alone> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has said so.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match Gpu::open(0) {
        Ok(gpu) => Some(Alone { gpu, _turn: turn }),
        Err(rejection) => {
            assert!(std::env::var_os("GPTQ_REQUIRE_DEVICE").is_none(), "{test}: {rejection}");
            eprintln!("skipped {test}: {rejection}");
            None
        }
    }
}

/// The backend on the first GPU.
pub(crate) fn target() -> Target {
    Target::new(gptq_torch_fallback::REGISTRATION, "cuda:0").unwrap()
}

/// A symmetric layer of 4 bits in groups of 128, `[k, n]`.
pub(crate) fn four_bits(k: usize, n: usize) -> Case {
    Case { bits: Bits::FOUR, group_size: groups_of(128), in_features: k, out_features: n, ..Case::PLAIN }
}

/// The same in act-order.
pub(crate) fn in_act_order(case: Case) -> Case {
    Case { g_idx: GIdx::ActOrder, ..case }
}

/// Groups of so many rows; -1 for one a column.
pub(crate) fn groups_of(rows: i64) -> GroupSize {
    GroupSize::from_config(rows).unwrap()
}

/// The layers, finalized on the first GPU.
pub(crate) fn open(layers: Vec<QuantLinear>) -> Result<FinalizedModel, Error> {
    target().open(layers, None, None)
}
