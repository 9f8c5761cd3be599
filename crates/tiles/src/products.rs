//! Which kernel multiplies: a table, and how a call is cut for a GPU. Pure; no GPU is asked.
//!
//! There are three kinds of kernels, and tile_products.cuh lists them. The few (`m1_t1_w8` to `m64_t2_w8`) have narrow blocks
//! whose warps divide K. The tiles (`m32_c256`, `g64_c256`, ..) are for 17 rows and more: blocks of many columns by many rows
//! of x, that divide all the work evenly. The some (`m32`, `m64`) do what is left: layers of small groups, and GPUs whose blocks
//! have little shared memory. The numbers here are those of that file.

mod calls;
mod few;
mod tile;

use std::fmt;

use gptq_core::format::Bits;

use crate::Zeros;
use crate::layout::{Arrangement, STRIP_COLUMNS, TILE_ROWS};

pub(crate) use calls::dense_from;

/// Rows of x in one launch at most: tiles of tokens stand side by side up to here.
pub const MOST_ROWS: usize = 512;
/// Counters of blocks that share sums, in one launch at most: the scratch has room for so many.
pub(crate) const MOST_COUNTERS: usize = 4096;
/// Parts of K at most: counters of blocks are bytes.
const MOST_SPLITS: usize = 64;
/// Tiles that a part of K has at least: what a block has on the way, and something to hide the start behind.
const LEAST_TILES: usize = 4;
/// Pieces of x begin at a multiple of this in shared memory, which is aligned to less.
const PIECES_ALIGNMENT: usize = 128;
/// Threads that a multiprocessor has registers for, of the few.
const MOST_THREADS_AT_ONCE: usize = 1280;
/// Blocks of the few on a multiprocessor from which on nobody counts them: registers leave no room for more.
const MOST_SHARE: usize = 4;
/// Shared memory is given to blocks in units of so many bytes.
const SHARED_UNIT: usize = 128;
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
    /// Whether four warps can multiply together (wgmma), in the code that it runs.
    pub groups: bool,
}

/// A kernel of tile_products.cuh, for one width, run and type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// `m{rows}_t{strips}_w{warps}`: up to so many rows of x, so many strips to a block, and so many warps.
    Few {
        /// 1, 8, 16, 24, 32, 40, 48, 56 or 64.
        rows: usize,
        /// 1 or 2.
        strips: usize,
        /// 4, 8 or 16.
        warps: usize,
    },
    /// `m{rows}`: up to so many rows of x, a number of strips to a block that each launch chooses.
    Some {
        /// 32 or 64.
        rows: usize,
    },
    /// `m{rows}_c{columns}`, or `g{rows}_c{columns}` with wgmma: tiles of so many rows of x and so many columns. A launch may
    /// have more rows than one tile.
    Tile {
        /// From 32 to 152.
        rows: usize,
        /// 128, 192 or 256.
        columns: usize,
        /// Whether warps multiply in groups of four.
        groups: bool,
    },
}

