// Packed codes as numbers.
//
// 32 codes of b bits fill b words: a block. Where a code stands in it is said by docs/formats.md and, once more, by
// `code_at`; everything here is built on that. Loops over a block's codes are meant to be unrolled: then shifts, masks
// and words are constants, and a code costs what its comment says.
//
// The tricks are one: the bits of a small integer under the exponent of 2^m, where m is the length of the mantissa, are
// the float 2^m + integer; subtracting 2^m leaves the integer, exactly. A code that stands s bits up counts 2^s times as
// much, which a fused multiply-add by 2^-s undoes in the same instruction (Kim et al., "Who Says Elephants Can't Run",
// 2022, for f16). The zero point goes into what is subtracted, so that code - zero costs no more than code.
#pragma once

#include "dtype.h"
#include "ptx.cuh"

namespace gptq {

constexpr uint32_t kBlock = 32;

/// An order of bits: continuous, or planar. 2, 4 and 8 bits are the same in both and are called continuous.
template <int kBits, bool kPlanar>
struct Format {
    static_assert(kBits >= 2 && kBits <= 8, "formats have 2 to 8 bits");
    static_assert(kPlanar ? (32 % kBits != 0) : (32 % kBits == 0 || kBits == 3), "no file has this format");
    static constexpr int bits = kBits;
    static constexpr bool planar = kPlanar;
    static constexpr uint32_t mask = (1u << kBits) - 1;
    /// Whether a code is one field of one word, at a multiple of its width.
    static constexpr bool one_field = 32 % kBits == 0;
};

/// Code `i` (0 to 31) of a block; `word(w)` is word w of it. Planar codes are in planes of 4, 2 and 1 bits, as the binary
/// digits of their width say, lowest bits first.
template <class F, class Words>
GPTQ_DEVICE uint32_t code_at(const Words& word, uint32_t i) {
    if constexpr (F::planar) {
        uint32_t code = 0, low_bits = 0;
#pragma unroll
        for (uint32_t width = 4; width >= 1; width /= 2) {
            if ((F::bits & width) == 0) continue;
            const uint32_t at = i * width;
            code |= (word(low_bits + at / 32) >> at % 32 & ((1u << width) - 1)) << low_bits;
            low_bits += width;
        }
        return code;
    } else {
        const uint32_t at = i * F::bits, shift = at % 32;
        uint32_t code = word(at / 32) >> shift;
        if (!F::one_field && shift + F::bits > 32) code |= word(at / 32 + 1) << (32 - shift);
        return code & F::mask;
    }
}

/// Puts code `i` into a block of zeros, where `code_at` finds it.
template <class F>
GPTQ_DEVICE void put_code(uint32_t (&words)[F::bits], uint32_t i, uint32_t code) {
    if constexpr (F::planar) {
        uint32_t low_bits = 0;
#pragma unroll
        for (uint32_t width = 4; width >= 1; width /= 2) {
            if ((F::bits & width) == 0) continue;
            const uint32_t at = i * width;
            words[low_bits + at / 32] |= (code >> low_bits & ((1u << width) - 1)) << at % 32;
            low_bits += width;
        }
    } else {
        const uint32_t at = i * F::bits, shift = at % 32;
        words[at / 32] |= code << shift;
        if (!F::one_field && shift + F::bits > 32) words[at / 32 + 1] |= code >> (32 - shift);
    }
}

/// Code `index` of a sequence in memory whose words are `stride` apart.
template <class F>
GPTQ_DEVICE uint32_t read_code(const uint32_t* words, size_t stride, uint32_t index) {
    const uint32_t* block = words + size_t(index / kBlock * F::bits) * stride;
    return code_at<F>([&](uint32_t word) { return block[word * stride]; }, index % kBlock);
}

/// `count` codes of a contiguous sequence from `first`, a multiple of `count`, in one or two loads for each plane.
template <class F, uint32_t count>
GPTQ_DEVICE void read_codes(const uint32_t* words, uint32_t first, uint32_t (&codes)[count]) {
    static_assert(count == 4 || count == 8, "a run stays in two words, and one of a plane in one");
    const uint32_t* block = words + first / kBlock * F::bits;
    const uint32_t i = first % kBlock;
    if constexpr (F::planar) {
#pragma unroll
        for (uint32_t c = 0; c < count; c++) codes[c] = 0;
        uint32_t low_bits = 0;
#pragma unroll
        for (uint32_t width = 4; width >= 1; width /= 2) {
            if ((F::bits & width) == 0) continue;
            const uint32_t run = block[low_bits + i * width / 32] >> i * width % 32;
#pragma unroll
            for (uint32_t c = 0; c < count; c++) codes[c] |= (run >> c * width & ((1u << width) - 1)) << low_bits;
            low_bits += width;
        }
    } else {
        const uint32_t at = i * F::bits, shift = at % 32;
        const uint32_t low = block[at / 32], high = shift + count * F::bits > 32 ? block[at / 32 + 1] : 0;
        const uint64_t run = (uint64_t(high) << 32 | low) >> shift;
#pragma unroll
        for (uint32_t c = 0; c < count; c++) codes[c] = uint32_t(run >> c * F::bits) & F::mask;
    }
}

// Codes as floats of one kind: where they may stand under the exponent.

/// How many positions a code may have in a mantissa of `mantissa` bits without being shifted to the lowest; each needs a
/// constant of its own for each zero point, so no more than 4.
template <class F>
constexpr uint32_t positions(uint32_t mantissa) {
    const uint32_t most = mantissa / F::bits < 4 ? mantissa / F::bits : 4;
    return (F::planar || most == 0) ? 1 : most;
}

/// 2^-s, of any size that occurs.
GPTQ_DEVICE float power_of_half(uint32_t s) { return __uint_as_float((127u - s) << 23); }

// f32: and + or (one instruction), fma (one), and half a shift or less. 3-bit and planar codes are put together first.

/// A zero point, ready to be subtracted.
template <class F>
struct FloatZero {
    static constexpr uint32_t count = F::one_field ? positions<F>(23) : 1;
    float minus[count];

