//! Where the tensors of a layer lie in the device's memory.

use bytemuck::cast_slice;
use gptq_core::tensor::DType;
use gptq_core::{LayerInfo, QuantLinear};
use gptq_cuda::place::{Place, Planner};
use gptq_cuda::{BiasPlan, Biases};

use super::kernels::TILE_ROWS;

/// Where a layer's tensors will lie.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    qweight: Place,
    qzeros: Place,
    scales: Place,
    g_idx: Option<Place>,
    w_rows: Option<Place>,
    bias: BiasPlan,
}

impl LayerPlan {
    pub(crate) fn new(layer: &QuantLinear, planner: &mut Planner) -> Self {
        Self {
            qweight: planner.place(layer.qweight().as_bytes().len()),
            qzeros: planner.place(zero_words(layer) * size_of::<u32>()),
            scales: planner.place(layer.scales().as_bytes().len()),
            g_idx: g_idx(layer).map(|bytes| planner.place(bytes.len())),
            w_rows: sorted_rows(layer).map(|rows| planner.place(size_of_val(rows))),
            bias: BiasPlan::new(layer.bias(), &DType::ALL, planner),
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
        self.bias.contents(layer.bias(), put)
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
        let at = |place: Place| place.address(base);
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
            bias: self.bias.biases(base),
            in_features: k,
            out_features: n,
            group_rows,
            in_blocks: self.g_idx.is_none() && has_whole_blocks(info),
        }
    }
}

/// A layer's tensors in device memory, zero points direct. Addresses are aligned to
/// [`ALIGNMENT`](gptq_cuda::place::ALIGNMENT).
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
    /// `[N]`, in every type that holds it exactly.
    pub(crate) bias: Biases,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    pub(crate) group_rows: usize,
    /// Whether the kernels called `blocks` take the layer, as params.h says.
    pub(crate) in_blocks: bool,
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
