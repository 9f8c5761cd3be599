//! Many rows of x: a tile of weights is unpacked once for all of them.

use crate::kernel::{MAX_TILE, PANEL_WORDS, Totals};
use crate::tasks::{ColumnsOf, for_each_strip};
use crate::x::Slices;

use super::strip::{Strip, Tail};
use super::{PIECE, Piece};

/// The most columns of a strip.
const WIDTH: usize = 256;
/// The most sums of a strip: a part of a core's second-level cache, with room for x.
const SUMS: usize = 128 * PIECE;

impl Piece<'_> {
    /// Writes the product of the piece to `out`, strip by strip.
    pub(super) fn multiply<T: Slices>(&self, out: &mut [T]) {
        let n = self.layer.out_features();
        let width = (SUMS / self.x.rows / MAX_TILE * MAX_TILE).min(WIDTH);
        for_each_strip(out, n, MAX_TILE, n.div_ceil(width), |strip| self.multiply_strip(strip));
    }

    fn multiply_strip<T: Slices>(&self, mut out: ColumnsOf<'_, T>) {
        let mut totals = [0.0f32; SUMS];
        let stride = (SUMS / self.x.rows).min(WIDTH);
        let mut panels = [0u32; PANEL_WORDS];
        let (mut scales, mut offsets) = ([0.0; WIDTH], [0.0; WIDTH]);
        let mut strip = Strip::new(self, out.columns(), &mut scales, &mut offsets);
        let mut tail = Tail::new();
        let (width, family) = (strip.width(), self.x.family);
        let tile = family.tile;
        // Calls of about equal size: few rows leave a kernel waiting for its own sums.
        let step = self.x.rows.div_ceil(self.x.rows.div_ceil(family.rows));
        for run in 0..self.runs() {
            let words = strip.enter(run);
            let tail = match width % tile {
                0 => None,
                rest => Some(tail.copy(&words, width - rest..width, tile)),
            };
            let words_of_tile = |first: usize| match tail {
                Some(tail) if first + tile > width => tail,
                _ => words.narrow(first..first + tile),
            };
            // As many tiles as the cache holds are unpacked before rows of x pass by: each is then read once for all.
            let panel_words = words.blocks * family.steps * tile;
            let at_once = PANEL_WORDS / panel_words * tile;
            for first in (0..width).step_by(at_once) {
                let tiles = || (first..width.min(first + at_once)).step_by(tile);
                for (tile, panel) in tiles().zip(panels.chunks_exact_mut(panel_words)) {
                    family.unpack(self.fast.format, &words_of_tile(tile), panel);
                }
                for row in (0..self.x.rows).step_by(step) {
                    let rows = row..self.x.rows.min(row + step);
                    let x = self.x.run(run, rows.clone());
                    for (tile, panel) in tiles().zip(panels.chunks_exact(panel_words)) {
                        let values = &mut totals[row * stride + tile..];
                        let totals = Totals { values, sums: &mut [], stride };
                        family.multiply(rows.len(), &words_of_tile(tile), panel, x, totals);
                    }
                }
            }
        }

        let mut bias = [0.0f32; WIDTH];
        if let Some(values) = self.layer.bias() {
            values.read(out.columns(), &mut bias[..width]);
        }
        for (row, totals) in totals.chunks_exact_mut(stride).take(self.x.rows).enumerate() {
            for (total, bias) in totals.iter_mut().zip(&bias[..width]) {
                *total += bias;
            }
            T::narrow_all(&totals[..width], out.row(row));
        }
    }
}
