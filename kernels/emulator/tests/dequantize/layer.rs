//! A layer in the emulated device's memory, and what decides which kernel takes it.

use std::ffi::c_void;

use gptq_conformance::case::{Case, GIdx};
use gptq_core::QuantLinear;
use gptq_core::format::{Bits, GroupSize, Packing, ZeroEncoding};
use gptq_core::tensor::{DType, Floats};
use gptq_emulator::{Buffer, Fault, Kernel, Launch};

use crate::params::GptqDequantizeSortParams;
use crate::{blocks, to_u32};

/// The tensors of a layer as files hold them, but for zero points, which are direct.
pub(crate) struct DeviceLayer {
    pub(crate) qweight: Buffer<u32>,
    pub(crate) qzeros: Buffer<u32>,
    pub(crate) scales: DeviceFloats,
    pub(crate) g_idx: DeviceIndex,
    /// Where rows were sorted: which row of W each is.
    pub(crate) w_rows: Option<Buffer<u32>>,
    pub(crate) bias: Option<DeviceFloats>,
    pub(crate) group_rows: u32,
    pub(crate) format: String,
    /// Whether the kernels called `blocks` take the layer, as params.h says.
    pub(crate) in_whole_blocks: bool,
}

pub(crate) enum DeviceFloats {
    F32(Buffer<f32>),
    Half(Buffer<u16>, DType),
}

pub(crate) enum DeviceIndex {
    Consecutive,
    Short(Buffer<u16>),
    Long(Buffer<u32>),
}

impl DeviceLayer {
    pub(crate) fn new(case: &Case, layer: &QuantLinear) -> Self {
        let mut layer = layer.clone();
        layer.convert_zeros(ZeroEncoding::V2);
        let info = layer.info();
        let k = info.in_features;
        let group_rows = info.group_size.rows(k);
        let order = layer.group_index().act_order();
        let g_idx = match order {
            None => DeviceIndex::Consecutive,
            Some(order) if case.seed.is_multiple_of(2) => {
                let short = |&group: &u32| u16::try_from(group).unwrap_or(u16::MAX);
                DeviceIndex::Short(Buffer::input(
                    "g_idx",
                    &order.groups_of_rows().iter().map(short).collect::<Vec<_>>(),
                ))
            }
            Some(order) => DeviceIndex::Long(Buffer::input("g_idx", order.groups_of_rows())),
        };
        Self {
            qweight: Buffer::input("qweight", layer.qweight()),
            qzeros: Buffer::input("qzeros", layer.zeros().words()),
            scales: DeviceFloats::new("scales", layer.scales()),
            w_rows: None,
            bias: layer.bias().map(|bias| DeviceFloats::new("bias", bias)),
            in_whole_blocks: order.is_none() && has_whole_blocks(&layer),
            g_idx,
            group_rows: to_u32(group_rows),
            format: format_name(info.bits, info.packing),
        }
    }

    /// The same with its rows sorted, where they are out of order and sorting makes whole blocks of them.
    pub(crate) fn sorted(case: &Case, layer: &QuantLinear, seed: u64) -> Option<Result<Self, Fault>> {
        let order = layer.group_index().act_order().filter(|order| order.is_uniform())?;
        if !has_whole_blocks(layer) {
            return None;
        }
        let w_rows = Buffer::input("w_rows", order.sorted_rows());
        let unsorted = Self::new(case, layer);
        let sorted = Buffer::output("sorted", layer.qweight().len());
        let n = layer.info().out_features;
        let launch = || {
            Launch {
                kernel: Kernel::named(&format!("gptq_dequantize_sort_{}", unsorted.format))?,
                grid: [blocks(n, 256), blocks(layer.info().in_features, 32), 1],
                block: [256, 1, 1],
                shared_bytes: 0,
                params: GptqDequantizeSortParams {
                    qweight: unsorted.qweight.address(),
                    w_rows: w_rows.address(),
                    sorted: sorted.address_mut(),
                    out_features: to_u32(n),
                },
            }
            .run(seed)
        };
        if let Err(fault) = launch() {
            return Some(Err(fault));
        }
        assert_eq!(sorted.unwritten_bytes(), 0, "words that nobody wrote");
        Some(Ok(Self {
            qweight: Buffer::input("qweight", &sorted.to_vec()),
            g_idx: DeviceIndex::Consecutive,
            w_rows: Some(w_rows),
            in_whole_blocks: true,
            ..unsorted
        }))
    }

    /// For launch parameters.
    pub(crate) fn w_rows_address(&self) -> *const u32 {
        self.w_rows.as_ref().map_or(std::ptr::null(), Buffer::address)
    }
}

/// Act-order layers of every format that can be sorted, each with every type of x; types of scales take turns.
pub(crate) fn sortable_cases() -> Vec<(Case, DType)> {
    let formats = Bits::ALL.into_iter().flat_map(|bits| {
        let packings = [Packing::Continuous, Packing::Planar];
        packings.into_iter().map(move |packing| (bits, packing))
    });
    let cases = formats.enumerate().flat_map(|(number, (bits, packing))| {
        DType::ALL.into_iter().enumerate().map(move |(turn, x_dtype)| {
            let seed = 3 * number + turn;
            let case = Case {
                bits,
                packing,
                group_size: GroupSize::from_config([32, 64, 128][turn]).expect("a group size"),
                sym: false,
                g_idx: GIdx::ActOrder,
                in_features: 192,
                scale_dtype: DType::ALL[(number + turn) % 3],
                bias: seed.is_multiple_of(2),
                seed: seed as u64,
                ..Case::PLAIN
            };
            (case, x_dtype)
        })
    });
    cases.filter(|(case, _)| case.is_legal()).collect()
}

/// Whether groups and the matrix have whole blocks of rows.
fn has_whole_blocks(layer: &QuantLinear) -> bool {
    let info = layer.info();
    let group_rows = info.group_size.rows(info.in_features);
    info.in_features.is_multiple_of(32)
        && info.out_features.is_multiple_of(8)
        && (group_rows.is_multiple_of(32) || info.groups == 1)
}

impl DeviceFloats {
    fn new(name: &str, floats: &Floats) -> Self {
        match floats {
            Floats::F32(values) => Self::F32(Buffer::input(name, values)),
            Floats::F16(values) => Self::Half(Buffer::input(name, bytemuck::cast_slice(values)), DType::F16),
            Floats::BF16(values) => {
                Self::Half(Buffer::input(name, bytemuck::cast_slice(values)), DType::BF16)
            }
        }
    }

    pub(crate) fn address(&self) -> *const c_void {
        match self {
            Self::F32(buffer) => buffer.address().cast(),
            Self::Half(buffer, _) => buffer.address().cast(),
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::Half(_, dtype) => *dtype,
        }
    }
}

impl DeviceIndex {
    pub(crate) fn address(&self) -> *const c_void {
        match self {
            Self::Consecutive => std::ptr::null(),
            Self::Short(buffer) => buffer.address().cast(),
            Self::Long(buffer) => buffer.address().cast(),
        }
    }

    pub(crate) fn bytes(&self) -> u32 {
        match self {
            Self::Consecutive => 0,
            Self::Short(_) => 2,
            Self::Long(_) => 4,
        }
    }
}

/// A format as kernels are named: 2, 4 and 8 bits are the same in both packings.
pub(crate) fn format_name(bits: Bits, packing: Packing) -> String {
    let planar = packing == Packing::Planar && bits.get() == 3;
    format!("b{}{}", bits.get(), if planar { "p" } else { "" })
}

/// A type as launch parameters say it (dtype.h).
pub(crate) fn dtype_code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
    }
}
