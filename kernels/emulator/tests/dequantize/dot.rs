//! The fused product, held to the accuracy that backends are held to.

use gptq_conformance::case::{Built, Case};
use gptq_conformance::matrix;
use gptq_conformance::oracle::Dense;
use gptq_conformance::{Accuracy, Activations, WeightRounding};
use gptq_core::tensor::DType;
use gptq_emulator::{Buffer, Fault, Kernel, Launch, in_orders};
use half::{bf16, f16};

use crate::layer::{DeviceFloats, DeviceLayer, dtype_code, sortable_cases};
use crate::params::{GptqDequantizeDotParams, GptqDequantizeGatherParams, GptqDequantizeSumParams};
use crate::{SEEDS, blocks, to_u32};

/// The bytes of out.
fn dot(
    kernel: &str,
    layer: &DeviceLayer,
    case: &Case,
    x: &Activations,
    splits: usize,
    seed: u64,
) -> Result<Vec<u8>, Fault> {
    let ([rows, k], n, dtype) = (x.shape(), case.out_features, x.dtype());
    let x_bytes = Buffer::input("x", &x.to_bytes());
    let gathered = match &layer.w_rows {
        Some(w_rows) if kernel == "blocks" => Some(gather(w_rows, &x_bytes, x, seed)?),
        _ => None,
    };
    let x_bytes = gathered.as_ref().unwrap_or(&x_bytes);
    let out = Buffer::<u8>::output("out", x.to_bytes().len() / k * n);
    let partial = Buffer::<f32>::output("partial", if splits > 1 { splits * rows * n } else { 0 });
    let most = if rows == 1 {
        1
    } else if rows == 2 && kernel == "blocks" {
        2
    } else {
        4
    };
    let bias = layer.bias.as_ref().map_or(std::ptr::null(), DeviceFloats::address);
    let bias_dtype = layer.bias.as_ref().map_or(0, |bias| dtype_code(bias.dtype()));
    let launch = Launch {
        kernel: Kernel::named(&format!("gptq_dequantize_dot_{kernel}_{}_{dtype}_m{most}", layer.format))?,
        grid: [blocks(n, 32), to_u32(splits), 1],
        block: [256, 1, 1],
        shared_bytes: 0,
        params: GptqDequantizeDotParams {
            qweight: layer.qweight.address(),
            qzeros: layer.qzeros.address(),
            scales: layer.scales.address(),
            g_idx: layer.g_idx.address(),
            w_rows: layer.w_rows_address(),
            bias,
            x: x_bytes.address().cast(),
            out: out.address_mut().cast(),
            partial: partial.address_mut(),
            in_features: to_u32(k),
            out_features: to_u32(n),
            group_rows: layer.group_rows,
            scale_dtype: dtype_code(layer.scales.dtype()),
            bias_dtype,
            g_idx_bytes: layer.g_idx.bytes(),
            rows: to_u32(rows),
            splits: to_u32(splits),
        },
    };
    launch.run(seed)?;
    if splits > 1 {
        let launch = Launch {
            kernel: Kernel::named(&format!("gptq_dequantize_sum_{dtype}"))?,
            grid: [blocks(rows * n, 256), 1, 1],
            block: [256, 1, 1],
            shared_bytes: 0,
            params: GptqDequantizeSumParams {
                partial: partial.address(),
                bias,
                out: out.address_mut().cast(),
                rows: to_u32(rows),
                columns: to_u32(n),
                out_stride: to_u32(n),
                splits: to_u32(splits),
                bias_dtype,
            },
        };
        launch.run(seed)?;
    }
    assert_eq!(out.unwritten_bytes(), 0, "{kernel}: outputs that nobody wrote");
    Ok(out.to_vec())
}

/// x with its columns in the order of sorted rows.
fn gather(
    w_rows: &Buffer<u32>,
    x_bytes: &Buffer<u8>,
    x: &Activations,
    seed: u64,
) -> Result<Buffer<u8>, Fault> {
    let ([rows, k], bytes) = (x.shape(), x.to_bytes().len());
    let gathered = Buffer::<u8>::output("gathered", bytes);
    let launch = Launch {
        kernel: Kernel::named(&format!("gptq_dequantize_gather_{}bit", 8 * x.dtype().size_bytes()))?,
        grid: [blocks(k, 128), to_u32(rows), 1],
        block: [128, 1, 1],
        shared_bytes: 0,
        params: GptqDequantizeGatherParams {
            w_rows: w_rows.address(),
            x: x_bytes.address().cast(),
            gathered: gathered.address_mut().cast(),
            in_features: to_u32(k),
        },
    };
    launch.run(seed)?;
    assert_eq!(gathered.unwritten_bytes(), 0, "elements of x that nobody gathered");
    Ok(Buffer::input("gathered x", &gathered.to_vec()))
}

fn values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let two = |bytes: &[u8]| bytes.try_into().unwrap_or_default();
    match dtype {
        DType::F16 => bytes.chunks_exact(2).map(|bytes| f16::from_le_bytes(two(bytes)).to_f64()).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|bytes| bf16::from_le_bytes(two(bytes)).to_f64()).collect(),
        DType::F32 => bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap_or_default()).into())
            .collect(),
    }
}

fn check(case: &Case, x_dtype: DType, rows: usize, splits: usize) -> &'static str {
    let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
    let layer = DeviceLayer::new(case, &built.layer);
    let kernel = if layer.in_whole_blocks { "blocks" } else { "rows" };
    check_kernel(kernel, case, &built, &layer, x_dtype, rows, splits);
    kernel
}

fn check_kernel(
    kernel: &str,
    case: &Case,
    built: &Built,
    layer: &DeviceLayer,
    x_dtype: DType,
    rows: usize,
    splits: usize,
) {
    let dense = Dense::of_values(&built.values);
    let x = Activations::normal([rows, case.in_features], x_dtype, case.seed);
    let what = || format!("{case}, {kernel}, x {x_dtype} [{rows}, {}], {splits} splits", case.in_features);
    let out = in_orders(SEEDS, |seed| dot(kernel, layer, case, &x, splits, seed))
        .unwrap_or_else(|problem| panic!("{}: {problem}", what()))
        .unwrap_or_default();
    let accuracy = Accuracy::of(&dense, &x, WeightRounding::Exact, &values(x_dtype, &out));
    assert!(accuracy.holds(), "{}: {accuracy:?}", what());
}

#[test]
fn products_with_layers_of_all_kinds_are_as_near_as_rounding_allows() {
    let (mut of_blocks, mut of_rows) = (0, 0);
    for (number, entry) in matrix::entries().into_iter().enumerate() {
        let splits = [1, 2, 3, 5][number % 4];
        match check(&entry.case, entry.x_dtype, 1 + number / 4 % 4, splits) {
            "blocks" => of_blocks += 1,
            _ => of_rows += 1,
        }
    }
    assert!(of_blocks > 50 && of_rows > 50, "{of_blocks} cases ran in whole blocks, {of_rows} by rows");
}

#[test]
fn products_with_layers_whose_rows_were_sorted_are_as_near() {
    for (number, (case, x_dtype)) in sortable_cases().into_iter().enumerate() {
        let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
        let layer = DeviceLayer::sorted(&case, &built.layer, 1).unwrap_or_else(|| panic!("{case} sorts"));
        let layer = layer.unwrap_or_else(|fault| panic!("{case}, sorting: {fault}"));
        for kernel in ["blocks", "rows"] {
            check_kernel(kernel, &case, &built, &layer, x_dtype, 1 + number % 4, 1 + number / 4 % 2);
        }
    }
}
