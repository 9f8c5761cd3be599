//! Tiles of many columns by many rows of x: their kernels, and how a launch divides its work.
//!
//! The work is one row of units, each 128 or 256 rows of W by the columns and the rows of x of a tile. Blocks take equal shares of
//! it. A share may begin and end within a column of units, whose sums are then parts, written and added by whoever comes
//! last; so shares that divide a column evenly are better where they are not much longer.

use gptq_core::format::Bits;

use super::{GpuShape, Kind, MOST_COUNTERS, MOST_ROWS, Product, Variant, WARP};
use crate::layout::{Arrangement, STRIP_COLUMNS, TILE_ROWS};

/// Scales and zero points of a run of rows in shared memory.
const RUN_BYTES: usize = 48;
/// Numbers of rows of x for which a launch is planned: tiles have so many, or several together.
const PLANNED_ROWS: [usize; 27] = [
    32, 40, 48, 56, 64, 72, 80, 88, 96, 112, 128, 144, 152, 160, 176, 192, 224, 240, 256, 288, 304, 320, 336,
    384, 432, 448, MOST_ROWS,
];

/// How a block of a kind is made: the numbers of tile_products.cuh.
struct Shape {
    /// Strips of a warp.
    strips: usize,
    /// Warps side by side.
    across: usize,
    /// Tiles of a strip in a unit.
    unit_tiles: usize,
    /// Units on the way in shared memory.
    stages: usize,
}

impl Shape {
    fn of(variant: Variant, rows: usize, columns: usize, groups: bool) -> Self {
        let wide = variant.bits == Bits::EIGHT;
        let long = variant.has_long_tiles() && groups && (rows <= 64 || (rows, columns) == (72, 128));
        let of_pairs = groups && !wide && variant.tile_run_rows == 2 * TILE_ROWS;
        let stages = match (groups, rows, columns) {
            (false, 64, _) if wide => 2,
            (false, ..) => 3,
            (true, 32, 256) if !wide => 4,
            (true, _, 256) if wide || long => 3,
            (true, 32, 128) | (true, 80, _) => 6,
            (true, 48 | 96 | 112, 128) | (true, 72, 192) => 5,
            (true, ..) => 4,
        };
        let unit_tiles = if long || (of_pairs && rows == 32) { 4 } else { 2 };
        let strips = if groups { 1 } else { 2 };
        Self { strips, across: columns / STRIP_COLUMNS / strips, unit_tiles, stages }
    }

    fn shared_bytes(&self, variant: Variant, rows: usize, groups: bool) -> usize {
        let tile_bytes = TILE_ROWS * STRIP_COLUMNS / 8 * variant.bits.get();
        let runs = self.unit_tiles * TILE_ROWS / variant.tile_run_rows;
        let strip_bytes = self.unit_tiles * tile_bytes + runs * RUN_BYTES;
        let x_bytes = self.unit_tiles * TILE_ROWS * rows * 2;
        let stage_bytes = x_bytes + self.across * self.strips * strip_bytes;
        self.stages * stage_bytes.next_multiple_of(if groups { 1024 } else { 128 }) + 16
    }
}

/// The launches for 17 rows and more, by ascending numbers of rows.
pub(super) fn of_layer(layer: &Arrangement, variant: Variant, gpu: GpuShape) -> Vec<Product> {
    let mut chosen: Vec<Product> = Vec::new();
    for rows in PLANNED_ROWS {
        let products = variant.kinds().filter_map(|kind| of_kind(layer, variant, kind, rows, gpu));
        let fitting = products.filter(|product| product.shared_bytes <= gpu.shared_bytes);
        chosen.extend(fitting.min_by_key(|product| cost(variant, product, gpu)));
    }
    chosen
}

/// The launch of one kernel for so many rows of x at most; none for another kind of kernel.
pub(super) fn of_kind(
    layer: &Arrangement,
    variant: Variant,
    kind: Kind,
    rows: usize,
    gpu: GpuShape,
) -> Option<Product> {
    let Kind::Tile { rows: tile_rows, columns, groups } = kind else { return None };
    if groups && !gpu.groups {
        return None;
    }
    let shape = Shape::of(variant, tile_rows, columns, groups);
    let strips = shape.across * shape.strips;
    let units = layer.tiles.div_ceil(shape.unit_tiles);
    let columns = layer.strips.div_ceil(strips) * rows.div_ceil(tile_rows);
    let total = units * columns;
    let product = |share: usize| Product {
        kind,
        rows,
        strips,
        column_blocks: layer.strips.div_ceil(strips),
        splits: total.div_ceil(share),
        split_tiles: share,
        units,
        threads: shape.across * WARP,
        shared_bytes: shape.shared_bytes(variant, tile_rows, groups),
    };
    let even = total.div_ceil(gpu.multiprocessors);
    let most_parts = (gpu.multiprocessors / columns).clamp(1, units);
    let of_parts = (1..=most_parts).map(|parts| units.div_ceil(parts));
    let counted = |product: &Product| product.counters() <= MOST_COUNTERS;
    of_parts.chain([even]).map(product).filter(counted).min_by_key(|product| cost(variant, product, gpu))
}

