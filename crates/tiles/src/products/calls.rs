//! Which launches a call takes: those whose modelled times add up to the least, and from how many rows on the dense way.

use gptq_core::format::Bits;

use super::{GpuShape, Kind, MOST_ROWS, Product, Variant, few, tile};
use crate::layout::{Arrangement, TILE_ROWS};

/// What an H200 reads in a hundredth of a microsecond: 4.3 TB/s.
pub(super) const BYTES_IN_A_HUNDREDTH: usize = 43_000;
/// Weights that tiles of tokens side by side may read more than once and find in the L2 cache. Larger ones come from memory for each
/// tile: 144 rows of `[8192, 28672]` in three tiles of one launch took 219 us on an H200 where the model without that said 158, and
/// take 182 in two launches of one tile.
const CACHED_BYTES: usize = 48 << 20;
/// What a launch more of such weights takes beside its own time: 33 rows of `[8192, 28672]` with zero points took 110 us in a launch of one
/// row and one of 32, which take 33 and 59.
const ANOTHER_LAUNCH: usize = 400;
/// The same of weights that the L2 cache holds.
const ANOTHER_CACHED_LAUNCH: usize = 100;

impl Product {
    /// What it takes, in hundredths of a microsecond on an H200: so much that launches can be compared.
    pub(super) fn time(&self, layer: &Arrangement, variant: Variant, gpu: GpuShape) -> usize {
        match self.kind {
            Kind::Tile { rows, .. } => {
                let again = self.rows.div_ceil(rows.max(1)).saturating_sub(1);
                let bytes = layer.weight_bytes();
                let weights = if bytes > CACHED_BYTES { bytes / BYTES_IN_A_HUNDREDTH } else { 0 };
                // The model is of 4 bits: 8 take 7 to 28 % longer.
                let of_width = if layer.bits == Bits::EIGHT { 120 } else { 100 };
                tile::cost(variant, self, gpu) * of_width / 100 + again * weights
            }
            Kind::Few { .. } => few::cost(layer, self, gpu),
            Kind::Some { .. } => self.cost(gpu),
        }
    }

    /// For each number of rows up to [`MOST_ROWS`], which launch of a layer is the first of those that take least together: where
    /// one more row is another tile, two launches may be faster than a large one.
    pub(crate) fn first_of(
        products: &[Self],
        layer: &Arrangement,
        variant: Variant,
        gpu: GpuShape,
    ) -> Vec<usize> {
        if !products.iter().any(|product| matches!(product.kind, Kind::Tile { .. })) {
            let enough = |rows: usize| products.iter().position(|product| product.rows >= rows);
            let last = products.len().saturating_sub(1);
            return (0..=MOST_ROWS).map(|rows| enough(rows).unwrap_or(last)).collect();
        }
        let times: Vec<usize> = products.iter().map(|product| product.time(layer, variant, gpu)).collect();
        let cached = layer.weight_bytes() <= CACHED_BYTES;
        let another = if cached { ANOTHER_CACHED_LAUNCH } else { ANOTHER_LAUNCH };
        let mut best = vec![(0, 0)];
        for rows in 1..=MOST_ROWS {
            let with = |(index, (product, time)): (usize, (&Self, &usize))| {
                let left = rows.saturating_sub(product.rows);
                let rest = best.get(left).map_or(0, |&(rest, _)| rest);
                (time + rest + if left > 0 { another } else { 0 }, index)
            };
            best.push(products.iter().zip(&times).enumerate().map(with).min().unwrap_or_default());
        }
        best.into_iter().map(|(_, index)| index).collect()
    }
}

/// Weights of a layer up to which the dense matrix is written soon, and less soon, where there is no wgmma.
const SMALL_WEIGHTS: usize = 48 << 20;
const MEDIUM_WEIGHTS: usize = 128 << 20;

/// Rows of x from which a dense matrix and cuBLASLt are faster than the products of a layer.
///
/// H200, tiles with wgmma and the dense way by turns, in us: 448 rows of `[4096, 14336]` take 129 and 138, of `[8192, 8192]` 142 and 140,
/// of `[11008, 4096]` 96 and 94; 512 rows of `[4096, 4096]` 37 and 38, of `[8192, 28672]` 545 and 510, of `[28672, 8192]` 534 and 472.
/// With groups of 32 tiles are 10 % slower. With mma.sync 256 rows take 34, 108 and 402, the dense way 26, 102 and 341. Of 2 bits, which
/// have no tiles, 64 rows of `[4096, 4096]` take 12, of `[4096, 11008]` 31, of `[8192, 8192]` 38, of `[8192, 28672]` 132, and 32 rows 7, 15,
/// 20 and 68. Without either, on an H100: of `[4096, 4096]` 64 rows take 25 and 128 take 49, the dense way 24 and 28; of `[8192, 28672]`
/// 128 rows take 290, the dense way 443.
pub(crate) fn dense_from(layer: &Arrangement, variant: Variant, products: &[Product]) -> usize {
    let [small, medium, large] = match products.last().map(|product| product.kind) {
        Some(Kind::Tile { groups: true, .. }) if variant.tile_run_rows < TILE_ROWS => [385; 3],
        Some(Kind::Tile { groups: true, .. }) => [449; 3],
        Some(Kind::Tile { .. }) => [193, 193, 257],
        Some(Kind::Few { .. }) => [97, 129, 161],
        _ => [65, 129, 193],
    };
    match layer.in_features * layer.out_features {
        weights if weights <= SMALL_WEIGHTS => small,
        weights if weights <= MEDIUM_WEIGHTS => medium,
        _ => large,
    }
}
