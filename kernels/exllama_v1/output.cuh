// From sums to outputs: the sum over parts of K, bias, rounding.
#pragma once

#include "dequant.cuh"
#include "params.h"

namespace gptq {

GPTQ_DEVICE void add(float4& sum, float4 part) { sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w; }

/// out[row, column..] = sum + bias, four columns, rounded to f16.
template <class Params>
GPTQ_DEVICE void write_out(const Params& p, size_t row, uint32_t column, float4 sum) {
    if (p.bias != nullptr) {
        float bias[4];
        read_floats(p.bias, p.bias_dtype, column, bias);
        add(sum, make_float4(bias[0], bias[1], bias[2], bias[3]));
    }
    const uint2 rounded = make_uint2(to_f16x2(sum.x, sum.y).bits, to_f16x2(sum.z, sum.w).bits);
    uint16_t* const to = static_cast<uint16_t*>(p.out) + row * p.out_features + column;
    if (reinterpret_cast<uintptr_t>(to) % sizeof rounded == 0) return store(to, rounded);
    to[0] = uint16_t(rounded.x), to[1] = uint16_t(rounded.x >> 16);
    to[2] = uint16_t(rounded.y), to[3] = uint16_t(rounded.y >> 16);
}

/// What a block has of four outputs: all of them, or the part of its split.
GPTQ_DEVICE void write_sum(const GptqExllamaV1DotParams& p, size_t row, uint32_t column, float4 sum) {
    if (p.splits == 1) return write_out(p, row, column, sum);
    store(p.partial + (size_t(blockIdx.z) * p.rows + row) * p.out_features + column, sum);
}

/// Four outputs of each thread, splits added in order.
GPTQ_DEVICE void sum_splits(const GptqExllamaV1SumParams& p) {
    const size_t count = size_t(p.rows) * p.out_features, at = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
    let_next_kernel_begin();
    if (at >= count) return;
    wait_for_earlier_kernels();
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
    for (uint32_t split = 0; split < p.splits; split++) add(sum, load<float4>(p.partial + split * count + at));
    const size_t row = at / p.out_features;
    write_out(p, row, uint32_t(at - row * p.out_features), sum);
}

}  // namespace gptq
