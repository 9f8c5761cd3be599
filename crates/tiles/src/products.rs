//! Which kernel multiplies: a table, and how a call is cut for a GPU. Pure; no GPU is asked.
//!
//! There are two kinds of kernels, and tile_products.cuh lists them. The few (`m1`, `m8`, `m16`) have narrow blocks whose warps
//! divide K; the some (`m32`, `m64`) have wide blocks, as many as there are multiprocessors, and divide K over blocks where
//! there are fewer columns than that takes. The numbers here are those of that file.

use std::fmt;

use gptq_core::format::Bits;

use crate::Zeros;
use crate::layout::{Arrangement, STRIP_COLUMNS, TILE_ROWS};

/// Rows of x in one launch at most.
pub const MOST_ROWS: usize = 64;
/// Parts of K at most: counters of blocks are bytes.
const MOST_SPLITS: usize = 64;
/// Tiles that a part of K has at least: what a block has on the way, and something to hide the start behind.
const LEAST_TILES: usize = 4;
/// Threads of a warp.
const WARP: usize = 32;

/// What decides between kernels on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain numbers, for tests of kernels too")]
pub struct GpuShape {
    /// Its multiprocessors.
    pub multiprocessors: usize,
    /// Shared memory that a block can have.
    pub shared_bytes: usize,
}

/// A kernel of tile_products.cuh, for one width, run and type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// `m{rows}_t{strips}`: up to so many rows of x, so many strips to a block.
    Few {
        /// 1, 8 or 16.
        rows: usize,
        /// 1, 2 or 4.
        strips: usize,
    },
    /// `m{rows}`: up to so many rows of x, a number of strips to a block that each launch chooses.
    Some {
        /// 32 or 64.
        rows: usize,
    },
}

impl Kind {
    /// Rows of x at most.
    pub fn rows(self) -> usize {
        match self {
            Self::Few { rows, .. } | Self::Some { rows } => rows,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Few { rows, strips } => write!(f, "m{rows}_t{strips}"),
            Self::Some { rows } => write!(f, "m{rows}"),
        }
    }
}

/// Which kernels there are for a layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(clippy::exhaustive_structs, reason = "what the names of kernels say")]
pub struct Variant {
    /// The width of a code.
    pub bits: Bits,
    /// Whether zero points are built in. There are such kernels for 4 and 8 bits, and, where others read zero points, for
    /// whole tiles of one group only.
    pub fixed_zeros: bool,
    /// Rows of W that surely share a scale: 64, 32, 16 or 8.
    pub run_rows: usize,
}

const EVERY_KIND: [Kind; 9] = [
    Kind::Few { rows: 1, strips: 1 },
    Kind::Few { rows: 1, strips: 2 },
    Kind::Few { rows: 1, strips: 4 },
    Kind::Few { rows: 8, strips: 2 },
    Kind::Few { rows: 8, strips: 4 },
    Kind::Few { rows: 16, strips: 2 },
    Kind::Few { rows: 16, strips: 4 },
    Kind::Some { rows: 32 },
    Kind::Some { rows: 64 },
];

impl Variant {
    /// For a layer, of the kernels of a family with these zero points.
    pub fn of(arrangement: &Arrangement, symmetric: bool, zeros: Zeros) -> Self {
        let run_rows = arrangement.run_rows();
        let has_fixed = [Bits::FOUR, Bits::EIGHT].contains(&arrangement.bits) && run_rows == TILE_ROWS;
        let fixed_zeros = zeros == Zeros::BuiltIn || (symmetric && has_fixed);
        Self { bits: arrangement.bits, fixed_zeros, run_rows }
    }

    /// The kernels that there are.
    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        let most = self.bits == Bits::FOUR && self.fixed_zeros;
        let listed = move |kind: &Kind| match (self.run_rows, *kind) {
            (64, Kind::Few { strips, .. }) => most || strips == 2,
            (32, Kind::Few { rows, strips }) => rows <= 8 && strips == 2,
            (_, Kind::Few { rows, strips }) => rows == 8 && strips == 2,
            (64, Kind::Some { .. }) => true,
            (_, Kind::Some { rows }) => rows == 64,
        };
        EVERY_KIND.into_iter().filter(listed)
    }

    /// The width as names of kernels have it: `b4s` is for fixed zero points.
    pub fn width(self) -> String {
        format!("b{}{}", self.bits, if self.fixed_zeros { "s" } else { "" })
    }

    fn runs(self) -> usize {
        TILE_ROWS / self.run_rows
    }

    /// Warps of a block of the few, and tiles that each of them has on the way.
    fn few(self, rows: usize, strips: usize) -> (usize, usize) {
        let wide = self.bits == Bits::EIGHT;
        match (rows, strips) {
            (1, 1) => (16, 4),
            (1, 4) => (16, 1),
            (8, 4) | (16, 4) => (8, 2),
            (16, _) => (8, if wide { 2 } else { 4 }),
            (8, _) if self.run_rows == 8 => (8, 1),
            _ => (16, if wide || self.run_rows < TILE_ROWS { 1 } else { 2 }),
        }
    }

    /// Of a block of the some.
    fn some(self, rows: usize) -> Stages {
        let whole = self.run_rows == TILE_ROWS;
        match (rows, self.bits) {
            // With 2 bits there would be too few registers for more threads.
            (32, Bits::TWO) => Stages { row_warps: 2, tiles: 1, count: 4, most_threads: 384 },
            (32, _) => Stages { row_warps: 2, tiles: 1, count: 4, most_threads: 512 },
            (_, Bits::EIGHT) if whole => Stages { row_warps: 1, tiles: 1, count: 4, most_threads: 256 },
            _ => Stages { row_warps: 1, tiles: 2, count: 4, most_threads: 256 },
        }
    }
}

