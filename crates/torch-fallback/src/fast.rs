//! The fast path: strips of columns, multiplied by the kernels of an instruction set.
//!
//! Few rows of x stream the packed words: each is read once and used at once. For more, a tile of weights is
//! unpacked into a panel that stays in a core's first-level cache while all rows pass over it.

use std::ops::Range;

use gptq_core::format::packing::{BLOCK, Pieces, locate, pack_matrix, planes, unpack_row, words_for};
use gptq_core::format::{ActOrder, GroupIndex, Packing};
use gptq_core::tensor::{Element, Floats};
use gptq_core::{Error, LayerInfo, QuantLinear, Result};
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::columns::{Strip, for_each_strip};
use crate::kernel::{
    Family, Fused, Isa, MAX_TILE, PANEL_WORDS, RUN_ROWS, Run, Totals, X, X_ROWS, pair_order,
};
use crate::x::{Rows, Split, sum_pairs};

/// The most columns of a strip that streams: rows of packed words are far apart, and a page of each keeps the
/// processor's prefetchers and its page table buffers content.
const STREAM_STRIP: usize = 1024;
/// Rows of words that a streaming kernel asks for ahead of time.
const AHEAD: usize = 16;
/// The most columns of a strip that uses panels.
const PANEL_STRIP: usize = 256;
/// The most sums of such a strip: half of a core's second-level cache, with room for x.
const PANEL_SUMS: usize = 64 * PIECE;
/// Rows of x in one piece, counted in parts: the sums of a strip fit a core's second-level cache.
const PIECE: usize = 256;
/// The most rows of x that stream.
const STREAM_ROWS: usize = 8;

/// What the fast path knows of a layer.
pub(crate) struct Fast {
    /// Bits of a code, or 0 for a format that is read by its pieces.
    format: usize,
    pieces: [Pieces; BLOCK],
    run_rows: usize,
    runs_of_group: usize,
    sorted: Option<Sorted>,
}

/// A copy of the packed words whose rows are in the order of their groups. In the file's order the codes of a word
/// belong to as many groups, and nothing can be scaled at once.
struct Sorted {
    words: Vec<u32>,
    order: ActOrder,
}

impl Sorted {
    fn new(layer: &QuantLinear, order: &ActOrder) -> Self {
        let LayerInfo { in_features: k, out_features: n, bits, packing, .. } = *layer.info();
        let mut words = vec![0; words_for(bits, k) * n];
        words.par_chunks_mut(bits.get() * n).zip(order.sorted_rows().par_chunks(BLOCK)).for_each(
            |(words, rows)| {
                let mut codes = vec![0; BLOCK * n];
                for (codes, row) in codes.chunks_exact_mut(n).zip(rows) {
                    unpack_row(layer.qweight(), n, bits, packing, *row as usize, 0..n, codes);
                }
                words.copy_from_slice(&pack_matrix(&codes, BLOCK, n, bits, packing));
            },
        );
        Self { words, order: order.clone() }
    }
}

impl Fast {
    /// `None` where the layer takes the plain path: no instruction set, groups that are no whole blocks of 32 rows,
    /// or rows that are not in order.
    pub(crate) fn new(layer: &QuantLinear, isa: Isa, sorted_copy: bool) -> Option<Self> {
        let info = layer.info();
        let group_rows = info.group_size.rows(info.in_features);
        let whole_blocks = info.in_features.is_multiple_of(BLOCK) && group_rows.is_multiple_of(BLOCK);
        if isa == Isa::Plain || !whole_blocks {
            return None;
        }
        let sorted = match layer.group_index() {
            GroupIndex::Sequential => None,
            GroupIndex::ActOrder(order) if sorted_copy && order.is_uniform() => {
                Some(Sorted::new(layer, order))
            }
            GroupIndex::ActOrder(_) => return None,
        };
        let continuous = info.packing == Packing::Continuous || planes(info.bits).len() == 1;
        let run_rows = match info.groups {
            1 => RUN_ROWS,
            _ => [RUN_ROWS, 64, BLOCK].into_iter().find(|rows| group_rows.is_multiple_of(*rows))?,
        };
        Some(Self {
            format: if continuous { info.bits.get() } else { 0 },
            pieces: std::array::from_fn(|row| locate(info.bits, info.packing, row)),
            run_rows,
            runs_of_group: group_rows.div_ceil(run_rows),
            sorted,
        })
    }

