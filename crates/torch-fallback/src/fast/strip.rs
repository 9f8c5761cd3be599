//! A strip of columns of a layer: its words, scales and zero points, run by run.

use std::ops::Range;

use gptq_core::format::packing::BLOCK;
use gptq_core::tensor::Floats;

use crate::kernel::{Family, MAX_TILE, RUN_ROWS, Run, ask_for};

use super::Piece;

/// Zero points that are unpacked at once.
const ZEROS: usize = 256;

/// The scales and zero points of a strip of columns, for the group entered last.
pub(super) struct Strip<'a> {
    piece: &'a Piece<'a>,
    columns: Range<usize>,
    scales: &'a mut [f32],
    offsets: &'a mut [f32],
    entered: Option<usize>,
}

impl<'a> Strip<'a> {
    /// Scales and offsets are at least as many as the columns, and hold nothing yet.
    pub(super) fn new(
        piece: &'a Piece<'a>,
        columns: Range<usize>,
        scales: &'a mut [f32],
        offsets: &'a mut [f32],
    ) -> Self {
        Self { piece, columns, scales, offsets, entered: None }
    }

    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// The words of a run, and its group's scales and zero points.
    pub(super) fn enter(&mut self, run: usize) -> Run<'_> {
        let Piece { fast, layer, .. } = self.piece;
        let group = run / fast.runs_of_group;
        if self.entered != Some(group) {
            self.entered = Some(group);
            self.read_group(group);
        }
        let (n, bits) = (layer.out_features(), layer.info().bits.get());
        let rows = self.piece.rows_of_run(run);
        let first = rows.start / BLOCK * bits * n + self.columns.start;
        let columns = self.columns.len();
        Run {
            words: &fast.words(layer)[first..],
            stride: n,
            blocks: rows.len() / BLOCK,
            columns,
            scales: &self.scales[..columns],
            offsets: if layer.info().symmetric { &[] } else { &self.offsets[..columns] },
            bits,
            pieces: &fast.pieces,
        }
    }

    fn read_group(&mut self, group: usize) {
        let layer = self.piece.layer;
        let first = group * layer.out_features();
        let Range { start, end } = self.columns;
        widen(self.piece.x.family, layer.scales(), first + start..first + end, self.scales);
        // Those of the next group are read while this one's words are.
        let next = first + layer.out_features();
        if let Floats::F16(scales) = layer.scales()
            && let Some(scales) = scales.get(next + start..next + end)
        {
            ask_for(scales);
        }
        if layer.info().symmetric {
            return;
        }
        let middle = layer.info().bits.symmetric_zero() as f32;
        let mut zeros = [0u8; ZEROS];
        for (offsets, start) in self.offsets[..end - start].chunks_mut(ZEROS).zip((start..).step_by(ZEROS)) {
            let zeros = &mut zeros[..offsets.len()];
            layer.zeros().unpack_group(group, start..start + offsets.len(), zeros);
            for (offset, zero) in offsets.iter_mut().zip(zeros) {
                *offset = f32::from(*zero) - middle;
            }
        }
    }
}

/// Columns that do not fill a tile, copied to where they do. The columns that fill it up have scale 0.
pub(super) struct Tail {
    words: [u32; RUN_ROWS / BLOCK * 8 * MAX_TILE],
    scales: [f32; MAX_TILE],
    offsets: [f32; MAX_TILE],
}

impl Tail {
    pub(super) fn new() -> Self {
        Self {
            words: [0; RUN_ROWS / BLOCK * 8 * MAX_TILE],
            scales: [0.0; MAX_TILE],
            offsets: [0.0; MAX_TILE],
        }
    }

    pub(super) fn copy<'a>(&'a mut self, run: &Run<'a>, columns: Range<usize>, tile: usize) -> Run<'a> {
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

/// `Floats::read` with the conversion of a whole slice, which uses what the processor has.
fn widen(family: &Family, floats: &Floats, range: Range<usize>, out: &mut [f32]) {
    let out = &mut out[..range.len()];
    match floats {
        Floats::F16(values) => family.widen(&values[range], out),
        other => other.read(range, out),
    }
}
