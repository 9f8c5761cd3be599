//! AVX2 with FMA: 8 columns a vector, weights in f32.

#![allow(unsafe_code, reason = "vector loads and stores; see the contract of `Simd`")]
#![allow(unsafe_op_in_unsafe_fn, reason = "the whole module runs under the one contract of `Simd`")]
#![allow(clippy::cast_possible_truncation, reason = "shifts are less than 32; tables hold what fits bf16")]

use std::arch::x86_64::*;

use gptq_core::format::packing::{BLOCK, Pieces};
use half::bf16;
use half::slice::HalfFloatSliceExt;

use super::simd::{self, Simd};
use super::{Family, Fuse, Multiply, Run, RunOfX, Totals, Unpack, X, narrow_all};

/// Weights in f32.
pub(super) static FLOATS: Family = Family {
    steps: Floats::STEPS,
    x_block: Floats::X_BLOCK,
    tile: 16,
    rows: 6,
    widen: |from, to| from.convert_to_f32_slice(to),
    narrow: floats_narrow,
    pack: |_| floats_pack,
    pack_bf16: None,
    grouped_rows: 12,
    group_rows: 6,
    lanes: 8,
    fused: floats_fused,
    fused_run: floats_fused_run,
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

#[target_feature(enable = "avx2")]
unsafe fn floats_narrow(from: &[f32], to: &mut [bf16]) {
    narrow_all(from, to);
}

/// x as it is.
#[target_feature(enable = "avx2,fma")]
unsafe fn floats_pack(values: &[f32], words: &mut [u32], run: &mut RunOfX) -> bool {
    let mut sums = [0.0f32; 8];
    for (values, words) in values.chunks_exact(8).zip(words.chunks_exact_mut(8)) {
        for ((word, value), sum) in words.iter_mut().zip(values).zip(&mut sums) {
            *word = value.to_bits();
            *sum += value;
        }
    }
    *run = RunOfX { sum: sums.iter().sum(), unit: 1.0, starts: [0; 3] };
    true
}

impl Simd for Floats {
    const LANES: usize = 8;
    const STEPS: usize = 32;
    const X_STEP: usize = 1;
    const X_BLOCK: usize = 32;
    const UNITS: bool = false;
    type Weight = __m256;
    type X = __m256;
    type Sum = __m256;
    type Float = __m256;

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
    unsafe fn start(_block: *const u32) -> __m256 {
        _mm256_setzero_ps()
    }
    #[inline(always)]
    unsafe fn start_row<const BITS: usize>(_x: *const u32, _blocks: usize, _row: usize) -> __m256 {
        _mm256_setzero_ps()
    }
    #[inline(always)]
    unsafe fn start_run(_run: &RunOfX) -> __m256 {
        _mm256_setzero_ps()
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
    unsafe fn settle(sum: __m256) -> __m256 {
        sum
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        _mm256_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        _mm256_storeu_ps(to, value);
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        _mm256_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn multiply(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn add_product(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(b, c, a)
    }
    #[inline(always)]
    unsafe fn less_product(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fnmadd_ps(b, c, a)
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u32) {
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
}

instances! {
    "avx2,fma", Floats: floats_fused, floats_fused_run, floats_unpack, floats_multiply;
    bits [2 3 4 8];
    fused [1 x 4, 2 x 4, 3 x 2, 4 x 2, 5 x 2, 6 x 2];
    runs [3 x 2, 4 x 2, 5 x 2, 6 x 2];
    tile [2];
    rows [1 2 3 4 5] 6
}
