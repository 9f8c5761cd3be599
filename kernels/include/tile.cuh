// How weights are arranged for tensor cores, and how a warp turns them into operands of mma.sync.
//
// A product out = x W is computed as its transpose: columns of W are the 16 rows of mma's operand A, rows of x ("tokens")
// the 8 columns of its operand B. So W is cut into strips of 16 columns, a strip into tiles of 64 rows, and a tile into
// four steps of 16 rows, each the A of one mma:
//
//              16 columns            one step, 16 x 16: lane 4g + q has these elements (n in the strip, k in the step)
//            +-----------+             j = 0: n = g,     k = 2q, 2q + 1
//   step 0   |           |             j = 1: n = g + 8, k = 2q, 2q + 1
//   step 1   |  64 rows  |             j = 2: n = g,     k = 2q + 8, 2q + 9
//   step 2   |           |             j = 3: n = g + 8, k = 2q + 8, 2q + 9
//   step 3   |           |
//            +-----------+           so 2 x 16 codes of a tile: (step, j), for the first and for the second k
//
// Memory holds strip after strip, in a strip tile after tile, and of a tile the words of all lanes as they are loaded: at
// 4 bits 16 bytes a lane, 512 contiguous bytes a warp. A lane's codes for the first k lie in the low halves of its words,
// those for the second in the high halves: one logical operation cuts two codes out of a word as two 16-bit floats.
// Within a half the codes stand in the order of (step, j), lowest bits first. Of 3-bit codes five stand in a half; the
// sixteenth has the bits that are left over: its lowest is bit 15 of the first word's half.
//
// The order of k is that of the rows of W: x needs no shuffling, and wgmma, whose operand A in registers is laid out like
// mma's, can read the same tiles.
//
// Scales are f16 [strips, groups, 8, 2]: those of columns g and g + 8 side by side. Zero points are bytes in the same
// order. Rows past the last are codes of any value: x has zeros there.
#pragma once

#include "ptx.cuh"

namespace gptq {

constexpr uint32_t kStripColumns = 16;
constexpr uint32_t kStepRows = 16;
constexpr uint32_t kTileSteps = 4;
constexpr uint32_t kTileRows = kTileSteps * kStepRows;

/// Bytes of a tile; a lane has one word for each bit of a code.
template <int kBits>
constexpr uint32_t kTileBytes = kTileRows * kStripColumns * kBits / 8;

/// What a lane has of a tile.
template <int kBits>
struct LaneTile {
    static_assert(kBits == 2 || kBits == 3 || kBits == 4 || kBits == 8, "widths that are arranged");
    uint32_t words[kBits];

    /// Of the tile that begins at `tile`.
    GPTQ_DEVICE void read(const char* tile, uint32_t lane) {
        if constexpr (kBits == 4) {
            load_stream(tile + lane * 16, words);
        } else if constexpr (kBits == 8) {
            read_part<0, 4>(tile + lane * 16);
            read_part<4, 4>(tile + 512 + lane * 16);
        } else {
            read_part<0, 2>(tile + lane * 8);
            if constexpr (kBits == 3) read_part<2, 1>(tile + 256 + lane * 4);
        }
    }

    /// Where a lane's words begin in a tile, and where the high bits do that lie apart.
    GPTQ_DEVICE static uint32_t at(uint32_t lane) { return lane * (kBits >= 4 ? 16 : 8); }
    GPTQ_DEVICE static uint32_t high_at(uint32_t lane) { return 256 + lane * 4; }

    /// From there.
    GPTQ_DEVICE void read_lane(const char* at, const char* high_at) {
        if constexpr (kBits >= 4) {
            read_part<0, 4>(at);
            if constexpr (kBits == 8) read_part<4, 4>(at + 512);
        } else {
            read_part<0, 2>(at);
            if constexpr (kBits == 3) read_part<2, 1>(high_at);
        }
    }

