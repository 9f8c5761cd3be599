//! A layer in the emulated device's memory, and what decides which kernel takes it.

use std::ffi::c_void;

use gptq_conformance::case::Case;
use gptq_core::QuantLinear;
use gptq_core::format::{Bits, Packing, ZeroEncoding};
use gptq_core::tensor::{DType, Floats};
use gptq_emulator::Buffer;

use crate::to_u32;

/// The tensors of a layer as files hold them, but for zero points, which are direct.
pub(crate) struct DeviceLayer {
    pub(crate) qweight: Buffer<u32>,
    pub(crate) qzeros: Buffer<u32>,
    pub(crate) scales: DeviceFloats,
    pub(crate) g_idx: DeviceIndex,
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
        let (k, n) = (info.in_features, info.out_features);
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
            bias: layer.bias().map(|bias| DeviceFloats::new("bias", bias)),
            in_whole_blocks: k.is_multiple_of(32)
                && n.is_multiple_of(8)
                && order.is_none()
                && (group_rows.is_multiple_of(32) || info.groups == 1),
            g_idx,
            group_rows: to_u32(group_rows),
            format: format_name(info.bits, info.packing),
        }
    }
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