    /// Bytes of the sorted copy.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.sorted.as_ref().map_or(0, |sorted| size_of_val(&sorted.words[..]))
    }

    fn words<'a>(&'a self, layer: &'a QuantLinear) -> &'a [u32] {
        self.sorted.as_ref().map_or(layer.qweight(), |sorted| &sorted.words)
    }

    /// Room for one piece of x, of whatever dtype.
    pub(crate) fn scratch_bytes(&self, layer: &QuantLinear) -> usize {
        PIECE * self.words_of_row(layer, BLOCK, 1) * size_of::<u32>()
    }

    /// Words of scratch for a row of x that is split into `parts`.
    fn words_of_row(&self, layer: &QuantLinear, steps: usize, parts: usize) -> usize {
        let k = layer.in_features();
        parts * (k.next_multiple_of(X_ROWS) / BLOCK * steps + k.div_ceil(self.run_rows))
    }

    pub(crate) fn forward<T: Split>(
        &self,
        layer: &QuantLinear,
        family: &Family,
        x: &[T],
        out: &mut [T],
        scratch: &mut [u8],
    ) -> Result<()> {
        let (k, n) = (layer.in_features(), layer.out_features());
        let parts = if family.steps == BLOCK { 1 } else { T::PARTS };
        let words_of_row = self.words_of_row(layer, family.steps, parts);
        let scratch: &mut [u32] = bytemuck::cast_slice_mut(scratch);
        let rows_that_fit = (scratch.len() / words_of_row).min(PIECE / parts);
        if rows_that_fit == 0 {
            return Err(Error::ScratchTooSmall {
                layer: layer.name().to_owned(),
                found: size_of_val(scratch),
                needed: words_of_row * size_of::<u32>(),
            });
        }
        for (x, out) in x.chunks(rows_that_fit * k).zip(out.chunks_mut(rows_that_fit * n)) {
            let rows = x.len() / k * parts;
            let runs = k.div_ceil(self.run_rows);
            let (words, rest) =
                scratch.split_at_mut(k.next_multiple_of(X_ROWS) / BLOCK * family.steps * rows);
            let sums: &mut [f32] = bytemuck::cast_slice_mut(&mut rest[..runs * rows]);
            let order = self.sorted.as_ref().map(|sorted| sorted.order.sorted_rows());
            let order = Rows { k, order };
            if family.steps == BLOCK {
                order.pack_floats(x, words);
            } else {
                order.pack_pairs(x, &pair_order(self.format), words);
                if !layer.info().symmetric {
                    sum_pairs(words, rows, k, self.run_rows, sums);
                }
            }
            let fused = if rows <= STREAM_ROWS { family.fused(self.format, rows) } else { None };
            let piece = Piece { fast: self, layer, family, parts, rows, words, sums };
            match fused {
                Some(fused) => {
                    let threads = rayon::current_num_threads();
                    // Whole rounds of all threads, so that none waits for another's last strip.
                    let strips = n.div_ceil(MAX_TILE).div_ceil(STREAM_STRIP / MAX_TILE);
                    let strips = strips.next_multiple_of(threads).min(n.div_ceil(MAX_TILE));
                    for_each_strip(out, n, MAX_TILE, strips, |strip| piece.stream(fused, strip));
                }
                None => {
                    let width = (PANEL_SUMS / rows / MAX_TILE * MAX_TILE).min(PANEL_STRIP);
                    let strips = n.div_ceil(width);
                    for_each_strip(out, n, MAX_TILE, strips, |strip| piece.multiply(strip));
                }
            }
        }
        Ok(())
    }
}

/// A piece of x, packed, and all that a strip needs beside it.
struct Piece<'a> {
    fast: &'a Fast,
    layer: &'a QuantLinear,
    family: &'a Family,
    /// Parts of a row of x.
    parts: usize,
    /// Rows of x times parts.
    rows: usize,
    words: &'a [u32],
    sums: &'a [f32],
}