    GPTQ_DEVICE explicit FloatZero(uint32_t zero) {
        const float of_zero = float(zero);
#pragma unroll
        for (uint32_t p = 0; p < count; p++) minus[p] = -float(1u << (23 - p * F::bits)) - of_zero;
    }
};

/// code i - zero.
template <class F, class Words>
GPTQ_DEVICE float less_zero(const Words& word, uint32_t i, const FloatZero<F>& zero) {
    constexpr uint32_t kTwoTo23 = 0x4b000000u;
    if constexpr (F::one_field) {
        constexpr uint32_t kWindow = FloatZero<F>::count * F::bits;
        const uint32_t at = i * F::bits % 32, s = at % kWindow;
        const uint32_t raised = and_or(word(i * F::bits / 32) >> (at - s), F::mask << s, kTwoTo23);
        return fmaf(__uint_as_float(raised), power_of_half(s), zero.minus[s / F::bits]);
    } else {
        return __uint_as_float(code_at<F>(word, i) | kTwoTo23) + zero.minus[0];
    }
}

// Two 16-bit floats at a time: codes i and i + 16 of a block, in the low and the high half of a register.

/// A block with its codes in pairs: within each half, as many as fit one behind the other.
template <class F>
struct Pairs {
    /// 16 codes of 3 bits take 48 bits of a half; 5 go into 16, since none may straddle.
    static constexpr bool by_five = F::bits == 3 && !F::planar;
    static constexpr uint32_t count = by_five ? 4 : F::bits;
    uint32_t words[count];
};

template <class F, class Words>
GPTQ_DEVICE Pairs<F> pair_up(const Words& word) {
    Pairs<F> pairs;
    if constexpr (Pairs<F>::by_five) {
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t low = 15 * j, high = 48 + 15 * j;
            const uint32_t of_low = funnel_shift(word(low / 32), word(low / 32 + 1), low % 32);
            const uint32_t of_high = funnel_shift(word(high / 32), word(high / 32 < 2 ? high / 32 + 1 : 2), high % 32);
            pairs.words[j] = choose_bytes(of_low, of_high, 0x5410);
        }
    } else {
        uint32_t first = 0;
#pragma unroll
        for (uint32_t width = 8; width >= 1; width /= 2) {
            if ((F::bits & width) == 0) continue;
            if (width == 1) pairs.words[first] = word(first);
#pragma unroll
            for (uint32_t j = 0; j < width / 2; j++) {
                // Code i is in word j, and code i + 16 at the same bits of the word half a plane further.
                const uint32_t low = word(first + j), high = word(first + j + width / 2);
                pairs.words[first + 2 * j] = choose_bytes(low, high, 0x5410);
                pairs.words[first + 2 * j + 1] = choose_bytes(low, high, 0x7632);
            }
            first += width;
        }
    }
    return pairs;
}

