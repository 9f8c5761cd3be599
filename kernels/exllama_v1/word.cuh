// One word of qweight, eight codes of one column, as f16 for tensor cores.
//
// mma.sync wants pairs of k in a register. The pairs that cost least are those half a word apart: codes p and p + 4
// stand at the same bits of the two halves, so that one `lop3` raises both under an exponent. The order of k inside a word
// is then 0 4 1 5 2 6 3 7, for weights and for x; a sum over k does not care.
#pragma once

#include "dequant.cuh"

namespace gptq {

constexpr uint32_t kWordRows = 8;
constexpr uint32_t kLaneColumns = 4;

/// A zero point, ready to be subtracted from codes under the exponent of 2^10: from those in the lowest bits of a half,
/// and from those four bits up, which count 16 times as much.
struct WordZero {
    f16x2 low;
    f16x2 high;
};

/// The zero points of four columns, which are the lower half of `codes`.
GPTQ_DEVICE void read_zeros(uint32_t codes, WordZero (&zeros)[kLaneColumns]) {
    const uint32_t twice = choose_bytes(codes, codes, 0x1010);
#pragma unroll
    for (uint32_t c = 0; c < kLaneColumns; c++) {
        // 1024 + zero, and -(64 + zero): the last bits of their mantissas are worth 1 and 1/16.
        zeros[c].low = {and_or(twice >> 4 * c, 0x000f000fu, 0x64006400u)};
        zeros[c].high = {and_or(c == 0 ? twice << 4 : twice >> (4 * c - 4), 0x00f000f0u, 0xd400d400u)};
    }
}

/// pairs[p] = (code p - zero, code p + 4 - zero), exact.
GPTQ_DEVICE void unpack(uint32_t word, WordZero zero, f16x2 (&pairs)[4]) {
    constexpr f16x2 kSixteenth = {0x2c002c00u};
#pragma unroll
    for (uint32_t p = 0; p < 4; p += 2) {
        const uint32_t at = word >> 4 * p;
        pairs[p] = subtract({and_or(at, 0x000f000fu, 0x64006400u)}, zero.low);
        pairs[p + 1] = multiply_add({and_or(at, 0x00f000f0u, 0x64006400u)}, kSixteenth, zero.high);
    }
}

/// Eight values of x in the same order.
GPTQ_DEVICE void pair_up_x(uint4 eight, f16x2 (&pairs)[4]) {
    pairs[0] = {choose_bytes(eight.x, eight.z, 0x5410)};
    pairs[1] = {choose_bytes(eight.x, eight.z, 0x7632)};
    pairs[2] = {choose_bytes(eight.y, eight.w, 0x5410)};
    pairs[3] = {choose_bytes(eight.y, eight.w, 0x7632)};
}

}  // namespace gptq
