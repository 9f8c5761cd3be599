//! The products, held to the accuracy that backends are held to, and weights bit by bit.

use std::fmt;

use gptq_conformance::case::{Case, GIdx};
use gptq_conformance::oracle::Dense;
use gptq_conformance::{Accuracy, Activations, WeightRounding};
use gptq_core::tensor::DType;
use gptq_emulator::{Buffer, Fault, Kernel, Launch, in_orders};
use half::f16;

use crate::arrange::gather;
use crate::layer::{CASE, DeviceLayer, group_size};
use crate::{SEEDS, THREADS, blocks, to_u32};

#[derive(Clone, Copy)]
#[repr(C)]
struct ProductParams {
    qweight: *const u32,
    qzeros: *const u32,
    scales: *const u16,
    bias: *const u16,
    x: *const u8,
    out: *mut u16,
    partial: *mut f32,
    arrived: *mut u64,
    arrival_mark: u64,
    in_features: u32,
    out_features: u32,
    group_rows: u32,
    bias_dtype: u32,
    rows: u32,
    reserved: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct DotParams {
    qweight: *const u32,
    qzeros: *const u32,
    scales: *const u16,
    bias: *const u16,
    x: *const u8,
    out: *mut u16,
    partial: *mut f32,
    in_features: u32,
    out_features: u32,
    group_rows: u32,
    bias_dtype: u32,
    rows: u32,
    splits: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct SumParams {
    partial: *const f32,
    bias: *const u16,
    out: *mut u16,
    rows: u32,
    out_features: u32,
    splits: u32,
    bias_dtype: u32,
}

/// f16, as launches say it.
const F16: u32 = 1;
/// What cells of counters hold before and after.
const MARK: u64 = 0x1234_5678_9abc_de00;

/// A kernel.
#[derive(Clone, Copy)]
enum Product {
    /// On tensor cores: groups in chunks of 32 rows, and any number of rows of x.
    Tensor(Tensor),
    /// Without: no more rows of x than this, and groups in words, or of any size.
    Dot { name: &'static str, rows: usize, any_groups: bool },
}

/// What product.cu says of a kernel.
#[derive(Clone, Copy)]
struct Tensor {
    name: &'static str,
    token_tiles: usize,
    across: usize,
    down: usize,
    unit_chunks: usize,
    stages: usize,
    staged: bool,
}

impl Tensor {
    fn rows(self) -> usize {
        self.token_tiles * 8
    }

    fn columns(self) -> usize {
        self.across * 32
    }

    fn item_rows(self) -> usize {
        self.down * self.unit_chunks * 32
    }

    fn shared_bytes(self) -> usize {
        let words = self.across * self.down * self.unit_chunks * 512;
        let x = if self.staged { self.rows() * self.item_rows() * 2 } else { 0 };
        self.stages * (words + x) + (self.down - 1) * self.rows() * (self.columns() + 4) * 4
    }
}

const fn tensor(
    name: &'static str,
    token_tiles: usize,
    [across, down]: [usize; 2],
    unit_chunks: usize,
    stages: usize,
    staged: bool,
) -> Product {
    Product::Tensor(Tensor { name, token_tiles, across, down, unit_chunks, stages, staged })
}
const fn dot(name: &'static str, rows: usize, any_groups: bool) -> Product {
    Product::Dot { name, rows, any_groups }
}

const PRODUCTS: [Product; 15] = [
    tensor("product_m8_n32", 1, [1, 8], 4, 3, false),
    tensor("product_m8_n64", 1, [2, 4], 4, 3, false),
    tensor("product_m16_n128", 2, [4, 2], 4, 3, true),
    tensor("product_m32_n128", 4, [4, 2], 4, 4, true),
    tensor("product_m32_n256", 4, [8, 1], 2, 4, true),
    tensor("product_m32_n256_k256", 4, [8, 1], 8, 3, true),
    tensor("product_m64_n128", 8, [4, 2], 2, 3, true),
    tensor("product_m64_n128_k256", 8, [4, 2], 4, 3, true),
    tensor("product_m64_n256", 8, [8, 1], 2, 4, true),
    tensor("product_m64_n256_k128", 8, [8, 1], 4, 3, true),
    tensor("product_m64_n256_k256", 8, [8, 1], 8, 3, true),
    dot("dot_m1", 1, false),
    dot("dot_m2", 2, false),
    dot("dot_m4", 4, false),
    dot("dot_rows_m4", 4, true),
];

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Tensor(Tensor { name, .. }) | Self::Dot { name, .. }) = self;
        f.write_str(name)
    }
}

