//! AVX-512: 16 columns a vector.
//!
//! [`Pairs`] multiplies two rows at once with `vdpbf16ps`. `code - 2^(bits - 1)` is a small integer and exact in
//! bf16, so a product of two bf16 is exact in f32 and only sums round, as with an FMA. In a 32-bit lane of packed
//! words two codes stand 16 bits apart; one shift brings both to the bottom of their half, and one `vpermw` turns
//! both into bf16. It reads only five bits of each half, so that a table which repeats needs no mask.
//!
//! [`Floats`] multiplies one row at a time in f32, likewise with `vpermps` as the table.

#![allow(unsafe_code, reason = "vector loads and stores; see the contract of `Simd`")]
#![allow(unsafe_op_in_unsafe_fn, reason = "the whole module runs under the one contract of `Simd`")]
#![allow(clippy::cast_possible_truncation, reason = "shifts are less than 32; tables hold what fits bf16")]

use std::arch::x86_64::*;

use gptq_core::format::packing::{BLOCK, Pieces};

use super::simd::{self, Simd};
use super::{Family, Fused, Multiply, Run, Totals, Unpack, X};

/// Weights in pairs of bf16.
pub(super) static PAIRS: Family = Family {
    steps: 16,
    tile: 32,
    rows: 12,
    fused: pairs_fused,
    unpack: pairs_unpack,
    multiply: pairs_multiply,
};

/// Weights in f32.
pub(super) static FLOATS: Family = Family {
    steps: 32,
    tile: 32,
    rows: 12,
    fused: floats_fused,
    unpack: floats_unpack,
    multiply: floats_multiply,
};

struct Pairs;
struct Floats;

/// `code - 2^(bits - 1)` as bf16 for any five bits, of which the lowest `bits` are a code.
const fn bf16_table(bits: usize) -> [u16; 32] {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 32 {
        table[i] = (float_of(i, bits).to_bits() >> 16) as u16;
        i += 1;
    }
    table
}

/// The same as f32 for any four bits.
const fn f32_table(bits: usize) -> [f32; 16] {
    let mut table = [0.0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = float_of(i, bits);
        i += 1;
    }
    table
}

const fn float_of(i: usize, bits: usize) -> f32 {
    (i % (1 << bits)) as f32 - (1usize << (bits - 1)) as f32
}

/// `l` and `16 h - 128` as bf16, for the lower and the upper half of a byte.
const LOW_TABLE: [u16; 32] = half_byte_table(1.0, 0.0);
const HIGH_TABLE: [u16; 32] = half_byte_table(16.0, -128.0);

const fn half_byte_table(factor: f32, start: f32) -> [u16; 32] {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 32 {
        table[i] = (((i % 16) as f32 * factor + start).to_bits() >> 16) as u16;
        i += 1;
    }
    table
}

const BF16_TABLES: [[u16; 32]; 3] = [bf16_table(2), bf16_table(3), bf16_table(4)];
const F32_TABLES: [[f32; 16]; 3] = [f32_table(2), f32_table(3), f32_table(4)];

/// The upper half of each lane.
const HIGH_HALVES: __mmask32 = 0xAAAA_AAAA;

#[inline(always)]
unsafe fn load(from: *const u32) -> __m512i {
    _mm512_loadu_si512(from.cast())
}

/// Two shifts, for the lower and for the upper half of each lane.
#[inline(always)]
unsafe fn halves(low: usize, high: usize) -> __m512i {
    _mm512_set1_epi32((low | high << 16) as i32)
}

#[inline(always)]
unsafe fn shift_right(words: __m512i, by: usize) -> __m512i {
    _mm512_srlv_epi32(words, _mm512_set1_epi32(by as i32))
}

