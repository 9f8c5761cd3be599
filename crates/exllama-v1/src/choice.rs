//! Which kernel runs a call, and with how many blocks. Pure: no GPU is asked.

/// A kernel for tensor cores, as kernels/exllama_v1/product.cu defines it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Product {
    pub(crate) name: &'static str,
    token_tiles: usize,
    across: usize,
    down: usize,
    unit_chunks: usize,
    stages: usize,
    staged: bool,
}

impl Product {
    const fn new(
        name: &'static str,
        token_tiles: usize,
        [across, down]: [usize; 2],
        unit_chunks: usize,
        stages: usize,
        staged: bool,
    ) -> Self {
        Self { name, token_tiles, across, down, unit_chunks, stages, staged }
    }

    /// Rows of x of a block.
    pub(crate) const fn rows(&self) -> usize {
        self.token_tiles * 8
    }

    /// Columns of a block.
    pub(crate) const fn columns(&self) -> usize {
        self.across * 32
    }

    const fn item_rows(&self) -> usize {
        self.down * self.unit_chunks * 32
    }

    /// Dynamic shared memory of a block.
    pub(crate) const fn shared_bytes(&self) -> usize {
        let words = self.across * self.down * self.unit_chunks * 512;
        let x = if self.staged { self.rows() * self.item_rows() * 2 } else { 0 };
        self.stages * (words + x) + (self.down - 1) * self.rows() * (self.columns() + 4) * 4
    }

    /// How a call is divided on a GPU that holds `slots` blocks of this kernel at a time.
    ///
    /// Blocks share the work evenly whatever their number. Where nearly all slots are taken by whole columns, or equal
    /// parts of them, fewer sums meet.
    pub(crate) fn grid(&self, slots: usize, rows: usize, [k, n]: [usize; 2]) -> Grid {
        let row_blocks = rows.div_ceil(self.rows());
        let column_blocks = n.div_ceil(self.columns());
        let slots = (slots / row_blocks).max(1);
        let even = slots / column_blocks * column_blocks;
        let wanted = if even * 10 >= slots * 9 { even } else { slots };
        let items = k.div_ceil(self.item_rows()) * column_blocks;
        let blocks = wanted.min(items).min(MOST_SHARERS * column_blocks);
        Grid { blocks, row_blocks, column_blocks }
    }

    /// The same without sums that meet: for contexts that have no room for them.
    pub(crate) fn whole_columns(&self, rows: usize, n: usize) -> Grid {
        let column_blocks = n.div_ceil(self.columns());
        Grid { blocks: column_blocks, row_blocks: rows.div_ceil(self.rows()), column_blocks }
    }

    /// Bytes of cells, and of the sums behind them, that a grid needs.
    pub(crate) fn room(&self, grid: &Grid) -> [usize; 2] {
        if grid.column_blocks.is_multiple_of(grid.blocks) {
            return [0, 0];
        }
        let cells = grid.row_blocks * grid.column_blocks * self.across * size_of::<u64>();
        let sums = grid.row_blocks * grid.blocks * 2 * self.rows() * self.columns() * size_of::<f32>();
        [cells.next_multiple_of(256), sums]
    }
}

/// Blocks that have a part of the same columns at most: what a cell counts to.
const MOST_SHARERS: usize = 255;

/// How a call is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grid {
    /// In x.
    pub(crate) blocks: usize,
    /// In y.
    pub(crate) row_blocks: usize,
    column_blocks: usize,
}

/// The kernels for tensor cores.
pub(crate) const PRODUCTS: [Product; 11] = [
    Product::new("product_m8_n32", 1, [1, 8], 4, 3, false),
    Product::new("product_m8_n64", 1, [2, 4], 4, 3, false),
    Product::new("product_m16_n128", 2, [4, 2], 4, 3, true),
    Product::new("product_m32_n256", 4, [8, 1], 2, 4, true),
    Product::new("product_m64_n128", 8, [4, 2], 2, 3, true),
    Product::new("product_m64_n256", 8, [8, 1], 2, 4, true),
    // More shared memory than GPUs of every kind have.
    Product::new("product_m32_n128", 4, [4, 2], 4, 4, true),
    Product::new("product_m32_n256_k256", 4, [8, 1], 8, 3, true),
    Product::new("product_m64_n128_k256", 8, [4, 2], 4, 3, true),
    Product::new("product_m64_n256_k128", 8, [8, 1], 4, 3, true),
    Product::new("product_m64_n256_k256", 8, [8, 1], 8, 3, true),
];

