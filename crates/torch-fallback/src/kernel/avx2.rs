//! AVX2 with FMA: 8 columns a vector, weights in f32.

#![allow(unsafe_code, reason = "vector loads and stores; see the contract of `Simd`")]
#![allow(unsafe_op_in_unsafe_fn, reason = "the whole module runs under the one contract of `Simd`")]
#![allow(clippy::cast_possible_truncation, reason = "shifts are less than 32; tables hold what fits bf16")]

use std::arch::x86_64::*;

use gptq_core::format::packing::{BLOCK, Pieces};

use super::simd::{self, Simd};
use super::{Family, Fused, Multiply, Run, Totals, Unpack, X};

/// Weights in f32.
pub(super) static FLOATS: Family = Family {
    steps: 32,
    tile: 16,
    rows: 6,
    fused: floats_fused,
    unpack: floats_unpack,
    multiply: floats_multiply,
};

struct Floats;

#[inline(always)]
unsafe fn load(from: *const u32) -> __m256i {
    _mm256_loadu_si256(from.cast())
}

#[inline(always)]
unsafe fn shift_right(words: __m256i, by: usize) -> __m256i {
    _mm256_srlv_epi32(words, _mm256_set1_epi32(by as i32))
}

#[inline(always)]
unsafe fn shift_left(words: __m256i, by: usize) -> __m256i {
    _mm256_sllv_epi32(words, _mm256_set1_epi32(by as i32))
}

/// `codes - 2^(bits - 1)` as f32, of lanes that hold a code and nothing else.
#[inline(always)]
unsafe fn centred(codes: __m256i, bits: usize) -> __m256 {
    let middle = _mm256_set1_epi32(1 << (bits - 1));
    _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, middle))
}

impl Simd for Floats {
    const LANES: usize = 8;
    const STEPS: usize = 32;
    const BYTE_PLANES: usize = 1;
    type Weight = __m256;
    type Sum = __m256;

    #[inline(always)]
    unsafe fn step<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> __m256 {
        let bit = STEP * BITS;
        let shift = bit % 32;
        let mut codes = shift_right(load(from.add(bit / 32 * stride)), shift);
        if shift + BITS > 32 {
            let rest = load(from.add((bit / 32 + 1) * stride));
            codes = _mm256_or_si256(codes, shift_left(rest, 32 - shift));
        }
        centred(_mm256_and_si256(codes, _mm256_set1_epi32((1 << BITS) - 1)), BITS)
    }

    quad!(__m256);

    #[inline(always)]
    unsafe fn plane<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> __m256 {
        Self::step::<BITS, STEP>(from, stride)
    }

    #[inline(always)]
    unsafe fn step_by_pieces(
        from: *const u32,
        stride: usize,
        pieces: &[Pieces; BLOCK],
        bits: usize,
        step: usize,
    ) -> __m256 {
        let mut code = _mm256_setzero_si256();
        for piece in pieces[step].iter() {
            let field = shift_right(load(from.add(piece.word * stride)), piece.shift as usize);
            let field = _mm256_and_si256(field, _mm256_set1_epi32(piece.mask as i32));
            code = _mm256_or_si256(code, shift_left(field, piece.left as usize));
        }
        centred(code, bits)
    }

    #[inline(always)]
    unsafe fn center(weight: __m256, offset: __m256) -> __m256 {
        _mm256_sub_ps(weight, offset)
    }
    #[inline(always)]
    unsafe fn correct(sum: __m256, _offset: __m256, _x_sum: f32) -> __m256 {
        sum
    }
    #[inline(always)]
    unsafe fn broadcast(x: *const u32) -> __m256 {
        _mm256_set1_ps(x.cast::<f32>().read())
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: __m256, weight: __m256, x: __m256) -> __m256 {
        _mm256_fmadd_ps(weight, x, sum)
    }
    #[inline(always)]
    unsafe fn load_weight(from: *const u32) -> __m256 {
        _mm256_loadu_ps(from.cast())
    }
    #[inline(always)]
    unsafe fn store_weight(to: *mut u32, weight: __m256) {
        _mm256_storeu_ps(to.cast(), weight);
    }
    #[inline(always)]
    unsafe fn zero() -> __m256 {
        _mm256_setzero_ps()
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        _mm256_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, sum: __m256) {
        _mm256_storeu_ps(to, sum);
    }
    #[inline(always)]
    unsafe fn scale_add(total: __m256, scale: __m256, sum: __m256) -> __m256 {
        _mm256_fmadd_ps(scale, sum, total)
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u32) {
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
}

instances! {
    "avx2,fma", Floats: floats_fused, floats_unpack, floats_multiply;
    fused [1 x 8 2, 2 x 4 2, 3 x 2 2, 4 x 2 2, 5 x 2 2, 6 x 2 2];
    tile [2];
    rows [1 2 3 4 5] 6
}
