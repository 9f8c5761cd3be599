//! Where the tensors of a layer lie in the device's memory.
//!
//! One piece of memory holds all layers of a model. It is planned before anything is allocated, so that a model that does
//! not fit is refused with the layer at which the memory ends.

use bytemuck::cast_slice;
use gptq_core::tensor::{DType, Element};
use gptq_core::{LayerInfo, QuantLinear};
use half::{bf16, f16};

use crate::Zeros;
use crate::layout::{Arrangement, TILE_ROWS};

/// Tensors begin at multiples of this: what vector loads and cuBLASLt want.
pub(crate) const ALIGNMENT: usize = 256;

/// Gives out places one behind the other, in bytes from the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planner {
    end: usize,
}

impl Planner {
    pub(crate) fn place(&mut self, bytes: usize) -> usize {
        let offset = self.end;
        self.end += bytes.next_multiple_of(ALIGNMENT);
        offset
    }

    /// The bytes given out so far.
    pub(crate) fn end(&self) -> usize {
        self.end
    }
}

/// Where a layer's tensors will lie.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    pub(crate) arrangement: Arrangement,
    weights: usize,
    scales: usize,
    /// Of the zero points, where kernels read them.
    zeros: Option<usize>,
    /// Of the order of rows, where they are sorted.
    pub(crate) order: Option<usize>,
    /// The bias in each type that holds it without rounding; first in its own.
    pub(crate) biases: Vec<(DType, usize)>,
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
            biases: biases(layer)
                .into_iter()
                .map(|(dtype, bytes)| (dtype, planner.place(bytes.len())))
                .collect(),
        }
    }

    /// The layer's tensors as kernels take them, in memory that begins at `base`.
    pub(crate) fn tensors(&self, layer: &LayerInfo, base: u64, arrival_mark: u64) -> Tensors {
        let at = |offset: usize| base + offset as u64;
        let mut biases =
            self.biases.iter().map(|(dtype, offset)| Bias { address: at(*offset), dtype: *dtype });
        Tensors {
            arrangement: self.arrangement,
            weights: at(self.weights),
            scales: at(self.scales),
            scale_dtype: layer.scale_dtype,
            zeros: self.zeros.map_or(0, at),
            order: self.order.map_or(0, at),
            bias: biases.next(),
            other_biases: biases.collect(),
            arrival_mark,
        }
    }
}

/// A layer's tensors in device memory, arranged. Addresses are aligned to [`ALIGNMENT`].
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
    /// `[N]`, in the type of the file.
    pub(crate) bias: Option<Bias>,
    /// The same in other types that hold it exactly.
    other_biases: Vec<Bias>,
    /// What cells of counters hold where nobody has counted: a number of this model, its low byte zero.
    pub(crate) arrival_mark: u64,
}

/// A bias in device memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bias {
    pub(crate) address: u64,
    pub(crate) dtype: DType,
}

impl Tensors {
    /// The bias in this type, where that holds it exactly.
    pub(crate) fn bias_in(&self, dtype: DType) -> Option<Bias> {
        self.bias.iter().chain(&self.other_biases).copied().find(|bias| bias.dtype == dtype)
    }
}

/// The bias in its own type, then in every other that holds it without rounding. None where it adds nothing: some writers
/// give every layer a bias of zeros.
pub(crate) fn biases(layer: &QuantLinear) -> Vec<(DType, Vec<u8>)> {
    let Some(bias) = layer.bias() else { return Vec::new() };
    let mut values = vec![0.0; bias.len()];
    bias.read(0..bias.len(), &mut values);
    if values.iter().all(|&value| value == 0.0) {
        return Vec::new();
    }
    let mut all = vec![(bias.dtype(), bias.as_bytes().to_vec())];
    for dtype in [DType::F16, DType::BF16].into_iter().filter(|&dtype| dtype != bias.dtype()) {
        let narrowed = match dtype {
            DType::F16 => exactly::<f16>(&values),
            _ => exactly::<bf16>(&values),
        };
        all.extend(narrowed.map(|bytes| (dtype, bytes)));
    }
    all
}

/// The values as `T`, where that changes none.
fn exactly<T: Element>(values: &[f32]) -> Option<Vec<u8>> {
    let narrowed: Vec<T> = values.iter().map(|&value| T::narrow(value)).collect();
    let same = narrowed.iter().zip(values).all(|(narrow, value)| narrow.widen() == *value);
    same.then(|| cast_slice(&narrowed).to_vec())
}
