//! Pairs of bf16.
//!
//! `vdpbf16ps` multiplies two rows at once. `code - 2^(bits - 1)` is a small integer and exact in bf16, so a product of
//! two bf16 is exact in f32 and only sums round, as with an FMA. In a 32-bit lane of packed words two codes stand 16
//! bits apart; one shift brings both to the bottom of their half, and one `vpermw` turns both into bf16. It reads only
//! five bits of each half, so that a table which repeats needs no mask.

#![allow(unsafe_code, reason = "vector loads and stores; see the contract of `Simd`")]
#![allow(unsafe_op_in_unsafe_fn, reason = "the whole module runs under the one contract of `Simd`")]
#![allow(clippy::cast_possible_truncation, reason = "shifts are less than 32; tables hold what fits bf16")]

use std::arch::x86_64::*;

use gptq_core::format::packing::{BLOCK, Pieces};
use half::bf16;

use super::super::simd::{self, Simd};
use super::super::{Family, Fuse, Multiply, Pack, PackBf16, Run, RunOfX, Totals, Unpack, X};
use super::{code_at, floats, load, narrow, shift_left, shift_right, widen};

/// Weights in pairs of bf16.
pub(crate) static PAIRS: Family = Family {
    steps: Pairs::STEPS,
    x_block: Pairs::X_BLOCK,
    tile: 32,
    rows: 12,
    widen,
    narrow,
    pack: pairs_pack,
    pack_bf16: Some(pairs_pack_bf16),
    grouped_rows: 256,
    group_rows: 12,
    lanes: 16,
    fused: pairs_fused,
    fused_run: pairs_fused_run,
    unpack: pairs_unpack,
    multiply: pairs_multiply,
};

struct Pairs;

/// The two rows of each step of a block: two codes that stand 16 bits apart in some lane, so that one shift serves both.
const fn pair_order(bits: usize) -> [(u8, u8); BLOCK / 2] {
    let codes: u8 = match bits {
        2 => 16,
        4 => 8,
        8 => 4,
        3 => {
            // The last four straddle halves or words, or have no partner in theirs.
            return [
                (0, 6),
                (1, 7),
                (2, 8),
                (3, 9),
                (11, 16),
                (12, 17),
                (13, 18),
                (14, 19),
                (22, 27),
                (23, 28),
                (24, 29),
                (25, 30),
                (15, 20),
                (4, 31),
                (5, 26),
                (10, 21),
            ];
        }
        _ => 32,
    };
    let mut order = [(0, 0); BLOCK / 2];
    let half = codes / 2;
    let mut step = 0;
    while step < BLOCK / 2 {
        let low = step as u8 / half * codes + step as u8 % half;
        order[step] = (low, low + half);
        step += 1;
    }
    order
}

/// Where the halves of the words of a block of x stand among the halves of its 32 values in f32: the upper half of an f32
/// is its bf16.
const fn pack_table(bits: usize) -> [u16; BLOCK] {
    let order = pair_order(bits);
    let mut table = [0; BLOCK];
    let mut step = 0;
    while step < BLOCK / 2 {
        table[2 * step] = 2 * order[step].0 as u16 + 1;
        table[2 * step + 1] = 2 * order[step].1 as u16 + 1;
        step += 1;
    }
    table
}

/// Where they stand among the 32 values in bf16.
const fn halves_table(bits: usize) -> [u16; BLOCK] {
    let order = pair_order(bits);
    let mut table = [0; BLOCK];
    let mut step = 0;
    while step < BLOCK / 2 {
        (table[2 * step], table[2 * step + 1]) = (order[step].0 as u16, order[step].1 as u16);
        step += 1;
    }
    table
}

/// `code - 2^(bits - 1)` as bf16 for any five bits, of which the lowest `bits` are a code.
const fn bf16_table(bits: usize) -> [u16; 32] {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 32 {
        table[i] = (((i % (1 << bits)) as f32 - (1usize << (bits - 1)) as f32).to_bits() >> 16) as u16;
        i += 1;
    }
    table
}

const BF16_TABLES: [[u16; 32]; 3] = [bf16_table(2), bf16_table(3), bf16_table(4)];
const PACK_TABLES: [[u16; BLOCK]; 5] =
    [pack_table(2), pack_table(3), pack_table(4), pack_table(8), pack_table(simd::BY_PIECES)];

