//! Where the tensors of a layer lie in the device's memory.

use bytemuck::cast_slice;
use gptq_core::format::ActOrder;
use gptq_core::tensor::DType;
use gptq_core::{QuantLinear, Result};
use gptq_cuda::place::{Place, Planner};
use gptq_cuda::{BiasPlan, Biases};

/// Where a layer's tensors will lie.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    pub(crate) qweight: Place,
    qzeros: Place,
    scales: Place,
    sorted_rows: Option<Place>,
    bias: BiasPlan,
}

impl LayerPlan {
    pub(crate) fn new(layer: &QuantLinear, planner: &mut Planner) -> Self {
        Self {
            qweight: planner.place(layer.qweight().as_bytes().len()),
            qzeros: planner.place(size_of_val(layer.zeros().words())),
            scales: planner.place(layer.scales().as_bytes().len()),
            sorted_rows: sorted_rows(layer).map(|rows| planner.place(size_of_val(rows))),
            bias: BiasPlan::new(layer.bias(), &[DType::F16], planner),
        }
    }

    /// What of the layer is there as files hold it: all but the words.
    pub(crate) fn contents(
        &self,
        layer: &QuantLinear,
        mut put: impl FnMut(Place, &[u8]) -> Result<()>,
    ) -> Result<()> {
        put(self.qzeros, cast_slice(layer.zeros().words()))?;
        put(self.scales, layer.scales().as_bytes())?;
        if let (Some(place), Some(rows)) = (self.sorted_rows, sorted_rows(layer)) {
            put(place, cast_slice(rows))?;
        }
        self.bias.contents(layer.bias(), put)
    }

    /// The layer's tensors as kernels take them, in memory that begins at `base`.
    pub(crate) fn tensors(&self, layer: &QuantLinear, base: u64) -> Tensors {
        let info = layer.info();
        let (k, n) = (info.in_features, info.out_features);
        let at = |place: Place| place.address(base);
        Tensors {
            qweight: at(self.qweight),
            qzeros: at(self.qzeros),
            scales: at(self.scales),
            sorted_rows: self.sorted_rows.map(at),
            bias: self.bias.biases(base),
            in_features: k,
            out_features: n,
            // One group may be said to have more rows than there are.
            group_rows: if info.groups == 1 { k } else { info.group_size.rows(k) },
        }
    }
}

/// A layer's tensors in device memory, rows in the order of their groups, zero points direct.
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    /// `[K / 8, N]`.
    pub(crate) qweight: u64,
    /// `[G, N / 8]`.
    pub(crate) qzeros: u64,
    /// `[G, N]` in f16.
    pub(crate) scales: u64,
    /// `[K]`: which row of the file is which; of act-order layers.
    pub(crate) sorted_rows: Option<u64>,
    /// `[N]`, in its own type, and in f16 where that holds it exactly.
    pub(crate) bias: Biases,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    pub(crate) group_rows: usize,
}

impl Tensors {
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.in_features, self.out_features]
    }

    /// Whether the kernels for tensor cores take it, as params.h says.
    pub(crate) fn in_chunks(&self) -> bool {
        self.in_features.is_multiple_of(32) && self.group_rows.is_multiple_of(32)
    }

    /// Whether the eight rows of a word are in one group.
    pub(crate) fn in_words(&self) -> bool {
        self.group_rows.is_multiple_of(8)
    }
}

fn sorted_rows(layer: &QuantLinear) -> Option<&[u32]> {
    layer.group_index().act_order().map(ActOrder::sorted_rows)
}
