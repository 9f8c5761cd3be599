//! Kernels that multiply words as they are read.

use gptq_core::format::packing::BLOCK;

use super::super::{RUN_ROWS, Run, Totals, X};
use super::{Simd, add_step, add_to_totals, settle, words_of, words_of_row};

/// The most blocks of a run.
const RUN_BLOCKS: usize = RUN_ROWS / BLOCK;

/// How many words have been asked for and not yet used, over all rows of words that are read side by side: as much as
/// memory delivers while it takes to answer, and little enough to stay in a first-level cache. Narrow codes keep a core
/// busier with each word, so that memory waits less for it where more has been asked for.
const fn words_ahead(bits: usize) -> usize {
    if bits < 4 { 3 << 10 } else { 3 << 9 }
}
/// The same of a pass over rows of words of every block: three quarters of that are 4 to 5 % slower while memory is fast, and at most
/// one percent faster while it is slow.
const WORDS_AHEAD_IN_ROWS: usize = 1 << 11;
/// The fewest words of a row that have been asked for: what a kernel uses at once, and twice that.
const LEAST_AHEAD: usize = 96;

/// Whether passes take a row of words of every block, of so many blocks as a run has at most or of fewer. There are as many
/// passes as bits then, so that fewer blocks and more rows of x have the more sums to keep for each word; with 2 bits
/// nothing was gained.
const fn takes_rows(bits: usize, rows: usize, all_blocks: bool) -> bool {
    match bits {
        4 => rows <= if all_blocks { 3 } else { 2 },
        8 => rows <= 2 || all_blocks,
        _ => false,
    }
}

/// The rows of words to ask for at a step: each row of a block once.
#[inline(always)]
const fn rows_to_ask_for<S: Simd, const BITS: usize>(step: usize) -> std::ops::Range<usize> {
    step * BITS / S::STEPS..(step + 1) * BITS / S::STEPS
}

/// `MR` rows of x times a run of a strip of columns, each word used as it is read, in passes whose sums wait in memory.
///
/// A pass takes the same row of words of every block, where that is faster: each row goes on in memory where the pass before has
/// ended, so that memory is read as a few long streams, and a processor that reads ahead need not find its way anew. Otherwise
/// it takes the rows of one block.
#[inline(always)]
pub(in crate::kernel) unsafe fn fused<S: Simd, const BITS: usize, const MR: usize, const NV: usize>(
    run: &Run<'_>,
    x: X<'_>,
    totals: Totals<'_>,
) {
    run.check(S::LANES, words_of::<BITS>());
    x.check(run.blocks, S::X_BLOCK, MR);
    totals.check(run.columns, MR);
    let totals =
        Sums { values: totals.values.as_mut_ptr(), kept: totals.sums.as_mut_ptr(), stride: totals.stride };
    if takes_rows(BITS, MR, true) && run.blocks == RUN_BLOCKS {
        for row in 0..BITS {
            pass_over_rows::<S, BITS, MR, NV, true>(run, row, x, totals);
        }
    } else if takes_rows(BITS, MR, false) {
        for row in 0..BITS {
            pass_over_rows::<S, BITS, MR, NV, false>(run, row, x, totals);
        }
    } else {
        for block in 0..run.blocks {
            pass_over_block::<S, BITS, MR, NV>(run, block, x, totals);
        }
    }
}

/// The pass over row `row` of the words of every block; `ALL`, where there are as many blocks as can be.
#[inline(always)]
unsafe fn pass_over_rows<S: Simd, const BITS: usize, const MR: usize, const NV: usize, const ALL: bool>(
    run: &Run<'_>,
    row: usize,
    x: X<'_>,
    totals: Sums,
) {
    let is_last = row + 1 == BITS;
    let mut starts = [S::start_row::<BITS>(x.words.as_ptr(), run.blocks, row); MR];
    for row_of_x in 1..MR {
        let x_at = x.words.as_ptr().add(row_of_x * words_of_row::<S>());
        starts[row_of_x] = S::start_row::<BITS>(x_at, run.blocks, row);
    }
    let to_next = if is_last { run.blocks * BITS - row } else { 1 };
    let mut tiles = Tiles::of(run, run.blocks, to_next, WORDS_AHEAD_IN_ROWS);
    while let Some(tile) = tiles.next::<S, NV>() {
        if tile.is_whole {
            let sums = sums_of_rows::<S, BITS, MR, NV, ALL>(run, row, tile, x, &starts);
            totals.keep::<S, MR, NV>(run, tile.column, x, is_last, &sums);
        } else {
            let sums = sums_of_rows::<S, BITS, MR, 1, ALL>(run, row, tile, x, &starts);
            totals.keep::<S, MR, 1>(run, tile.column, x, is_last, &sums);
        }
    }
}

