//! Sorted rows, and x gathered to match.

use gptq_conformance::Activations;
use gptq_conformance::case::{Case, GIdx};
use gptq_core::tensor::DType;
use gptq_emulator::{Buffer, Kernel, Launch, in_orders};

use crate::layer::CASE;
use crate::{SEEDS, THREADS, blocks, to_u32};

#[derive(Clone, Copy)]
#[repr(C)]
struct SortParams {
    qweight: *const u32,
    sorted_rows: *const u32,
    sorted: *mut u32,
    in_features: u32,
    out_features: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct GatherParams {
    x: *const u8,
    sorted_rows: *const u32,
    gathered: *mut u8,
    in_features: u32,
    rows: u32,
}

/// qweight with its rows in another order: row k of the result is row `rows[k]`.
pub(crate) fn sort_rows(qweight: &Buffer<u32>, rows: &[u32], [k, n]: [usize; 2]) -> Vec<u32> {
    let rows = Buffer::input("sorted_rows", rows);
    let work = |seed| {
        let sorted = Buffer::<u32>::output("sorted", k / 8 * n);
        let launch = Launch {
            kernel: Kernel::named("gptq_exllama_v1_sort_rows")?,
            grid: [blocks(k / 8, 32), blocks(n, 32), 1],
            block: [THREADS, 1, 1],
            shared_bytes: 0,
            params: SortParams {
                qweight: qweight.address(),
                sorted_rows: rows.address(),
                sorted: sorted.address_mut(),
                in_features: to_u32(k),
                out_features: to_u32(n),
            },
        };
        launch.run(seed)?;
        assert_eq!(sorted.unwritten_bytes(), 0, "words that nobody wrote");
        Ok(sorted.to_vec())
    };
    in_orders(SEEDS, work).unwrap_or_else(|problem| panic!("[{k}, {n}]: {problem}")).unwrap_or_default()
}

/// The bytes of x [rows, K] with its columns in another order, by a grid of `grid_rows` blocks down.
pub(crate) fn gather(x: &Activations, sorted_rows: &[u32], grid_rows: u32) -> Vec<u8> {
    let [rows, k] = x.shape();
    let (from, order) = (Buffer::input("x", &x.to_bytes()), Buffer::input("sorted_rows", sorted_rows));
    let work = |seed| {
        let gathered = Buffer::<u8>::output("gathered", rows * k * 2);
        let launch = Launch {
            kernel: Kernel::named("gptq_exllama_v1_gather_x")?,
            grid: [blocks(k / 8, 256), grid_rows, 1],
            block: [THREADS, 1, 1],
            shared_bytes: 0,
            params: GatherParams {
                x: from.address(),
                sorted_rows: order.address(),
                gathered: gathered.address_mut(),
                in_features: to_u32(k),
                rows: to_u32(rows),
            },
        };
        launch.run(seed)?;
        assert_eq!(gathered.unwritten_bytes(), 0, "x that nobody wrote");
        Ok(gathered.to_vec())
    };
    in_orders(SEEDS, work).unwrap_or_else(|problem| panic!("x [{rows}, {k}]: {problem}")).unwrap_or_default()
}

/// A permutation of `count`, which 5 does not divide: steps of 5, from `start` on.
fn permutation(count: usize, start: usize) -> Vec<u32> {
    (0..count).map(|i| to_u32((start + i * 5) % count)).collect()
}

#[test]
fn rows_of_words_are_sorted_code_by_code() {
    for (seed, shape @ [k, n]) in [[8, 8], [32, 40], [264, 64], [64, 136]].into_iter().enumerate() {
        let case = Case { g_idx: GIdx::Absent, in_features: k, out_features: n, seed: seed as u64, ..CASE };
        let layer = case.build("layer").unwrap_or_else(|error| panic!("{case}: {error}")).layer;
        let order = permutation(k, seed);
        let sorted = sort_rows(&Buffer::input("qweight", layer.qweight()), &order, shape);
        let code =
            |words: &[u32], row: usize, column: usize| words[row / 8 * n + column] >> (row % 8 * 4) & 15;
        for (to, &from) in order.iter().enumerate() {
            for column in 0..n {
                let (found, expected) =
                    (code(&sorted, to, column), code(layer.qweight(), from as usize, column));
                assert_eq!(found, expected, "[{k}, {n}]: row {to}, which was {from}, column {column}");
            }
        }
    }
}

#[test]
fn x_is_gathered_whether_or_not_there_is_a_block_for_each_row() {
    for ([rows, k], grid_rows) in [([1, 8], 1), ([3, 264], 3), ([5, 264], 2), ([2, 4096], 2)] {
        let x = Activations::normal([rows, k], DType::F16, 3);
        let order = permutation(k, 2);
        let (before, gathered) = (x.to_bytes(), gather(&x, &order, grid_rows));
        for row in 0..rows {
            for (to, &from) in order.iter().enumerate() {
                let at = |column: usize| (row * k + column) * 2..(row * k + column) * 2 + 2;
                assert_eq!(
                    gathered[at(to)],
                    before[at(from as usize)],
                    "x [{rows}, {k}]: row {row}, column {to}"
                );
            }
        }
    }
}