/// How a block of the some divides its work.
struct Stages {
    row_warps: usize,
    /// Tiles of a stage that each row of warps takes.
    tiles: usize,
    /// Stages on the way.
    count: usize,
    most_threads: usize,
}

/// A launch of a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "what a launch has")]
pub struct Product {
    /// Which kernel.
    pub kind: Kind,
    /// Strips of a block.
    pub strips: usize,
    /// Blocks along the columns: each has a counter where K is divided.
    pub column_blocks: usize,
    /// Parts of K.
    pub splits: usize,
    /// Tiles of a part.
    pub split_tiles: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
}

impl Product {
    /// Bytes of partial sums for so many rows of x.
    pub fn partial_bytes(&self, rows: usize) -> usize {
        if self.splits == 1 {
            return 0;
        }
        self.splits * rows * self.column_blocks * self.strips * STRIP_COLUMNS * size_of::<f32>()
    }

    /// The launches that a layer has, by ascending numbers of rows of x that they take. None where the GPU's blocks have too
    /// little shared memory for any kernel.
    pub fn of_layer(layer: &Arrangement, variant: Variant, gpu: GpuShape) -> Vec<Self> {
        let products: Vec<Self> = variant
            .kinds()
            .filter_map(|kind| Self::of_kind(layer, variant, kind, gpu))
            .filter(|product| product.shared_bytes <= gpu.shared_bytes)
            .collect();
        let mut chosen: Vec<Self> = Vec::new();
        for product in products {
            let strips = strips_of_few(layer, gpu, product.kind.rows());
            match chosen.last_mut() {
                Some(last) if last.kind.rows() == product.kind.rows() => {
                    if product.strips == strips {
                        *last = product;
                    }
                }
                _ => chosen.push(product),
            }
        }
        chosen
    }

    /// The same without dividing K, which needs no scratch.
    pub fn undivided(self) -> Self {
        Self { splits: 1, split_tiles: self.split_tiles * self.splits, ..self }
    }

    /// The launch of one kernel, by its own rules.
    pub fn of_kind(layer: &Arrangement, variant: Variant, kind: Kind, gpu: GpuShape) -> Option<Self> {
        let most_rows = kind.rows();
        let piece = most_rows * TILE_ROWS * 2;
        let sum_bytes = |warps: usize, strips: usize| warps * most_rows * (strips * STRIP_COLUMNS + 4) * 4;
        match kind {
            Kind::Few { rows, strips } => {
                let (warps, ahead) = variant.few(rows, strips);
                Some(Self {
                    kind,
                    strips,
                    column_blocks: layer.strips / strips,
                    splits: 1,
                    split_tiles: layer.tiles,
                    threads: warps * WARP,
                    shared_bytes: (warps * ahead * piece).max(sum_bytes(warps, strips)),
                })
            }
            Kind::Some { rows } => {
                let Stages { row_warps, tiles, count, most_threads } = variant.some(rows);
                let of_strips = |strips: usize| {
                    let column_blocks = layer.strips.div_ceil(strips);
                    let splits = (gpu.multiprocessors / column_blocks)
                        .min(layer.tiles / LEAST_TILES)
                        .clamp(1, MOST_SPLITS);
                    let pieces = row_warps * tiles;
                    // A run has 16 scales and 16 zero points.
                    let of_tile = layer.tile_bytes() + variant.runs() * 48;
                    let split_tiles = layer.tiles.div_ceil(splits);
                    Self {
                        kind,
                        strips,
                        column_blocks,
                        // Rounding up may have left nothing for the last ones.
                        splits: layer.tiles.div_ceil(split_tiles),
                        split_tiles,
                        threads: strips / 2 * row_warps * WARP,
                        shared_bytes: (count * pieces * (piece + strips * of_tile))
                            .max(sum_bytes(row_warps, strips)),
                    }
                };
                let widest = most_threads / WARP / row_warps * 2;
                let products = (1..=widest / 2).rev().map(|pairs| of_strips(pairs * 2));
                let fitting = products.filter(|product| product.shared_bytes <= gpu.shared_bytes);
                fitting.min_by_key(|product| product.cost(gpu))
            }
        }
    }

