//! Where the tensors of a layer lie in the device's memory.
//!
//! One piece of memory holds all layers of a model. It is planned before anything is allocated, so that a model that
//! does not fit is refused with the layer at which the memory ends.

use bytemuck::cast_slice;
use gptq_core::QuantLinear;
use gptq_core::format::GroupIndex;
use gptq_core::tensor::{DType, Element};
use half::{bf16, f16};

use super::kernels::TILE_ROWS;

/// Tensors begin at multiples of this: what vector loads and cuBLASLt want.
pub(crate) const ALIGNMENT: usize = 256;

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
    qweight: Place,
    qzeros: Place,
    scales: Place,
    g_idx: Option<Place>,
    /// The bias in each type that holds it without rounding; first in its own.
    biases: Vec<(DType, Place)>,
}

impl LayerPlan {
    pub(crate) fn new(layer: &QuantLinear, planner: &mut Planner) -> Self {
        Self {
            qweight: planner.place(layer.qweight().as_bytes().len()),
            qzeros: planner.place(size_of_val(layer.zeros().words())),
            scales: planner.place(layer.scales().as_bytes().len()),
            g_idx: g_idx(layer).map(|bytes| planner.place(bytes.len())),
            biases: biases(layer)
                .into_iter()
                .map(|(dtype, bytes)| (dtype, planner.place(bytes.len())))
                .collect(),
        }
    }

    /// The bytes of the layer, as files hold them and beside one another.
    pub(crate) fn contents(
        &self,
        layer: &QuantLinear,
        mut put: impl FnMut(Place, &[u8]) -> gptq_core::Result<()>,
    ) -> gptq_core::Result<()> {
        put(self.qweight, layer.qweight().as_bytes())?;
        put(self.qzeros, cast_slice(layer.zeros().words()))?;
        put(self.scales, layer.scales().as_bytes())?;
        if let (Some(place), Some(bytes)) = (self.g_idx, g_idx(layer)) {
            put(place, &bytes)?;
        }
        for ((_, place), (_, bytes)) in self.biases.iter().zip(biases(layer)) {
            put(*place, &bytes)?;
        }
        Ok(())
    }

    /// The layer's tensors as kernels take them, in memory that begins at `base`.
    pub(crate) fn tensors(&self, layer: &QuantLinear, base: u64) -> Tensors {
        let info = layer.info();
        let (k, n) = (info.in_features, info.out_features);
        let group_rows = info.group_size.rows(k);
        let at = |place: Place| base + place.offset as u64;
        let mut biases = self.biases.iter().map(|(dtype, place)| Bias { address: at(*place), dtype: *dtype });
        Tensors {
            qweight: at(self.qweight),
            qzeros: at(self.qzeros),
            scales: at(self.scales),
            scale_dtype: info.scale_dtype,
            g_idx: self.g_idx.map_or(0, at),
            g_idx_bytes: match self.g_idx {
                None => 0,
                Some(_) => {
                    if info.groups <= SHORT_GROUPS {
                        2
                    } else {
                        4
                    }
                }
            },
            bias: biases.next(),
            other_biases: biases.collect(),
            in_features: k,
            out_features: n,
            group_rows,
            in_blocks: self.g_idx.is_none()
                && k.is_multiple_of(TILE_ROWS)
                && n.is_multiple_of(8)
                && (info.groups == 1 || group_rows.is_multiple_of(TILE_ROWS)),
        }
    }
}

/// A layer's tensors in device memory, as files hold them, zero points direct. Addresses are aligned to [`ALIGNMENT`].
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    /// `[ceil(K · bits / 32), N]`.
    pub(crate) qweight: u64,
    /// `[G, ceil(N · bits / 32)]`.
    pub(crate) qzeros: u64,
    /// `[G, N]`.
    pub(crate) scales: u64,
    pub(crate) scale_dtype: DType,
    /// `[K]`, the group of each row; 0 where groups are consecutive.
    pub(crate) g_idx: u64,
    /// Bytes of an element of `g_idx`: 2 or 4; 0 where there is none.
    pub(crate) g_idx_bytes: u32,
    /// `[N]`, in the type of the file.
    pub(crate) bias: Option<Bias>,
    /// The same in other types that hold it exactly.
    other_biases: Vec<Bias>,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    pub(crate) group_rows: usize,
    /// Whether the kernels called `blocks` take the layer, as params.h says.
    pub(crate) in_blocks: bool,
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

impl Bias {
    /// The bias of the columns from `column` on.
    pub(crate) fn at_column(self, column: usize) -> Self {
        Self { address: self.address + (column * self.dtype.size_bytes()) as u64, ..self }
    }
}

/// Groups whose numbers fit 16 bits.
const SHORT_GROUPS: usize = 1 << 16;

/// The group of each row as kernels take it, where rows have to be looked up.
fn g_idx(layer: &QuantLinear) -> Option<Vec<u8>> {
    let GroupIndex::ActOrder(order) = layer.group_index() else { return None };
    let groups = order.groups_of_rows();
    if layer.info().groups > SHORT_GROUPS {
        return Some(cast_slice(groups).to_vec());
    }
    let short = groups.iter().map(|&group| u16::try_from(group).unwrap_or(u16::MAX));
    Some(cast_slice(&short.collect::<Vec<u16>>()).to_vec())
}

/// The bias in its own type, then in every other that holds it without rounding. None where it adds nothing: some
/// writers give every layer a bias of zeros.
fn biases(layer: &QuantLinear) -> Vec<(DType, Vec<u8>)> {
    let Some(bias) = layer.bias() else { return Vec::new() };
    let mut values = vec![0.0; bias.len()];
    bias.read(0..bias.len(), &mut values);
    if values.iter().all(|&value| value == 0.0) {
        return Vec::new();
    }
    let own = [(bias.dtype(), Some(bias.as_bytes().to_vec()))];
    let others = DType::ALL.into_iter().filter(|&dtype| dtype != bias.dtype()).map(|dtype| {
        let bytes = match dtype {
            DType::F32 => exactly::<f32>(&values),
            DType::F16 => exactly::<f16>(&values),
            DType::BF16 => exactly::<bf16>(&values),
        };
        (dtype, bytes)
    });
    own.into_iter().chain(others).filter_map(|(dtype, bytes)| Some((dtype, bytes?))).collect()
}

/// The values as `T`, where that changes none.
fn exactly<T: Element>(values: &[f32]) -> Option<Vec<u8>> {
    let narrowed: Vec<T> = values.iter().map(|&value| T::narrow(value)).collect();
    let same = narrowed.iter().zip(values).all(|(narrow, value)| narrow.widen() == *value);
    same.then(|| cast_slice(&narrowed).to_vec())
}