    /// Of a copy of a tile in shared memory.
    GPTQ_DEVICE void read_shared(const char* tile, uint32_t lane) {
        if constexpr (kBits >= 4) {
#pragma unroll
            for (uint32_t w = 0; w < kBits; w += 4) {
                const uint4 four = load<uint4>(tile + w * 128 + lane * 16);
                words[w] = four.x, words[w + 1] = four.y, words[w + 2] = four.z, words[w + 3] = four.w;
            }
        } else {
            const uint2 two = load<uint2>(tile + lane * 8);
            words[0] = two.x, words[1] = two.y;
            if constexpr (kBits == 3) words[2] = load<uint32_t>(tile + 256 + lane * 4);
        }
    }

    /// To the tile that begins at `tile`.
    GPTQ_DEVICE void write(char* tile, uint32_t lane) const {
        if constexpr (kBits >= 4) {
#pragma unroll
            for (uint32_t w = 0; w < kBits; w += 4) {
                store_global(tile + w * 128 + lane * 16, make_uint4(words[w], words[w + 1], words[w + 2], words[w + 3]));
            }
        } else {
            store(tile + lane * 8, make_uint2(words[0], words[1]));
            if constexpr (kBits == 3) store(tile + 256 + lane * 4, words[2]);
        }
    }

    /// Puts a code into the `half` of what the lane has for (step, j). Words are zero before the first one. All but `code`
    /// is known when this is compiled.
    GPTQ_DEVICE void put(uint32_t step, uint32_t j, uint32_t half, uint32_t code) {
        if constexpr (kBits == 3) {
            const uint32_t i = step * 4 + j;
            if (i < 15) {
                words[i / 5] |= code << (i % 5 * 3 + 16 * half);
            } else {
#pragma unroll
                for (uint32_t bit = 0; bit < 3; bit++) words[bit] |= (code >> bit & 1) << (15 + 16 * half);
            }
        } else {
            const uint32_t at = (step * 4 + j) * kBits;
            words[at / 16] |= code << (at % 16 + 16 * half);
        }
    }

private:
    template <uint32_t first, uint32_t count>
    GPTQ_DEVICE void read_part(const char* address) {
        uint32_t loaded[count];
        load_stream(address, loaded);
#pragma unroll
        for (uint32_t i = 0; i < count; i++) words[first + i] = loaded[i];
    }
};

// Codes become floats without an exponent put on them. 16-bit floats whose bits are a number below 2^(m + 1), where m is the
// length of the mantissa, are evenly spaced: they are that number times the least subnormal, 2^-24 of f16 and 2^-133 of bf16.
// So a code that stands at bit s needs its neighbours taken away, and one fused multiply-add: times 2^-s of the greatest power of
// two, less the zero point. That is (code - zero) 2^(1 - m), exactly; sums are multiplied by 2^(m - 1) when they are written.

/// What is needed to know of a type of two 16-bit floats.
template <class Pair>
struct Mantissa;
template <>
struct Mantissa<f16x2> {
    static constexpr uint32_t bits = 10, bias = 15;
};
template <>
struct Mantissa<bf16x2> {
    static constexpr uint32_t bits = 7, bias = 127;
};

/// How many times less a code less its zero point is in an operand.
template <class Pair>
constexpr float kOperandUnits = float(1 << (Mantissa<Pair>::bits - 1));

/// At which bit the j-th code of a step is turned into a float: where it stands, if evenly spaced floats reach so far.
template <int kBits, class Pair>
GPTQ_DEVICE constexpr uint32_t turned_at(uint32_t step, uint32_t j) {
    constexpr uint32_t kEven = Mantissa<Pair>::bits + 1;
    if (kBits == 3) return step * 4 + j == 15 ? 0 : (step * 4 + j) % 5 * 3 % (kEven / 3 * 3);
    const uint32_t at = j * kBits % 8;
    return at + kBits <= kEven ? at : 0;
}

/// 2^power in both halves.
template <class Pair>
GPTQ_DEVICE constexpr uint32_t power_of_two(int power) {
    return uint32_t(int(Mantissa<Pair>::bias) + power) * (0x00010001u << Mantissa<Pair>::bits);
}

/// The zero points of a lane's two columns, g and g + 8, ready to be subtracted from codes.
template <int kBits, class Pair>
struct LaneZeros {
    Pair minus[2];

