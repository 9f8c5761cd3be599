// What all kernels of the family share: the formats and types that there are, and how rows find their group.
#pragma once

#include "dequant.cuh"
#include "params.h"

// X(name, bits, planar), for every format that files have.
#define GPTQ_FORMATS(X, ...)         \
    X(b2, 2, false, __VA_ARGS__)     \
    X(b3, 3, false, __VA_ARGS__)     \
    X(b4, 4, false, __VA_ARGS__)     \
    X(b8, 8, false, __VA_ARGS__)     \
    X(b3p, 3, true, __VA_ARGS__)     \
    X(b5, 5, true, __VA_ARGS__)      \
    X(b6, 6, true, __VA_ARGS__)      \
    X(b7, 7, true, __VA_ARGS__)

namespace gptq {

/// The group of row k.
GPTQ_DEVICE uint32_t group_of(const void* g_idx, uint32_t g_idx_bytes, uint32_t group_rows, uint32_t k) {
    if (g_idx_bytes == 0) return k / group_rows;
    if (g_idx_bytes == 2) return static_cast<const uint16_t*>(g_idx)[k];
    return static_cast<const uint32_t*>(g_idx)[k];
}

/// The row of W that row k of qweight is.
GPTQ_DEVICE uint32_t row_of_w(const uint32_t* w_rows, uint32_t k) { return w_rows == nullptr ? k : w_rows[k]; }

/// Words of qzeros that a group has.
template <class F>
GPTQ_DEVICE size_t zero_words(uint32_t out_features) {
    return (size_t(out_features) * F::bits + 31) / 32;
}

}  // namespace gptq