/// Codes i and i + 16 (i is 0 to 15) under `exponent`, at bit `s` of each half, where `s` is the least that `i` allows at
/// so many positions.
template <class F, uint32_t position_count>
GPTQ_DEVICE uint32_t pair_at(const Pairs<F>& pairs, uint32_t i, uint32_t exponent, uint32_t& s) {
    if constexpr (F::planar) {
        uint32_t raised = exponent, low_bits = 0;
#pragma unroll
        for (uint32_t width = 4; width >= 1; width /= 2) {
            if ((F::bits & width) == 0) continue;
            const uint32_t at = i * width, mask = (((1u << width) - 1) << low_bits) * 0x00010001u;
            const uint32_t word = pairs.words[low_bits + at / 16];
            raised = and_or(at % 16 > low_bits ? word >> (at % 16 - low_bits) : word << (low_bits - at % 16), mask, raised);
            low_bits += width;
        }
        s = 0;
        return raised;
    } else {
        constexpr uint32_t kWindow = position_count * F::bits;
        const uint32_t word = Pairs<F>::by_five ? i / 5 : i * F::bits / 16;
        const uint32_t at = Pairs<F>::by_five ? i % 5 * 3 : i * F::bits % 16;
        s = at % kWindow;
        return and_or(pairs.words[word] >> (at - s), (F::mask << s) * 0x00010001u, exponent);
    }
}

/// A zero point, twice, ready to be subtracted from f16: prmt, and + or, fma for two codes; each a part of it.
template <class F>
struct HalfZero {
    static constexpr uint32_t count = positions<F>(10);
    f16x2 minus[count];

    GPTQ_DEVICE explicit HalfZero(uint32_t zero) {
#pragma unroll
        for (uint32_t p = 0; p < count; p++) {
            const float value = -float((1u << (10 - p * F::bits)) + zero);
            minus[p] = to_f16x2(value, value);
        }
    }
};

/// (code i - zero, code i + 16 - zero) in f16, exact.
template <class F>
GPTQ_DEVICE f16x2 less_zero(const Pairs<F>& pairs, uint32_t i, const HalfZero<F>& zero) {
    constexpr uint32_t kTwoTo10 = 0x64006400u;
    uint32_t s = 0;
    const f16x2 raised = {pair_at<F, HalfZero<F>::count>(pairs, i, kTwoTo10, s)};
    // 2^-s: the exponent of f16 is biased by 15.
    const f16x2 lower = {((15u - s) << 10) * 0x00010001u};
    return multiply_add(raised, lower, zero.minus[s / F::bits]);
}

#if defined(GPTQ_EMULATOR) || __CUDA_ARCH__ >= 800

/// A zero point, ready to be subtracted from bf16. Its mantissa of 7 bits holds codes of up to 7.
template <class F>
struct Bfloat16Zero {
    static constexpr uint32_t count = positions<F>(7);
    bf16x2 minus[count];
    float minus_wide;

    GPTQ_DEVICE explicit Bfloat16Zero(uint32_t zero) {
#pragma unroll
        for (uint32_t p = 0; p < count; p++) {
            const float value = -float((1u << (7 - p * F::bits)) + zero);
            minus[p] = to_bf16x2(value, value);
        }
        minus_wide = -float((1u << 23) + zero);
    }
};

/// (code i - zero, code i + 16 - zero) in bf16, exact. 8 bits take the way through f32.
template <class F>
GPTQ_DEVICE bf16x2 less_zero(const Pairs<F>& pairs, uint32_t i, const Bfloat16Zero<F>& zero) {
    uint32_t s = 0;
    if constexpr (F::bits == 8) {
        constexpr uint32_t kTwoTo23 = 0x4b000000u;
        const uint32_t codes = pair_at<F, Bfloat16Zero<F>::count>(pairs, i, 0, s);
        return to_bf16x2(__uint_as_float((codes & 0xffff) | kTwoTo23) + zero.minus_wide,
                         __uint_as_float(codes >> 16 | kTwoTo23) + zero.minus_wide);
    } else {
        constexpr uint32_t kTwoTo7 = 0x43004300u;
        const bf16x2 raised = {pair_at<F, Bfloat16Zero<F>::count>(pairs, i, kTwoTo7, s)};
        // 2^-s: the exponent of bf16 is biased by 127.
        const bf16x2 lower = {((127u - s) << 7) * 0x00010001u};
        return multiply_add(raised, lower, zero.minus[s / F::bits]);
    }
}

#endif

// Scales and biases: floats of a type that the launch names.