impl Kind {
    /// Rows of x at most; of tiles, those of one.
    pub fn rows(self) -> usize {
        match self {
            Self::Few { rows, .. } | Self::Some { rows } | Self::Tile { rows, .. } => rows,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Few { rows, strips, warps } => write!(f, "m{rows}_t{strips}_w{warps}"),
            Self::Some { rows } => write!(f, "m{rows}"),
            Self::Tile { rows, columns, groups } => {
                write!(f, "{}{rows}_c{columns}", if *groups { "g" } else { "m" })
            }
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
    /// The same for tiles, which take runs of 128 rows too.
    pub tile_run_rows: usize,
    /// The same for the few, which take two tiles of 64 rows at a time, if those are pairs.
    pub few_run_rows: usize,
}

const EVERY_OTHER_KIND: [Kind; 21] = [
    Kind::Some { rows: 32 },
    Kind::Some { rows: 64 },
    Kind::Tile { rows: 32, columns: 256, groups: false },
    Kind::Tile { rows: 64, columns: 256, groups: false },
    Kind::Tile { rows: 32, columns: 128, groups: true },
    Kind::Tile { rows: 32, columns: 256, groups: true },
    Kind::Tile { rows: 40, columns: 256, groups: true },
    Kind::Tile { rows: 48, columns: 128, groups: true },
    Kind::Tile { rows: 48, columns: 256, groups: true },
    Kind::Tile { rows: 56, columns: 256, groups: true },
    Kind::Tile { rows: 64, columns: 128, groups: true },
    Kind::Tile { rows: 64, columns: 256, groups: true },
    Kind::Tile { rows: 72, columns: 128, groups: true },
    Kind::Tile { rows: 72, columns: 192, groups: true },
    Kind::Tile { rows: 80, columns: 128, groups: true },
    Kind::Tile { rows: 88, columns: 192, groups: true },
    Kind::Tile { rows: 96, columns: 128, groups: true },
    Kind::Tile { rows: 112, columns: 128, groups: true },
    Kind::Tile { rows: 128, columns: 128, groups: true },
    Kind::Tile { rows: 144, columns: 128, groups: true },
    Kind::Tile { rows: 152, columns: 128, groups: true },
];

impl Variant {
    /// For a layer, of the kernels of a family with these zero points.
    pub fn of(arrangement: &Arrangement, symmetric: bool, zeros: Zeros) -> Self {
        let run_rows = arrangement.run_rows();
        let has_fixed = [Bits::FOUR, Bits::EIGHT].contains(&arrangement.bits) && run_rows == TILE_ROWS;
        let fixed_zeros = zeros == Zeros::BuiltIn || (symmetric && has_fixed);
        let pairs = arrangement.group_rows.is_multiple_of(2 * TILE_ROWS);
        let tile_run_rows = if pairs { 2 * TILE_ROWS } else { run_rows };
        let few_run_rows = if arrangement.has_pairs() { 2 * TILE_ROWS } else { run_rows };
        Self { bits: arrangement.bits, fixed_zeros, run_rows, tile_run_rows, few_run_rows }
    }

    /// Rows of W that a kernel takes to share a scale.
    pub fn run_rows_of(self, kind: Kind) -> usize {
        match kind {
            Kind::Few { .. } => self.few_run_rows,
            Kind::Some { .. } => self.run_rows,
            Kind::Tile { .. } => self.tile_run_rows,
        }
    }

    /// What stands behind the kind in the name of a kernel: the width, with an s for fixed zero points, and the run.
    pub fn suffix(self, kind: Kind) -> String {
        format!("b{}{}_r{}", self.bits, if self.fixed_zeros { "s" } else { "" }, self.run_rows_of(kind))
    }

    /// Whether there are tiles of all shapes, with long units.
    fn has_long_tiles(self) -> bool {
        self.bits == Bits::FOUR && self.fixed_zeros && self.tile_run_rows == 2 * TILE_ROWS
    }

    /// The kernels that there are.
    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        let few = few::blocks(self.bits, self.few_run_rows);
        let few = few.map(|[rows, strips, warps]| Kind::Few { rows, strips, warps });
        let listed = move |kind: &Kind| match (self.run_rows, *kind) {
            (run, Kind::Tile { rows, columns, groups }) => {
                let common = match (groups, rows, columns) {
                    // With shorter runs registers would spill.
                    (false, 64, _) => run == TILE_ROWS,
                    (false, ..) => true,
                    (true, ..) => [(32, 256), (64, 256), (128, 128)].contains(&(rows, columns)),
                };
                let of_width =
                    [Bits::FOUR, Bits::EIGHT].contains(&self.bits) && (common || self.has_long_tiles());
                run >= 32 && of_width
            }
            (64, Kind::Some { .. }) => true,
            (_, Kind::Some { rows }) => rows == 64,
            (_, Kind::Few { .. }) => false,
        };
        few.chain(EVERY_OTHER_KIND.into_iter().filter(listed))
    }

    /// Those that a GPU has: code without wgmma has no tiles that multiply with it.
    pub(crate) fn kinds_on(self, gpu: GpuShape) -> impl Iterator<Item = Kind> {
        self.kinds().filter(move |kind| gpu.groups || !matches!(kind, Kind::Tile { groups: true, .. }))
    }

    fn runs(self) -> usize {
        TILE_ROWS / self.run_rows
    }

    /// Tiles of each strip that a warp of the few has on the way, where x comes in pieces.
    fn few_tiles(self, rows: usize, warps: usize) -> usize {
        match (self.few_run_rows, rows, warps) {
            (128, 16, 4 | 8) if self.has_room_for_two_units() => 4,
            (128, 32, 4) if self.bits != Bits::EIGHT => 4,
            (128, ..) | (64, 16, _) => 2,
            _ => 1,
        }
    }

    /// Whether registers leave room for two units on the way with 16 rows of x.
    fn has_room_for_two_units(self) -> bool {
        match self.bits {
            Bits::FOUR => self.fixed_zeros,
            bits => bits != Bits::EIGHT,
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
    /// Rows of x at most.
    pub rows: usize,
    /// Strips of a block.
    pub strips: usize,
    /// Blocks along the columns.
    pub column_blocks: usize,
    /// Parts of K; of tiles, shares of all work, one for each block of the grid.
    pub splits: usize,
    /// Tiles of a part; of tiles, units of a share.
    pub split_tiles: usize,
    /// Units of K of tiles; 0 for others.
    pub units: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
}

impl Product {
    /// Whether several blocks have parts of the same sums.
    pub fn divides(&self) -> bool {
        match self.kind {
            Kind::Tile { .. } => !self.split_tiles.is_multiple_of(self.units),
            _ => self.splits > 1,
        }
    }

    /// Bytes of partial sums for so many rows of x.
    pub fn partial_bytes(&self, rows: usize) -> usize {
        if !self.divides() {
            return 0;
        }
        let columns = self.strips * STRIP_COLUMNS;
        let sums = match self.kind {
            // Of a block, for what it begins with and for what comes later.
            Kind::Tile { rows, .. } => 2 * self.splits * rows * columns,
            _ => self.splits * rows * self.column_blocks * columns,
        };
        sums * size_of::<f32>()
    }

    /// Counters of those that have a part of the same sums.
    pub fn counters(&self) -> usize {
        match self.kind {
            _ if !self.divides() => 0,
            Kind::Tile { rows, .. } => self.column_blocks * self.rows.div_ceil(rows),
            _ => self.column_blocks,
        }
    }

    /// Whether weights are asked for ahead of x, though x could be read: where blocks are more than run at once.
    pub fn reads_weights_first(&self, gpu: GpuShape) -> bool {
        self.column_blocks * self.threads > MOST_THREADS_AT_ONCE * gpu.multiprocessors
    }

    /// Dynamic shared memory to ask for where launches overlap: of the few, so much that a multiprocessor has no room for
    /// more blocks than it gets where they are spread evenly.
    ///
    /// Blocks that begin early take what room there is, and what is left of them crowds on the multiprocessors that are done
    /// first: with room for four, at most four share one, where three on each would have been enough.
    pub fn overlapping_shared_bytes(&self, gpu: GpuShape) -> usize {
        let share = self.column_blocks.div_ceil(gpu.multiprocessors.max(1));
        if !matches!(self.kind, Kind::Few { .. }) || share > MOST_SHARE {
            return self.shared_bytes;
        }
        // What a multiprocessor has is what one block can have and a little more, some of it for each block.
        let too_much = (gpu.shared_bytes / (share + 1)).next_multiple_of(SHARED_UNIT);
        self.shared_bytes.max(too_much.min(gpu.shared_bytes))
    }

    /// The grid of the launch.
    pub fn grid(&self) -> [usize; 2] {
        match self.kind {
            Kind::Tile { .. } => [self.splits, 1],
            _ => [self.column_blocks, self.splits],
        }
    }

    /// The launches that a layer has, by ascending numbers of rows of x that they take. None where the GPU's blocks have too
    /// little shared memory for any kernel.
    pub fn of_layer(layer: &Arrangement, variant: Variant, gpu: GpuShape) -> Vec<Self> {
        let fits = |product: &Self| product.shared_bytes <= gpu.shared_bytes;
        let of_kind = |kind: Kind| Self::of_kind(layer, variant, kind, gpu).filter(fits);
        let mut chosen: Vec<Self> = Vec::new();
        for product in variant.kinds().filter(|kind| matches!(kind, Kind::Few { .. })).filter_map(of_kind) {
            let block = few::block_of(layer, variant, gpu, product.rows);
            match chosen.last_mut() {
                Some(last) if last.rows == product.rows => {
                    if [product.strips, product.threads / WARP] == block {
                        *last = product;
                    }
                }
                _ => chosen.push(product),
            }
        }
        let mut others = tile::of_layer(layer, variant, gpu);
        if others.is_empty() {
            let some = variant.kinds().filter(|kind| matches!(kind, Kind::Some { .. }));
            others.extend(some.filter_map(of_kind));
        }
        // Of two for as many rows, the faster one. The few are faster than the some.
        let time = |product: &Self| product.time(layer, variant, gpu);
        for other in others {
            match chosen.iter_mut().find(|few| few.rows == other.rows) {
                Some(few) if matches!(other.kind, Kind::Tile { .. }) && time(&other) < time(few) => {
                    *few = other;
                }
                Some(_) => {}
                None => chosen.push(other),
            }
        }
        chosen.sort_by_key(|product| product.rows);
        chosen
    }

    /// The same without dividing K, which needs no scratch.
    pub fn undivided(self) -> Self {
        match self.kind {
            Kind::Tile { .. } => tile::whole_columns(self),
            _ => Self { splits: 1, split_tiles: self.split_tiles * self.splits, ..self },
        }
    }

    /// The launch of one kernel, by its own rules.
    pub fn of_kind(layer: &Arrangement, variant: Variant, kind: Kind, gpu: GpuShape) -> Option<Self> {
        let most_rows = kind.rows();
        let piece = most_rows * TILE_ROWS * 2;
        let sum_bytes = |warps: usize, strips: usize| warps * most_rows * (strips * STRIP_COLUMNS + 4) * 4;
        match kind {
            Kind::Few { rows, strips, warps } => {
                let x_bytes = match rows {
                    1 => layer.tiles * piece,
                    _ => warps * variant.few_tiles(rows, warps) * piece + PIECES_ALIGNMENT,
                };
                Some(Self {
                    kind,
                    rows,
                    strips,
                    column_blocks: layer.strips / strips,
                    splits: 1,
                    split_tiles: layer.tiles,
                    units: 0,
                    threads: warps * WARP,
                    shared_bytes: x_bytes.max(sum_bytes(warps, strips)),
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
                        rows,
                        strips,
                        column_blocks,
                        // Rounding up may have left nothing for the last ones.
                        splits: layer.tiles.div_ceil(split_tiles),
                        split_tiles,
                        units: 0,
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
            // One more than a tile has: a launch of two tiles of tokens.
            Kind::Tile { rows, .. } => tile::of_kind(layer, variant, kind, rows + 1, gpu),
        }
    }

    /// What the busiest multiprocessor has to do, in strips of one tile, and its share of x.
    fn cost(&self, gpu: GpuShape) -> usize {
        let waves = (self.column_blocks * self.splits).div_ceil(gpu.multiprocessors);
        waves * self.split_tiles * (self.strips + self.kind.rows() / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: GpuShape = GpuShape { multiprocessors: 132, shared_bytes: 227 * 1024 - 64, groups: true };
    const TURING: GpuShape = GpuShape { multiprocessors: 40, shared_bytes: 64 * 1024 - 64, groups: false };

    fn layer(bits: Bits, k: usize, n: usize, group_rows: usize) -> Arrangement {
        let (tiles, strips) = (k.div_ceil(TILE_ROWS), n.div_ceil(STRIP_COLUMNS).next_multiple_of(8));
        let groups = (tiles * TILE_ROWS).div_ceil(group_rows);
        Arrangement { bits, in_features: k, out_features: n, strips, tiles, groups, group_rows }
    }

    #[test]
    fn every_layer_has_a_launch_for_one_row_and_parts_of_k_cover_it_once() {
        for bits in [Bits::TWO, Bits::THREE, Bits::FOUR, Bits::EIGHT] {
            for (k, n) in [
                (32, 8),
                (96, 136),
                (4096, 4096),
                (8192, 28672),
                (28672, 8192),
                (11008, 4096),
                (4096, 262_144),
            ] {
                for (group_rows, symmetric) in
                    [(8, false), (16, true), (32, false), (128, true), (128, false)]
                {
                    let layer = layer(bits, k, n, group_rows);
                    let variant = Variant::of(&layer, symmetric, Zeros::Stored);
                    for gpu in [H100, TURING] {
                        let products = Product::of_layer(&layer, variant, gpu);
                        assert!(!products.is_empty(), "{layer:?} on {gpu:?}");
                        for pair in products.windows(2) {
                            assert!(pair[0].rows < pair[1].rows, "{products:?}");
                        }
                        for product in products {
                            assert!(product.shared_bytes <= gpu.shared_bytes, "{product:?}");
                            assert!(product.column_blocks * product.strips >= layer.strips, "{product:?}");
                            assert!(product.counters() <= MOST_COUNTERS, "{product:?}");
                            let whole = product.undivided();
                            assert_eq!(whole.partial_bytes(64), 0, "{whole:?}");
                            let (units, blocks) = match product.kind {
                                Kind::Tile { rows, .. } => {
                                    let blocks = product.column_blocks * product.rows.div_ceil(rows);
                                    (blocks * product.units, blocks)
                                }
                                _ => (layer.tiles, 1),
                            };
                            for product in [product, whole] {
                                assert!((product.splits - 1) * product.split_tiles < units, "{product:?}");
                                assert!(product.splits * product.split_tiles >= units, "{product:?}");
                                assert!(product.splits <= blocks.max(gpu.multiprocessors).max(MOST_SPLITS));
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn kernels_with_wgmma_are_looked_up_and_chosen_only_where_the_code_has_them() {
        let groups = |kind: &Kind| matches!(kind, Kind::Tile { groups: true, .. });
        let without = GpuShape { groups: false, ..H100 };
        for (bits, group_rows) in [(Bits::FOUR, 128), (Bits::FOUR, 32), (Bits::EIGHT, 64), (Bits::TWO, 128)] {
            let layer = layer(bits, 4096, 4096, group_rows);
            let variant = Variant::of(&layer, true, Zeros::Stored);
            assert_eq!(variant.kinds_on(H100).count(), variant.kinds().count(), "{variant:?}");
            assert!(!variant.kinds_on(without).any(|kind| groups(&kind)), "{variant:?}");
            for gpu in [H100, without] {
                let known: Vec<Kind> = variant.kinds_on(gpu).collect();
                for Product { kind, .. } in Product::of_layer(&layer, variant, gpu) {
                    assert!(known.contains(&kind), "{kind} of {variant:?} on {gpu:?}");
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
    fn overlapping_blocks_of_a_few_rows_have_room_for_an_even_share_and_no_more() {
        for (k, n) in
            [(4096, 4096), (4096, 11008), (4096, 14336), (11008, 4096), (8192, 28672), (28672, 8192)]
        {
            let layer = layer(Bits::FOUR, k, n, 128);
            for product in Product::of_layer(&layer, Variant::of(&layer, true, Zeros::Stored), H100) {
                let bytes = product.overlapping_shared_bytes(H100);
                let share = product.column_blocks.div_ceil(H100.multiprocessors);
                assert!(product.shared_bytes <= bytes && bytes <= H100.shared_bytes, "{product:?}: {bytes}");
                if matches!(product.kind, Kind::Few { .. }) && share <= MOST_SHARE {
                    // 228 KB on a multiprocessor, of which each block takes 1 KB for itself.
                    let blocks = 228 * 1024 / (bytes + 1024);
                    assert!(blocks <= share, "{product:?}: {bytes} bytes leave room for {blocks} of {share}");
                    let needed = 228 * 1024 / (product.shared_bytes + 1024);
                    assert_eq!(blocks, share.min(needed), "{product:?}: {bytes}");
                } else {
                    assert_eq!(bytes, product.shared_bytes, "{product:?}");
                }
            }
        }
    }

    #[test]
    fn blocks_are_chosen_by_what_columns_and_rows_leave_to_do() {
        let block = |k, n, rows| {
            let layer = layer(Bits::FOUR, k, n, 128);
            let products = Product::of_layer(&layer, Variant::of(&layer, true, Zeros::Stored), H100);
            let product = products.iter().find(|product| product.rows == rows).unwrap();
            [product.strips, product.threads / WARP]
        };
        assert_eq!([block(4096, 4096, 1), block(11008, 4096, 1)], [[1, 8], [1, 16]]);
        assert_eq!([block(4096, 11008, 1), block(4096, 14336, 1)], [[2, 8], [2, 4]]);
        assert_eq!([block(8192, 8192, 1), block(28672, 8192, 1)], [[1, 8], [2, 16]]);
        assert_eq!(
            [block(4096, 4096, 8), block(4096, 14336, 8), block(8192, 28672, 8)],
            [[1, 16], [2, 8], [2, 4]]
        );
        assert_eq!(
            [block(4096, 4096, 16), block(8192, 8192, 16), block(8192, 28672, 16)],
            [[2, 16], [2, 8], [2, 4]]
        );
    }
}
