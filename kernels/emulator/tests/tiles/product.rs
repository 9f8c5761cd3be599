//! The products, held to the accuracy that backends are held to.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;

use gptq_conformance::oracle::Dense;
use gptq_conformance::{Accuracy, Activations, WeightRounding};
use gptq_core::tensor::DType;
use gptq_emulator::{Buffer, Fault, Launch, in_orders};
use gptq_tiles::Zeros;
use gptq_tiles::params::GptqProductParams;
use gptq_tiles::products::{GpuShape, Kind, Product, Variant};
use half::{bf16, f16};

use crate::layer::{DeviceLayer, FAMILIES, Family, dtype_code};
use crate::{SEEDS, to_u32};

/// A GPU with so few multiprocessors that blocks are wide, and so many that K is divided.
const GPUS: [GpuShape; 2] = [
    GpuShape { multiprocessors: 1, shared_bytes: 227 * 1024, groups: true },
    GpuShape { multiprocessors: 60, shared_bytes: 227 * 1024, groups: true },
];

/// A bias in the emulated device's memory.
struct DeviceBias {
    bytes: Buffer<u8>,
    dtype: DType,
}

/// The bytes of out, from two launches that share their counters.
fn multiply(
    family: &Family,
    layer: &DeviceLayer,
    bias: Option<&DeviceBias>,
    variant: Variant,
    product: &Product,
    x: &Activations,
    seed: u64,
) -> Result<Vec<u8>, Fault> {
    let arrangement = layer.arrangement;
    let [rows, k] = x.shape();
    let mut x_elements: Vec<u16> =
        x.to_bytes().chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
    if let Some(order) = &layer.order {
        let sorted =
            x_elements.chunks_exact(k).flat_map(|row| order[..k].iter().map(|&from| row[usize::from(from)]));
        x_elements = sorted.collect();
    }
    let x_buffer = Buffer::input("x", &x_elements);
    let out = Buffer::<u8>::output("out", rows * arrangement.out_features * 2);
    let partial = Buffer::<f32>::output("partial", product.partial_bytes(rows) / 4);
    // Whatever scratch holds.
    let arrived: Vec<u64> =
        (0..product.counters() as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    let arrived = Buffer::in_out("arrived", &arrived);
    let launch = Launch {
        kernel: family.kernel(&format!("{}_{}_{}", product.kind, variant.suffix(product.kind), x.dtype()))?,
        grid: [to_u32(product.grid()[0]), to_u32(product.grid()[1]), 1],
        block: [to_u32(product.threads), 1, 1],
        shared_bytes: product.shared_bytes,
        params: GptqProductParams {
            weights: layer.weights.address().cast(),
            scales: layer.scales.address().cast(),
            zeros: match family.zeros {
                Zeros::Stored => layer.zeros.address().cast(),
                Zeros::BuiltIn => ptr::null(),
            },
            bias: bias.map_or(ptr::null(), |bias| bias.bytes.address().cast()),
            x: x_buffer.address().cast(),
            out: out.address_mut().cast(),
            partial: partial.address_mut(),
            arrived: arrived.address_mut(),
            arrival_mark: 0x5eed_0000_1234_5600,
            in_features: to_u32(arrangement.in_features),
            out_features: to_u32(arrangement.out_features),
            strips: to_u32(arrangement.strips),
            tiles: to_u32(arrangement.tiles),
            groups: to_u32(arrangement.groups),
            inverse_of_group: arrangement.inverse_of_group(variant.run_rows_of(product.kind)),
            rows: to_u32(rows),
            splits: to_u32(product.splits),
            split_tiles: to_u32(product.split_tiles),
            scale_dtype: dtype_code(layer.info.scale_dtype),
            bias_dtype: bias.map_or(0, |bias| dtype_code(bias.dtype)),
            weights_first: u32::from(seed % 2 == 1),
            reserved: 0,
        },
    };
    launch.run(seed)?;
    let first = out.to_vec();
    launch.run(seed + 100)?;
    assert!(first == out.to_vec(), "{:?}: the second launch gives other bits", product.kind);
    assert_eq!(out.unwritten_bytes(), 0, "{:?}: outputs that nobody wrote", product.kind);
    Ok(first)
}

fn values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let pairs = bytes.chunks_exact(2).map(|two| [two[0], two[1]]);
    match dtype {
        DType::BF16 => pairs.map(|two| bf16::from_le_bytes(two).to_f64()).collect(),
        _ => pairs.map(|two| f16::from_le_bytes(two).to_f64()).collect(),
    }
}

#[test]
fn products_with_layers_of_all_kinds_are_as_near_as_rounding_allows() {
    for family in &FAMILIES {
        products_are_as_near_as_rounding_allows(family);
    }
}

/// The same with shares of half a column of units, where there are shares, whatever is faster.
fn in_small_shares(product: Product) -> Product {
    if product.units < 2 {
        return product;
    }
    let units = product.units * product.column_blocks * product.rows.div_ceil(product.kind.rows());
    let share = product.units.div_ceil(2);
    Product { splits: units.div_ceil(share), split_tiles: share, ..product }
}

fn products_are_as_near_as_rounding_allows(family: &Family) {
    let (mut ran, mut divided) = (BTreeMap::<String, usize>::new(), 0);
    let mut known = BTreeSet::new();
    for (number, entry) in family.entries().into_iter().enumerate() {
        let (case, dtype) = (entry.case, entry.x_dtype);
        let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
        let dense = Dense::of_values(&built.values);
        let layer = DeviceLayer::new(&built.layer);
        let bias = built
            .layer
            .bias()
            .map(|bias| DeviceBias { bytes: Buffer::input("bias", bias.as_bytes()), dtype: bias.dtype() });
        let variant = Variant::of(&layer.arrangement, layer.info.symmetric, family.zeros);
        let gpu = GPUS[number % GPUS.len()];
        // Whether or not a GPU would get them, the kernels that ran least, for one of the numbers of rows that each takes:
        // several where there are many for few layers.
        let mut kinds: Vec<Kind> = variant.kinds().collect();
        known.extend(kinds.iter().map(ToString::to_string));
        kinds.sort_by_key(|kind| ran.get(&kind.to_string()).copied().unwrap_or(0));
        let at_once = if kinds.len() > 12 { 4 } else { 1 };
        for kind in kinds.into_iter().take(at_once) {
            let product = Product::of_kind(&layer.arrangement, variant, kind, gpu);
            let Some(mut product) = product.filter(|product| product.shared_bytes <= gpu.shared_bytes) else {
                continue;
            };
            if number % 2 == 1 {
                product = in_small_shares(product);
            }
            let rows = 1 + number * 7 % product.rows;
            let x = Activations::normal([rows, case.in_features], dtype, case.seed);
            let what =
                || format!("{}: {case}, {product:?}, x {dtype} [{rows}, {}]", family.name, case.in_features);
            let out =
                in_orders(SEEDS, |seed| multiply(family, &layer, bias.as_ref(), variant, &product, &x, seed))
                    .unwrap_or_else(|problem| panic!("{}: {problem}", what()))
                    .unwrap_or_default();
            let accuracy = Accuracy::of(&dense, &x, WeightRounding::Exact, &values(dtype, &out));
            assert!(accuracy.holds(), "{}: {accuracy:?}", what());
            *ran.entry(kind.to_string()).or_default() += 1;
            divided += usize::from(product.divides());
        }
    }
    assert!(known.len() >= 43, "{}: a kind is missing of {known:?}", family.name);
    assert!(
        ran.keys().eq(&known) && divided > 5,
        "{}: ran {ran:?}, {divided} with a divided K, of {known:?}",
        family.name
    );
}
