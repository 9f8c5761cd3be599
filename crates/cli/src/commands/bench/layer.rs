//! Layers of random weights, and copies of them.

use std::fmt;
use std::str::FromStr;

use gptq_conformance::case::{Case, GIdx};
use gptq_core::format::{Bits, GroupSize, Packing, packing};
use gptq_core::tensor::Floats;
use gptq_core::{Part, QuantLinear, QuantLinearParts};

use crate::failure::Result;
use crate::room;

/// Copies that calls rotate over at most: each has a name and a place in a model, which take longer than a tiny layer.
pub(super) const MOST_COPIES: usize = 1 << 14;

/// in_features x out_features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    pub(super) k: usize,
    pub(super) n: usize,
}

impl Shape {
    /// Of a model of 7 billion parameters.
    pub(super) const OF_HOSTS: [Self; 3] =
        [Self { k: 4096, n: 4096 }, Self { k: 4096, n: 11008 }, Self { k: 11008, n: 4096 }];
    /// Of models of 7 to 70 billion parameters.
    pub(super) const OF_GPUS: [Self; 7] = [
        Self { k: 4096, n: 4096 },
        Self { k: 4096, n: 11008 },
        Self { k: 11008, n: 4096 },
        Self { k: 4096, n: 14336 },
        Self { k: 8192, n: 8192 },
        Self { k: 8192, n: 28672 },
        Self { k: 28672, n: 8192 },
    ];
    /// The layers of a block of a model of 7 billion parameters, with those side by side that read the same x: queries, keys
    /// and values; the output; gate and up; down.
    pub(super) const OF_BLOCK: [Self; 4] = [
        Self { k: 4096, n: 3 * 4096 },
        Self { k: 4096, n: 4096 },
        Self { k: 4096, n: 2 * 11008 },
        Self { k: 11008, n: 4096 },
    ];
}

impl FromStr for Shape {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('x').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match numbers {
            // A product of what fits 20 bits each is far from the end of any integer here.
            Some((k @ 1..0x10_0000, n @ 1..0x10_0000)) => Ok(Self { k, n }),
            _ => Err("write it as KxN, in_features x out_features: 4096x11008"),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.k, self.n)
    }
}

/// What a layer is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerSpec {
    pub(super) shape: Shape,
    pub(super) bits: Bits,
    pub(super) group_size: GroupSize,
    pub(super) act_order: bool,
    pub(super) asymmetric: bool,
}

impl LayerSpec {
    /// Some rows of such a layer, in the order of their groups: numbers like those in its dense matrix.
    pub(super) fn strip(self, rows: usize) -> Self {
        let Shape { k, n } = self.shape;
        Self { shape: Shape { k: k.min(rows), n }, act_order: false, ..self }
    }

    /// A layer of random codes.
    pub(super) fn build(self) -> Result<QuantLinear> {
        let Self { shape: Shape { k, n }, bits, group_size, act_order, asymmetric } = self;
        room::for_layer([k, n])?;
        let case = Case {
            bits,
            packing: if Packing::Continuous.supports(bits) { Packing::Continuous } else { Packing::Planar },
            group_size,
            sym: !asymmetric,
            g_idx: if act_order { GIdx::ActOrder } else { GIdx::Absent },
            in_features: k,
            out_features: n,
            ..Case::PLAIN
        };
        Ok(case.noise("bench")?)
    }
}

/// Where the packed tensors of a layer's copies lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memory {
    /// Each has its own: for calls that read them there.
    Own,
    /// That of the layer: for backends that arrange each layer in memory of their own.
    Shared,
}

/// How many layers of so many bytes take `total` bytes: not more than [`MOST_COPIES`], and never none.
pub(super) fn copies_of(total: usize, bytes: usize) -> usize {
    total.div_ceil(bytes.max(1)).clamp(1, MOST_COPIES)
}

/// The layer `count` times, under names of their own.
pub(super) fn copies(layer: &QuantLinear, count: usize, memory: Memory) -> Result<Vec<QuantLinear>> {
    (0..count).map(|index| copy(layer, format!("bench.{index}"), memory)).collect()
}

/// The layer under another name.
pub(super) fn copy(layer: &QuantLinear, name: String, memory: Memory) -> Result<QuantLinear> {
    let info = layer.info();
    let (k, n, groups) = (info.in_features, info.out_features, info.groups);
    let g_idx = layer.group_index().act_order().map(|order| {
        let groups = order.groups_of_rows().iter().map(|&group| i32::try_from(group).unwrap_or(i32::MAX));
        Part::in_memory(vec![k], groups.collect::<Vec<i32>>().into())
    });
    let qweight = match memory {
        Memory::Own => layer.qweight().to_vec().into(),
        Memory::Shared => layer.qweight().clone(),
    };
    let scales = match layer.scales() {
        Floats::F16(scales) if memory == Memory::Own => Floats::F16(scales.to_vec().into()),
        others => others.clone(),
    };
    Ok(QuantLinear::new(QuantLinearParts {
        name: name.into(),
        bits: info.bits,
        packing: info.packing,
        group_size: info.group_size,
        zero_encoding: layer.zeros().encoding(),
        qweight: Part::in_memory(vec![packing::words_for(info.bits, k), n], qweight),
        qzeros: Part::in_memory(
            vec![groups, layer.zeros().words_per_group()],
            layer.zeros().words().to_vec().into(),
        ),
        scales: Part::in_memory(vec![groups, n], scales),
        g_idx,
        bias: None,
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(bits: u64) -> LayerSpec {
        let bits = Bits::new(bits).expect("a width");
        let group_size = GroupSize::from_config(32).expect("a size");
        LayerSpec { shape: Shape { k: 64, n: 96 }, bits, group_size, act_order: false, asymmetric: false }
    }

    #[test]
    fn shapes_are_written_as_they_are_read() {
        assert_eq!("4096x11008".parse::<Shape>().map(|shape| shape.to_string()), Ok("4096x11008".into()));
        for wrong in ["4096", "0x1", "1x0", "x", "1x1x1", "1048576x1", "-1x1"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn layers_are_what_was_asked_for_and_copies_lie_where_they_are_told() {
        for bits in 2..=8 {
            let layer =
                LayerSpec { act_order: true, asymmetric: true, ..spec(bits) }.build().expect("a layer");
            assert!(layer.info().act_order && !layer.info().symmetric, "{bits} bits");
            assert!(spec(bits).build().expect("a layer").info().symmetric, "{bits} bits");
            for memory in [Memory::Own, Memory::Shared] {
                for copy in copies(&layer, 2, memory).expect("copies") {
                    assert_eq!(copy.dequantize(), layer.dequantize(), "{bits} bits");
                    let same = std::ptr::eq(&raw const copy.qweight()[0], &raw const layer.qweight()[0]);
                    assert_eq!(same, memory == Memory::Shared, "{bits} bits");
                }
            }
        }
    }
}