impl Product {
    /// Rows of x that a block has.
    fn rows(self) -> usize {
        match self {
            Self::Tensor(kernel) => kernel.rows(),
            Self::Dot { rows, .. } => rows,
        }
    }

    fn takes_any_rows(self) -> bool {
        matches!(self, Self::Tensor(_))
    }

    fn takes(self, layer: &DeviceLayer) -> bool {
        match self {
            Self::Tensor(_) => layer.in_chunks(),
            Self::Dot { any_groups, .. } => any_groups || layer.in_words(),
        }
    }

    /// In how many ways work can be divided: blocks that share items, or parts of K.
    fn divisions(self, layer: &DeviceLayer) -> usize {
        match self {
            Self::Tensor(kernel) => {
                layer.shape[0].div_ceil(kernel.item_rows()) * layer.shape[1].div_ceil(kernel.columns())
            }
            Self::Dot { .. } => 3,
        }
    }
}

/// out [rows, N].
fn run(
    product: Product,
    layer: &DeviceLayer,
    x: &[u8],
    rows: usize,
    divisions: usize,
    seed: u64,
) -> Result<Vec<u16>, Fault> {
    let x = Buffer::input("x", x);
    let out = Buffer::<u16>::output("out", rows * layer.shape[1]);
    match product {
        Product::Tensor(kernel) => run_tensor(kernel, layer, &x, &out, rows, divisions, seed)?,
        Product::Dot { .. } => run_dot(product, layer, &x, &out, rows, divisions, seed)?,
    }
    assert_eq!(out.unwritten_bytes(), 0, "{product}: outputs that nobody wrote");
    Ok(out.to_vec())
}

fn run_tensor(
    kernel: Tensor,
    layer: &DeviceLayer,
    x: &Buffer<u8>,
    out: &Buffer<u16>,
    rows: usize,
    block_count: usize,
    seed: u64,
) -> Result<(), Fault> {
    let [k, n] = layer.shape;
    let row_blocks = rows.div_ceil(kernel.rows());
    let part = kernel.rows() * kernel.columns();
    let partial = Buffer::<f32>::output("partial", row_blocks * block_count * 2 * part);
    let strips = n.div_ceil(kernel.columns()) * kernel.across;
    let arrived = Buffer::<u64>::in_out("arrived", &vec![!MARK; row_blocks * strips]);
    let launch = Launch {
        kernel: Kernel::named(&format!("gptq_exllama_v1_{}", kernel.name))?,
        grid: [to_u32(block_count), to_u32(row_blocks), 1],
        block: [THREADS, 1, 1],
        shared_bytes: kernel.shared_bytes(),
        params: ProductParams {
            qweight: layer.qweight.address(),
            qzeros: layer.qzeros.address(),
            scales: layer.scales.address(),
            bias: layer.bias.as_ref().map_or(std::ptr::null(), Buffer::address),
            x: x.address(),
            out: out.address_mut(),
            partial: partial.address_mut(),
            arrived: arrived.address_mut(),
            arrival_mark: MARK,
            in_features: to_u32(k),
            out_features: to_u32(n),
            group_rows: layer.group_rows(),
            bias_dtype: F16,
            rows: to_u32(rows),
            reserved: 0,
        },
    };
    launch.run(seed)?;
    // Where several shared columns, the last has put the mark there again.
    let cells = arrived.to_vec();
    assert!(cells.iter().all(|&cell| cell == MARK || cell == !MARK), "{}: {cells:x?}", kernel.name);
    Ok(())
}

