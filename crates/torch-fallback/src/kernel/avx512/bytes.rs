//! Quadruples of bytes.
//!
//! Within a run, x is rounded to multiples of one unit, a power of two: integers of 24 bits, the largest of which keeps
//! as many bits as an f32 has. Each is three signed digits of eight bits. `vpdpbusd` multiplies four codes, as unsigned
//! bytes, with four digits and adds the products to a sum in 32 bits: a step takes three of them, and every sum in a block
//! of 32 rows is exact. That costs less than f32 does: four rows in three instructions instead of four, and next to
//! nothing for the codes, which are bytes after a shift and a mask. What is rounded away is at most half a unit for each
//! value, which is what one addition to a sum in f32 rounds.
//!
//! Codes are not centred. Sums begin at `-2^(bits - 1)` times the sum of the digits instead.

#![allow(unsafe_code, reason = "vector loads and stores; see the contract of `Simd`")]
#![allow(unsafe_op_in_unsafe_fn, reason = "the whole module runs under the one contract of `Simd`")]
#![allow(clippy::cast_possible_truncation, reason = "shifts are less than 32, rows of a block are bytes")]

use std::arch::x86_64::*;

use gptq_core::format::packing::{BLOCK, Pieces};

use super::super::simd::{self, Simd};
use super::super::{Family, Fuse, Multiply, Pack, Run, RunOfX, Totals, Unpack, X};
use super::{code_at, floats, load, narrow, shift_left, shift_right, widen};

/// Weights in quadruples of bytes.
pub(crate) static BYTES: Family = Family {
    steps: Bytes::STEPS,
    x_block: Bytes::X_BLOCK,
    tile: 32,
    rows: 4,
    widen,
    narrow,
    pack: bytes_pack,
    pack_bf16: None,
    grouped_rows: 32,
    group_rows: 4,
    lanes: 16,
    fused: bytes_fused,
    fused_run: bytes_fused_run,
    unpack: bytes_unpack,
    multiply: bytes_multiply,
};

struct Bytes;

/// Digits of a value.
const DIGITS: usize = 3;
/// The largest value: all digits are 127.
const MOST: f32 = 127.0 * 65_536.0 + 127.0 * 256.0 + 127.0;
/// 128 in each digit.
const BIAS: i32 = 0x80_8080;
/// The exponent of the smallest x, as it stands in an f32, whose unit is a normal number.
const LEAST_EXPONENT: u32 = 24;

/// The four rows of each step of a block, lowest byte first.
const fn quad_order(bits: usize) -> [[u8; 4]; BLOCK / 4] {
    let (codes, step_of_code) = match bits {
        2 => (16, 4),
        4 => (8, 2),
        3 => {
            // Nine or ten codes lie whole in each word; the last two steps gather the others.
            return [
                [0, 1, 2, 3],
                [4, 5, 6, 7],
                [11, 12, 13, 14],
                [15, 16, 17, 18],
                [22, 23, 24, 25],
                [26, 27, 28, 29],
                [8, 9, 10, 19],
                [20, 21, 30, 31],
            ];
        }
        _ => (4, 1),
    };
    let mut order = [[0; 4]; BLOCK / 4];
    let mut step = 0;
    while step < BLOCK / 4 {
        let mut byte = 0;
        while byte < 4 {
            order[step][byte] =
                (step / step_of_code * codes + step % step_of_code + byte * step_of_code) as u8;
            byte += 1;
        }
        step += 1;
    }
    order
}

/// Where the digits of a block of x stand among the bytes of its 32 values: in each step four lowest digits, four middle
/// ones, four highest ones.
const fn pack_table(bits: usize) -> [u8; 128] {
    let order = quad_order(bits);
    let mut table = [0; 128];
    let mut at = 0;
    while at < BLOCK * DIGITS {
        let (step, digit, byte) = (at / (4 * DIGITS), at / 4 % DIGITS, at % 4);
        table[at] = 4 * order[step][byte] + digit as u8;
        at += 1;
    }
    table
}

const PACK_TABLES: [[u8; 128]; 4] = [pack_table(2), pack_table(3), pack_table(4), pack_table(8)];

