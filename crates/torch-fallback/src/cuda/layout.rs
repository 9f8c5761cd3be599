//! Where the tensors of a layer lie in the device's memory.
//!
//! One piece of memory holds all layers of a model. It is planned before anything is allocated, so that a model that
//! does not fit is refused with the layer at which the memory ends.

use bytemuck::cast_slice;
use gptq_core::tensor::{DType, Element};
use gptq_core::{LayerInfo, QuantLinear};
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
    w_rows: Option<Place>,
    /// The bias in each type that holds it without rounding; first in its own.
    biases: Vec<(DType, Place)>,
}

impl LayerPlan {
    pub(crate) fn new(layer: &QuantLinear, planner: &mut Planner) -> Self {
        Self {
            qweight: planner.place(layer.qweight().as_bytes().len()),
            qzeros: planner.place(zero_words(layer) * size_of::<u32>()),
            scales: planner.place(layer.scales().as_bytes().len()),
            g_idx: g_idx(layer).map(|bytes| planner.place(bytes.len())),
            w_rows: sorted_rows(layer).map(|rows| planner.place(size_of_val(rows))),
            biases: biases(layer)
                .into_iter()
                .map(|(dtype, bytes)| (dtype, planner.place(bytes.len())))
                .collect(),
        }
    }

    /// The bytes of the layer and where they go, as files hold them; without the words of qweight where rows are
    /// [sorted](Self::is_sorted).
    pub(crate) fn contents(
        &self,
        layer: &QuantLinear,
        mut put: impl FnMut(Place, &[u8]) -> gptq_core::Result<()>,
    ) -> gptq_core::Result<()> {
        if !self.is_sorted() {
            put(self.qweight, layer.qweight().as_bytes())?;
        }
        let mut zeros = vec![0; zero_words(layer)];
        layer.zeros().write_words(&mut zeros);
        put(self.qzeros, cast_slice(&zeros))?;
        put(self.scales, layer.scales().as_bytes())?;
        if let (Some(place), Some(bytes)) = (self.g_idx, g_idx(layer)) {
            put(place, &bytes)?;
        }
        if let (Some(place), Some(rows)) = (self.w_rows, sorted_rows(layer)) {
            put(place, cast_slice(rows))?;
        }
        for ((_, place), (_, bytes)) in self.biases.iter().zip(biases(layer)) {
            put(*place, &bytes)?;
        }
        Ok(())
    }

    /// Whether rows of qweight are to be sorted by group on their way to their place.
    pub(crate) fn is_sorted(&self) -> bool {
        self.w_rows.is_some()
    }

    /// Bytes of the layer's qweight.
    pub(crate) fn qweight_bytes(&self) -> usize {
        self.qweight.bytes
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
            w_rows: self.w_rows.map_or(0, at),
            bias: biases.next(),
            other_biases: biases.collect(),
            in_features: k,
            out_features: n,
            group_rows,
            in_blocks: self.g_idx.is_none() && has_whole_blocks(info),
        }
    }
}

/// A layer's tensors in device memory, zero points direct. Addresses are aligned to [`ALIGNMENT`].
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    /// `[ceil(K · bits / 32), N]`. As the file holds it, but for the order of rows where `w_rows` is there.
    pub(crate) qweight: u64,
    /// `[G, ceil(N · bits / 32)]`.
    pub(crate) qzeros: u64,
    /// `[G, N]`.
    pub(crate) scales: u64,
    pub(crate) scale_dtype: DType,
    /// `[K]`, the group of each row; 0 where groups are consecutive rows of qweight.
    pub(crate) g_idx: u64,
    /// Bytes of an element of `g_idx`: 2 or 4; 0 where there is none.
    pub(crate) g_idx_bytes: u32,
    /// `[K]`, the row of W that each row of qweight is, where they were sorted by group; else 0.
    pub(crate) w_rows: u64,
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

/// Whether groups and the matrix have whole blocks of rows, as the kernels called `blocks` want them.
fn has_whole_blocks(info: &LayerInfo) -> bool {
    let group_rows = info.group_size.rows(info.in_features);
    info.in_features.is_multiple_of(TILE_ROWS)
        && info.out_features.is_multiple_of(8)
        && (info.groups == 1 || group_rows.is_multiple_of(TILE_ROWS))
}

/// The order in which rows are sorted by group, where they are out of order and that makes whole blocks of them. Other
/// act-order layers stay as they are: only the slow kernels take them.
fn sorted_rows(layer: &QuantLinear) -> Option<&[u32]> {
    let order = layer.group_index().act_order()?;
    (order.is_uniform() && has_whole_blocks(layer.info())).then(|| order.sorted_rows())
}

/// Words of the layer's qzeros.
fn zero_words(layer: &QuantLinear) -> usize {
    layer.zeros().groups() * layer.zeros().words_per_group()
}

/// The group of each row as kernels take it, where rows have to be looked up.
fn g_idx(layer: &QuantLinear) -> Option<Vec<u8>> {
    let order = layer.group_index().act_order()?;
    if sorted_rows(layer).is_some() {
        return None;
    }
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