const HALVES_TABLES: [[u16; BLOCK]; 5] =
    [halves_table(2), halves_table(3), halves_table(4), halves_table(8), halves_table(simd::BY_PIECES)];

/// The upper half of each lane.
const HIGH_HALVES: __mmask32 = 0xAAAA_AAAA;

fn pairs_pack(bits: usize) -> Pack {
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pack<const TABLE: usize>(values: &[f32], words: &mut [u32], run: &mut RunOfX) -> bool {
        let table = load(PACK_TABLES[TABLE].as_ptr().cast());
        let mut sum = _mm512_setzero_ps();
        for (values, words) in values.chunks_exact(BLOCK).zip(words.chunks_exact_mut(Pairs::X_BLOCK)) {
            // SAFETY: a block is two vectors of values and one of words.
            let (low, high) = (Pairs::load(values.as_ptr()), Pairs::load(values.as_ptr().add(16)));
            let pairs = _mm512_permutex2var_epi16(_mm512_castps_si512(low), table, _mm512_castps_si512(high));
            Pairs::store_weight(words.as_mut_ptr(), pairs);
            sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
        }
        *run = RunOfX { sum: _mm512_reduce_add_ps(sum), unit: 1.0, starts: [0; 3] };
        true
    }
    match bits {
        2 => pack::<0>,
        3 => pack::<1>,
        4 => pack::<2>,
        8 => pack::<3>,
        _ => pack::<4>,
    }
}

fn pairs_pack_bf16(bits: usize) -> PackBf16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pack<const TABLE: usize>(values: &[bf16], words: &mut [u32], run: &mut RunOfX) {
        let table = load(HALVES_TABLES[TABLE].as_ptr().cast());
        let ones = _mm512_set1_epi16(bf16::ONE.to_bits().cast_signed());
        let mut sum = _mm512_setzero_ps();
        for (values, words) in values.chunks_exact(BLOCK).zip(words.chunks_exact_mut(Pairs::X_BLOCK)) {
            // SAFETY: a block is one vector of values and one of words.
            let pairs = _mm512_permutexvar_epi16(table, load(values.as_ptr().cast()));
            Pairs::store_weight(words.as_mut_ptr(), pairs);
            sum = Pairs::multiply_add(sum, pairs, ones);
        }
        *run = RunOfX { sum: _mm512_reduce_add_ps(sum), unit: 1.0, starts: [0; 3] };
    }
    match bits {
        2 => pack::<0>,
        3 => pack::<1>,
        4 => pack::<2>,
        8 => pack::<3>,
        _ => pack::<4>,
    }
}

/// Two shifts, for the lower and for the upper half of each lane.
#[inline(always)]
unsafe fn halves(low: usize, high: usize) -> __m512i {
    _mm512_set1_epi32((low | high << 16) as i32)
}

/// `codes - 2^(bits - 1)` as f32, of lanes that hold a code and nothing else.
#[inline(always)]
unsafe fn centred(codes: __m512i, bits: usize) -> __m512 {
    let middle = _mm512_set1_epi32(1 << (bits - 1));
    _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, middle))
}

/// Two integers of at most 8 bits, in f32, as a pair of bf16: cutting off zeros is exact.
#[inline(always)]
unsafe fn pair(low: __m512, high: __m512) -> __m512i {
    let low = shift_right(_mm512_castps_si512(low), 16);
    _mm512_mask_blend_epi16(HIGH_HALVES, low, _mm512_castps_si512(high))
}

/// The lowest byte of each lane, minus 128, as f32. `2^23 + code` is an f32 whose last bits are the code.
#[inline(always)]
unsafe fn byte(words: __m512i) -> __m512 {
    let (mask, magic) = (_mm512_set1_epi32(0xFF), _mm512_set1_epi32(0x4B00_0000));
    // (words & mask) | magic
    let bits = _mm512_ternarylogic_epi32::<0xEA>(words, mask, magic);
    _mm512_sub_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(8_388_608.0 + 128.0))
}

