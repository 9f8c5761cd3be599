//! Where a code stands in packed words.
//!
//! 32 codes of `bits` bits fill `bits` words of 32 bits: a block. [`locate`] says which bits of which words make
//! up a code, in both orders that files use. It is the only definition of the layout: everything here, and every
//! kernel elsewhere, follows from it.
//!
//! The last block of a continuous sequence may be cut short: `count` codes take [`words_for`] words, and the bits
//! of the last word past the last code are padding, which nobody reads. A planar sequence cannot be cut, because
//! the upper planes of its first codes stand at the end of the block; it has whole blocks or it does not exist.
//! [`allows`] is that rule, for whoever reads shapes from a file.
//!
//! `qzeros` is packed along its rows, so its codes are one contiguous sequence for each group. `qweight` is packed
//! along K, so the words of one column are N apart; its functions work on a row of codes at a time, because then
//! neighbours in memory are neighbours in the loop.

use std::ops::{Deref, Range};

use super::{Bits, Packing};

/// Codes in a block. A block of codes of `bits` bits fills `bits` words.
pub const BLOCK: usize = 32;

/// Bits in a word.
const WORD: usize = 32;

/// How many words hold `count` codes, in either order: `ceil(count · bits / 32)`.
pub const fn words_for(bits: Bits, count: usize) -> usize {
    // Whole blocks first: then nothing can overflow, whatever count a file claims.
    count / BLOCK * bits.get() + (count % BLOCK * bits.get()).div_ceil(WORD)
}

/// Whether files hold sequences of `count` codes of this width in this order.
///
/// Continuous: 2, 3, 4 and 8 bits, any count. Planar: every width, multiples of [`BLOCK`].
pub const fn allows(bits: Bits, packing: Packing, count: usize) -> bool {
    let whole_blocks = count.is_multiple_of(BLOCK);
    packing.supports(bits) && (whole_blocks || matches!(packing, Packing::Continuous))
}

/// Widths of the bit planes of a planar code, lowest bits first. They divide 32 and add up to `bits`.
pub const fn planes(bits: Bits) -> &'static [u32] {
    match bits.get() {
        2 => &[2],
        3 => &[2, 1],
        4 => &[4],
        5 => &[4, 1],
        6 => &[4, 2],
        7 => &[4, 2, 1],
        _ => &[8],
    }
}

/// One bit field of a code: `((words[word] >> shift) & mask) << left`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The word, counted from the start of the sequence.
    pub word: usize,
    /// The field's lowest bit in the word, 0 to 31.
    pub shift: u32,
    /// As many ones as the field has bits.
    pub mask: u32,
    /// The bit of the code at which the field begins.
    pub left: u32,
}

impl Piece {
    /// The part of the code that stands in `word`.
    pub const fn read(self, word: u32) -> u32 {
        ((word >> self.shift) & self.mask) << self.left
    }

    /// The bits that `code` has in this field, where they stand in the word. Bits of `code` outside are dropped.
    pub const fn write(self, code: u32) -> u32 {
        ((code >> self.left) & self.mask) << self.shift
    }
}

/// The one, two or three fields that make up a code, lowest bits first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pieces {
    pieces: [Piece; 3],
    len: usize,
}

impl Pieces {
    const NONE: Self = Self { pieces: [Piece { word: 0, shift: 0, mask: 0, left: 0 }; 3], len: 0 };

    const fn and(mut self, piece: Piece) -> Self {
        self.pieces[self.len] = piece;
        self.len += 1;
        self
    }

    /// The code, put together from the words of its sequence.
    ///
    /// # Panics
    /// If `words` ends before the code does.
    pub fn read(&self, words: &[u32]) -> u32 {
        self.iter().fold(0, |code, piece| code | piece.read(words[piece.word]))
    }
}

impl Deref for Pieces {
    type Target = [Piece];

    fn deref(&self) -> &[Piece] {
        &self.pieces[..self.len]
    }
}

/// Where code `index` of a packed sequence stands.
///
/// Continuous: one field, or two where the code straddles words. Planar: one field for each of its [`planes`].
/// The fields of all codes cover every bit of a block once.
#[inline]
pub const fn locate(bits: Bits, packing: Packing, index: usize) -> Pieces {
    let block = index / BLOCK * bits.get();
    match packing {
        Packing::Continuous => locate_continuous(bits, block, index % BLOCK),
        Packing::Planar => locate_planar(bits, block, index % BLOCK),
    }
}

/// The block is one little-endian integer, and code `i` its bits from `i · bits`.
const fn locate_continuous(bits: Bits, block: usize, i: usize) -> Pieces {
    let bit = i * bits.get();
    let (word, shift) = (block + bit / WORD, shift_of(bit));
    let here = u32::BITS - shift;
    let mask = bits.max_code();
    let pieces = Pieces::NONE.and(Piece { word, shift, mask: mask & (u32::MAX >> shift), left: 0 });
    match mask.checked_shr(here) {
        None | Some(0) => pieces,
        Some(rest) => pieces.and(Piece { word: word + 1, shift: 0, mask: rest, left: here }),
    }
}