/// The same launch where each block has the sums of whole columns.
pub(super) fn whole_columns(product: Product) -> Product {
    let blocks = product.column_blocks * product.rows.div_ceil(product.kind.rows());
    Product { splits: blocks, split_tiles: product.units, ..product }
}

/// What a launch takes, in hundredths of a microsecond on an H200: a unit of a block by its kind, the start and the end, and
/// what it takes to write sums and to read all parts of them.
pub(super) fn cost(variant: Variant, product: &Product, gpu: GpuShape) -> usize {
    let Kind::Tile { rows, columns, groups } = product.kind else { return usize::MAX };
    let (units, share) = (product.units, product.split_tiles);
    let short = variant.tile_run_rows < TILE_ROWS;
    let unit = match (groups, rows, columns) {
        (true, 32, 128) => 98,
        (true, 48, 128) => 118,
        (true, 64, 128) => 137,
        (true, 32, _) if Shape::of(variant, rows, columns, groups).unit_tiles > 2 => 160,
        (true, 32, _) if short => 106,
        (true, 32, _) => 98,
        (true, 40, _) => 172,
        (true, 48, _) => 184,
        (true, 56, _) => 203,
        (true, 64, _) if variant.has_long_tiles() => 226,
        (true, 64, _) if short => 135,
        (true, 64, _) => 126,
        (true, 72, 128) => 146,
        (true, 72, _) => 101,
        (true, 80, _) => 78,
        (true, 88, _) => 120,
        (true, 96, _) => 92,
        (true, 112, _) => 101,
        (true, 144, _) => 112,
        (true, 152, _) => 130,
        (true, ..) => 107,
        (false, 32, _) => 108,
        (false, ..) => 180,
    };
    let parts = match () {
        () if share.is_multiple_of(units) => 0,
        () if units.is_multiple_of(share) => units / share + 1,
        // Those at the ends have two columns each.
        () => units.div_ceil(share) + 3,
    };
    let waves = product.splits.div_ceil(gpu.multiprocessors);
    let ends = if columns > 192 { 500 } else { 375 };
    let meeting = if parts > 0 { 150 } else { 0 };
    ends + waves * share * unit + meeting + parts * rows * columns / 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Zeros;

    const H100: GpuShape = GpuShape { multiprocessors: 132, shared_bytes: 227 * 1024 - 64, groups: true };

    fn layer(k: usize, n: usize) -> Arrangement {
        let (tiles, strips, groups) = (k / TILE_ROWS, n / STRIP_COLUMNS, k / 128);
        Arrangement {
            bits: Bits::FOUR,
            in_features: k,
            out_features: n,
            strips,
            tiles,
            groups,
            group_rows: 128,
        }
    }

    #[test]
    fn narrow_tiles_are_chosen_where_columns_are_few_and_large_ones_where_rows_are_many() {
        let kind_of = |k: usize, n: usize, rows: usize| {
            let layer = layer(k, n);
            let products = of_layer(&layer, Variant::of(&layer, true, Zeros::Stored), H100);
            products.iter().find(|product| product.rows == rows).unwrap().kind.to_string()
        };
        for (rows, small, large) in [
            (32, "g32_c128", "g32_c256"),
            (48, "g48_c128", "g48_c256"),
            (64, "g64_c128", "g64_c256"),
            (72, "g72_c128", "g72_c192"),
            (80, "g80_c128", "g80_c128"),
            (128, "g128_c128", "g128_c128"),
            (144, "g144_c128", "g144_c128"),
            (256, "g128_c128", "g128_c128"),
        ] {
            assert_eq!(
                [kind_of(4096, 4096, rows), kind_of(8192, 28672, rows)],
                [small, large],
                "{rows} rows"
            );
        }
    }

    /// As the times of launches are modelled.
    #[test]
    fn one_more_row_takes_little_more() {
        for (k, n) in [(4096, 4096), (4096, 11008), (11008, 4096), (8192, 8192), (8192, 28672), (28672, 8192)]
        {
            let layer = layer(k, n);
            let variant = Variant::of(&layer, true, Zeros::Stored);
            let products = Product::of_layer(&layer, variant, H100);
            let first_of = Product::first_of(&products, &layer, variant, H100);
            let time = |rows: usize| {
                let (mut left, mut time) = (rows, 0);
                while left > 0 {
                    let product = &products[first_of[left]];
                    time += product.time(&layer, variant, H100);
                    left = left.saturating_sub(product.rows);
                }
                time
            };
            for rows in 17..MOST_ROWS {
                let (now, next) = (time(rows), time(rows + 1));
                assert!(next * 100 <= now * 122, "{k} x {n}: {rows} rows take {now}, one more {next}");
            }
        }
    }
}
