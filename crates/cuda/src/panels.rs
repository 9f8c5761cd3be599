//! For backends that dequantize into scratch and multiply with cuBLASLt: how the dense matrix is cut into panels, and the
//! scratch of a context into parts. Pure: no GPU is asked.

use gptq_core::tensor::DType;

use crate::place::ALIGNMENT;

/// Workspace of cuBLASLt. With 32 MB it was no faster on an H200.
pub const WORKSPACE_BYTES: usize = 8 << 20;
/// Panels have so much at most: a layer of 2^28 weights fits as a whole.
const MOST_PANEL_BYTES: usize = 512 << 20;
/// And at least, on a GPU of little memory.
const LEAST_PANEL_BYTES: usize = 56 << 20;
/// Contexts may be several: a panel takes one part in so many of a GPU's memory at most.
const MEMORY_PARTS: usize = 64;
/// Panels for few rows of x, whose products take no longer than reading the panel: so much stays in the L2 cache of an
/// H100, and is written and read faster than memory allows.
const CACHED_PANEL_BYTES: usize = 32 << 20;

/// A tile of a product of 16-bit floats, rows of x by columns of W.
const TILE: [usize; 2] = [128, 256];
/// What a panel costs beside its tiles, in parts of 16 of a wave of tiles: two launches.
const PANEL_COST: usize = 1;

/// What a panel may take on a GPU of so much memory.
pub fn most_panel_bytes(memory_bytes: usize) -> usize {
    (memory_bytes / MEMORY_PARTS / ALIGNMENT * ALIGNMENT).clamp(LEAST_PANEL_BYTES, MOST_PANEL_BYTES)
}

/// The size of a panel of the dense matrix: all rows of some columns. The last one may have fewer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "two plain numbers")]
pub struct PanelSize {
    /// K.
    pub rows: usize,
    /// Of W.
    pub columns: usize,
}

impl PanelSize {
    /// Elements from row to row: rows begin aligned to 16 bytes, which kernels and products want.
    pub fn stride(self) -> usize {
        self.columns.next_multiple_of(8)
    }

    /// What it takes.
    pub fn bytes(self, dtype: DType) -> usize {
        (self.rows * self.stride() * dtype.size_bytes()).next_multiple_of(ALIGNMENT)
    }
}

/// A product `[m, k] · [k, n]` that is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "what a caller knows, and nothing else")]
pub struct Job {
    /// Rows of x.
    pub m: usize,
    /// K.
    pub k: usize,
    /// N.
    pub n: usize,
    /// Of the dense matrix.
    pub dtype: DType,
    /// Of the GPU.
    pub multiprocessors: usize,
    /// What a panel may take: [`most_panel_bytes`], or what an option says.
    pub most_panel_bytes: usize,
    /// Columns of a panel come in multiples of these, the first that leaves any: what tiles of a product have first, and the
    /// least that the kernel which dequantizes can write last.
    pub column_units: &'static [usize],
}

impl Job {
    /// The panels that cost least of those that fit into `room` bytes. `None` where not even the last
    /// of the units does.
    ///
    /// A product runs in waves of tiles, as many at a time as there are multiprocessors. A panel whose last wave is
    /// nearly empty wastes most of it, so that a narrower one may be better; where one wave holds everything, the widest
    /// is best.
    pub fn panel(&self, room: usize) -> Option<PanelSize> {
        let rows = self.k;
        let [tile_rows, _] = TILE;
        let room = if self.m <= tile_rows { room.min(CACHED_PANEL_BYTES) } else { room };
        let whole = PanelSize { rows, columns: self.n };
        if whole.bytes(self.dtype) <= room {
            return Some(whole);
        }
        let most = room / (rows * self.dtype.size_bytes()).max(1);
        let unit = self.column_units.iter().copied().find(|unit| *unit <= most)?;
        let widths = (1..=most / unit).rev().map(|units| units * unit);
        // Of equal ones the first, the widest.
        let columns = widths.min_by_key(|&columns| self.cost(columns))?;
        let panel = PanelSize { rows, columns };
        (panel.bytes(self.dtype) <= room).then_some(panel)
    }

