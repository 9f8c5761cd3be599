//! Where the tensors of a layer lie in the device's memory.

use gptq_core::tensor::DType;
use gptq_core::{LayerInfo, QuantLinear};
use gptq_cuda::place::{Place, Planner};
use gptq_cuda::{BiasPlan, Biases};

use crate::Zeros;
use crate::layout::{Arrangement, TILE_ROWS};

/// Where a layer's tensors will lie.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    pub(crate) arrangement: Arrangement,
    weights: Place,
    scales: Place,
    /// Of the zero points, where kernels read them.
    zeros: Option<Place>,
    /// Of the order of rows, where they are sorted.
    pub(crate) order: Option<Place>,
    pub(crate) bias: BiasPlan,
}

impl LayerPlan {
    pub(crate) fn new(layer: &QuantLinear, zeros: Zeros, planner: &mut Planner) -> Self {
        let arrangement = Arrangement::of(layer.info());
        let sorted = layer.group_index().act_order().is_some();
        Self {
            arrangement,
            weights: planner.place(arrangement.weight_bytes()),
            scales: planner.place(arrangement.group_elements() * 2),
            zeros: (zeros == Zeros::Stored).then(|| planner.place(arrangement.group_elements())),
            order: sorted.then(|| planner.place(arrangement.tiles * TILE_ROWS * 2)),
            bias: BiasPlan::new(layer.bias(), &[DType::F16, DType::BF16], planner),
        }
    }

    /// The layer's tensors as kernels take them, in memory that begins at `base`.
    pub(crate) fn tensors(&self, layer: &LayerInfo, base: u64, arrival_mark: u64) -> Tensors {
        let at = |place: Place| place.address(base);
        Tensors {
            arrangement: self.arrangement,
            weights: at(self.weights),
            scales: at(self.scales),
            scale_dtype: layer.scale_dtype,
            zeros: self.zeros.map_or(0, at),
            order: self.order.map_or(0, at),
            bias: self.bias.biases(base),
            arrival_mark,
        }
    }
}

/// A layer's tensors in device memory, arranged. Addresses are aligned to
/// [`ALIGNMENT`](gptq_cuda::place::ALIGNMENT).
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    pub(crate) arrangement: Arrangement,
    pub(crate) weights: u64,
    pub(crate) scales: u64,
    pub(crate) scale_dtype: DType,
    /// 0 where they are built into the kernels.
    pub(crate) zeros: u64,
    /// Which row of the file is which row of the arrangement; 0 where they are the same.
    pub(crate) order: u64,
    /// `[N]`, in every type of x that holds it exactly, and in that of the file.
    pub(crate) bias: Biases,
    /// What cells of counters hold where nobody has counted: a number of this model, its low byte zero.
    pub(crate) arrival_mark: u64,
}
