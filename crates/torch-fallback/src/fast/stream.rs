//! Few rows of x: the packed words pass by once.
//!
//! Memory is fastest where it is read as few long streams. A task therefore takes some rows of the layer over as many
//! columns as can be: rows of words follow one another in memory, and a block of rows is read side by side. What the
//! tasks of a column sum is added up at the end, always in the same order.

use gptq_core::QuantLinear;

use crate::kernel::{Fused, MAX_LANES, Totals};
use crate::tasks::{ColumnsOf, for_each_chunk, for_each_strip};
use crate::x::Slices;

use super::Piece;
use super::strip::{Strip, Tail};

/// Into how many parts the rows of a layer are divided at most. Part of the result: the bits of a sum depend on it.
const PARTS: usize = 4;
/// The most sums of all parts, where there is more than one part; counted as if there were eight rows of x at least.
const PART_SUMS: usize = 384 << 10;
/// The most sums of a task, over all rows of x: about what a core keeps near itself.
const TASK_SUMS: usize = 12 << 10;
/// Tasks for each thread, so that none waits long for another.
const TASKS_OF_THREAD: usize = 2;
/// Fewer sums are added up on one thread: others take longer to be told.
const SERIAL_SUMS: usize = 1 << 13;

/// How a layer is divided into tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    rows: usize,
    /// Parts of the layer's rows. Depends on nothing but the layer and the number of rows of x.
    parts: usize,
    /// Strips of its columns.
    strips: usize,
    /// Columns of a strip, the last one aside.
    width: usize,
}

impl Division {
    pub(super) fn of(layer: &QuantLinear, run_rows: usize, rows: usize, threads: usize) -> Self {
        let (runs, n) = (layer.in_features().div_ceil(run_rows), layer.out_features());
        let mut parts = PARTS;
        while parts > 1 && (parts > runs || parts * n * rows.max(8) > PART_SUMS) {
            parts /= 2;
        }
        let tiles = n.div_ceil(MAX_LANES);
        let wanted = (threads * TASKS_OF_THREAD).div_ceil(parts);
        let strips = wanted.max(n.div_ceil(TASK_SUMS / rows)).min(tiles);
        let width = tiles.div_ceil(strips) * MAX_LANES;
        Self { rows, parts, strips: n.div_ceil(width), width }
    }

    /// Floats of one task: totals and sums of each row of x, a scale and an offset for each column.
    fn task_floats(&self) -> usize {
        (2 * self.rows + 2) * self.width
    }

    /// Floats of all tasks.
    pub(super) fn floats(&self) -> usize {
        self.parts * self.strips * self.task_floats()
    }

    /// No fewer than [`Self::floats`], whatever the number of threads.
    pub(super) fn most_floats(layer: &QuantLinear, run_rows: usize, rows: usize) -> usize {
        let widest = Self::of(layer, run_rows, rows, 1);
        // All strips but the last are filled.
        widest.parts * (2 * rows + 2) * (layer.out_features() + widest.width)
    }
}

impl Piece<'_> {
    /// Writes the product of the piece to `out`.
    pub(super) fn stream<T: Slices>(
        &self,
        fused: Fused,
        division: &Division,
        out: &mut [T],
        scratch: &mut [f32],
    ) {
        let n = self.layer.out_features();
        let Division { parts, strips, width, .. } = *division;
        let floats = division.task_floats();
        let scratch = &mut scratch[..division.floats()];
        // Neighbouring tasks are neighbours in memory.
        for_each_chunk(scratch, floats, |task, floats| {
            let (part, strip) = (task / strips, task % strips);
            let runs = part * self.runs() / parts..(part + 1) * self.runs() / parts;
            let columns = strip * width..n.min((strip + 1) * width);
            self.stream_task(fused, runs, columns, division, floats);
        });
        let pieces = if self.x.rows * n * parts < SERIAL_SUMS { 1 } else { rayon::current_num_threads() };
        for_each_strip(out, n, MAX_LANES, pieces, |mut out| {
            let mut column = out.columns().start;
            while column < out.columns().end {
                let strip = column / width;
                let columns = column..out.columns().end.min((strip + 1) * width);
                column = columns.end;
                self.add_up(division, scratch, strip, columns, &mut out);
            }
        });
    }

    fn stream_task(
        &self,
        fused: Fused,
        runs: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        division: &Division,
        floats: &mut [f32],
    ) {
        let stride = division.width;
        let (totals, rest) = floats.split_at_mut(self.x.rows * stride);
        let (sums, rest) = rest.split_at_mut(self.x.rows * stride);
        let (scales, offsets) = rest.split_at_mut(stride);
        let whole = columns.len() / fused.tile * fused.tile;
        let mut strip = Strip::new(self, columns, scales, offsets);
        let width = strip.width();
        let mut tail = (whole < width).then(Tail::new);
        totals.fill(0.0);
        sums.fill(0.0);
        for run in runs {
            let x = self.x.run(run, 0..self.x.rows);
            let words = strip.enter(run);
            if whole > 0 {
                let totals = Totals { values: &mut *totals, sums: &mut *sums, stride };
                fused.run(&words.narrow(0..whole), x, totals);
            }
            if let Some(tail) = &mut tail {
                let run = tail.copy(&words, whole..width, fused.tile);
                let totals = Totals { values: &mut totals[whole..], sums: &mut sums[whole..], stride };
                fused.run(&run, x, totals);
            }
        }
    }

    /// Adds up what all parts summed in some columns of a strip, and the bias.
    fn add_up<T: Slices>(
        &self,
        division: &Division,
        scratch: &[f32],
        strip: usize,
        columns: std::ops::Range<usize>,
        out: &mut ColumnsOf<'_, T>,
    ) {
        const AT_ONCE: usize = 256;
        let Division { parts, strips, width, .. } = *division;
        for row in 0..self.x.rows {
            for start in columns.clone().step_by(AT_ONCE) {
                let columns = start..columns.end.min(start + AT_ONCE);
                let mut totals = [0.0f32; AT_ONCE];
                let totals = &mut totals[..columns.len()];
                if let Some(bias) = self.layer.bias() {
                    bias.read(columns.clone(), totals);
                }
                for part in 0..parts {
                    let task = (part * strips + strip) * division.task_floats();
                    let first = task + row * width + columns.start - strip * width;
                    for (total, sum) in totals.iter_mut().zip(&scratch[first..][..columns.len()]) {
                        *total += sum;
                    }
                }
                let first = columns.start - out.columns().start;
                T::narrow_all(self.x.family, totals, &mut out.row(row)[first..][..columns.len()]);
            }
        }
    }
}
