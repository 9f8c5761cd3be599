//! The dense matrix, bit by bit, and x in the order of an arrangement.

use std::ptr;

use gptq_conformance::oracle::Dense;
use gptq_core::tensor::DType;
use gptq_emulator::{Buffer, Fault, Launch, in_orders};
use gptq_tiles::Zeros;
use gptq_tiles::params::{GptqTileDequantizeParams, GptqTileGatherParams};
use half::{bf16, f16};

use crate::layer::{DeviceLayer, FAMILIES, Family, dtype_code};
use crate::{SEEDS, blocks, to_u32};

/// The elements of columns from `first` on, rows one behind the other.
fn dequantize(
    family: &Family,
    layer: &DeviceLayer,
    first: usize,
    columns: usize,
    dtype: DType,
    seed: u64,
) -> Result<Vec<u16>, Fault> {
    let arrangement = layer.arrangement;
    let out = Buffer::<u16>::output("out", arrangement.in_features * columns);
    Launch {
        kernel: family.kernel(&format!("dequantize_{}_{dtype}", family.width(arrangement.bits)))?,
        grid: [blocks(columns, 128), to_u32(arrangement.tiles), 1],
        block: [256, 1, 1],
        shared_bytes: 0,
        params: GptqTileDequantizeParams {
            weights: layer.weights.address().cast(),
            scales: layer.scales.address().cast(),
            zeros: match family.zeros {
                Zeros::Stored => layer.zeros.address().cast(),
                Zeros::BuiltIn => ptr::null(),
            },
            order: layer.order_address(),
            out: out.address_mut().cast(),
            in_features: to_u32(arrangement.in_features),
            tiles: to_u32(arrangement.tiles),
            groups: to_u32(arrangement.groups),
            inverse_of_group: arrangement.inverse_of_group(8),
            first_column: to_u32(first),
            columns: to_u32(columns),
            out_stride: to_u32(columns),
            scale_dtype: dtype_code(layer.info.scale_dtype),
        },
    }
    .run(seed)?;
    assert_eq!(out.unwritten_bytes(), 0, "elements that nobody wrote");
    Ok(out.to_vec())
}

/// A number of 17 significant bits at most, as every scale times a code is, rounded once.
fn rounded(weight: f64, dtype: DType) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "an f32 holds it")]
    let exact = weight as f32;
    assert!(
        f64::from(exact).to_bits() == weight.to_bits() || weight == 0.0,
        "{weight} needs more than an f32"
    );
    match dtype {
        DType::BF16 => bf16::from_f32(exact).to_bits(),
        _ => f16::from_f32(exact).to_bits(),
    }
}

#[test]
fn dense_matrices_of_all_kinds_are_right_to_the_last_bit() {
    for (family, entry) in
        FAMILIES.iter().flat_map(|family| family.entries().into_iter().map(move |entry| (family, entry)))
    {
        let (case, dtype) = (entry.case, entry.x_dtype);
        let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
        let dense = Dense::of_values(&built.values);
        let layer = DeviceLayer::new(&built.layer);
        let n = case.out_features;
        for (first, columns) in [(0, n), (128, n.saturating_sub(128)), (0, n.min(136))] {
            if columns == 0 {
                continue;
            }
            let found = in_orders(SEEDS, |seed| dequantize(family, &layer, first, columns, dtype, seed))
                .unwrap_or_else(|problem| panic!("{}: {case} to {dtype}: {problem}", family.name))
                .unwrap_or_default();
            let rows = dense.weights().chunks_exact(n);
            let expected =
                rows.flat_map(|row| &row[first..][..columns]).map(|&weight| rounded(weight, dtype));
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                let (row, column) = (at / columns, first + at % columns);
                // Both zeros are right.
                let same = *found == expected || (found | expected) & 0x7fff == 0;
                assert!(
                    same,
                    "{}: {case} to {dtype}: row {row}, column {column}: {found:04x}, not {expected:04x}",
                    family.name
                );
            }
        }
    }
}

#[test]
fn x_is_gathered_from_any_address() {
    let cases = [(32, 3, true, 1), (1056, 2, true, 0), (2080, 1, false, 3), (96, 5, false, 0)];
    for (number, (k, rows, sorted, offset)) in cases.into_iter().enumerate() {
        let family = &FAMILIES[number % FAMILIES.len()];
        let values: Vec<u16> =
            (0..rows * k + offset).map(|i| u16::try_from(i * 7 % 65_521).unwrap_or(0)).collect();
        let order: Vec<u16> = (0..k).map(|i| u16::try_from(i * 5 % k).unwrap_or(0)).collect();
        let gathered = in_orders(SEEDS, |seed| {
            let (x, order) = (Buffer::input("x", &values), Buffer::input("order", &order));
            let out = Buffer::<u16>::output("out", rows * k);
            Launch {
                kernel: family.kernel("gather")?,
                grid: [blocks(k, 512), to_u32(rows), 1],
                block: [256, 1, 1],
                shared_bytes: 0,
                params: GptqTileGatherParams {
                    x: x.address().wrapping_add(offset),
                    order: if sorted { order.address() } else { ptr::null() },
                    out: out.address_mut(),
                    in_features: to_u32(k),
                    reserved: 0,
                },
            }
            .run(seed)?;
            Ok(out.to_vec())
        });
        let gathered = gathered.unwrap_or_else(|problem| panic!("{k}: {problem}")).unwrap_or_default();
        for (at, &found) in gathered.iter().enumerate() {
            let (row, column) = (at / k, at % k);
            let from = if sorted { usize::from(order[column]) } else { column };
            assert_eq!(found, values[offset + row * k + from], "K = {k}, row {row}, column {column}");
        }
        assert_eq!(gathered.len(), rows * k);
    }
}