#[inline(always)]
unsafe fn shift_left(words: __m512i, by: usize) -> __m512i {
    _mm512_sllv_epi32(words, _mm512_set1_epi32(by as i32))
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

#[inline(always)]
unsafe fn code_at(from: *const u32, stride: usize, pieces: &Pieces) -> __m512i {
    let mut code = _mm512_setzero_si512();
    for piece in pieces.iter() {
        let field = shift_right(load(from.add(piece.word * stride)), piece.shift as usize);
        let field = _mm512_and_si512(field, _mm512_set1_epi32(piece.mask as i32));
        code = _mm512_or_si512(code, shift_left(field, piece.left as usize));
    }
    code
}

impl Simd for Pairs {
    const LANES: usize = 16;
    const STEPS: usize = 16;
    const BYTE_PLANES: usize = 2;
    type Weight = __m512i;
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

    quad!(__m512i);

    #[inline(always)]
    unsafe fn plane<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> __m512i {
        if BITS != 8 {
            return Self::step::<BITS, STEP>(from, stride);
        }
        // A table has room for half a byte: 16 h - 128, and l.
        let table = if STEP.is_multiple_of(2) { &LOW_TABLE } else { &HIGH_TABLE };
        let codes = shift_right(load(from.add(STEP / 4 * stride)), STEP % 4 * 4);
        _mm512_permutexvar_epi16(codes, load(table.as_ptr().cast()))
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
    unsafe fn center(weight: __m512i, _offset: __m512) -> __m512i {
        weight
    }
    #[inline(always)]
    unsafe fn correct(sum: __m512, offset: __m512, x_sum: f32) -> __m512 {
        _mm512_fnmadd_ps(offset, _mm512_set1_ps(x_sum), sum)
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
    unsafe fn load_weight(from: *const u32) -> __m512i {
        load(from)
    }
    #[inline(always)]
    unsafe fn store_weight(to: *mut u32, weight: __m512i) {
        _mm512_storeu_si512(to.cast(), weight);
    }
    #[inline(always)]
    unsafe fn zero() -> __m512 {
        Floats::zero()
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        Floats::load(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, sum: __m512) {
        Floats::store(to, sum);
    }
    #[inline(always)]
    unsafe fn scale_add(total: __m512, scale: __m512, sum: __m512) -> __m512 {
        Floats::scale_add(total, scale, sum)
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u32) {
        Floats::prefetch(address);
    }
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

impl Simd for Floats {
    const LANES: usize = 16;
    const STEPS: usize = 32;
    const BYTE_PLANES: usize = 1;
    type Weight = __m512;
    type Sum = __m512;

    #[inline(always)]
    unsafe fn step<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> __m512 {
        let bit = STEP * BITS;
        let shift = bit % 32;
        let mut codes = shift_right(load(from.add(bit / 32 * stride)), shift);
        if shift + BITS > 32 {
            let rest = load(from.add((bit / 32 + 1) * stride));
            codes = _mm512_or_si512(codes, shift_left(rest, 32 - shift));
        }
        if BITS == 8 {
            return byte(codes);
        }
        _mm512_permutexvar_ps(codes, _mm512_loadu_ps(F32_TABLES[BITS - 2].as_ptr()))
    }

    quad!(__m512);

    #[inline(always)]
    unsafe fn plane<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> __m512 {
        Self::step::<BITS, STEP>(from, stride)
    }

    #[inline(always)]
    unsafe fn step_by_pieces(
        from: *const u32,
        stride: usize,
        pieces: &[Pieces; BLOCK],
        bits: usize,
        step: usize,
    ) -> __m512 {
        centred(code_at(from, stride, &pieces[step]), bits)
    }

    #[inline(always)]
    unsafe fn center(weight: __m512, offset: __m512) -> __m512 {
        _mm512_sub_ps(weight, offset)
    }
    #[inline(always)]
    unsafe fn correct(sum: __m512, _offset: __m512, _x_sum: f32) -> __m512 {
        sum
    }
    #[inline(always)]
    unsafe fn broadcast(x: *const u32) -> __m512 {
        _mm512_set1_ps(x.cast::<f32>().read())
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: __m512, weight: __m512, x: __m512) -> __m512 {
        _mm512_fmadd_ps(weight, x, sum)
    }
    #[inline(always)]
    unsafe fn load_weight(from: *const u32) -> __m512 {
        _mm512_loadu_ps(from.cast())
    }
    #[inline(always)]
    unsafe fn store_weight(to: *mut u32, weight: __m512) {
        _mm512_storeu_ps(to.cast(), weight);
    }
    #[inline(always)]
    unsafe fn zero() -> __m512 {
        _mm512_setzero_ps()
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        _mm512_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, sum: __m512) {
        _mm512_storeu_ps(to, sum);
    }
    #[inline(always)]
    unsafe fn scale_add(total: __m512, scale: __m512, sum: __m512) -> __m512 {
        _mm512_fmadd_ps(scale, sum, total)
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u32) {
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
}

instances! {
    "avx512f,avx512bw,avx512bf16", Pairs: pairs_fused, pairs_unpack, pairs_multiply;
    fused [1 x 8 4, 2 x 4 4, 3 x 4 4, 4 x 4 4, 5 x 2 2, 6 x 2 2, 7 x 2 2, 8 x 2 2];
    tile [2];
    rows [1 2 3 4 5 6 7 8 9 10 11] 12
}
instances! {
    "avx512f,avx512bw,avx512bf16", Floats: floats_fused, floats_unpack, floats_multiply;
    fused [1 x 8 4, 2 x 4 4, 3 x 4 4, 4 x 4 4, 5 x 2 2, 6 x 2 2, 7 x 2 2, 8 x 2 2];
    tile [2];
    rows [1 2 3 4 5 6 7 8 9 10 11] 12
}