/// Weights up to which a layer is small, those from which it is large, and columns up to which it is narrow: what was
/// measured on an H100 and an H200.
const FEW_WEIGHTS: usize = 48 << 20;
const VERY_FEW_WEIGHTS: usize = 24 << 20;
const MANY_WEIGHTS: usize = 128 << 20;
const FEW_COLUMNS: usize = 4096;

/// Which of [`PRODUCTS`] is best for a call, then those that serve where the GPU has too little shared memory for it.
pub(crate) fn preferred(rows: usize, [k, n]: [usize; 2]) -> &'static [usize] {
    match rows {
        0..=8 if k * n <= FEW_WEIGHTS => &[0, 1],
        0..=8 => &[1, 0],
        9..=16 => &[2, 1, 0],
        17..=32 if k * n <= VERY_FEW_WEIGHTS => &[6, 3, 2, 1, 0],
        17..=32 if k * n >= MANY_WEIGHTS => &[7, 3, 2, 1, 0],
        17..=32 => &[3, 2, 1, 0],
        _ if k * n <= VERY_FEW_WEIGHTS => &[8, 4, 5, 3, 2, 1, 0],
        _ if n <= FEW_COLUMNS => &[8, 5, 3, 2, 1, 0],
        _ if k * n >= MANY_WEIGHTS => &[10, 9, 5, 3, 2, 1, 0],
        _ => &[9, 5, 3, 2, 1, 0],
    }
}

/// Rows of x from which the dense matrix is faster on an H100.
pub(crate) fn measured_threshold([k, n]: [usize; 2]) -> usize {
    if k * n <= FEW_WEIGHTS { 65 } else { 129 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [[usize; 2]; 7] =
        [[4096, 4096], [8192, 28672], [28672, 8192], [96, 136], [32, 8], [11008, 4096], [40960, 64]];

    #[test]
    fn every_grid_keeps_what_params_h_asks_for() {
        for product in PRODUCTS {
            for [k, n] in SHAPES {
                for (slots, rows) in [(396, 1), (132, 64), (1, 200), (100_000, 9)] {
                    let grid = product.grid(slots, rows, [k, n]);
                    let columns = n.div_ceil(product.columns());
                    let items = k.div_ceil(product.item_rows()) * columns;
                    let what = format!("{} of {k} x {n}, {rows} rows, {slots} slots: {grid:?}", product.name);
                    assert!((1..=items.min(255 * columns)).contains(&grid.blocks), "{what}");
                    assert!(grid.row_blocks * product.rows() >= rows, "{what}");
                    assert_eq!(product.room(&product.whole_columns(rows, n)), [0, 0], "{what}");
                }
            }
        }
    }

    #[test]
    fn nearly_full_waves_are_cut_to_whole_columns() {
        let blocks = |product: usize, slots, k, n| PRODUCTS[product].grid(slots, 1, [k, n]).blocks;
        assert_eq!(blocks(0, 396, 4096, 4096), 384);
        assert_eq!(blocks(1, 396, 28672, 8192), 384);
        assert_eq!(blocks(1, 396, 8192, 28672), 396);
        assert_eq!(blocks(5, 132, 8192, 28672), 132);
    }

    #[test]
    fn shared_memory_is_what_the_kernels_lay_out() {
        let bytes: Vec<usize> = PRODUCTS.iter().map(Product::shared_bytes).collect();
        let small = [57_216, 55_680, 82_176, 49_152, 107_520, 65_536];
        assert_eq!(bytes, [&small[..], &[147_968, 147_456, 181_248, 98_304, 196_608]].concat());
    }

    #[test]
    fn every_call_has_a_kernel_that_fits_turing() {
        for rows in [1, 8, 9, 16, 17, 32, 33, 1000] {
            for shape in SHAPES {
                let fits = preferred(rows, shape).iter().any(|&i| PRODUCTS[i].shared_bytes() <= 64 << 10);
                assert!(fits, "{rows} rows of {shape:?}");
            }
        }
    }
}