fn run_dot(
    product: Product,
    layer: &DeviceLayer,
    x: &Buffer<u8>,
    out: &Buffer<u16>,
    rows: usize,
    splits: usize,
    seed: u64,
) -> Result<(), Fault> {
    let [k, n] = layer.shape;
    let partial = Buffer::<f32>::output("partial", if splits > 1 { splits * rows * n } else { 0 });
    let bias = layer.bias.as_ref().map_or(std::ptr::null(), Buffer::address);
    let launch = Launch {
        kernel: Kernel::named(&format!("gptq_exllama_v1_{product}"))?,
        grid: [1, blocks(n, 32), to_u32(splits)],
        block: [THREADS, 1, 1],
        shared_bytes: 0,
        params: DotParams {
            qweight: layer.qweight.address(),
            qzeros: layer.qzeros.address(),
            scales: layer.scales.address(),
            bias,
            x: x.address(),
            out: out.address_mut(),
            partial: partial.address_mut(),
            in_features: to_u32(k),
            out_features: to_u32(n),
            group_rows: layer.group_rows(),
            bias_dtype: F16,
            rows: to_u32(rows),
            splits: to_u32(splits),
        },
    };
    launch.run(seed)?;
    if splits == 1 {
        return Ok(());
    }
    let launch = Launch {
        kernel: Kernel::named("gptq_exllama_v1_sum")?,
        grid: [blocks(rows * n, 4 * 256), 1, 1],
        block: [THREADS, 1, 1],
        shared_bytes: 0,
        params: SumParams {
            partial: partial.address(),
            bias,
            out: out.address_mut(),
            rows: to_u32(rows),
            out_features: to_u32(n),
            splits: to_u32(splits),
            bias_dtype: F16,
        },
    };
    launch.run(seed)
}

/// Layers with groups of `group_rows` (−1: one group), [K, N].
fn case(group_rows: i64, [in_features, out_features]: [usize; 2], g_idx: GIdx) -> Case {
    let seed = in_features as u64 * 31 + out_features as u64 + g_idx as u64;
    Case { group_size: group_size(group_rows), in_features, out_features, g_idx, seed, ..CASE }
}

/// Every kind of group and order, shapes that fill no tile, and a last group that is short.
fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(-1, [32, 8], GIdx::Absent),
        case(-1, [8, 8], GIdx::Absent),
        case(-1, [512, 40], GIdx::SingleGroup),
        case(8, [64, 32], GIdx::Trivial),
        case(8, [136, 24], GIdx::ActOrder),
        case(12, [96, 40], GIdx::Trivial),
        case(20, [136, 24], GIdx::ActOrder),
        case(1, [16, 8], GIdx::ActOrder),
        case(16, [160, 64], GIdx::ActOrder),
        case(24, [168, 136], GIdx::Trivial),
        case(32, [288, 128], GIdx::AllZero),
        case(32, [96, 136], GIdx::ActOrder),
        case(64, [320, 264], GIdx::ActOrder),
        case(64, [160, 72], GIdx::Trivial),
        case(128, [1024, 64], GIdx::Absent),
        case(128, [640, 160], GIdx::ActOrder),
        case(256, [768, 32], GIdx::Trivial),
        case(128, [1376, 96], GIdx::Trivial),
        case(96, [2304, 64], GIdx::ActOrder),
        case(160, [2400, 40], GIdx::Trivial),
    ];
    cases.push(Case { bias: false, sym: true, ..case(128, [2048, 32], GIdx::Trivial) });
    cases
}