    /// What the busiest multiprocessor has to do, in strips of one tile, and its share of x.
    fn cost(&self, gpu: GpuShape) -> usize {
        let waves = (self.column_blocks * self.splits).div_ceil(gpu.multiprocessors);
        waves * self.split_tiles * (self.strips + self.kind.rows() / 8)
    }
}

/// Strips of a block of the few: the fewest with which all blocks run at once, two to a multiprocessor. With four strips only
/// where that leaves few multiprocessors with less to do; where nothing fits, blocks are many, and their width matters little
/// but for the reading of x.
fn strips_of_few(layer: &Arrangement, gpu: GpuShape, rows: usize) -> usize {
    let places = 2 * gpu.multiprocessors;
    let blocks = |strips: usize| layer.strips / strips;
    if rows == 1 && blocks(1) <= places {
        1
    } else if blocks(2) <= places {
        2
    } else if rows > 8 || (blocks(4) <= places && blocks(4) * 5 >= places * 4) {
        4
    } else {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: GpuShape = GpuShape { multiprocessors: 132, shared_bytes: 227 * 1024 };
    const TURING: GpuShape = GpuShape { multiprocessors: 40, shared_bytes: 64 * 1024 - 64 };

    fn layer(bits: Bits, k: usize, n: usize, group_rows: usize) -> Arrangement {
        let (tiles, strips) = (k.div_ceil(TILE_ROWS), n.div_ceil(STRIP_COLUMNS).next_multiple_of(8));
        let groups = (tiles * TILE_ROWS).div_ceil(group_rows);
        Arrangement { bits, in_features: k, out_features: n, strips, tiles, groups, group_rows }
    }

    #[test]
    fn every_layer_has_a_launch_for_one_row_and_parts_of_k_cover_it_once() {
        for bits in [Bits::TWO, Bits::THREE, Bits::FOUR, Bits::EIGHT] {
            for (k, n) in [(32, 8), (96, 136), (4096, 4096), (8192, 28672), (28672, 8192), (11008, 4096)] {
                for (group_rows, symmetric) in
                    [(8, false), (16, true), (32, false), (128, true), (128, false)]
                {
                    let layer = layer(bits, k, n, group_rows);
                    let variant = Variant::of(&layer, symmetric, Zeros::Stored);
                    for gpu in [H100, TURING] {
                        let products = Product::of_layer(&layer, variant, gpu);
                        assert!(!products.is_empty(), "{layer:?} on {gpu:?}");
                        for pair in products.windows(2) {
                            assert!(pair[0].kind.rows() < pair[1].kind.rows(), "{products:?}");
                        }
                        for product in products {
                            assert!(product.shared_bytes <= gpu.shared_bytes, "{product:?}");
                            assert!(product.column_blocks * product.strips >= layer.strips, "{product:?}");
                            assert!((product.splits - 1) * product.split_tiles < layer.tiles, "{product:?}");
                            assert!(product.splits * product.split_tiles >= layer.tiles, "{product:?}");
                            let whole = product.undivided();
                            assert!(
                                whole.split_tiles >= layer.tiles && whole.partial_bytes(64) == 0,
                                "{whole:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn wide_blocks_fill_the_multiprocessors_once() {
        for (k, n) in
            [(4096, 4096), (8192, 28672), (28672, 8192), (11008, 4096), (4096, 11008), (4096, 14336)]
        {
            let layer = layer(Bits::FOUR, k, n, 128);
            let variant = Variant::of(&layer, true, Zeros::Stored);
            for rows in [32, 64] {
                let product = Product::of_kind(&layer, variant, Kind::Some { rows }, H100).unwrap();
                let blocks = product.column_blocks * product.splits;
                // Nothing for a third wave, and no wave half empty.
                let waves = blocks.div_ceil(H100.multiprocessors);
                let idle = waves * H100.multiprocessors - blocks;
                assert!(waves <= 2 && idle * 4 <= waves * H100.multiprocessors, "{k} x {n}: {product:?}");
            }
        }
    }

    #[test]
    fn narrow_blocks_are_chosen_where_columns_are_few() {
        let strips = |k, n, rows| {
            let layer = layer(Bits::FOUR, k, n, 128);
            let products = Product::of_layer(&layer, Variant::of(&layer, true, Zeros::Stored), H100);
            products.iter().find(|product| product.kind.rows() == rows).unwrap().strips
        };
        assert_eq!((strips(4096, 4096, 1), strips(8192, 8192, 1), strips(4096, 14336, 1)), (1, 2, 4));
        assert_eq!((strips(4096, 11008, 1), strips(8192, 28672, 1)), (2, 2));
        assert_eq!((strips(4096, 4096, 8), strips(4096, 14336, 8), strips(8192, 28672, 16)), (2, 4, 4));
    }
}
