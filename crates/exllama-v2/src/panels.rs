//! How the dense matrix is cut into panels of columns, and the scratch of a context into parts. Pure: no GPU is asked.

use gptq_cuda::Matmul;

use crate::kernels::PANEL_COLUMNS;
use crate::memory::ALIGNMENT;

/// Scratch of one context at most: a panel, and the workspace of cuBLASLt.
pub(crate) const MOST_SCRATCH_BYTES: usize = 64 << 20;
/// A panel stays in the L2 cache until its product has read it.
const MOST_PANEL_BYTES: usize = 32 << 20;
const _: () = assert!(MOST_PANEL_BYTES + Matmul::WORKSPACE_BYTES <= MOST_SCRATCH_BYTES, "scratch is capped");

/// A tile of a product, rows of x by columns of W.
const TILE: [usize; 2] = [128, 256];
/// What a panel costs beside its tiles, in parts of 16 of a wave of tiles: two launches.
const PANEL_COST: usize = 1;

/// A product `[m, k] · [k, n]` of 16-bit floats that is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Job {
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) multiprocessors: usize,
}

impl Job {
    /// Columns of a panel: of those that fit into `room` bytes the width that costs least, and of equal ones the widest. All
    /// columns, or a multiple of [`PANEL_COLUMNS`]; `None` where not even so many fit.
    ///
    /// A product runs in waves of tiles, as many at a time as there are multiprocessors. A panel whose last wave is nearly
    /// empty wastes most of it, so that a narrower one may be better.
    pub(crate) fn panel_columns(&self, room: usize) -> Option<usize> {
        let most = room / (self.k * 2).max(1);
        if self.n <= most {
            return Some(self.n);
        }
        let widths = (1..=most / PANEL_COLUMNS).rev().map(|units| units * PANEL_COLUMNS);
        widths.min_by_key(|&columns| self.cost(columns))
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

    /// Scratch with which it runs in as few panels as it may have: at most [`MOST_SCRATCH_BYTES`].
    pub(crate) fn scratch_bytes(&self) -> usize {
        let whole = (self.k * self.n * 2).next_multiple_of(ALIGNMENT);
        whole.min(MOST_PANEL_BYTES) + Matmul::WORKSPACE_BYTES
    }
}

/// The scratch of a context: a panel first, the workspace behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    total: usize,
}

impl Room {
    pub(crate) fn new(scratch_bytes: usize) -> Self {
        Self { total: scratch_bytes / ALIGNMENT * ALIGNMENT }
    }

    /// What is there.
    pub(crate) fn total(self) -> usize {
        self.total
    }

    /// What a panel may take: all but the workspace, or half of it where there is little.
    pub(crate) fn for_panel(self) -> usize {
        let half = self.total / 2 / ALIGNMENT * ALIGNMENT;
        self.total.saturating_sub(Matmul::WORKSPACE_BYTES).max(half).min(MOST_PANEL_BYTES)
    }

    /// The workspace behind `used` bytes.
    pub(crate) fn workspace_after(self, used: usize) -> usize {
        self.total.saturating_sub(used).min(Matmul::WORKSPACE_BYTES)
    }
}

/// Cuts `total` into pieces of `size`, the last of which may be smaller: where each begins, and how long it is.
pub(crate) fn pieces(total: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = size.max(1);
    (0..total).step_by(size).map(move |start| (start, size.min(total - start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_all_columns_and_fit_their_room() {
        for (m, k, n) in [(512, 8192, 28672), (128, 28672, 8192), (4096, 4096, 128_256), (100, 4096, 4096)] {
            let job = Job { m, k, n, multiprocessors: 132 };
            let room = Room::new(job.scratch_bytes());
            let columns = job.panel_columns(room.for_panel()).unwrap();
            assert!(columns == n || columns.is_multiple_of(PANEL_COLUMNS), "{columns}");
            assert!(k * columns * 2 <= room.for_panel(), "{columns} columns of {k} rows");
            assert_eq!(room.workspace_after(k * columns * 2), Matmul::WORKSPACE_BYTES, "{k} x {n}");
            assert_eq!(pieces(n, columns).map(|(_, columns)| columns).sum::<usize>(), n);
            assert!(job.scratch_bytes() <= MOST_SCRATCH_BYTES);
        }
    }

    #[test]
    fn without_room_for_a_panel_there_is_none() {
        let job = Job { m: 512, k: 8192, n: 28672, multiprocessors: 132 };
        assert_eq!(job.panel_columns(8192 * 2 * (PANEL_COLUMNS - 1)), None);
        assert_eq!(job.panel_columns(8192 * 2 * PANEL_COLUMNS), Some(PANEL_COLUMNS));
    }
}
