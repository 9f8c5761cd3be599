//! The dense matrix, bit by bit.

use std::ffi::c_void;

use gptq_conformance::case::{Case, GIdx};
use gptq_conformance::oracle::Dense;
use gptq_emulator::{Buffer, Fault, Kernel, Launch, in_orders};
use half::f16;

use crate::layer::{CASE, DeviceLayer, group_size};
use crate::{SEEDS, blocks, to_u32};

#[derive(Clone, Copy)]
#[repr(C)]
struct ReconstructParams {
    qweight: *const u32,
    qzeros: *const u32,
    scales: *const u16,
    out: *mut c_void,
    in_features: u32,
    out_features: u32,
    group_rows: u32,
    first_column: u32,
    columns: u32,
    out_stride: u32,
}

/// A panel of W, with what lies between its rows.
fn run(
    layer: &DeviceLayer,
    of_rows: bool,
    [first_column, columns]: [usize; 2],
    out_stride: usize,
    seed: u64,
) -> Result<Vec<u16>, Fault> {
    let [k, n] = layer.shape;
    let untouched = vec![0x7e77_u16; k * out_stride];
    let out = Buffer::in_out("out", &untouched);
    let (name, thread_columns) = if of_rows { ("reconstruct_rows", 1) } else { ("reconstruct", 8) };
    let launch = Launch {
        kernel: Kernel::named(&format!("gptq_exllama_v1_{name}"))?,
        grid: [blocks(columns, 128 * thread_columns), blocks(k, 32), 1],
        block: [128, 1, 1],
        shared_bytes: 0,
        params: ReconstructParams {
            qweight: layer.qweight.address(),
            qzeros: layer.qzeros.address(),
            scales: layer.scales.address(),
            out: out.address_mut().cast(),
            in_features: to_u32(k),
            out_features: to_u32(n),
            group_rows: layer.group_rows(),
            first_column: to_u32(first_column),
            columns: to_u32(columns),
            out_stride: to_u32(out_stride),
        },
    };
    launch.run(seed)?;
    Ok(out.to_vec())
}

#[test]
fn panels_hold_every_weight_rounded_once_and_nothing_beside() {
    for (rows, [in_features, out_features], g_idx) in [
        (-1, [40, 8], GIdx::Absent),
        (8, [64, 64], GIdx::ActOrder),
        (12, [72, 32], GIdx::ActOrder),
        (20, [136, 24], GIdx::Trivial),
        (24, [168, 1200], GIdx::Trivial),
        (128, [320, 136], GIdx::ActOrder),
    ] {
        let case = Case { group_size: group_size(rows), in_features, out_features, g_idx, ..CASE };
        let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
        let dense = Dense::of_values(&built.values);
        let layer = DeviceLayer::new(&built.layer);
        let order = layer.sorted_rows.clone().unwrap_or_else(|| (0..to_u32(in_features)).collect());
        let panels = [[0, out_features, out_features], [8.min(out_features - 8), 8, 24]];
        for [first, columns, stride] in panels {
            for of_rows in [false, true].into_iter().filter(|&of_rows| of_rows || layer.in_words()) {
                let out = in_orders(SEEDS, |seed| run(&layer, of_rows, [first, columns], stride, seed))
                    .unwrap_or_else(|problem| panic!("{case}: {problem}"))
                    .unwrap_or_default();
                for (at, &bits) in out.iter().enumerate() {
                    let (row, column) = (at / stride, at % stride);
                    let weight =
                        dense.weights()[order[row] as usize * out_features + (first + column) % out_features];
                    let expected = if column < columns { f16::from_f64(weight).to_bits() } else { 0x7e77 };
                    assert_eq!(bits, expected, "{case}, of rows: {of_rows}: W[{row}, {column}] = {weight}");
                }
            }
        }
    }
}
