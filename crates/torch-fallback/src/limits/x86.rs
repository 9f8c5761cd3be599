//! The same with AVX-512 and AVX2.

#![allow(
    unsafe_code,
    reason = "calls functions compiled for more than the baseline, after a look at the processor"
)]

use std::arch::x86_64::*;

use super::{Loop, Multiplication, Multiplier, ROUNDS, read_two_streams};
use crate::kernel::Isa;

/// Words of a stream before the next stream begins: as far apart as rows of packed words of 4096 columns.
const STREAM: usize = 4096 * 4 / size_of::<u64>();
/// How many words ahead long streams ask for.
const AHEAD: usize = 1536 / size_of::<u64>();
/// Sums in flight: more than the latency of a multiplication times the units that do it, which for pairs of bf16 on Zen 5 is
/// 12 exactly, and fewer than the compiler keeps in memory: from 16 on it leaves the loop over them rolled.
const SUMS: usize = 14;

pub(super) fn multiplier(what: Multiplication) -> Option<Multiplier> {
    let operations = |each: usize| (ROUNDS * SUMS * each * 2) as f64;
    match (Isa::detect(), what) {
        (Isa::Avx512, Multiplication::F32) => {
            // SAFETY: the processor has AVX-512.
            Some((|rounds| unsafe { multiply_avx512(rounds) }, operations(16)))
        }
        (Isa::Avx512, Multiplication::Bf16Pairs) if is_x86_feature_detected!("avx512bf16") => {
            // SAFETY: the processor has AVX-512 with BF16.
            Some((|rounds| unsafe { multiply_bf16(rounds) }, operations(32)))
        }
        (Isa::Avx2, Multiplication::F32) => {
            // SAFETY: the processor has AVX2 and FMA.
            Some((|rounds| unsafe { multiply_avx2(rounds) }, operations(8)))
        }
        _ => None,
    }
}

pub(super) fn loops() -> Vec<Loop> {
    fn sequential(words: &[u64]) -> u64 {
        // SAFETY: only called where the processor has AVX-512, as below.
        unsafe { read_avx512::<0>(words) }
    }
    fn ahead(words: &[u64]) -> u64 {
        // SAFETY: as above.
        unsafe { read_avx512::<4096>(words) }
    }
    if Isa::detect() != Isa::Avx512 {
        return Vec::new();
    }
    fn four_streams(words: &[u64]) -> u64 {
        // SAFETY: as above.
        unsafe { read_four_streams(words, STREAM, 4 * STREAM) }
    }
    fn four_long_streams(words: &[u64]) -> u64 {
        let stream = (words.len() / 32 * 8).max(8);
        // SAFETY: as above.
        unsafe { read_four_streams(words, stream, AHEAD) }
    }
    vec![sequential, ahead, four_streams, four_long_streams, |words| read_two_streams(words, sequential)]
}

/// Four streams side by side, each of `stream` words at a time, a multiple of 8. In each the words are asked for that are `ahead`
/// further on.
#[target_feature(enable = "avx512f")]
fn read_four_streams(words: &[u64], stream: usize, ahead: usize) -> u64 {
    let mut sums = [_mm512_setzero_si512(); 4];
    let chunks = words.chunks_exact(4 * stream);
    let rest = read_avx512::<0>(chunks.remainder());
    for chunk in chunks {
        for at in (0..stream).step_by(8) {
            for (number, sum) in sums.iter_mut().enumerate() {
                let line = chunk[number * stream + at..][..8].as_ptr();
                // SAFETY: asking for an address does nothing where there is no memory.
                #[allow(unused_unsafe, reason = "older compilers have it unsafe")]
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(ahead).cast());
                }
                // SAFETY: a line is eight words.
                *sum = _mm512_xor_si512(*sum, unsafe { _mm512_loadu_si512(line.cast()) });
            }
        }
    }
    fold(sums) ^ rest
}

fn fold<const N: usize>(sums: [__m512i; N]) -> u64 {
    let mut all = 0;
    for sum in sums {
        // SAFETY: a vector is eight words of plain data.
        let lanes = unsafe { std::mem::transmute::<__m512i, [u64; 8]>(sum) };
        all = lanes.into_iter().fold(all, |all, lane| all ^ lane);
    }
    all
}

/// Eight sums of whole cache lines, and `AHEAD` bytes ahead a line is asked for (0: none is).
#[target_feature(enable = "avx512f")]
fn read_avx512<const AHEAD: usize>(words: &[u64]) -> u64 {
    let mut sums = [_mm512_setzero_si512(); 8];
    let chunks = words.chunks_exact(64);
    let rest = chunks.remainder().iter().fold(0, |sum, word| sum ^ word);
    for chunk in chunks {
        for (line, sum) in chunk.chunks_exact(8).zip(&mut sums) {
            if AHEAD > 0 {
                // SAFETY: asking for an address does nothing where there is no memory.
                #[allow(unused_unsafe, reason = "older compilers have it unsafe")]
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_byte_add(AHEAD).cast());
                };
            }
            // SAFETY: a line is eight words.
            let loaded = unsafe { _mm512_loadu_si512(line.as_ptr().cast()) };
            *sum = _mm512_xor_si512(*sum, loaded);
        }
    }
    fold(sums) ^ rest
}

#[target_feature(enable = "avx512f")]
fn multiply_avx512(rounds: usize) -> f32 {
    let (mut sums, factor) = ([_mm512_set1_ps(0.5); SUMS], _mm512_set1_ps(std::hint::black_box(0.999)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, factor);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_bf16(rounds: usize) -> f32 {
    let pair = _mm512_set1_ps(std::hint::black_box(0.5));
    // SAFETY: both are 512 bits of plain data.
    let pair = unsafe { std::mem::transmute::<__m512, __m512bh>(pair) };
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, pair, pair);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

#[target_feature(enable = "avx2,fma")]
fn multiply_avx2(rounds: usize) -> f32 {
    let (mut sums, factor) = ([_mm256_set1_ps(0.5); SUMS], _mm256_set1_ps(std::hint::black_box(0.999)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, factor, factor);
        }
    }
    sums.into_iter().map(|sum| _mm_cvtss_f32(_mm256_castps256_ps128(sum))).sum()
}