/// The pass over all rows of the words of a block.
#[inline(always)]
unsafe fn pass_over_block<S: Simd, const BITS: usize, const MR: usize, const NV: usize>(
    run: &Run<'_>,
    block: usize,
    x: X<'_>,
    totals: Sums,
) {
    let is_last = block + 1 == run.blocks;
    let mut tiles = Tiles::of(run, words_of::<BITS>(), words_of::<BITS>(), words_ahead(BITS));
    while let Some(tile) = tiles.next::<S, NV>() {
        if tile.is_whole {
            let sums = sums_of_block::<S, BITS, MR, NV>(run, block, tile, x);
            totals.keep::<S, MR, NV>(run, tile.column, x, is_last, &sums);
        } else {
            let sums = sums_of_block::<S, BITS, MR, 1>(run, block, tile, x);
            totals.keep::<S, MR, 1>(run, tile.column, x, is_last, &sums);
        }
    }
}

/// `MR` rows of x times a whole run of a strip of columns, whose sums never leave their registers.
#[inline(always)]
pub(in crate::kernel) unsafe fn fused_run<S: Simd, const BITS: usize, const MR: usize, const NV: usize>(
    run: &Run<'_>,
    x: X<'_>,
    totals: Totals<'_>,
) {
    run.check(S::LANES, words_of::<BITS>());
    x.check(run.blocks, S::X_BLOCK, MR);
    totals.check_values(run.columns, MR);
    let (values, stride) = (totals.values.as_mut_ptr(), totals.stride);
    let rows = run.blocks * words_of::<BITS>();
    let mut tiles = Tiles::of(run, rows, rows, words_ahead(BITS));
    while let Some(tile) = tiles.next::<S, NV>() {
        let (column, values) = (tile.column, values.add(tile.column));
        if tile.is_whole {
            let sums = sums_of_run::<S, BITS, MR, NV>(run, tile, x);
            add_to_totals::<S, MR, NV>(values, stride, run, column, x, &sums);
        } else {
            let sums = sums_of_run::<S, BITS, MR, 1>(run, tile, x);
            add_to_totals::<S, MR, 1>(values, stride, run, column, x, &sums);
        }
    }
}

/// The tiles of a strip, which is read some rows of words side by side.
struct Tiles {
    column: usize,
    columns: usize,
    /// Words further on in the same rows that are asked for.
    in_these_rows: usize,
    /// How much further the same place of the rows after them is.
    in_next_rows: usize,
}

/// A tile of columns.
#[derive(Clone, Copy)]
struct Tile {
    column: usize,
    /// Whether it is as wide as a kernel takes, or one vector.
    is_whole: bool,
    /// How many words further on it asks for what is read soon.
    ahead: usize,
}

impl Tiles {
    /// `rows` rows of words side by side, of which `words_ahead` are asked for in all of them together, and behind their ends
    /// those that are `to_next` rows further on.
    #[inline(always)]
    fn of(run: &Run<'_>, rows: usize, to_next: usize, words_ahead: usize) -> Self {
        let in_these_rows = (words_ahead / rows.max(1)).max(LEAST_AHEAD).min(run.columns);
        let in_next_rows = to_next * run.stride + in_these_rows - run.columns;
        Self { column: 0, columns: run.columns, in_these_rows, in_next_rows }
    }

    #[inline(always)]
    fn next<S: Simd, const NV: usize>(&mut self) -> Option<Tile> {
        let column = self.column;
        if column >= self.columns {
            return None;
        }
        let is_whole = self.columns - column >= S::LANES * NV;
        self.column += if is_whole { S::LANES * NV } else { S::LANES };
        let in_these = column + self.in_these_rows < self.columns;
        Some(Tile { column, is_whole, ahead: if in_these { self.in_these_rows } else { self.in_next_rows } })
    }
}

/// The sums of a tile over one block.
#[inline(always)]
unsafe fn sums_of_block<S: Simd, const BITS: usize, const MR: usize, const NV: usize>(
    run: &Run<'_>,
    block: usize,
    tile: Tile,
    x: X<'_>,
) -> [[S::Sum; NV]; MR] {
    let words = run.words.as_ptr().add(block * words_of::<BITS>() * run.stride + tile.column);
    let x_at = x.words.as_ptr().add(block * S::X_BLOCK);
    let mut sums = [[S::start(x_at); NV]; MR];
    for row in 1..MR {
        sums[row] = [S::start(x_at.add(row * words_of_row::<S>())); NV];
    }
    add_block::<S, BITS, MR, NV>(&mut sums, words, run.stride, x_at, tile.ahead);
    sums
}