/// Three-bit codes at the bottom of each half, in the order of `pair_order`. Codes 5, 10, 21 and 26 of a block
/// straddle halves or words.
#[inline(always)]
unsafe fn three_bits<const STEP: usize>(from: *const u32, stride: usize) -> __m512i {
    let word = load(from.add(STEP / 4 % 3 * stride));
    let by = STEP % 4 * 3;
    match STEP {
        0..4 => _mm512_srlv_epi16(word, halves(by, by + 2)),
        4..8 => _mm512_srlv_epi16(word, halves(by + 1, by)),
        8..12 => _mm512_srlv_epi16(word, halves(by + 2, by + 1)),
        _ => {
            let (first, second, third) = (load(from), load(from.add(stride)), load(from.add(2 * stride)));
            let (low, high) = match STEP {
                12 => return _mm512_srlv_epi16(second, halves(13, 12)),
                13 => (shift_right(first, 12), shift_right(third, 13)),
                14 => (shift_right(first, 15), shift_left(third, 2)),
                _ => (straddling(first, second, 30), straddling(second, third, 15)),
            };
            _mm512_mask_blend_epi16(HIGH_HALVES, low, high)
        }
    }
}

/// The 32 bits that begin at bit `at` of two words in a row.
#[inline(always)]
unsafe fn straddling(low: __m512i, high: __m512i, at: usize) -> __m512i {
    _mm512_or_si512(shift_right(low, at), shift_left(high, 32 - at))
}

impl Simd for Pairs {
    const LANES: usize = 16;
    const STEPS: usize = 16;
    const X_STEP: usize = 1;
    const X_BLOCK: usize = 16;
    const UNITS: bool = false;
    type Weight = __m512i;
    type X = __m512i;
    type Sum = __m512;

    #[inline(always)]
    unsafe fn step<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> __m512i {
        let codes = match BITS {
            8 => {
                let words = shift_right(load(from.add(STEP / 2 * stride)), STEP % 2 * 8);
                return pair(byte(words), byte(shift_right(words, 16)));
            }
            4 => shift_right(load(from.add(STEP / 4 * stride)), STEP % 4 * 4),
            2 => shift_right(load(from.add(STEP / 8 * stride)), STEP % 8 * 2),
            _ => three_bits::<STEP>(from, stride),
        };
        _mm512_permutexvar_epi16(codes, load(BF16_TABLES[BITS - 2].as_ptr().cast()))
    }

    #[inline(always)]
    unsafe fn step_by_pieces(
        from: *const u32,
        stride: usize,
        pieces: &[Pieces; BLOCK],
        bits: usize,
        step: usize,
    ) -> __m512i {
        let (low, high) = (&pieces[step], &pieces[step + BLOCK / 2]);
        pair(centred(code_at(from, stride, low), bits), centred(code_at(from, stride, high), bits))
    }

    #[inline(always)]
    unsafe fn start(_block: *const u32) -> __m512 {
        _mm512_setzero_ps()
    }
    #[inline(always)]
    unsafe fn start_row<const BITS: usize>(_x: *const u32, _blocks: usize, _row: usize) -> __m512 {
        _mm512_setzero_ps()
    }
    #[inline(always)]
    unsafe fn start_run(_run: &RunOfX) -> __m512 {
        _mm512_setzero_ps()
    }
    #[inline(always)]
    unsafe fn broadcast(x: *const u32) -> __m512i {
        _mm512_set1_epi32(x.read() as i32)
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: __m512, weight: __m512i, x: __m512i) -> __m512 {
        // SAFETY: both are 512 bits of plain data.
        let [weight, x] = std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([weight, x]);
        _mm512_dpbf16_ps(sum, weight, x)
    }
    #[inline(always)]
    unsafe fn settle(sum: __m512) -> __m512 {
        sum
    }

    floats!();
}

instances! {
    "avx512f,avx512bw,avx512bf16", Pairs: pairs_fused, pairs_fused_run, pairs_unpack, pairs_multiply;
    bits [2 3 4];
    fused [1 x 4, 2 x 4, 3 x 4, 4 x 4, 5 x 2, 6 x 2, 7 x 2, 8 x 2];
    runs [5 x 2, 6 x 2, 7 x 2, 8 x 2, 9 x 2, 10 x 2, 11 x 2, 12 x 2];
    tile [2];
    rows [1 2 3 4 5 6 7 8 9 10 11] 12
}
