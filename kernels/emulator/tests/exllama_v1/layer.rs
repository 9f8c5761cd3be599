//! A layer in the emulated device's memory, its rows in the order of their groups.

use gptq_conformance::case::Case;
use gptq_core::QuantLinear;
use gptq_core::format::{Bits, GroupSize, ZeroEncoding};
use gptq_core::tensor::{DType, Floats};
use gptq_emulator::Buffer;

use crate::arrange::sort_rows;
use crate::to_u32;

/// What the kernels take of a layer.
pub(crate) struct DeviceLayer {
    pub(crate) qweight: Buffer<u32>,
    pub(crate) qzeros: Buffer<u32>,
    pub(crate) scales: Buffer<u16>,
    pub(crate) bias: Option<Buffer<u16>>,
    pub(crate) sorted_rows: Option<Vec<u32>>,
    pub(crate) group_rows: usize,
    pub(crate) shape: [usize; 2],
}

/// 4 bits, asymmetric, direct zero points, scales in f16, with a bias.
pub(crate) const CASE: Case = Case {
    bits: Bits::FOUR,
    sym: false,
    bias: true,
    scale_dtype: DType::F16,
    zero_encoding: ZeroEncoding::V2,
    ..Case::PLAIN
};

pub(crate) fn group_size(rows: i64) -> GroupSize {
    GroupSize::from_config(rows).expect("a group size")
}

impl DeviceLayer {
    pub(crate) fn new(layer: &QuantLinear) -> Self {
        let mut layer = layer.clone();
        layer.convert_zeros(ZeroEncoding::V2);
        let info = layer.info();
        let shape = [info.in_features, info.out_features];
        let sorted_rows = layer.group_index().act_order().map(|order| order.sorted_rows().to_vec());
        let qweight = Buffer::input("qweight", layer.qweight());
        Self {
            qweight: match &sorted_rows {
                None => qweight,
                Some(rows) => Buffer::input("sorted", &sort_rows(&qweight, rows, shape)),
            },
            qzeros: Buffer::input("qzeros", layer.zeros().words()),
            scales: f16_buffer("scales", layer.scales()),
            bias: layer.bias().map(|bias| f16_buffer("bias", bias)),
            sorted_rows,
            group_rows: info.group_size.rows(info.in_features),
            shape,
        }
    }

    /// Whether the kernels on tensor cores take it, as params.h says.
    pub(crate) fn in_chunks(&self) -> bool {
        self.shape[0].is_multiple_of(32) && self.group_rows.is_multiple_of(32)
    }

    /// Whether all rows of a word are in one group.
    pub(crate) fn in_words(&self) -> bool {
        self.group_rows.is_multiple_of(8)
    }

    pub(crate) fn group_rows(&self) -> u32 {
        to_u32(self.group_rows)
    }
}

fn f16_buffer(name: &str, floats: &Floats) -> Buffer<u16> {
    match floats {
        Floats::F16(values) => Buffer::input(name, bytemuck::cast_slice(values)),
        _ => panic!("{name} are not in f16: the kernels take no others"),
    }
}
