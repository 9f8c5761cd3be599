//! Which blocks there are for few rows of x, and which of them a layer gets.

use gptq_core::format::Bits;

use super::calls::BYTES_IN_A_HUNDREDTH;
use super::{GpuShape, Product, Variant, WARP};
use crate::layout::{Arrangement, TILE_ROWS};

/// Tiles of K from which it is long for one row of x, and less so.
const LONG_TILES: usize = 256;
const MEDIUM_TILES: usize = 64;

/// What multiprocessors read from the L2 cache in a hundredth of a microsecond, together: 10.1 TB/s.
const CACHED_BYTES_IN_A_HUNDREDTH: usize = 101_000;
/// Rows of x by warps from which on the sums of a block leave no registers for another block.
const ALONE: usize = 256;

const OF_128: [[usize; 3]; 23] = [
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
    [24, 2, 4],
    [24, 2, 8],
    [24, 2, 16],
    [32, 2, 4],
    [32, 2, 8],
    [40, 2, 4],
    [40, 2, 8],
    [48, 2, 8],
    [48, 2, 4],
    [56, 2, 8],
    [64, 2, 8],
];
const OF_64: [[usize; 3]; 3] = [[1, 2, 16], [8, 2, 16], [16, 2, 8]];
const OF_32: [[usize; 3]; 2] = [[1, 2, 16], [8, 2, 16]];
const OF_16: [[usize; 3]; 1] = [[8, 2, 16]];
const OF_8: [[usize; 3]; 1] = [[8, 2, 8]];

/// Rows of x, strips and warps of the kernels for a width and a run, in ascending order of rows.
pub(super) fn blocks(bits: Bits, run_rows: usize) -> impl Iterator<Item = [usize; 3]> {
    let blocks: &[_] = match run_rows {
        128 => &OF_128,
        64 => &OF_64,
        32 => &OF_32,
        16 => &OF_16,
        _ => &OF_8,
    };
    blocks.iter().copied().filter(move |block| match block {
        // Others would spill registers.
        [24, 2, 16] | [40, 2, 4] => [Bits::TWO, Bits::FOUR].contains(&bits),
        // For layers of many columns. With 4 bits tiles are faster there; with 8 it was not tried.
        [48, 2, 4] => [Bits::TWO, Bits::THREE].contains(&bits),
        // Not tried with 8 bits.
        [56 | 64, ..] => bits != Bits::EIGHT,
        _ => true,
    })
}

/// Strips and warps of a block of the few, where there is a choice: what was fastest on an H200, by how many blocks run at
/// once.
///
/// Small blocks come and go without a multiprocessor running dry. Where K is long, more warps share it, and more strips a row
/// of x that takes much shared memory. With several rows of x more strips share each piece of it. Where columns are many, few
/// warps have the more to do before they meet. From 17 rows on registers leave room for 16 warps on a multiprocessor, and less.
pub(super) fn block_of(layer: &Arrangement, variant: Variant, gpu: GpuShape, rows: usize) -> [usize; 2] {
    let fits = |strips: usize, blocks: usize| layer.strips <= strips * blocks * gpu.multiprocessors;
    let (narrow, long) = (fits(1, 2), layer.tiles > LONG_TILES);
    // All of them at once, three to a multiprocessor, where there are more than two.
    let three_each = fits(2, 3) && !fits(2, 2);
    match (rows, variant.bits) {
        (1..=8, Bits::EIGHT) if three_each => [2, 4],
        (2..=8, Bits::EIGHT) if fits(2, 2) && !narrow => [2, 8],
        (1..=8, Bits::EIGHT) => [1, 16],
        (1, _) if narrow && layer.tiles > MEDIUM_TILES => [1, 16],
        (1, Bits::TWO) => [2, if fits(2, 2) { 8 } else { 4 }],
        (1, _) if narrow => [1, 8],
        (1, Bits::THREE) => [2, if fits(2, 2) { 8 } else { 4 }],
        (1, _) if long => [2, 16],
        (1, _) if three_each => [2, 8],
        (1, _) if fits(2, 2) && !variant.fixed_zeros => [2, 16],
        (1, _) if fits(2, 6) && !fits(2, 2) => [2, 4],
        (1, _) => [1, 8],
        (2..=8, Bits::TWO) => [2, if fits(2, 2) { 16 } else { 8 }],
        (2..=8, _) if narrow => [1, 16],
        (2..=8, Bits::FOUR) if fits(2, 2) => [2, 16],
        (2..=8, Bits::FOUR) if variant.fixed_zeros && !fits(2, 4) => [2, 4],
        (2..=8, _) => [2, 8],
        (9..=16, _) if narrow => [2, 16],
        (17..=24, Bits::TWO | Bits::FOUR) if narrow => [2, 16],
        (9..=24, _) if fits(2, 2) => [2, 8],
        (25.., _) if narrow || rows > 48 => [2, 8],
        (40, Bits::THREE | Bits::EIGHT) => [2, 8],
        _ => [2, 4],
    }
}

/// What a launch takes, in hundredths of a microsecond on an H200.
pub(super) fn cost(layer: &Arrangement, product: &Product, gpu: GpuShape) -> usize {
    let weights = layer.weight_bytes();
    if product.rows <= 16 {
        // Weights are read at 4.3 TB/s, and unpacked while they come, which takes longer for 9 rows and more.
        let of_reading = match (product.rows, layer.bits) {
            (..=8, _) => 100,
            (_, Bits::EIGHT) => 110,
            _ => 150,
        };
        return 200 + weights / BYTES_IN_A_HUNDREDTH * of_reading / 100;
    }
    // Then products take longer than reading, as many for codes of any width, of which 8 bits take longer to unpack.
    let of_products = match product.rows {
        24 => 170,
        32 => 207,
        40 => 250,
        48 => 285,
        56 => 330,
        _ => 390,
    };
    let of_width = if layer.bits == Bits::EIGHT { 130 } else { 100 };
    // The multiprocessors that get one block more than others take the longer.
    let most = product.column_blocks.div_ceil(gpu.multiprocessors.max(1));
    let uneven = most * gpu.multiprocessors * 100 / product.column_blocks.max(1);
    let read_of_4_bits = weights * 4 / layer.bits.get() / BYTES_IN_A_HUNDREDTH;
    let products = read_of_4_bits * of_products / 100 * of_width / 100 * uneven / 100;
    // Each block reads all of x, out of the L2 cache.
    let of_x = product.column_blocks * product.rows * layer.tiles * TILE_ROWS * 2;
    let from_cache = (of_x + weights) / CACHED_BYTES_IN_A_HUNDREDTH;
    // Where a multiprocessor has one block at a time, nothing hides how the next one begins.
    let alone = product.rows * (product.threads / WARP) >= ALONE;
    let begins = if alone { 275 + (most - 1) * 180 } else { 275 };
    begins + products.max(from_cache)
}