    /// Of bytes: the first two of `both`.
    GPTQ_DEVICE static LaneZeros of(uint32_t both) {
        LaneZeros zeros;
#pragma unroll
        for (uint32_t second = 0; second < 2; second++) {
            const Pair zero = {choose_bytes(both, 0, second == 0 ? 0x4040 : 0x4141)};
            constexpr uint32_t kMinusGreatest = kSigns | power_of_two<Pair>(Mantissa<Pair>::bias);
            zeros.minus[second] = multiply_add(zero, Pair{kMinusGreatest}, Pair{kSigns});
        }
        return zeros;
    }
    /// Half of what codes reach.
    GPTQ_DEVICE static LaneZeros middle() {
        constexpr Pair kMinus = {kSigns | power_of_two<Pair>(kBits - int(Mantissa<Pair>::bits))};
        return {{kMinus, kMinus}};
    }

private:
    static constexpr uint32_t kSigns = 0x80008000u;
};

/// Half the operand A of a step, of the rows 8 * half on: code - zero in each of its elements, by kOperandUnits. `step` and
/// `half` are known when this is compiled.
template <int kBits, class Pair>
GPTQ_DEVICE void unpack_half(const LaneTile<kBits>& tile, uint32_t step, uint32_t half,
                             const LaneZeros<kBits, Pair>& zeros, Pair (&a)[2]) {
    constexpr uint32_t mask = ((1u << kBits) - 1) * 0x00010001u;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t j = 2 * half + i, number = step * 4 + j;
        const uint32_t at = kBits == 3 ? number % 5 * 3 : number * kBits % 16;
        const uint32_t word = tile.words[kBits == 3 ? number / 5 % 3 : number * kBits / 16];
        const uint32_t s = turned_at<kBits, Pair>(step, j);
        uint32_t codes;
        if (kBits == 3 && number == 15) {
            codes = 0;
#pragma unroll
            for (uint32_t bit = 0; bit < 3; bit++) {
                codes = and_or(tile.words[bit % kBits] >> (15 - bit), 0x00010001u << bit, codes);
            }
        } else if (kBits == 8) {
            codes = choose_bytes(word, 0, i == 0 ? 0x4240 : 0x4341);
        } else {
            codes = bits_of(word >> (at - s), mask << s);
        }
        a[i] = multiply_add(Pair{codes}, Pair{power_of_two<Pair>(int(Mantissa<Pair>::bias - s))}, zeros.minus[i]);
    }
}

/// The whole operand.
template <int kBits, class Pair>
GPTQ_DEVICE void unpack(const LaneTile<kBits>& tile, uint32_t step, const LaneZeros<kBits, Pair>& zeros, Pair (&a)[4]) {
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        Pair of_half[2];
        unpack_half(tile, step, half, zeros, of_half);
        a[2 * half] = of_half[0], a[2 * half + 1] = of_half[1];
    }
}

// A code of 2 bits can also stay where it is: without an exponent the bits of a f16 are code * 2^(s - 24), a subnormal, which
// tensor cores multiply exactly. That takes one operation for two codes. What it leaves to do comes after the sums, once a
// run: the powers of two, and the zero point times the sum of x.

/// Whether codes are multiplied as subnormals: those of 2 bits do not fit a bf16 at enough places, and of wider ones too few
/// share a shift.
template <int kBits, class Pair>
constexpr bool kHasSubnormals = false;
template <>
inline constexpr bool kHasSubnormals<2, f16x2> = true;

/// At which bit a code of 2 bits stands then: j = 0 and 1, columns g and g + 8, at bit 0 and 2, the same 8 rows on at 4 and 6.
GPTQ_DEVICE constexpr int subnormal_at(uint32_t j) { return int(j) * 2; }

/// Codes (step, j) as subnormals. Both are known when this is compiled.
GPTQ_DEVICE f16x2 subnormals_of(const LaneTile<2>& tile, uint32_t step, uint32_t j) {
    return {tile.words[step / 2] >> (step % 2 * 8) & 0x00030003u << subnormal_at(j)};
}

/// What the arrangement of tiles needs to know of an element's type.
template <class X>
struct PairOf;
template <>
struct PairOf<f16> {
    using type = f16x2;
};
template <>
struct PairOf<bf16> {
    using type = bf16x2;
};

}  // namespace gptq
