//! The inner kernels by themselves, on one thread and on data that stays in a core's caches.
//!
//! ```text
//! cargo bench -p gptq-torch-fallback --bench kernels [-- stream]
//! ```
//!
//! Items are products of a weight and an x (half of what other tables call FLOP). Whole layers, with threads and memory:
//! `gptq bench`.

#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the kernels are compiled into the benchmark"
)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a benchmark that cannot run may end"
)]

#[path = "../src/kernel/mod.rs"]
mod kernel;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use gptq_core::format::packing::{BLOCK, Pieces, locate};
use gptq_core::format::{Bits, Packing};
use gptq_core::tensor::DType;

use kernel::{Family, Isa, PANEL_WORDS, RUN_ROWS, Run, RunOfX, Totals, X, X_ROWS};

/// Columns of a strip: 64 KB of four-bit codes in a run.
const COLUMNS: usize = 1024;

fn main() {
    divan::main();
}

/// What a kernel works on: a run of a strip, and rows of x.
struct Data {
    family: &'static Family,
    bits: usize,
    rows: usize,
    words: Vec<u32>,
    scales: Vec<f32>,
    pieces: [Pieces; BLOCK],
    x_words: Vec<u32>,
    x_runs: Vec<RunOfX>,
}

impl Data {
    /// `None` where this processor has no such kernels.
    fn new(isa: Isa, dtype: DType, bits: usize, rows: usize) -> Option<Self> {
        let family = isa.families(dtype, bits, rows)?.first;
        let width = Bits::new(bits as u64)?;
        let stride = X_ROWS / BLOCK * family.x_block;
        let mut x_words = vec![0; rows * stride];
        let mut x_runs = vec![RunOfX { sum: 0.0, unit: 0.0, starts: [0; 3] }; rows];
        let x: Vec<f32> = (0..RUN_ROWS).map(|i| (i as f32 * 0.7).sin()).collect();
        for (words, run) in x_words.chunks_exact_mut(stride).zip(&mut x_runs) {
            assert!(family.pack(bits, &x, words, run));
        }
        let random = |i: usize| (i as u32).wrapping_mul(2_654_435_761);
        Some(Self {
            family,
            bits,
            rows,
            words: (0..RUN_ROWS / 32 * bits * COLUMNS).map(random).collect(),
            scales: vec![0.01; COLUMNS],
            pieces: std::array::from_fn(|row| locate(width, Packing::Continuous, row)),
            x_words,
            x_runs,
        })
    }

    fn run(&self) -> Run<'_> {
        Run {
            words: &self.words,
            stride: COLUMNS,
            blocks: RUN_ROWS / BLOCK,
            columns: COLUMNS,
            scales: &self.scales,
            offsets: &[],
            bits: self.bits,
            pieces: &self.pieces,
        }
    }

    fn x(&self) -> X<'_> {
        X { words: &self.x_words, stride: X_ROWS / BLOCK * self.family.x_block, runs: &self.x_runs }
    }

    fn products(&self, columns: usize) -> ItemsCount {
        ItemsCount::new(self.rows * RUN_ROWS * columns)
    }
}

/// What stands for a family: instruction set and type of x.
const FAMILIES: [(&str, Isa, DType); 3] = [
    ("avx2 f32", Isa::Avx2, DType::F32),
    ("avx512 f32", Isa::Avx512, DType::F32),
    ("avx512 bf16", Isa::Avx512, DType::BF16),
];

fn cases(bits: &[usize], rows: &[usize]) -> Vec<String> {
    let named = FAMILIES.iter().filter(|(_, isa, _)| isa.is_available());
    named
        .flat_map(|(name, ..)| {
            let case = move |bits: usize, rows: usize| format!("{name}, {bits} bits, {rows} rows");
            bits.iter().flat_map(move |&bits| rows.iter().map(move |&rows| case(bits, rows)))
        })
        .collect()
}

fn data(case: &str) -> Option<Data> {
    let mut parts = case.split(", ");
    let name = parts.next()?;
    let (_, isa, dtype) = FAMILIES.iter().find(|(family, ..)| *family == name)?;
    let mut number = || parts.next()?.split(' ').next()?.parse().ok();
    Data::new(*isa, *dtype, number()?, number()?)
}

/// Rows of x times the strip, words read as they come.
#[divan::bench(args = cases(&[2, 3, 4, 8], &[1, 2, 4, 6, 8, 24]))]
fn stream(bencher: Bencher<'_, '_>, case: &str) {
    let data = data(case).unwrap();
    let (fused, grouped) =
        (data.family.fused(data.bits, data.rows, COLUMNS), data.family.grouped(data.bits, data.rows));
    let mut values = vec![0.0; data.rows * COLUMNS];
    let mut sums = values.clone();
    let bytes = BytesCount::new(size_of_val(&data.words[..]));
    let bencher = bencher.counter(bytes).counter(data.products(COLUMNS));
    match (fused, grouped) {
        (Some(fused), _) => bencher.bench_local(|| {
            let totals = Totals { values: &mut values, sums: &mut sums, stride: COLUMNS };
            fused.run(&data.run(), data.x(), totals);
        }),
        (None, Some(grouped)) => bencher.bench_local(|| {
            let totals = Totals { values: &mut values, sums: &mut [], stride: COLUMNS };
            grouped.run(&data.run(), data.x(), totals);
        }),
        // A family without such a kernel is measured on nothing.
        (None, None) => bencher.bench_local(|| ()),
    }
}

/// A tile of weights into a panel.
#[divan::bench(args = cases(&[2, 3, 4, 8], &[32]))]
fn unpack(bencher: Bencher<'_, '_>, case: &str) {
    let data = data(case).unwrap();
    let run = data.run().narrow(0..data.family.tile);
    let mut panel = vec![0; PANEL_WORDS];
    let weights = ItemsCount::new(RUN_ROWS * data.family.tile);
    bencher.counter(weights).bench_local(|| data.family.unpack(data.bits, &run, &mut panel));
}

/// Rows of x times a panel: as many as a kernel takes at once.
#[divan::bench(args = cases(&[4], &[64]))]
fn multiply(bencher: Bencher<'_, '_>, case: &str) {
    let mut data = data(case).unwrap();
    data.rows = data.family.rows;
    let tile = data.family.tile;
    let run = data.run().narrow(0..tile);
    let mut panel = vec![0; PANEL_WORDS];
    data.family.unpack(data.bits, &run, &mut panel);
    let mut totals = vec![0.0; data.rows * tile];
    bencher.counter(data.products(tile)).bench_local(|| {
        let totals = Totals { values: &mut totals, sums: &mut [], stride: tile };
        data.family.multiply(data.rows, &run, &panel, data.x(), totals);
    });
}

/// A run of a row of x.
#[divan::bench(args = cases(&[4], &[1]))]
fn pack(bencher: Bencher<'_, '_>, case: &str) {
    let data = data(case).unwrap();
    let x: Vec<f32> = (0..RUN_ROWS).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut words = data.x_words.clone();
    let mut run = data.x_runs[0];
    bencher
        .counter(ItemsCount::new(RUN_ROWS))
        .bench_local(|| assert!(data.family.pack(data.bits, &x, &mut words, &mut run)));
}
