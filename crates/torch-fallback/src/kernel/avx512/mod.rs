//! AVX-512: 16 columns a vector.
//!
//! [`pairs`] multiplies two rows at once in bf16, [`bytes`] four in integers.

#![allow(unsafe_code, reason = "vector loads; see the contract of `Simd`")]
#![allow(unsafe_op_in_unsafe_fn, reason = "the whole module runs under the one contract of `Simd`")]
#![allow(clippy::cast_possible_truncation, reason = "shifts are less than 32")]

mod bytes;
mod pairs;

use std::arch::x86_64::*;

use gptq_core::format::packing::Pieces;
use half::{bf16, f16};

use super::narrow_all;

pub(super) use bytes::BYTES;
pub(super) use pairs::PAIRS;

#[target_feature(enable = "avx512f")]
unsafe fn widen(from: &[f16], to: &mut [f32]) {
    let whole = from.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: 16 elements from `at` on are in both.
        let halves = _mm256_loadu_si256(from.as_ptr().add(at).cast());
        _mm512_storeu_ps(to.as_mut_ptr().add(at), _mm512_cvtph_ps(halves));
    }
    for (to, from) in to[whole..].iter_mut().zip(&from[whole..]) {
        *to = from.to_f32();
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn narrow(from: &[f32], to: &mut [bf16]) {
    narrow_all(from, to);
}

#[inline(always)]
unsafe fn load(from: *const u32) -> __m512i {
    _mm512_loadu_si512(from.cast())
}

#[inline(always)]
unsafe fn shift_right(words: __m512i, by: usize) -> __m512i {
    _mm512_srlv_epi32(words, _mm512_set1_epi32(by as i32))
}

#[inline(always)]
unsafe fn shift_left(words: __m512i, by: usize) -> __m512i {
    _mm512_sllv_epi32(words, _mm512_set1_epi32(by as i32))
}

/// A code for each column, wherever its bits stand.
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

/// What all kernels here do with numbers in f32.
macro_rules! floats {
    () => {
        type Float = __m512;

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            _mm512_loadu_ps(from)
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, value: __m512) {
            _mm512_storeu_ps(to, value);
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> __m512 {
            _mm512_set1_ps(value)
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            _mm512_add_ps(a, b)
        }
        #[inline(always)]
        unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
            _mm512_mul_ps(a, b)
        }
        #[inline(always)]
        unsafe fn add_product(a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fmadd_ps(b, c, a)
        }
        #[inline(always)]
        unsafe fn less_product(a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fnmadd_ps(b, c, a)
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
        unsafe fn prefetch(address: *const u32) {
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
    };
}
use floats;
