//! Many rows of x: strips of columns, each of which one thread multiplies with all rows.
//!
//! A run of rows of a strip is so few words that they stay in a core's first-level cache while rows of x pass over them. Where
//! unpacking them each time costs little, groups of rows do just that. Otherwise a *panel* is unpacked once for all rows.

use crate::kernel::{Grouped, MAX_TILE, PANEL_WORDS, Totals};
use crate::tasks::{ColumnsOf, for_each_strip};
use crate::x::Slices;

use super::strip::{Strip, Tail};
use super::{PIECE, Piece};

/// The most columns of a strip. Rows of words are read as far from memory.
const WIDTH: usize = 768;
/// The same where panels are unpacked.
const PANELS_WIDTH: usize = 256;
/// The most sums of a strip: a part of a core's second-level cache, with room for x.
const SUMS: usize = 128 * PIECE;

impl Piece<'_> {
    /// Writes the product of the piece to `out`, strip by strip.
    pub(super) fn multiply<T: Slices>(&self, out: &mut [T]) {
        let (n, rows) = (self.layer.out_features(), self.x.rows);
        let grouped = self.x.family.grouped(self.fast.format, rows);
        let widest = if grouped.is_some() { WIDTH } else { PANELS_WIDTH };
        let width = (SUMS / rows / MAX_TILE * MAX_TILE).min(widest);
        // As many for one thread as for another.
        let strips = n.div_ceil(width).next_multiple_of(rayon::current_num_threads());
        for_each_strip(out, n, MAX_TILE, strips.min(n.div_ceil(MAX_TILE)), |strip| match rows * width {
            // Room for the sums is cleared first: no more of it than is needed.
            sums if sums <= SUMS / 4 => self.multiply_strip::<T, { SUMS / 4 }>(grouped, width, strip),
            sums if sums <= SUMS / 2 => self.multiply_strip::<T, { SUMS / 2 }>(grouped, width, strip),
            _ => self.multiply_strip::<T, SUMS>(grouped, width, strip),
        });
    }

    /// A strip of at most `stride` columns.
    fn multiply_strip<T: Slices, const SUMS: usize>(
        &self,
        grouped: Option<Grouped>,
        stride: usize,
        mut out: ColumnsOf<'_, T>,
    ) {
        let mut totals = [0.0f32; SUMS];
        let (mut scales, mut offsets) = ([0.0; WIDTH], [0.0; WIDTH]);
        let mut strip = Strip::new(self, out.columns(), &mut scales, &mut offsets);
        let width = strip.width();
        match grouped {
            Some(grouped) => self.add_groups(grouped, &mut strip, &mut totals, stride),
            None => self.add_panels(&mut strip, &mut totals, stride),
        }

        let bias = self.layer.bias().map(|values| {
            let mut bias = [0.0f32; WIDTH];
            values.read(out.columns(), &mut bias[..width]);
            bias
        });
        for (row, totals) in totals.chunks_exact_mut(stride).take(self.x.rows).enumerate() {
            for (total, bias) in totals.iter_mut().zip(bias.iter().flat_map(|bias| &bias[..width])) {
                *total += bias;
            }
            T::narrow_all(self.x.family, &totals[..width], out.row(row));
        }
    }

    fn add_groups(&self, grouped: Grouped, strip: &mut Strip<'_>, totals: &mut [f32], stride: usize) {
        let (width, tile) = (strip.width(), grouped.tile);
        let whole = width / tile * tile;
        let mut tail = (whole < width).then(Tail::new);
        for run in 0..self.runs() {
            let x = self.x.run(run, 0..self.x.rows);
            let words = strip.enter(run);
            if whole > 0 {
                let totals = Totals { values: &mut *totals, sums: &mut [], stride };
                grouped.run(&words.narrow(0..whole), x, totals);
            }
            if let Some(tail) = &mut tail {
                let run = tail.copy(&words, whole..width, tile);
                let totals = Totals { values: &mut totals[whole..], sums: &mut [], stride };
                grouped.run(&run, x, totals);
            }
        }
    }

    fn add_panels(&self, strip: &mut Strip<'_>, totals: &mut [f32], stride: usize) {
        let mut panels = [0u32; PANEL_WORDS];
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
    }
}
