// What the kernels of this family share: pieces of 16 bytes, and sums over a block.
#pragma once

#include <math.h>

#include "dequant.cuh"
#include "params.h"

namespace gptq {

/// How many T fill 16 bytes.
template <class T>
constexpr uint32_t kPiece = 16 / sizeof(T);

constexpr uint32_t kDecoderWarps = GPTQ_DECODER_THREADS / kWarp;

/// A piece of 16 bytes as f32.
GPTQ_DEVICE void unpack(uint4 piece, float (&values)[4], float) {
    values[0] = __uint_as_float(piece.x), values[1] = __uint_as_float(piece.y);
    values[2] = __uint_as_float(piece.z), values[3] = __uint_as_float(piece.w);
}
template <class Pair>
GPTQ_DEVICE void unpack_pairs(uint4 piece, float (&values)[8]) {
    const uint32_t pairs[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const float2 two = to_floats(Pair{pairs[i]});
        values[2 * i] = two.x, values[2 * i + 1] = two.y;
    }
}
GPTQ_DEVICE void unpack(uint4 piece, float (&values)[8], f16) { unpack_pairs<f16x2>(piece, values); }
GPTQ_DEVICE void unpack(uint4 piece, float (&values)[8], bf16) { unpack_pairs<bf16x2>(piece, values); }

/// Piece `index` of what may be written by the kernel before.
template <class T>
GPTQ_DEVICE void read_piece(const void* from, size_t index, float (&values)[kPiece<T>]) {
    unpack(load_global(static_cast<const char*>(from) + 16 * index), values, T{});
}

template <class T>
GPTQ_DEVICE void write_piece(void* to, size_t index, const float (&values)[kPiece<T>]) {
    store_global(static_cast<char*>(to) + 16 * index, pack16(values, T{}));
}

/// The sum over the lanes of a warp, in all of them.
GPTQ_DEVICE float sum_of_warp(float value) {
#pragma unroll
    for (int lanes = 1; lanes < int(kWarp); lanes *= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
    return value;
}

/// The sum over the threads of a block of GPTQ_DECODER_THREADS, in all of them. Once in a kernel.
GPTQ_DEVICE float sum_of_block(float value) {
    GPTQ_SHARED(float, sums, kDecoderWarps);
    value = sum_of_warp(value);
    if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
    __syncthreads();
    float all = 0.0f;
#pragma unroll
    for (uint32_t warp = 0; warp < kDecoderWarps; warp++) all += sums[warp];
    return all;
}

}  // namespace gptq

/// A kernel for each type of activations.
#define GPTQ_DECODER_ENTRIES(name, threads, Params)                                                             \
    GPTQ_KERNEL(gptq_decoder_##name##_f32, threads, Params) { gptq::name<float>(params); }                      \
    GPTQ_KERNEL(gptq_decoder_##name##_f16, threads, Params) { gptq::name<gptq::f16>(params); }                  \
    GPTQ_KERNEL(gptq_decoder_##name##_bf16, threads, Params) { gptq::name<gptq::bf16>(params); }
