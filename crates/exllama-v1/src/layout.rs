//! Where the tensors of a layer lie in the device's memory: one piece of memory for all layers of a model, planned before
//! it is allocated.

use bytemuck::cast_slice;
use gptq_core::format::ActOrder;
use gptq_core::tensor::DType;
use gptq_core::{QuantLinear, Result};
use half::f16;

/// Tensors begin at multiples of this.
const ALIGNMENT: usize = 256;

/// A part of the model's memory, in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// Gives out places one behind the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planner {
    end: usize,
}

impl Planner {
    /// The bytes given out so far, with what lies between places.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    fn place(&mut self, bytes: usize) -> Place {
        let offset = self.end;
        self.end += bytes.next_multiple_of(ALIGNMENT);
        Place { offset, bytes }
    }
}

/// Where a layer's tensors will lie.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    pub(crate) qweight: Place,
    qzeros: Place,
    scales: Place,
    sorted_rows: Option<Place>,
    /// In its own type.
    bias: Option<Place>,
    /// In f16, where it is of another type that f16 holds exactly.
    f16_bias: Option<Place>,
}

impl LayerPlan {
    pub(crate) fn new(layer: &QuantLinear, planner: &mut Planner) -> Self {
        Self {
            qweight: planner.place(layer.qweight().as_bytes().len()),
            qzeros: planner.place(size_of_val(layer.zeros().words())),
            scales: planner.place(layer.scales().as_bytes().len()),
            sorted_rows: sorted_rows(layer).map(|rows| planner.place(size_of_val(rows))),
            bias: layer.bias().map(|bias| planner.place(bias.as_bytes().len())),
            f16_bias: f16_bias(layer).map(|bias| planner.place(size_of_val(bias.as_slice()))),
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
        if let (Some(place), Some(bias)) = (self.bias, layer.bias()) {
            put(place, bias.as_bytes())?;
        }
        if let (Some(place), Some(bias)) = (self.f16_bias, f16_bias(layer)) {
            put(place, cast_slice(&bias))?;
        }
        Ok(())
    }

    /// The layer's tensors as kernels take them, in memory that begins at `base`.
    pub(crate) fn tensors(&self, layer: &QuantLinear, base: u64) -> Tensors {
        let info = layer.info();
        let (k, n) = (info.in_features, info.out_features);
        let at = |place: Place| base + place.offset as u64;
        let bias = self.bias.zip(layer.bias()).map(|(place, bias)| (at(place), bias.dtype()));
        let own_f16 = bias.filter(|(_, dtype)| *dtype == DType::F16).map(|(address, _)| address);
        Tensors {
            qweight: at(self.qweight),
            qzeros: at(self.qzeros),
            scales: at(self.scales),
            sorted_rows: self.sorted_rows.map(at),
            bias,
            f16_bias: own_f16.or(self.f16_bias.map(at)),
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
    /// `[N]`, and its type.
    pub(crate) bias: Option<(u64, DType)>,
    /// The same in f16, where that is exact.
    pub(crate) f16_bias: Option<u64>,
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

/// The bias in f16, where it is of another type and no value changes.
fn f16_bias(layer: &QuantLinear) -> Option<Vec<f16>> {
    let bias = layer.bias().filter(|bias| bias.dtype() != DType::F16)?;
    let mut values = vec![0.0; bias.len()];
    bias.read(0..bias.len(), &mut values);
    let narrow: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
    narrow.iter().zip(&values).all(|(narrow, &value)| narrow.to_f32() == value).then_some(narrow)
}