/// Element `index` of `values`, as f32.
GPTQ_DEVICE float read_float(const void* values, uint32_t dtype, size_t index) {
    if (dtype == GPTQ_DTYPE_F16) return to_float(static_cast<const f16*>(values)[index]);
    if (dtype == GPTQ_DTYPE_BF16) return to_float(static_cast<const bf16*>(values)[index]);
    return static_cast<const float*>(values)[index];
}

/// `count` elements from `index` on, at an address aligned to what they take or to 16 bytes.
template <uint32_t count>
GPTQ_DEVICE void read_floats(const void* values, uint32_t dtype, size_t index, float (&floats)[count]) {
    static_assert(count == 4 || count == 8, "8 or 16 bytes of 16-bit floats");
    if (dtype == GPTQ_DTYPE_F32) {
#pragma unroll
        for (uint32_t i = 0; i < count; i += 4) {
            const uint4 four = load<uint4>(static_cast<const float*>(values) + index + i);
            floats[i] = __uint_as_float(four.x);
            floats[i + 1] = __uint_as_float(four.y);
            floats[i + 2] = __uint_as_float(four.z);
            floats[i + 3] = __uint_as_float(four.w);
        }
        return;
    }
    const char* address = static_cast<const char*>(values) + 2 * index;
    uint32_t pairs[count / 2];
    if constexpr (count == 8) {
        const uint4 eight = load<uint4>(address);
        pairs[0] = eight.x, pairs[1] = eight.y, pairs[2] = eight.z, pairs[3] = eight.w;
    } else {
        const uint2 four = load<uint2>(address);
        pairs[0] = four.x, pairs[1] = four.y;
    }
#pragma unroll
    for (uint32_t i = 0; i < count / 2; i++) {
        const float2 two = dtype == GPTQ_DTYPE_F16 ? to_floats(f16x2{pairs[i]}) : to_floats(bf16x2{pairs[i]});
        floats[2 * i] = two.x;
        floats[2 * i + 1] = two.y;
    }
}

/// a * b, rounded once to the type of `to`.
///
/// A product in f32 that is then rounded to 16 bits is rounded twice, which differs where the first rounding makes a
/// tie. Cutting the product off and setting its last bit where something was cut keeps the second rounding right.
GPTQ_DEVICE void multiply_once(float a, float b, float& to) { to = a * b; }
GPTQ_DEVICE float product_to_odd(float a, float b) {
    const float product = multiply_toward_zero(a, b);
    const bool cut = fmaf(a, b, -product) != 0.0f;
    return __uint_as_float(__float_as_uint(product) | uint32_t(cut));
}
GPTQ_DEVICE void multiply_once(float a, float b, f16& to) {
    to.bits = uint16_t(to_f16x2(product_to_odd(a, b), 0.0f).bits);
}
GPTQ_DEVICE void multiply_once(float a, float b, bf16& to) {
    to.bits = uint16_t(to_bf16x2(product_to_odd(a, b), 0.0f).bits);
}

/// To the nearest of the type of `to`.
GPTQ_DEVICE void round_to(float value, float& to) { to = value; }
GPTQ_DEVICE void round_to(float value, f16& to) { to.bits = uint16_t(to_f16x2(value, 0.0f).bits); }
GPTQ_DEVICE void round_to(float value, bf16& to) { to.bits = uint16_t(to_bf16x2(value, 0.0f).bits); }

/// Two floats, each to the nearest of the type of the last argument; the first in the low half.
GPTQ_DEVICE uint32_t pair_of(float low, float high, f16) { return to_f16x2(low, high).bits; }
GPTQ_DEVICE uint32_t pair_of(float low, float high, bf16) { return to_bf16x2(low, high).bits; }

/// 16 bytes of Out from as many floats as that takes.
GPTQ_DEVICE uint4 pack16(const float (&values)[8], f16) {
    return make_uint4(to_f16x2(values[0], values[1]).bits, to_f16x2(values[2], values[3]).bits,
                      to_f16x2(values[4], values[5]).bits, to_f16x2(values[6], values[7]).bits);
}
GPTQ_DEVICE uint4 pack16(const float (&values)[8], bf16) {
    return make_uint4(to_bf16x2(values[0], values[1]).bits, to_bf16x2(values[2], values[3]).bits,
                      to_bf16x2(values[4], values[5]).bits, to_bf16x2(values[6], values[7]).bits);
}
GPTQ_DEVICE uint4 pack16(const float (&values)[4], float) {
    return make_uint4(__float_as_uint(values[0]), __float_as_uint(values[1]), __float_as_uint(values[2]),
                      __float_as_uint(values[3]));
}

}  // namespace gptq
