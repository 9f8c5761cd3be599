//! How weights are arranged for tensor cores, with a plain version for the CPU that the kernels are held to.
//!
//! W `[K, N]` is cut into strips of 16 columns, a strip into tiles of 64 rows, and a tile into four steps of 16 rows, each
//! the operand A of an `mma.sync` m16n8k16. The lane `4g + q` of a warp has of a step the columns `g` and `g + 8`, in the rows
//! `2q` and `2q + 1`, and the same 8 rows on: four pairs of codes, numbered j = 0 to 3.
//!
//! ```text
//!   j   column   rows                      j   column   rows
//!   0   g        2q, 2q + 1                2   g        2q + 8, 2q + 9
//!   1   g + 8    2q, 2q + 1                3   g + 8    2q + 8, 2q + 9
//! ```
//!
//! A lane has one word of a tile for each bit of a code. Codes of even rows stand in the low halves of its words, those of
//! odd rows in the high halves, in the order of (step, j), lowest bits first. Of codes of 3 bits five stand in a half, and the
//! sixteenth has the bits that are left over: its bit b is bit 15 of the halves of word b.
//!
//! Memory holds strip after strip, in a strip tile after tile, and in a tile the words of all lanes as they are loaded: up to
//! four words a lane at a time.
//!
//! Scales and zero points, a byte each, are `[strip, group, g, 2]`: the second is that of column `g + 8`.
//!
//! Rows of an act-order layer are sorted by group first; [`Arrangement::order`] says where they come from. Rows past K and
//! columns past N, up to whole tiles and a multiple of 128 columns, are zero in everything.

use gptq_core::format::packing::unpack_row;
use gptq_core::format::{Bits, ZeroEncoding};
use gptq_core::tensor::{DType, Floats};
use gptq_core::{LayerInfo, QuantLinear};

/// Rows of a tile.
pub const TILE_ROWS: usize = 64;
/// Columns of a strip.
pub const STRIP_COLUMNS: usize = 16;
/// Strips come in eights: products are as wide as that.
const STRIPS_MULTIPLE: usize = 8;
/// Rows of a step, and steps of a tile.
const STEP_ROWS: usize = 16;
/// Lanes of a warp.
const LANES: usize = 32;

/// The sizes of an arranged layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain numbers, for tests of kernels too")]
pub struct Arrangement {
    /// The width of a code.
    pub bits: Bits,
    /// K.
    pub in_features: usize,
    /// N.
    pub out_features: usize,
    /// Strips of 16 columns, a multiple of 8.
    pub strips: usize,
    /// Tiles of 64 rows in a strip.
    pub tiles: usize,
    /// Groups of a strip: as many as the rows of its tiles have.
    pub groups: usize,
    /// Rows of a group; all rows of the tiles where there is one group.
    pub group_rows: usize,
}

impl Arrangement {
    /// Of a layer of a kind that the backend takes.
    pub fn of(layer: &LayerInfo) -> Self {
        let (k, n) = (layer.in_features, layer.out_features);
        let tiles = k.div_ceil(TILE_ROWS);
        let group_rows = if layer.groups == 1 { tiles * TILE_ROWS } else { layer.group_size.rows(k) };
        Self {
            bits: layer.bits,
            in_features: k,
            out_features: n,
            strips: n.div_ceil(STRIP_COLUMNS).next_multiple_of(STRIPS_MULTIPLE),
            tiles,
            groups: (tiles * TILE_ROWS).div_ceil(group_rows),
            group_rows,
        }
    }

    /// Bytes of a tile.
    pub fn tile_bytes(&self) -> usize {
        TILE_ROWS * STRIP_COLUMNS / 8 * self.bits.get()
    }

    /// Bytes of the weights.
    pub fn weight_bytes(&self) -> usize {
        self.strips * self.tiles * self.tile_bytes()
    }

    /// Elements of the scales, and of the zero points.
    pub fn group_elements(&self) -> usize {
        self.strips * self.groups * STRIP_COLUMNS
    }

    /// Rows that surely share a scale: 64, 32, 16 or 8.
    pub fn run_rows(&self) -> usize {
        1 << self.group_rows.trailing_zeros().clamp(3, 6)
    }

    /// Whether two tiles side by side, from an even one on, share their scales.
    pub fn has_pairs(&self) -> bool {
        self.group_rows.is_multiple_of(2 * TILE_ROWS) && self.tiles.is_multiple_of(2)
    }