impl Piece<'_> {
    fn stream<T: Element>(&self, fused: Fused, strip: Strip<'_, T>) {
        let mut totals = [0.0f32; STREAM_STRIP * STREAM_ROWS];
        let mut columns = StripColumns::<STREAM_STRIP>::new(self, strip.columns());
        let whole = columns.width() / fused.tile * fused.tile;
        let mut tail = Tail::new();
        for run in 0..self.runs() {
            columns.enter(run);
            let x = self.x(run, 0..self.rows);
            let words = columns.run(run);
            if whole > 0 {
                let totals = Totals { values: &mut totals, stride: STREAM_STRIP };
                fused.run(&words.narrow(0..whole), x, totals);
            }
            if whole < columns.width() {
                let run = tail.copy(&words, whole..columns.width(), fused.tile);
                fused.run(&run, x, Totals { values: &mut totals[whole..], stride: STREAM_STRIP });
            }
        }
        self.write(&totals, STREAM_STRIP, strip);
    }

    fn multiply<T: Element>(&self, strip: Strip<'_, T>) {
        let mut totals = [0.0f32; PANEL_SUMS];
        let stride = (PANEL_SUMS / self.rows).min(PANEL_STRIP);
        let mut panel = [0u32; PANEL_WORDS];
        let mut columns = StripColumns::<PANEL_STRIP>::new(self, strip.columns());
        let mut tail = Tail::new();
        let tile = self.family.tile;
        // Calls of about equal size: few rows leave a kernel waiting for its own sums.
        let step = self.rows.div_ceil(self.rows.div_ceil(self.family.rows));
        for run in 0..self.runs() {
            columns.enter(run);
            let words = columns.run(run);
            for first in (0..columns.width()).step_by(tile) {
                let words = match columns.width() - first {
                    rest if rest < tile => tail.copy(&words, first..first + rest, tile),
                    _ => words.narrow(first..first + tile),
                };
                self.family.unpack(self.fast.format, &words, &mut panel);
                for row in (0..self.rows).step_by(step) {
                    let rows = row..self.rows.min(row + step);
                    let values = &mut totals[row * stride + first..];
                    let totals = Totals { values, stride };
                    self.family.multiply(rows.len(), &words, &panel, self.x(run, rows), totals);
                }
            }
        }
        self.write(&totals, stride, strip);
    }

    fn runs(&self) -> usize {
        self.layer.in_features().div_ceil(self.fast.run_rows)
    }

    /// The rows of the layer in a run.
    fn rows_of_run(&self, run: usize) -> Range<usize> {
        let first = run * self.fast.run_rows;
        first..self.layer.in_features().min(first + self.fast.run_rows)
    }

    /// The rows of x for one kernel call.
    fn x(&self, run: usize, rows: Range<usize>) -> X<'_> {
        let first = self.rows_of_run(run).start;
        let width = X_ROWS / BLOCK * self.family.steps;
        let chunk = first / X_ROWS * width * self.rows;
        let start = first % X_ROWS / BLOCK * self.family.steps;
        X {
            words: &self.words[chunk + rows.start * width + start..chunk + rows.end * width],
            sums: &self.sums[run * self.rows..][rows],
        }
    }

    /// Adds up the parts, adds the bias, and narrows to the dtype of the output.
    fn write<T: Element>(&self, totals: &[f32], stride: usize, mut strip: Strip<'_, T>) {
        let columns = strip.columns();
        let mut bias = [0.0f32; STREAM_STRIP];
        if let Some(values) = self.layer.bias() {
            values.read(columns.clone(), &mut bias[..columns.len()]);
        }
        let mut sums = [0.0f32; STREAM_STRIP];
        for (row, parts) in totals.chunks(stride * self.parts).take(self.rows / self.parts).enumerate() {
            sums[..columns.len()].copy_from_slice(&bias[..columns.len()]);
            for part in parts.chunks(stride) {
                for (sum, part) in sums.iter_mut().zip(part) {
                    *sum += part;
                }
            }
            for (out, sum) in strip.row(row).iter_mut().zip(&sums) {
                *out = T::narrow(*sum);
            }
        }
    }
}