fn bytes_pack(bits: usize) -> Pack {
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
    unsafe fn pack<const TABLE: usize>(values: &[f32], words: &mut [u32], run: &mut RunOfX) -> bool {
        let mut largest = _mm512_setzero_si512();
        for vector in values.chunks_exact(16) {
            // SAFETY: it is one vector.
            let bits = _mm512_castps_si512(Bytes::load(vector.as_ptr()));
            largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(i32::MAX)));
        }
        let largest = _mm512_reduce_max_epu32(largest);
        let exponent = largest >> 23;
        let (per_unit, unit) = match (largest, exponent) {
            (0, _) => (0.0, 0.0),
            (_, LEAST_EXPONENT..255) => {
                // The largest is below 2^23 units: the last bit of its f32 is half a unit.
                let per_unit = f32::from_bits((276 - exponent) << 23);
                let per_unit =
                    if f32::from_bits(largest) * per_unit > MOST { per_unit / 2.0 } else { per_unit };
                (per_unit, 1.0 / per_unit)
            }
            // An infinity, no number, or nothing but numbers so small that f32 has no unit for them.
            _ => return false,
        };
        let [first, second] = [0, 64].map(|at| load(PACK_TABLES[TABLE].as_ptr().add(at).cast()));
        let middle = [2, 4, 8, 128][TABLE];
        *run = RunOfX { sum: 0.0, unit, starts: [0; DIGITS] };
        let mut total = [0; DIGITS];
        for (values, words) in values.chunks_exact(BLOCK).zip(words.chunks_exact_mut(Bytes::X_BLOCK)) {
            // SAFETY: a block is two vectors of values.
            let [low, high] = [0, 16].map(|at| {
                let scaled = _mm512_mul_ps(Bytes::load(values.as_ptr().add(at)), _mm512_set1_ps(per_unit));
                let bias = _mm512_set1_epi32(BIAS);
                // Signed digits: those of the biased number, each less 128.
                _mm512_xor_si512(_mm512_add_epi32(_mm512_cvtps_epi32(scaled), bias), bias)
            });
            let mut digits = [0u32; 32];
            // SAFETY: there is room for two vectors.
            _mm512_storeu_si512(digits.as_mut_ptr().cast(), _mm512_permutex2var_epi8(low, first, high));
            _mm512_storeu_si512(
                digits.as_mut_ptr().add(16).cast(),
                _mm512_permutex2var_epi8(low, second, high),
            );
            let (digits, starts) = (&digits[..BLOCK / 4 * DIGITS], words.split_at_mut(BLOCK / 4 * DIGITS));
            starts.0.copy_from_slice(digits);
            let sums = digit_sums(low, high);
            for digit in 0..DIGITS {
                starts.1[digit] = (-middle * sums[digit]).cast_unsigned();
                total[digit] += sums[digit];
            }
        }
        run.starts = total.map(|sum| -middle * sum);
        run.sum = total[2] as f32 * 65_536.0 + (total[1] * 256 + total[0]) as f32;
        true
    }
    match bits {
        2 => pack::<0>,
        3 => pack::<1>,
        4 => pack::<2>,
        _ => pack::<3>,
    }
}

/// The sum of each digit over two vectors of values.
#[inline(always)]
unsafe fn digit_sums(low: __m512i, high: __m512i) -> [i32; DIGITS] {
    let sum = |digit: usize| {
        let ones = _mm512_set1_epi32(1 << (8 * digit));
        let sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, low);
        _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(sum, ones, high))
    };
    [sum(0), sum(1), sum(2)]
}

/// For each byte of a 64-bit lane, the bits from which on it is taken: `at` in the lower 32 bits, and the same in the
/// upper ones. Bits count round the lane, so that -2 begins two bits before its own half does.
const fn bits_from(at: [i8; 4]) -> i64 {
    let mut control = 0u64;
    let mut byte = 0;
    while byte < 8 {
        let from = at[byte % 4] as i64 + 32 * (byte as i64 / 4);
        control |= ((from & 63) as u64) << (8 * byte);
        byte += 1;
    }
    control.cast_signed()
}

#[inline(always)]
unsafe fn bytes_at(word: __m512i, at: [i8; 4]) -> __m512i {
    _mm512_multishift_epi64_epi8(_mm512_set1_epi64(bits_from(at)), word)
}

#[inline(always)]
unsafe fn masked(bytes: __m512i, mask: [u8; 4]) -> __m512i {
    _mm512_and_si512(bytes, _mm512_set1_epi32(i32::from_le_bytes(mask)))
}

/// Three-bit codes in the order of `quad_order`. Codes 10 and 21 straddle words.
#[inline(always)]
unsafe fn three_bits<const STEP: usize>(from: *const u32, stride: usize) -> __m512i {
    let word = |row: usize| load(from.add(row * stride));
    let four = |row: usize, at: i8| masked(bytes_at(word(row), [at, at + 3, at + 6, at + 9]), [7; 4]);
    match STEP {
        0 => four(0, 0),
        1 => four(0, 12),
        2 => four(1, 1),
        3 => four(1, 13),
        4 => four(2, 2),
        5 => four(2, 14),
        6 => _mm512_or_si512(
            masked(bytes_at(word(0), [24, 27, 30, 0]), [7, 7, 3, 0]),
            masked(bytes_at(word(1), [0, 0, -2, 25]), [0, 0, 4, 7]),
        ),
        _ => _mm512_or_si512(
            masked(bytes_at(word(1), [28, 31, 0, 0]), [7, 1, 0, 0]),
            masked(bytes_at(word(2), [0, -1, 26, 29]), [0, 6, 7, 7]),
        ),
    }
}