    /// What finds the group of a run of `run_rows` rows: `floor((2 * run + 1) * inverse / 2^32)`.
    ///
    /// With d runs to a group and i = ceil(2^31 / d) = 2^31 / d + e, that is (2 run + 1) / 2d with an error of less than
    /// (2 run + 1) / 2^32, and (2 run + 1) / 2d lies 1 / 2d away from the next whole number at least: right while (2 run + 1) *
    /// 2d is less than 2^32, which [`MOST_ROWS`] makes sure of.
    pub fn inverse_of_group(&self, run_rows: usize) -> u32 {
        let runs = (self.group_rows / run_rows).max(1) as u64;
        u32::try_from((1u64 << 31).div_ceil(runs)).unwrap_or(u32::MAX)
    }

    /// Where the bits of a code stand in what a lane has of a tile: the lane, and for each bit its word and its place there.
    fn places(&self, row: usize, column: usize) -> (usize, impl Iterator<Item = (usize, usize)> + use<>) {
        let (step, in_step) = (row / STEP_ROWS, row % STEP_ROWS);
        let (q, odd, lower) = (in_step % 8 / 2, in_step % 2, in_step / 8);
        let number = step * 4 + column / 8 + 2 * lower;
        let bits = self.bits.get();
        let in_half = 16 / bits;
        let place = move |bit: usize| match number / in_half {
            // What is left over of the halves of 3 words.
            word if word == bits => (bit, 15 + 16 * odd),
            word => (word, number % in_half * bits + bit + 16 * odd),
        };
        (column % 8 * 4 + q, (0..bits).map(place))
    }

    /// The index of a lane's word in a tile.
    fn word(&self, lane: usize, word: usize) -> usize {
        // Words that a lane loads at a time: four of 4 and 8 bits, two and then one of 3.
        let (at_a_time, before) = match self.bits.get() {
            2 => (2, 0),
            3 if word == 2 => (1, 2),
            3 => (2, 0),
            _ => (4, word / 4 * 4),
        };
        before * LANES + lane * at_a_time + (word - before)
    }
}

/// Rows that a layer has at most: see [`Arrangement::inverse_of_group`].
pub const MOST_ROWS: usize = 1 << 17;
/// Rows that an act-order layer has at most, as their order is kept in 16 bits.
pub const MOST_SORTED_ROWS: usize = 1 << 16;

/// An arranged layer in host memory.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "what an arrangement consists of")]
pub struct Arranged {
    /// `[strips, tiles]` tiles, in words.
    pub weights: Vec<u32>,
    /// `[strips, groups, 8, 2]`: bits of f16 or bf16.
    pub scales: Vec<u16>,
    /// `[strips, groups, 8, 2]`.
    pub zeros: Vec<u8>,
}

impl Arrangement {
    /// Which row of the file is which row of the arrangement, `[tiles * 64]`; zeros past K. `None` where rows stay where they
    /// are.
    pub fn order(&self, layer: &QuantLinear) -> Option<Vec<u16>> {
        let sorted = layer.group_index().act_order()?.sorted_rows();
        let mut order: Vec<u16> = sorted.iter().map(|&row| u16::try_from(row).unwrap_or(u16::MAX)).collect();
        order.resize(self.tiles * TILE_ROWS, 0);
        Some(order)
    }