#[test]
fn products_with_layers_of_all_kinds_are_as_near_as_rounding_allows() {
    let mut ran = [0; PRODUCTS.len()];
    for (number, case) in cases().into_iter().enumerate() {
        let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
        let dense = Dense::of_values(&built.values);
        let layer = DeviceLayer::new(&built.layer);
        for (of_kernel, product) in PRODUCTS.into_iter().enumerate() {
            if !product.takes(&layer) {
                continue;
            }
            // From one row to one more than a block has, where a grid takes them.
            let rows =
                1 + (number * 5 + of_kernel) % (product.rows() + usize::from(product.takes_any_rows()));
            let most = product.divisions(&layer);
            let divisions = [1, 2, 3, 5, 7, most][(number + of_kernel) % 6].min(most);
            let x = Activations::normal([rows, case.in_features], DType::F16, case.seed);
            let of_layer = match &layer.sorted_rows {
                None => x.to_bytes(),
                Some(order) => gather(&x, order, to_u32(rows)),
            };
            let what = || format!("{case}, {product}, {rows} rows, divided by {divisions}");
            let out = in_orders(SEEDS, |seed| run(product, &layer, &of_layer, rows, divisions, seed))
                .unwrap_or_else(|problem| panic!("{}: {problem}", what()))
                .unwrap_or_default();
            let values: Vec<f64> = out.iter().map(|&bits| f16::from_bits(bits).to_f64()).collect();
            let accuracy = Accuracy::of(&dense, &x, WeightRounding::Exact, &values);
            assert!(accuracy.holds(), "{}: {accuracy:?}", what());
            ran[of_kernel] += 1;
        }
    }
    assert!(ran.iter().all(|&count| count >= 9), "cases that each kernel ran: {ran:?}");
}

#[test]
fn every_number_of_rows_from_1_to_17_gives_what_each_row_gives_alone() {
    let case = case(64, [192, 40], GIdx::ActOrder);
    let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
    let layer = DeviceLayer::new(&built.layer);
    let order = layer.sorted_rows.clone().unwrap_or_default();
    let x = Activations::normal([17, case.in_features], DType::F16, 1);
    let bytes = gather(&x, &order, 17);
    let of_row = bytes.len() / 17;
    for product in PRODUCTS.into_iter().filter(|product| product.takes_any_rows()) {
        let run = |rows: std::ops::Range<usize>| {
            let x = &bytes[rows.start * of_row..rows.end * of_row];
            run(product, &layer, x, rows.len(), 1, 1)
                .unwrap_or_else(|fault| panic!("{product}, rows {rows:?}: {fault}"))
        };
        let alone: Vec<u16> = (0..17).flat_map(|row| run(row..row + 1)).collect();
        for rows in 1..=17 {
            assert!(
                run(0..rows) == alone[..rows * case.out_features],
                "{product}: {rows} rows differ from each alone"
            );
        }
    }
}

#[test]
fn weights_are_exact_for_every_code_and_every_zero_point() {
    // x picks single rows of W, so that an output is scale * (code - zero), rounded once.
    for case in [
        case(32, [128, 64], GIdx::Trivial),
        case(8, [64, 64], GIdx::Trivial),
        case(12, [48, 32], GIdx::ActOrder),
        case(64, [256, 32], GIdx::ActOrder),
    ] {
        let case = Case { bias: false, ..case };
        let built = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}"));
        let dense = Dense::of_values(&built.values);
        let layer = DeviceLayer::new(&built.layer);
        let [k, n] = layer.shape;
        let order = layer.sorted_rows.clone().unwrap_or_else(|| (0..to_u32(k)).collect());
        for product in PRODUCTS.into_iter().filter(|product| product.takes(&layer)) {
            for first in (0..k).step_by(product.rows()) {
                let rows = product.rows().min(k - first);
                let mut x = vec![f16::ZERO; rows * k];
                for row in 0..rows {
                    x[row * k + first + row] = f16::ONE;
                }
                let out = run(product, &layer, bytemuck::cast_slice(&x), rows, 1, 0)
                    .unwrap_or_else(|fault| panic!("{case}, {product}: {fault}"));
                for (at, &bits) in out.iter().enumerate() {
                    let (row, column) = (order[first + at / n] as usize, at % n);
                    // A scale of 11 bits times an integer of 5 is exact in f32.
                    let weight = dense.weights()[row * n + column];
                    let expected = f16::from_f64(weight).to_bits();
                    assert_eq!(bits, expected, "{case}, {product}: W[{row}, {column}] = {weight}");
                }
            }
        }
    }
}