/// The scales and zero points of a strip of columns, for the group entered last.
struct StripColumns<'a, const MAX: usize> {
    piece: &'a Piece<'a>,
    columns: Range<usize>,
    scales: [f32; MAX],
    offsets: [f32; MAX],
}

impl<'a, const MAX: usize> StripColumns<'a, MAX> {
    fn new(piece: &'a Piece<'a>, columns: Range<usize>) -> Self {
        Self { piece, columns, scales: [0.0; MAX], offsets: [0.0; MAX] }
    }

    fn width(&self) -> usize {
        self.columns.len()
    }

    /// Reads scales and zero points where `run` is the first of a group.
    fn enter(&mut self, run: usize) {
        let Piece { fast, layer, .. } = self.piece;
        if !run.is_multiple_of(fast.runs_of_group) {
            return;
        }
        let group = run / fast.runs_of_group;
        let first = group * layer.out_features();
        let Range { start, end } = self.columns;
        widen(layer.scales(), first + start..first + end, &mut self.scales);
        if !layer.info().symmetric {
            let mut zeros = [0u8; MAX];
            let zeros = &mut zeros[..end - start];
            layer.zeros().unpack_group(group, start..end, zeros);
            let middle = layer.info().bits.symmetric_zero() as f32;
            for (offset, zero) in self.offsets.iter_mut().zip(zeros) {
                *offset = f32::from(*zero) - middle;
            }
        }
    }

    fn run(&self, run: usize) -> Run<'_> {
        let Piece { fast, layer, .. } = self.piece;
        let (n, bits) = (layer.out_features(), layer.info().bits.get());
        let rows = self.piece.rows_of_run(run);
        let first = rows.start / BLOCK * bits * n + self.columns.start;
        let columns = self.width();
        Run {
            words: &fast.words(layer)[first..],
            stride: n,
            blocks: rows.len() / BLOCK,
            columns,
            scales: &self.scales[..columns],
            offsets: if layer.info().symmetric { &[] } else { &self.offsets[..columns] },
            ahead: AHEAD,
            bits,
            pieces: &fast.pieces,
        }
    }
}

/// Columns that do not fill a tile, copied to where they do. The columns that fill it up have scale 0.
struct Tail {
    words: [u32; RUN_ROWS / BLOCK * 8 * MAX_TILE],
    scales: [f32; MAX_TILE],
    offsets: [f32; MAX_TILE],
}

impl Tail {
    fn new() -> Self {
        Self {
            words: [0; RUN_ROWS / BLOCK * 8 * MAX_TILE],
            scales: [0.0; MAX_TILE],
            offsets: [0.0; MAX_TILE],
        }
    }

    fn copy<'a>(&'a mut self, run: &Run<'a>, columns: Range<usize>, tile: usize) -> Run<'a> {
        let width = columns.len();
        for (to, row) in self.words.chunks_exact_mut(tile).zip(0..run.blocks * run.bits) {
            to[..width].copy_from_slice(&run.words[row * run.stride..][columns.clone()]);
        }
        self.scales[..width].copy_from_slice(&run.scales[columns.clone()]);
        if !run.offsets.is_empty() {
            self.offsets[..width].copy_from_slice(&run.offsets[columns]);
        }
        Run {
            words: &self.words,
            stride: tile,
            columns: tile,
            scales: &self.scales[..tile],
            offsets: if run.offsets.is_empty() { &[] } else { &self.offsets[..tile] },
            ..*run
        }
    }
}

impl<'a> Run<'a> {
    /// Some of its columns.
    fn narrow(&self, columns: Range<usize>) -> Run<'a> {
        Run {
            words: &self.words[columns.start..],
            columns: columns.len(),
            scales: &self.scales[columns.clone()],
            offsets: if self.offsets.is_empty() { &[] } else { &self.offsets[columns] },
            ..*self
        }
    }
}

/// `Floats::read` with the conversion of a whole slice, which uses what the processor has.
fn widen(floats: &Floats, range: Range<usize>, out: &mut [f32]) {
    let out = &mut out[..range.len()];
    match floats {
        Floats::F16(values) => values[range].convert_to_f32_slice(out),
        other => other.read(range, out),
    }
}
