//! Packed layers, arranged by kernels, are bit by bit what the plain version makes of them.

use std::ptr;

use gptq_core::QuantLinear;
use gptq_core::format::ZeroEncoding;
use gptq_emulator::{Buffer, Fault, Launch, in_orders};
use gptq_tiles::Zeros;
use gptq_tiles::layout::{Arranged, TILE_ROWS};
use gptq_tiles::params::{GptqTileArrangeParams, GptqTileGroupsParams};

use crate::layer::{DeviceLayer, FAMILIES, Family, format_name};
use crate::{SEEDS, blocks, to_u32};

/// Strips and tiles of a block.
type Block = [usize; 2];

fn arrange(
    family: &Family,
    source: &str,
    block: Block,
    layer: &QuantLinear,
    to: &DeviceLayer,
    seed: u64,
) -> Result<Arranged, Fault> {
    let arrangement = to.arrangement;
    let format = format_name(layer.info().bits, layer.info().packing);
    let qweight = Buffer::input("qweight", layer.qweight());
    let weights = Buffer::<u32>::output("weights", arrangement.weight_bytes() / 4);
    let staged_rows = if source == "blocks" { block[1] * TILE_ROWS } else { arrangement.in_features };
    let staged = staged_rows * arrangement.bits.get() / 32 * block[0] * 16 * 4;
    Launch {
        kernel: family.kernel(&format!("arrange_{source}_{format}"))?,
        grid: [blocks(arrangement.strips, block[0]), blocks(arrangement.tiles, block[1]), 1],
        block: [128, 1, 1],
        shared_bytes: if source == "rows" { 0 } else { staged },
        params: GptqTileArrangeParams {
            qweight: qweight.address(),
            order: to.order_address(),
            weights: weights.address_mut().cast(),
            in_features: to_u32(arrangement.in_features),
            out_features: to_u32(arrangement.out_features),
            strips: to_u32(arrangement.strips),
            tiles: to_u32(arrangement.tiles),
            block_strips: to_u32(block[0]),
            block_tiles: to_u32(block[1]),
        },
    }
    .run(seed)?;
    let qzeros = Buffer::input("qzeros", layer.zeros().words());
    let packed_scales = Buffer::input("scales", layer.scales().as_bytes());
    let scales = Buffer::<u16>::output("arranged scales", arrangement.group_elements());
    let stored = family.zeros == Zeros::Stored;
    let zeros = Buffer::<u8>::output("arranged zeros", if stored { arrangement.group_elements() } else { 0 });
    Launch {
        kernel: family.kernel(&format!("groups_{format}"))?,
        grid: [blocks(arrangement.group_elements() / 2, 256), 1, 1],
        block: [256, 1, 1],
        shared_bytes: 0,
        params: GptqTileGroupsParams {
            scales: packed_scales.address().cast(),
            qzeros: if stored { qzeros.address() } else { ptr::null() },
            arranged_scales: scales.address_mut(),
            arranged_zeros: if stored { zeros.address_mut() } else { ptr::null_mut() },
            out_features: to_u32(arrangement.out_features),
            strips: to_u32(arrangement.strips),
            groups: to_u32(layer.info().groups),
            arranged_groups: to_u32(arrangement.groups),
        },
    }
    .run(seed)?;
    let unwritten = weights.unwritten_bytes() + scales.unwritten_bytes() + zeros.unwritten_bytes();
    assert_eq!(unwritten, 0, "{source}: bytes that nobody wrote");
    Ok(Arranged { weights: weights.to_vec(), scales: scales.to_vec(), zeros: zeros.to_vec() })
}

#[test]
fn layers_of_all_kinds_are_arranged_as_the_plain_version_arranges_them() {
    for family in &FAMILIES {
        arranges_as_the_plain_version(family);
    }
}

fn arranges_as_the_plain_version(family: &Family) {
    let (mut in_order, mut sorted) = (0, 0);
    for (number, entry) in family.entries().into_iter().enumerate() {
        let case = entry.case;
        let mut layer = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}")).layer;
        layer.convert_zeros(ZeroEncoding::V2);
        let to = DeviceLayer::new(&layer);
        let expected = to.arrangement.arrange(&layer);
        let whole = to.arrangement.tiles;
        let ways: &[(&str, Block)] = if to.order.is_none() {
            in_order += 1;
            &[("blocks", [1, 1]), ("blocks", [4, 8]), ("blocks", [3, 2])]
        } else {
            sorted += 1;
            &[("sorted", [1, whole]), ("rows", [4, 2])]
        };
        let (source, block) = ways[number % ways.len()];
        let what = format!("{}: {case}, {source} {block:?}", family.name);
        let found = in_orders(SEEDS, |seed| arrange(family, source, block, &layer, &to, seed))
            .unwrap_or_else(|problem| panic!("{what}: {problem}"))
            .unwrap_or_else(|| panic!("no order was run"));
        assert!(found.weights == expected.weights, "{what}: weights differ");
        assert!(found.scales == expected.scales, "{what}: scales differ");
        let zeros = if family.zeros == Zeros::Stored { &expected.zeros[..] } else { &[] };
        assert!(found.zeros == zeros, "{what}: zero points differ");
    }
    assert!(in_order > 8 && sorted > 8, "{}: {in_order} cases ran in order, {sorted} sorted", family.name);
}