    /// What panels of so many columns cost, in parts of 16 of a wave.
    fn cost(&self, columns: usize) -> usize {
        let [tile_rows, tile_columns] = TILE;
        let of_panel = |columns: usize| {
            let tiles = self.m.div_ceil(tile_rows) * columns.div_ceil(tile_columns);
            16 * tiles.div_ceil(self.multiprocessors.max(1)) + PANEL_COST
        };
        let rest = self.n % columns;
        self.n / columns * of_panel(columns) + if rest > 0 { of_panel(rest) } else { 0 }
    }

    /// Scratch of one context with which it runs in as few panels as it may have: a panel, and the workspace of cuBLASLt.
    ///
    /// On an H200 panels of 56 MB, whose products leave multiprocessors idle, took 0 to 24 % longer than the whole matrix at 512
    /// rows of x and more: of `[8192, 28672]` 575 us instead of 530 for 512 rows, of `[28672, 8192]` 623 instead of 503.
    pub fn scratch_bytes(&self) -> usize {
        let whole = PanelSize { rows: self.k, columns: self.n };
        whole.bytes(self.dtype).min(self.most_panel_bytes) + WORKSPACE_BYTES
    }
}

/// The scratch of a context: a panel first, then whatever else, then the workspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    total: usize,
}

impl Room {
    /// Of so many bytes.
    pub fn new(scratch_bytes: usize) -> Self {
        Self { total: scratch_bytes / ALIGNMENT * ALIGNMENT }
    }

    /// What is there.
    pub fn total(self) -> usize {
        self.total
    }

    /// What panels may take: all but the workspace, or half of it where there is little.
    pub fn for_panel(self) -> usize {
        let half = self.total / 2 / ALIGNMENT * ALIGNMENT;
        self.total.saturating_sub(WORKSPACE_BYTES).max(half)
    }

    /// The workspace behind `used` bytes.
    pub fn workspace_after(self, used: usize) -> usize {
        self.total.saturating_sub(used).min(WORKSPACE_BYTES)
    }
}

