//! The fast path: strips of columns, multiplied by the kernels of an instruction set.
//!
//! Few rows of x [`stream`] the packed words: each is read once and used at once. More pass over a run of rows of a strip
//! that stays in a core's first-level cache: see [`panel`].

mod panel;
mod stream;
mod strip;

use std::ops::Range;

use gptq_core::format::packing::{BLOCK, Pieces, locate, pack_matrix, planes, unpack_row, words_for};
use gptq_core::format::{ActOrder, GroupIndex, Packing};
use gptq_core::{Error, LayerInfo, QuantLinear, Result};
use rayon::prelude::*;

use crate::kernel::{Isa, MAX_X_BLOCK, RUN_ROWS};
use crate::plain::Plain;
use crate::x::{Packed, Rows, Slices};

use stream::Division;

/// Rows of x in one piece: their sums in a strip of columns fit a core's second-level cache.
const PIECE: usize = 256;
/// The most rows of x that stream, in any family.
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

    fn rows_of_x(&self, layer: &QuantLinear) -> Rows<'_> {
        let order = self.sorted.as_ref().map(|sorted| sorted.order.sorted_rows());
        Rows { k: layer.in_features(), order, run_rows: self.run_rows }
    }

    /// Room for one piece of x, of whatever dtype, and for the sums of as many rows as stream.
    pub(crate) fn scratch_bytes(&self, layer: &QuantLinear) -> usize {
        let row = self.row_bytes(layer, MAX_X_BLOCK);
        let streaming =
            |rows| rows * row + Division::most_floats(layer, self.run_rows, rows) * size_of::<f32>();
        (1..=STREAM_ROWS).map(streaming).fold(PIECE * row, usize::max)
    }

    /// Bytes of scratch for a row of x.
    fn row_bytes(&self, layer: &QuantLinear, x_block: usize) -> usize {
        self.rows_of_x(layer).words(x_block) * size_of::<u32>()
    }

    pub(crate) fn forward<T: Slices>(
        &self,
        layer: &QuantLinear,
        isa: Isa,
        x: &[T],
        out: &mut [T],
        scratch: &mut [u8],
    ) -> Result<()> {
        let (k, n) = (layer.in_features(), layer.out_features());
        let needed = self.row_bytes(layer, MAX_X_BLOCK);
        let rows_that_fit = (scratch.len() / needed).min(PIECE);
        if rows_that_fit == 0 {
            let (layer, found) = (layer.name().to_owned(), scratch.len());
            return Err(Error::ScratchTooSmall { layer, found, needed });
        }
        for (x, out) in x.chunks(rows_that_fit * k).zip(out.chunks_mut(rows_that_fit * n)) {
            let rows = x.len() / k;
            let Some(families) = isa.families(T::DTYPE, self.format, rows) else {
                Plain { layer }.forward(x, out, scratch)?;
                continue;
            };
            let scratch: &mut [u32] = bytemuck::cast_slice_mut(&mut *scratch);
            let (packed, rest) = scratch.split_at_mut(rows * self.rows_of_x(layer).words(MAX_X_BLOCK));
            let x = self.rows_of_x(layer).pack(families, self.format, x, packed);
            let piece = Piece { fast: self, layer, x };
            if let Some(fused) = x.family.fused(self.format, rows, n) {
                let division = Division::of(layer, self.run_rows, rows, rayon::current_num_threads());
                if division.floats() <= rest.len() {
                    piece.stream(fused, &division, out, bytemuck::cast_slice_mut(rest));
                    continue;
                }
            }
            piece.multiply(out);
        }
        Ok(())
    }
}

/// A piece of x, packed, and all that a strip of columns needs beside it.
struct Piece<'a> {
    fast: &'a Fast,
    layer: &'a QuantLinear,
    x: Packed<'a>,
}

impl Piece<'_> {
    fn runs(&self) -> usize {
        self.layer.in_features().div_ceil(self.fast.run_rows)
    }

    /// The rows of the layer in a run.
    fn rows_of_run(&self, run: usize) -> Range<usize> {
        let first = run * self.fast.run_rows;
        first..self.layer.in_features().min(first + self.fast.run_rows)
    }
}
