//! Which blocks there are for few rows of x, and which of them a layer gets.

use gptq_core::format::Bits;

use super::{GpuShape, Variant};
use crate::layout::Arrangement;

/// Tiles of K from which it is long for one row of x, and less so.
const LONG_TILES: usize = 256;
const MEDIUM_TILES: usize = 64;

const OF_128: [[usize; 3]; 12] = [
    [1, 1, 8],
    [1, 1, 16],
    [1, 2, 4],
    [1, 2, 8],
    [1, 2, 16],
    [8, 1, 16],
    [8, 2, 4],
    [8, 2, 8],
    [8, 2, 16],
    [16, 2, 4],
    [16, 2, 8],
    [16, 2, 16],
];
const OF_64: [[usize; 3]; 3] = [[1, 2, 16], [8, 2, 16], [16, 2, 8]];
const OF_32: [[usize; 3]; 2] = [[1, 2, 16], [8, 2, 16]];
const OF_16: [[usize; 3]; 1] = [[8, 2, 16]];
const OF_8: [[usize; 3]; 1] = [[8, 2, 8]];

/// Rows of x, strips and warps of the kernels for a run.
pub(super) fn blocks(run_rows: usize) -> &'static [[usize; 3]] {
    match run_rows {
        128 => &OF_128,
        64 => &OF_64,
        32 => &OF_32,
        16 => &OF_16,
        _ => &OF_8,
    }
}

/// Strips and warps of a block of the few, where there is a choice: what was fastest on an H200, by how many blocks run at
/// once.
///
/// Small blocks come and go without a multiprocessor running dry. Where K is long, more warps share it, and more strips a row
/// of x that takes much shared memory. With several rows of x more strips share each piece of it. Where columns are many, few
/// warps have the more to do before they meet.
pub(super) fn block_of(layer: &Arrangement, variant: Variant, gpu: GpuShape, rows: usize) -> [usize; 2] {
    let fits = |strips: usize, blocks: usize| layer.strips <= strips * blocks * gpu.multiprocessors;
    let (narrow, long) = (fits(1, 2), layer.tiles > LONG_TILES);
    // All of them at once, three to a multiprocessor, where there are more than two.
    let three_each = fits(2, 3) && !fits(2, 2);
    match (rows, variant.bits) {
        (1..=8, Bits::EIGHT) if three_each => [2, 4],
        (2..=8, Bits::EIGHT) if fits(2, 2) && !narrow => [2, 8],
        (1..=8, Bits::EIGHT) => [1, 16],
        (1, _) if narrow => [1, if layer.tiles > MEDIUM_TILES { 16 } else { 8 }],
        (1, Bits::TWO) => [2, if fits(2, 2) { 16 } else { 4 }],
        (1, Bits::THREE) => [2, if fits(2, 2) { 8 } else { 4 }],
        (1, _) if long => [2, 16],
        (1, _) if three_each => [2, 8],
        (1, _) if fits(2, 6) && !fits(2, 2) => [2, 4],
        (1, _) => [1, 8],
        (2..=8, Bits::TWO) => [2, if fits(2, 2) { 16 } else { 8 }],
        (2..=8, _) if narrow => [1, 16],
        (2..=8, Bits::FOUR) if fits(2, 2) => [2, 16],
        (2..=8, Bits::FOUR) if variant.fixed_zeros && !fits(2, 4) => [2, 4],
        (2..=8, _) => [2, 8],
        _ if narrow => [2, 16],
        _ => [2, if fits(2, 2) { 8 } else { 4 }],
    }
}