/// Cuts `total` into pieces of `size`, the last of which may be smaller: where each begins, and how long it is.
pub fn pieces(total: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = size.max(1);
    (0..total).step_by(size).map(move |start| (start, size.min(total - start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(m: usize, k: usize, n: usize, dtype: DType) -> Job {
        let most_panel_bytes = most_panel_bytes(16 << 30);
        Job { m, k, n, dtype, multiprocessors: 132, most_panel_bytes, column_units: &[256, 128, 8] }
    }

    #[test]
    fn a_matrix_that_fits_is_one_panel() {
        for (k, n) in [(4096, 4096), (41, 33), (1, 1), (8192, 2048)] {
            let panel = job(4096, k, n, DType::F16).panel(LEAST_PANEL_BYTES);
            assert_eq!(panel, Some(PanelSize { rows: k, columns: n }), "{k} x {n}");
        }
    }

    #[test]
    fn panels_fit_their_room_and_have_columns_in_whole_tiles() {
        for dtype in DType::ALL {
            for (m, k, n) in [(4096, 8192, 28672), (16, 28672, 8192), (1000, 4096, 128_256), (5, 18432, 7000)]
            {
                for room in [MOST_PANEL_BYTES, LEAST_PANEL_BYTES, 5 << 20, 1 << 20, 600_000] {
                    let Some(panel) = job(m, k, n, dtype).panel(room) else {
                        assert!(
                            room < 8 * k * dtype.size_bytes(),
                            "8 columns of {dtype}, K = {k}, fit {room}"
                        );
                        continue;
                    };
                    assert!(panel.bytes(dtype) <= room, "{panel:?} of {dtype} in {room}");
                    assert!(panel.columns == n || panel.columns.is_multiple_of(8), "{panel:?}");
                    let wide = room / (panel.rows * dtype.size_bytes()) >= 256;
                    assert!(!wide || panel.columns == n || panel.columns.is_multiple_of(256), "{panel:?}");
                }
            }
        }
        assert_eq!(job(5, 28672, 8192, DType::F16).panel(28672 * 2 * 8 - 1), None, "not even 8 columns");
    }

    #[test]
    fn panels_fill_their_waves_of_tiles() {
        for (k, n) in [(8192, 28672), (4096, 11008), (4096, 14336), (8192, 8192), (28672, 8192)] {
            let job = job(4096, k, n, DType::F16);
            let panel = job.panel(LEAST_PANEL_BYTES).unwrap();
            let ideal = 16 * 32 * n.div_ceil(256);
            let filled = ideal as f64 / (132 * job.cost(panel.columns)) as f64;
            assert!(filled >= 0.85, "{k} x {n}: {panel:?} keeps {filled:.2} of the GPU busy");
        }
    }

    #[test]
    fn products_of_few_rows_take_the_widest_panels() {
        assert_eq!(job(8, 8192, 28672, DType::F16).panel(MOST_PANEL_BYTES).unwrap().columns, 2048);
    }

    #[test]
    fn scratch_is_capped_and_serves_what_asked_for_it() {
        for dtype in DType::ALL {
            for (k, n) in [(8192, 28672), (4096, 4096), (96, 136), (28672, 8192)] {
                for memory_bytes in [4 << 30, 16 << 30, 80 << 30] {
                    let job =
                        Job { most_panel_bytes: most_panel_bytes(memory_bytes), ..job(64, k, n, dtype) };
                    let bytes = job.scratch_bytes();
                    let most = (memory_bytes / 64).max(56 << 20) + WORKSPACE_BYTES;
                    assert!(bytes <= most, "{bytes} of {memory_bytes}");
                    let room = Room::new(bytes);
                    let panel = job.panel(room.for_panel()).unwrap();
                    let used = panel.bytes(dtype);
                    assert_eq!(room.workspace_after(used), WORKSPACE_BYTES, "{k} x {n} in {dtype}");
                }
            }
        }
    }

    #[test]
    fn the_largest_layers_are_one_panel_where_there_is_memory() {
        for (k, n) in [(8192, 28672), (28672, 8192), (4096, 14336)] {
            let job = Job { most_panel_bytes: most_panel_bytes(80 << 30), ..job(512, k, n, DType::F16) };
            let panel = job.panel(Room::new(job.scratch_bytes()).for_panel());
            assert_eq!(panel, Some(PanelSize { rows: k, columns: n }), "{k} x {n}");
        }
    }

    #[test]
    fn what_an_option_allows_is_what_scratch_has_room_for() {
        // Of little the workspace gives half.
        for (most_panel_bytes, columns) in [(0, 512), (10, 512), (9 << 20, 1024), (56 << 20, 7168)] {
            let job = Job { most_panel_bytes, ..job(512, 4096, 14336, DType::F16) };
            let bytes = job.scratch_bytes();
            assert_eq!(bytes, most_panel_bytes + WORKSPACE_BYTES);
            let panel = job.panel(Room::new(bytes).for_panel());
            assert_eq!(panel.map(|panel| panel.columns), Some(columns), "{most_panel_bytes}");
        }
    }

    #[test]
    fn little_scratch_is_divided_between_panel_and_workspace() {
        let room = Room::new(1_000_000);
        let panel = room.for_panel();
        assert!(panel.is_multiple_of(ALIGNMENT) && (400_000..=500_000).contains(&panel), "{panel}");
        assert!(panel + room.workspace_after(panel) <= 1_000_000);
        assert_eq!((Room::new(0).for_panel(), Room::new(255).workspace_after(0)), (0, 0));
    }

    #[test]
    fn pieces_cover_everything_once() {
        assert_eq!(pieces(10, 4).collect::<Vec<_>>(), [(0, 4), (4, 4), (8, 2)]);
        assert_eq!(pieces(0, 4).count(), 0);
        assert_eq!(pieces(3, 0).count(), 3, "a size of nothing is one");
    }
}