    /// Arranges a layer, one code after the other. Its zero points may be in any encoding.
    pub fn arrange(&self, layer: &QuantLinear) -> Arranged {
        let info = layer.info();
        let n = self.out_features;
        let order = self.order(layer);
        let mut arranged = Arranged {
            weights: vec![0; self.weight_bytes() / 4],
            scales: vec![0; self.group_elements()],
            zeros: vec![0; self.group_elements()],
        };
        let mut codes = vec![0; n];
        for k in 0..self.in_features {
            let source = order.as_ref().map_or(k, |order| usize::from(order[k]));
            unpack_row(layer.qweight(), n, info.bits, info.packing, source, 0..n, &mut codes);
            for (column, &code) in codes.iter().enumerate() {
                let tile = column / STRIP_COLUMNS * self.tiles + k / TILE_ROWS;
                let words = &mut arranged.weights[tile * self.tile_bytes() / 4..][..self.tile_bytes() / 4];
                let (lane, places) = self.places(k % TILE_ROWS, column % STRIP_COLUMNS);
                for (bit, (word, place)) in places.enumerate() {
                    words[self.word(lane, word)] |= u32::from(code >> bit & 1) << place;
                }
            }
        }
        let mut zeros = layer.zeros().clone();
        zeros.convert(ZeroEncoding::V2);
        let scales = scale_bits(layer.scales());
        for group in 0..info.groups {
            for column in 0..n {
                let (strip, column_of_strip) = (column / STRIP_COLUMNS, column % STRIP_COLUMNS);
                let place = column_of_strip % 8 * 2 + column_of_strip / 8;
                let at = (strip * self.groups + group) * STRIP_COLUMNS + place;
                arranged.scales[at] = scales[group * n + column];
                arranged.zeros[at] = u8::try_from(zeros.zero(group, column)).unwrap_or(u8::MAX);
            }
        }
        arranged
    }
}

/// Scales by their bits. Those of f32, which no arrangement has, are cut to the upper half.
fn scale_bits(scales: &Floats) -> Vec<u16> {
    match scales.dtype() {
        DType::F32 => {
            scales.as_bytes().chunks_exact(4).map(|four| u16::from_le_bytes([four[2], four[3]])).collect()
        }
        DType::F16 | DType::BF16 => {
            scales.as_bytes().chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrangement(bits: Bits, k: usize, n: usize, group_rows: usize) -> Arrangement {
        let tiles = k.div_ceil(TILE_ROWS);
        let strips = n.div_ceil(STRIP_COLUMNS).next_multiple_of(STRIPS_MULTIPLE);
        let groups = (tiles * TILE_ROWS).div_ceil(group_rows);
        Arrangement { bits, in_features: k, out_features: n, strips, tiles, groups, group_rows }
    }

    #[test]
    fn every_code_of_a_tile_has_bits_of_its_own() {
        for bits in [Bits::TWO, Bits::THREE, Bits::FOUR, Bits::EIGHT] {
            let arrangement = arrangement(bits, 64, 128, 64);
            let mut seen = vec![0u32; arrangement.tile_bytes() / 4];
            let mut take = |word: usize, mask: u32| {
                assert_eq!(seen[word] & mask, 0, "{bits} bits, word {word}: two codes share bits");
                seen[word] |= mask;
            };
            for row in 0..TILE_ROWS {
                for column in 0..STRIP_COLUMNS {
                    let (lane, places) = arrangement.places(row, column);
                    places.for_each(|(word, place)| take(arrangement.word(lane, word), 1 << place));
                }
            }
            assert!(seen.iter().all(|&word| word == u32::MAX), "{bits} bits: bits that no code has");
        }
    }

    #[test]
    fn the_group_of_a_run_is_found_without_division_up_to_the_longest_layer() {
        for group_rows in [8, 16, 24, 32, 40, 64, 96, 128, 1024, 8184, 65_528, MOST_ROWS - 8, MOST_ROWS] {
            let arrangement = arrangement(Bits::FOUR, MOST_ROWS, 128, group_rows);
            for run_rows in [8, arrangement.run_rows()] {
                let (inverse, of_group) = (arrangement.inverse_of_group(run_rows), group_rows / run_rows);
                for run in 0..MOST_ROWS / run_rows {
                    let found = ((2 * run as u64 + 1) * u64::from(inverse)) >> 32;
                    assert_eq!(
                        found,
                        (run / of_group) as u64,
                        "groups of {group_rows}, run {run} of {run_rows}"
                    );
                }
            }
        }
    }

    #[test]
    fn runs_are_as_long_as_groups_allow() {
        for (group_rows, run_rows) in
            [(8, 8), (40, 8), (16, 16), (48, 16), (32, 32), (96, 32), (64, 64), (128, 64)]
        {
            assert_eq!(arrangement(Bits::FOUR, 4096, 128, group_rows).run_rows(), run_rows, "{group_rows}");
        }
        let pairs = |k, group_rows| arrangement(Bits::FOUR, k, 128, group_rows).has_pairs();
        assert!(pairs(4096, 128) && pairs(4096, 384) && !pairs(4096, 64), "groups of 128 are pairs of tiles");
        assert!(!pairs(160, 128), "three tiles are not pairs");
    }
}