/// The sums of a tile over row `row` of the words of every block.
#[inline(always)]
unsafe fn sums_of_rows<S: Simd, const BITS: usize, const MR: usize, const NV: usize, const ALL: bool>(
    run: &Run<'_>,
    row: usize,
    tile: Tile,
    x: X<'_>,
    starts: &[S::Sum; MR],
) -> [[S::Sum; NV]; MR] {
    let mut sums = [[starts[0]; NV]; MR];
    for row_of_x in 1..MR {
        sums[row_of_x] = [starts[row_of_x]; NV];
    }
    let words = run.words.as_ptr().add(row * run.stride + tile.column);
    let x_at = x.words.as_ptr().add(row * (S::STEPS / BITS * S::X_STEP));
    for_each!(RUN_BLOCKS, AT => {
        if ALL || AT < run.blocks {
            let words = words.add(AT * words_of::<BITS>() * run.stride);
            for v in 0..NV {
                S::prefetch(words.wrapping_add(v * S::LANES + tile.ahead));
            }
            // Those of the first row of a block.
            for_each_step!(S::STEPS / BITS, STEP => {
                let x_at = x_at.add(AT * S::X_BLOCK);
                add_step::<S, BITS, STEP, MR, NV>(&mut sums, words, run.stride, x_at);
            });
        }
    });
    sums
}

/// The sums of a tile over a whole run.
#[inline(always)]
unsafe fn sums_of_run<S: Simd, const BITS: usize, const MR: usize, const NV: usize>(
    run: &Run<'_>,
    tile: Tile,
    x: X<'_>,
) -> [[S::Float; NV]; MR] {
    let mut sums = [[S::start_run(&x.runs[0]); NV]; MR];
    for row in 1..MR {
        sums[row] = [S::start_run(&x.runs[row]); NV];
    }
    let (mut words, mut x_at) = (run.words.as_ptr().add(tile.column), x.words.as_ptr());
    for _ in 0..run.blocks {
        add_block::<S, BITS, MR, NV>(&mut sums, words, run.stride, x_at, tile.ahead);
        words = words.add(words_of::<BITS>() * run.stride);
        x_at = x_at.add(S::X_BLOCK);
    }
    settle::<S, MR, NV>(&sums)
}

/// [`Totals`] that were checked.
#[derive(Clone, Copy)]
struct Sums {
    values: *mut f32,
    kept: *mut f32,
    stride: usize,
}

impl Sums {
    /// Keeps the sums of a pass with those of the run, or adds what the run has come to to the totals.
    #[inline(always)]
    unsafe fn keep<S: Simd, const MR: usize, const NV: usize>(
        self,
        run: &Run<'_>,
        column: usize,
        x: X<'_>,
        is_last: bool,
        sums: &[[S::Sum; NV]; MR],
    ) {
        let mut settled = settle::<S, MR, NV>(sums);
        if !is_last {
            for_each!(MR, ROW => {
                for_each!(NV, V => {
                    let kept = self.kept.add(column + ROW * self.stride + V * S::LANES);
                    S::store(kept, S::add(S::load(kept), settled[ROW][V]));
                });
            });
            return;
        }
        for_each!(MR, ROW => {
            for_each!(NV, V => {
                let kept = self.kept.add(column + ROW * self.stride + V * S::LANES);
                settled[ROW][V] = S::add(S::load(kept), settled[ROW][V]);
                S::store(kept, S::splat(0.0));
            });
        });
        add_to_totals::<S, MR, NV>(self.values.add(column), self.stride, run, column, x, &settled);
    }
}

/// Adds the products of a block to the sums of a tile, and asks for words that are read soon.
#[inline(always)]
unsafe fn add_block<S: Simd, const BITS: usize, const MR: usize, const NV: usize>(
    sums: &mut [[S::Sum; NV]; MR],
    words: *const u32,
    stride: usize,
    x_at: *const u32,
    ahead: usize,
) {
    for_each_step!(S::STEPS, STEP => {
        for v in 0..NV {
            for row in rows_to_ask_for::<S, BITS>(STEP) {
                S::prefetch(words.wrapping_add(v * S::LANES + row * stride + ahead));
            }
        }
        add_step::<S, BITS, STEP, MR, NV>(sums, words, stride, x_at);
    });
}