/// Each plane is a continuous sequence of its own; the planes of a block follow one another.
const fn locate_planar(bits: Bits, block: usize, i: usize) -> Pieces {
    let planes = planes(bits);
    let mut pieces = Pieces::NONE;
    let (mut start, mut left) = (block, 0);
    while pieces.len < planes.len() {
        let width = planes[pieces.len];
        let bit = i * width as usize;
        pieces = pieces.and(Piece {
            word: start + bit / WORD,
            shift: shift_of(bit),
            mask: (1 << width) - 1,
            left,
        });
        start += width as usize;
        left += width;
    }
    pieces
}

/// The first `count` codes of a contiguous sequence.
///
/// # Panics
/// If `words` ends before the last code does.
pub fn unpack(words: &[u32], bits: Bits, packing: Packing, count: usize) -> Vec<u8> {
    let mut codes = vec![0; count];
    unpack_range(words, bits, packing, 0..count, &mut codes);
    codes
}

/// Some codes of a contiguous sequence: those of `range`, into `out`.
///
/// # Panics
/// If `out` is not as long as `range`, or `words` ends before the last code does.
pub fn unpack_range(words: &[u32], bits: Bits, packing: Packing, range: Range<usize>, out: &mut [u8]) {
    assert_eq!(out.len(), range.len(), "one byte of `out` for each code of `range`");
    match bits.get() {
        2 | 4 | 8 => unpack_stepped(words, bits, range.start, out, |word| word),
        _ => {
            for (index, code) in range.zip(out) {
                *code = low_byte(locate(bits, packing, index).read(words));
            }
        }
    }
}

/// [`unpack_range`] for the widths that divide 32 (2, 4 and 8 bits), of words that `step` changes as they are
/// read. Fills `out` with the codes from `first` on.
pub(super) fn unpack_stepped(
    words: &[u32],
    bits: Bits,
    first: usize,
    out: &mut [u8],
    step: impl Fn(u32) -> u32,
) {
    match bits.get() {
        2 => unpack_fields::<2>(words, first, out, step),
        4 => unpack_fields::<4>(words, first, out, step),
        _ => unpack_fields::<8>(words, first, out, step),
    }
}

fn unpack_fields<const BITS: usize>(words: &[u32], first: usize, out: &mut [u8], step: impl Fn(u32) -> u32) {
    let per_word = WORD / BITS;
    let split = |word: u32, codes: &mut [u8]| {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = low_byte((word >> (i * BITS)) & ((1 << BITS) - 1));
        }
    };
    let words = &words[first / per_word..(first + out.len()).div_ceil(per_word)];
    let skipped = first % per_word;
    let (head, body) = out.split_at_mut(out.len().min(per_word - skipped));
    let Some((&word, words)) = words.split_first() else { return };
    split(step(word) >> (skipped * BITS), head);

    let mut body = body.chunks_exact_mut(per_word);
    let mut words = words.iter();
    for (codes, &word) in body.by_ref().zip(words.by_ref()) {
        split(step(word), codes);
    }
    if let Some(&word) = words.next() {
        split(step(word), body.into_remainder());
    }
}

/// Packs a contiguous sequence. Bits of a code above `bits` are dropped; padding is zero.
///
/// # Panics
/// If a planar sequence is not a multiple of [`BLOCK`] codes long.
pub fn pack(codes: &[u8], bits: Bits, packing: Packing) -> Vec<u32> {
    pack_matrix(codes, codes.len(), 1, bits, packing)
}

/// Codes of row `k` of a `qweight [ceil(K·bits/32), N]`: those of `columns`, into `out`.
///
/// # Panics
/// If `out` is not as long as `columns`, `columns` ends past `n`, or `qweight` has no row `k`.
pub fn unpack_row(
    qweight: &[u32],
    n: usize,
    bits: Bits,
    packing: Packing,
    k: usize,
    columns: Range<usize>,
    out: &mut [u8],
) {
    assert_eq!(out.len(), columns.len(), "one byte of `out` for each column");
    out.fill(0);
    for piece in locate(bits, packing, k).iter() {
        let words = &qweight[piece.word * n..][..n][columns.clone()];
        for (code, &word) in out.iter_mut().zip(words) {
            *code |= low_byte(piece.read(word));
        }
    }
}

/// Packs `codes [K, N]` (row-major) along K into a `qweight [ceil(K·bits/32), N]`. Bits of a code above `bits` are
/// dropped; padding is zero.
///
/// # Panics
/// If there are not `k · n` codes, or `k` is not a multiple of [`BLOCK`] and the packing is planar.
pub fn pack_matrix(codes: &[u8], k: usize, n: usize, bits: Bits, packing: Packing) -> Vec<u32> {
    assert_eq!(codes.len(), k * n, "a code for each row and column");
    assert!(k.is_multiple_of(BLOCK) || packing == Packing::Continuous, "planar codes come in whole blocks");
    let mut qweight = vec![0; words_for(bits, k) * n];
    for row in 0..k {
        let codes = &codes[row * n..][..n];
        for piece in locate(bits, packing, row).iter() {
            let words = &mut qweight[piece.word * n..][..n];
            for (word, &code) in words.iter_mut().zip(codes) {
                *word |= piece.write(code.into());
            }
        }
    }
    qweight
}

/// Where a bit of a sequence stands in its word: `bit mod 32`.
const fn shift_of(bit: usize) -> u32 {
    (bit as u64 % 32) as u32
}

/// A code as a byte; codes have at most 8 bits.
pub(super) const fn low_byte(code: u32) -> u8 {
    (code & 0xFF) as u8
}

#[cfg(test)]
mod tests;
