//! The dense matrix, bit by bit.

use std::collections::BTreeSet;

use gptq_conformance::case::Case;
use gptq_conformance::matrix;
use gptq_conformance::oracle::Dense;
use gptq_core::tensor::DType;
use gptq_emulator::{Buffer, Fault, Kernel, Launch, in_orders};
use half::{bf16, f16};

use crate::layer::{DeviceLayer, dtype_code, sortable_cases};
use crate::params::GptqDequantizeParams;
use crate::{SEEDS, blocks, to_u32};

/// A panel of the matrix in memory of its own.
#[derive(Clone, Copy, Debug)]
struct Panel {
    rows: usize,
    first: usize,
    columns: usize,
    /// Elements from row to row.
    stride: usize,
    /// Elements before the first: a pointer that is aligned to its element and no more.
    offset: usize,
}

fn size(dtype: DType) -> usize {
    if dtype == DType::F32 { 4 } else { 2 }
}

/// The bytes of a panel, rows one behind the other. What lies between rows must stay unwritten.
fn dequantize(
    kernel: &str,
    layer: &DeviceLayer,
    n: usize,
    panel: Panel,
    dtype: DType,
    seed: u64,
) -> Result<Vec<u8>, Fault> {
    let bytes = size(dtype);
    let out =
        Buffer::<u8>::output("out", ((panel.rows - 1) * panel.stride + panel.columns + panel.offset) * bytes);
    let across = if kernel == "blocks" { 128 * (16 / bytes) } else { 128 };
    let launch = Launch {
        kernel: Kernel::named(&format!("gptq_dequantize_{kernel}_{}_{dtype}", layer.format))?,
        grid: [blocks(panel.columns, across), blocks(panel.rows, 32), 1],
        block: [128, 1, 1],
        shared_bytes: 0,
        params: GptqDequantizeParams {
            qweight: layer.qweight.address(),
            qzeros: layer.qzeros.address(),
            scales: layer.scales.address(),
            g_idx: layer.g_idx.address(),
            w_rows: layer.w_rows_address(),
            out: out.address_mut().wrapping_add(panel.offset * bytes).cast(),
            in_features: to_u32(panel.rows),
            out_features: to_u32(n),
            group_rows: layer.group_rows,
            first_column: to_u32(panel.first),
            columns: to_u32(panel.columns),
            out_stride: to_u32(panel.stride),
            scale_dtype: dtype_code(layer.scales.dtype()),
            g_idx_bytes: layer.g_idx.bytes(),
        },
    };
    launch.run(seed)?;
    let between = (panel.rows - 1) * (panel.stride - panel.columns) + panel.offset;
    assert_eq!(out.unwritten_bytes(), between * bytes, "{kernel}, {panel:?}: bytes that are not the panel's");
    let rows = out.to_vec();
    let rows = rows[panel.offset * bytes..].chunks(panel.stride * bytes);
    Ok(rows.flat_map(|row| row[..panel.columns * bytes].to_vec()).collect())
}

/// The same panel of the oracle's matrix, each product rounded once.
fn expected(dense: &Dense, panel: Panel, dtype: DType) -> Vec<u8> {
    let weights =
        dense.weights().chunks_exact(dense.columns()).flat_map(|row| &row[panel.first..][..panel.columns]);
    match dtype {
        DType::F16 => weights.flat_map(|&weight| f16::from_f32(to_odd(weight)).to_le_bytes()).collect(),
        DType::BF16 => weights.flat_map(|&weight| bf16::from_f32(to_odd(weight)).to_le_bytes()).collect(),
        DType::F32 => weights.flat_map(|&weight| nearest(weight).to_le_bytes()).collect(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is what it is for")]
fn nearest(value: f64) -> f32 {
    value as f32
}

/// One of the two f32 around a value, that with an odd last bit, or the value itself: rounding this to 16 bits is
/// rounding the value once. The conversions of `half` from f64 round to f32 first.
fn to_odd(value: f64) -> f32 {
    let near = nearest(value);
    if f64::from(near) == value || near.to_bits() & 1 == 1 {
        near
    } else if f64::from(near) < value {
        near.next_up()
    } else {
        near.next_down()
    }
}

/// Holds what a kernel writes to the oracle.
fn check(case: &Case, kernel: &str, layer: &DeviceLayer, dense: &Dense, panel: Panel, dtype: DType) {
    let n = case.out_features;
    let found = in_orders(SEEDS, |seed| dequantize(kernel, layer, n, panel, dtype, seed))
        .unwrap_or_else(|problem| panic!("{case}, {kernel} to {dtype}, {panel:?}: {problem}"));
    let expected = expected(dense, panel, dtype);
    let found = found.unwrap_or_default();
    if let Some(at) = (0..expected.len()).find(|&at| found.get(at) != expected.get(at)) {
        let at = at / size(dtype);
        let (row, column) = (at / panel.columns, at % panel.columns);
        panic!("{case}, {kernel} to {dtype}, {panel:?}: row {row}, column {column} of the panel is wrong");
    }
}

#[test]
fn dense_matrices_of_all_kinds_are_right_to_the_last_bit() {
    let (mut of_blocks, mut of_rows) = (0, 0);
    for (number, entry) in matrix::entries().into_iter().enumerate() {
        let case = entry.case;
        let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
        let dense = Dense::of_values(&built.values);
        let layer = DeviceLayer::new(&case, &built.layer);
        let (rows, n, dtype) = (case.in_features, case.out_features, entry.x_dtype);
        // Every other case whole, the others in two panels.
        let columns = if number.is_multiple_of(2) { n } else { n / 3 };
        let in_blocks = layer.in_whole_blocks && layer.scales.dtype() != DType::F32;
        let (kernel, columns) = match in_blocks {
            true => ("blocks", columns.next_multiple_of(8)),
            false => ("rows", columns),
        };
        let (wider, offset) = if in_blocks { (8, 0) } else { (3, 1) };
        let panel = Panel { rows, first: 0, columns, stride: columns + wider, offset };
        check(&case, kernel, &layer, &dense, panel, dtype);
        if columns < n {
            let rest = Panel { rows, first: columns, columns: n - columns, stride: n - columns, offset: 0 };
            check(&case, kernel, &layer, &dense, rest, dtype);
        }
        if in_blocks {
            of_blocks += 1;
        } else {
            of_rows += 1;
        }
    }
    assert!(of_blocks > 50 && of_rows > 50, "{of_blocks} cases ran in whole blocks, {of_rows} by rows");
}

#[test]
fn layers_whose_rows_were_sorted_have_the_same_dense_matrix() {
    let mut formats = BTreeSet::new();
    for (case, dtype) in sortable_cases() {
        let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
        let dense = Dense::of_values(&built.values);
        let layer = DeviceLayer::sorted(&case, &built.layer, 1).unwrap_or_else(|| panic!("{case} sorts"));
        let layer = layer.unwrap_or_else(|fault| panic!("{case}, sorting: {fault}"));
        let n = case.out_features;
        let panel = Panel { rows: case.in_features, first: 8, columns: n - 8, stride: n, offset: 0 };
        check(&case, "rows", &layer, &dense, panel, dtype);
        if layer.scales.dtype() != DType::F32 {
            check(&case, "blocks", &layer, &dense, panel, dtype);
        }
        formats.insert(layer.format.clone());
    }
    assert_eq!(formats.len(), 8, "formats that were sorted: {formats:?}");
}