impl Simd for Bytes {
    const LANES: usize = 16;
    const STEPS: usize = 8;
    const X_STEP: usize = DIGITS;
    const X_BLOCK: usize = (BLOCK / 4 + 1) * DIGITS;
    const UNITS: bool = true;
    type Weight = __m512i;
    type X = [__m512i; DIGITS];
    type Sum = [__m512i; DIGITS];

    #[inline(always)]
    unsafe fn step<const BITS: usize, const STEP: usize>(from: *const u32, stride: usize) -> __m512i {
        match BITS {
            8 => load(from.add(STEP * stride)),
            4 => masked(shift_right(load(from.add(STEP / 2 * stride)), STEP % 2 * 4), [15; 4]),
            2 => masked(shift_right(load(from.add(STEP / 4 * stride)), STEP % 4 * 2), [3; 4]),
            _ => three_bits::<STEP>(from, stride),
        }
    }

    #[inline(always)]
    unsafe fn step_by_pieces(
        from: *const u32,
        stride: usize,
        pieces: &[Pieces; BLOCK],
        bits: usize,
        step: usize,
    ) -> __m512i {
        // As a code of eight bits, whose middle is 128.
        let to_middle = _mm512_set1_epi32(128 - (1 << (bits - 1)));
        let mut bytes = _mm512_setzero_si512();
        for byte in 0..4 {
            let code = _mm512_add_epi32(code_at(from, stride, &pieces[4 * step + byte]), to_middle);
            bytes = _mm512_or_si512(bytes, shift_left(code, 8 * byte));
        }
        bytes
    }

    #[inline(always)]
    unsafe fn start(block: *const u32) -> [__m512i; DIGITS] {
        Self::broadcast(block.add(BLOCK / 4 * DIGITS))
    }
    #[inline(always)]
    unsafe fn start_row<const BITS: usize>(x: *const u32, blocks: usize, row: usize) -> [__m512i; DIGITS] {
        let (middle, steps) = (_mm512_set1_epi8((1u8 << (BITS - 1)).cast_signed()), Self::STEPS / BITS);
        let mut sums = [_mm512_setzero_si512(); DIGITS];
        for block in 0..blocks {
            for step in row * steps..(row + 1) * steps {
                let x = Self::broadcast(x.add(block * Self::X_BLOCK + step * Self::X_STEP));
                sums = Self::multiply_add(sums, middle, x);
            }
        }
        sums.map(|sum| _mm512_sub_epi32(_mm512_setzero_si512(), sum))
    }
    #[inline(always)]
    unsafe fn start_run(run: &RunOfX) -> [__m512i; DIGITS] {
        run.starts.map(|start| _mm512_set1_epi32(start))
    }
    #[inline(always)]
    unsafe fn broadcast(x: *const u32) -> [__m512i; DIGITS] {
        [0, 1, 2].map(|digit| _mm512_set1_epi32(x.add(digit).read() as i32))
    }
    #[inline(always)]
    unsafe fn multiply_add(
        sum: [__m512i; DIGITS],
        weight: __m512i,
        x: [__m512i; DIGITS],
    ) -> [__m512i; DIGITS] {
        [
            _mm512_dpbusd_epi32(sum[0], weight, x[0]),
            _mm512_dpbusd_epi32(sum[1], weight, x[1]),
            _mm512_dpbusd_epi32(sum[2], weight, x[2]),
        ]
    }
    #[inline(always)]
    unsafe fn settle(sum: [__m512i; DIGITS]) -> __m512 {
        // A run sums 128 products of a digit and a code less 128 at most: 2^21, and 2^29 with the next digit.
        let low = _mm512_add_epi32(sum[0], _mm512_slli_epi32::<8>(sum[1]));
        let high = _mm512_cvtepi32_ps(sum[2]);
        _mm512_fmadd_ps(high, _mm512_set1_ps(65_536.0), _mm512_cvtepi32_ps(low))
    }

    floats!();
}

instances! {
    "avx512f,avx512bw,avx512vbmi,avx512vnni", Bytes: bytes_fused, bytes_fused_run, bytes_unpack, bytes_multiply;
    bits [2 3 4 8];
    fused [1 x 4, 2 x 3, 3 x 2, 4 x 2];
    runs [2 x 3, 3 x 2, 4 x 2];
    tile [2];
    rows [1 2 3] 4
}
