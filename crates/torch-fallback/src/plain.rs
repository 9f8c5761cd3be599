//! The plain path: strips of columns, unpacked a run of rows at a time and multiplied. It runs every layer on every
//! processor, and all other paths are held to it.

use std::ops::Range;

use gptq_core::format::GroupIndex;
use gptq_core::format::packing::unpack_row;
use gptq_core::tensor::Element;
use gptq_core::{Error, LayerInfo, QuantLinear, Result};
use rayon::prelude::*;

/// Columns that one task works on: a few cache lines of packed words for each row of words.
const STRIP: usize = 64;
/// Rows of x in one piece: the accumulators of a strip fit a core's first-level cache.
const PIECE: usize = 16;
/// Products that are summed before the sum is scaled and added to the total. Summing in two levels keeps the error
/// of an f32 sum near that of its parts, whatever K is (Higham, Accuracy and Stability of Numerical Algorithms,
/// 4.2).
const RUN: usize = 128;

/// A layer on the plain path.
pub(crate) struct Plain<'a> {
    pub(crate) layer: &'a QuantLinear,
}

type Tile = [[f32; STRIP]; PIECE];

impl Plain<'_> {
    /// Room for one piece of x and one piece of the output in f32.
    pub(crate) fn scratch_bytes(&self) -> usize {
        PIECE * self.row_scratch()
    }

    fn row_scratch(&self) -> usize {
        (self.layer.in_features() + self.layer.out_features().next_multiple_of(STRIP)) * size_of::<f32>()
    }

    pub(crate) fn forward<T: Element>(&self, x: &[T], out: &mut [T], scratch: &mut [u8]) -> Result<()> {
        let (k, n) = (self.layer.in_features(), self.layer.out_features());
        let rows_that_fit = (scratch.len() / self.row_scratch()).min(PIECE);
        if rows_that_fit == 0 {
            return Err(Error::ScratchTooSmall {
                layer: self.layer.name().to_owned(),
                found: scratch.len(),
                needed: self.row_scratch(),
            });
        }
        let floats: &mut [f32] = bytemuck::cast_slice_mut(scratch);
        let (x_piece, out_piece) = floats.split_at_mut(rows_that_fit * k);
        for (x, out) in x.chunks(rows_that_fit * k).zip(out.chunks_mut(rows_that_fit * n)) {
            let rows = x.len() / k;
            for (wide, x) in x_piece.iter_mut().zip(x) {
                *wide = x.widen();
            }
            // Strips lie one behind the other, so that each task writes to memory of its own.
            out_piece
                .par_chunks_exact_mut(rows_that_fit * STRIP)
                .take(n.div_ceil(STRIP))
                .enumerate()
                .for_each(|(strip, out)| self.strip(strip * STRIP, &x_piece[..rows * k], out));
            for (row, out) in out.chunks_exact_mut(n).enumerate() {
                for (strip, out) in out.chunks_mut(STRIP).enumerate() {
                    let sums = &out_piece[(strip * rows_that_fit + row) * STRIP..];
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = T::narrow(*sum);
                    }
                }
            }
        }
        Ok(())
    }

    /// All rows of one piece times the columns from `start` on; `out` holds a line of [`STRIP`] sums for each row.
    fn strip(&self, start: usize, x: &[f32], out: &mut [f32]) {
        let info = self.layer.info();
        let group_rows = info.group_size.rows(info.in_features);
        let mut strip = Strip::new(self.layer, start);
        for group in 0..info.groups {
            strip.enter(group);
            match self.layer.group_index() {
                GroupIndex::Sequential => {
                    let end = info.in_features.min((group + 1) * group_rows);
                    for first in (group * group_rows..end).step_by(RUN) {
                        strip.add(first..end.min(first + RUN), x);
                    }
                }
                GroupIndex::ActOrder(order) => {
                    for rows in order.rows_of_group(group).chunks(RUN) {
                        strip.add(rows.iter().map(|&row| row as usize), x);
                    }
                }
            }
        }
        strip.add_bias();
        for (out, total) in out.chunks_exact_mut(STRIP).zip(&strip.total) {
            out.copy_from_slice(total);
        }
    }
}

/// A strip of columns while it is summed.
struct Strip<'a> {
    layer: &'a QuantLinear,
    columns: Range<usize>,
    scales: [f32; STRIP],
    zeros: [u8; STRIP],
    total: Tile,
}

impl<'a> Strip<'a> {
    fn new(layer: &'a QuantLinear, start: usize) -> Self {
        let columns = start..layer.out_features().min(start + STRIP);
        Self { layer, columns, scales: [0.0; STRIP], zeros: [0; STRIP], total: [[0.0; STRIP]; PIECE] }
    }

    /// Reads the scales and zero points of a group.
    fn enter(&mut self, group: usize) {
        let first = group * self.layer.out_features();
        let Range { start, end } = self.columns;
        self.layer.scales().read(first + start..first + end, &mut self.scales);
        self.layer.zeros().unpack_group(group, start..end, &mut self.zeros[..end - start]);
    }

    /// Adds the products of some rows of the group entered last. `x` holds whole rows of K values.
    fn add(&mut self, rows: impl Iterator<Item = usize>, x: &[f32]) {
        let (k, n) = (self.layer.in_features(), self.layer.out_features());
        let LayerInfo { bits, packing, .. } = *self.layer.info();
        let mut codes = [0u8; STRIP];
        let mut sum: Tile = [[0.0; STRIP]; PIECE];
        for row in rows {
            let columns = self.columns.clone();
            unpack_row(
                self.layer.qweight(),
                n,
                bits,
                packing,
                row,
                columns,
                &mut codes[..self.columns.len()],
            );
            let mut weights = [0.0f32; STRIP];
            for (weight, (code, zero)) in weights.iter_mut().zip(codes.iter().zip(&self.zeros)) {
                // An integer of at most 9 bits: exact.
                *weight = f32::from(*code) - f32::from(*zero);
            }
            for (x, sum) in x[row..].iter().step_by(k).zip(&mut sum) {
                for (sum, weight) in sum.iter_mut().zip(&weights) {
                    *sum += x * weight;
                }
            }
        }
        for (total, sum) in self.total.iter_mut().zip(&sum) {
            for (total, (sum, scale)) in total.iter_mut().zip(sum.iter().zip(&self.scales)) {
                *total += scale * sum;
            }
        }
    }

    fn add_bias(&mut self) {
        let Some(bias) = self.layer.bias() else { return };
        let mut values = [0.0f32; STRIP];
        bias.read(self.columns.clone(), &mut values);
        for total in &mut self.total {
            for (total, bias) in total.iter_mut().zip(&values) {
                *total += bias;
            }
        }
    }
}
