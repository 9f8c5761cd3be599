//! Tiles of many columns by many rows of x: their kernels, and how a launch divides its work.
//!
//! The work is one row of units, each 128 or 256 rows of W by the columns and the rows of x of a tile. Blocks take equal shares of
//! it. A share may begin and end within a column of units, whose sums are then parts, written and added by whoever comes
//! last; so shares that divide a column evenly are better where they are not much longer.

use gptq_core::format::Bits;

use super::{GpuShape, Kind, MOST_COUNTERS, Product, Variant, WARP};
use crate::layout::{Arrangement, STRIP_COLUMNS, TILE_ROWS};

/// Scales and zero points of a run of rows in shared memory.
const RUN_BYTES: usize = 48;
/// Rows of x from which a launch is planned for itself.
const PLANNED_ROWS: [usize; 8] = [32, 48, 64, 96, 128, 160, 192, 256];

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
        let long = variant.has_long_tiles() && groups && rows <= 64;
        let stages = if !groups {
            if wide && rows == 64 { 2 } else { 3 }
        } else if (rows, columns) == (32, 128) {
            6
        } else if rows == 96 {
            5
        } else if rows == 48 || (columns == 256 && (wide || (long && rows == 64))) {
            3
        } else {
            4
        };
        let unit_tiles = if long { 4 } else { 2 };
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
fn cost(variant: Variant, product: &Product, gpu: GpuShape) -> usize {
    let Kind::Tile { rows, columns, groups } = product.kind else { return usize::MAX };
    let (units, share) = (product.units, product.split_tiles);
    let unit = match (groups, rows, columns) {
        (true, 32, 128) => 97,
        (true, 48, _) => 190,
        (true, 64, 128) => 127,
        (true, 32, _) if variant.has_long_tiles() => 165,
        (true, 64, _) if variant.has_long_tiles() => 227,
        (true, 32, _) => 104,
        (true, 64, _) => 125,
        (true, 96, _) => 87,
        (true, ..) => 113,
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
    400 + waves * share * unit + parts * rows * columns / 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Zeros;

    const H100: GpuShape = GpuShape { multiprocessors: 132, shared_bytes: 227 * 1024 - 64, groups: true };

    fn launches(k: usize, n: usize) -> Vec<String> {
        let (tiles, strips) = (k / TILE_ROWS, n / STRIP_COLUMNS);
        let groups = k / 128;
        let layer = Arrangement {
            bits: Bits::FOUR,
            in_features: k,
            out_features: n,
            strips,
            tiles,
            groups,
            group_rows: 128,
        };
        let products = of_layer(&layer, Variant::of(&layer, true, Zeros::Stored), H100);
        products.iter().map(|p| format!("{} {} x {}", p.kind, p.splits, p.split_tiles)).collect()
    }

    #[test]
    fn narrow_tiles_are_chosen_where_columns_are_few_and_large_ones_where_rows_are_many() {
        let small = launches(4096, 4096);
        assert!(small[0].starts_with("g32_c128") && small[2].starts_with("g64_c128"), "{small:?}");
        let large = launches(8192, 28672);
        for (launch, kind) in large.iter().zip(["g32_c256", "g48_c256", "g64_c256", "g96_c128"]) {
            assert!(launch.starts_with(kind), "{large:?}");
        }
        for launch in [&large[4], &large[7]] {
            assert!(launch.starts_with("g128_c128"), "{large:?}");
        }
    }
}
