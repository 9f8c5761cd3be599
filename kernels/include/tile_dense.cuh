// The dense matrix, or a panel of its columns, from an arranged layer; and x in the order of an arrangement.
//
// A lane has two columns of a tile, and a row of the output wants neighbouring columns together: a block of 8 strips turns
// a tile's rows in shared memory, and writes 256 bytes of each. Rows go back to where the file has them, so that x needs
// no sorting.
//
// A family instantiates TILE_DEQUANTIZE for each width and type, and TILE_GATHER once, behind its params.h, which says
// GPTQ_FAMILY.
#pragma once

#include "dequant.cuh"
#include "tile.cuh"
#include "tile.h"

namespace gptq {

/// kAsymmetric says whether zero points are read; otherwise they are half of what codes reach.
template <int kBits, class Out, bool kAsymmetric>
GPTQ_DEVICE void dequantize(const GptqTileDequantizeParams& p) {
    using Pair = typename PairOf<Out>::type;
    constexpr uint32_t kColumns = GPTQ_TILE_DEQUANTIZE_COLUMNS;
    // Elements from row to row: the rows of a store fall on different banks.
    constexpr uint32_t kStride = kColumns + 8;
    GPTQ_SHARED(uint4, turned, kTileRows * kStride / 8);
    uint16_t* const rows = reinterpret_cast<uint16_t*>(turned);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, q = lane % 4;
    const uint32_t first_column = p.first_column + blockIdx.x * kColumns, tile = blockIdx.y;
    const uint32_t strip = first_column / kStripColumns + warp;

    LaneTile<kBits> lane_tile;
    const char* const weights = static_cast<const char*>(p.weights);
    lane_tile.read(weights + (size_t(strip) * p.tiles + tile) * kTileBytes<kBits>, lane);
#pragma unroll
    for (uint32_t half = 0; half < 2 * kTileSteps; half++) {
        const uint32_t group = high_product(2 * (tile * 2 * kTileSteps + half) + 1, p.inverse_of_group);
        const size_t at = (size_t(strip) * p.groups + group) * 8 + g;
        const uint32_t scales = load_constant(static_cast<const uint32_t*>(p.scales) + at);
        auto lane_zeros = LaneZeros<kBits, Pair>::middle();
        if constexpr (kAsymmetric) {
            lane_zeros = LaneZeros<kBits, Pair>::of(load_constant(static_cast<const uint16_t*>(p.zeros) + at));
        }
        const float2 of_columns =
            p.scale_dtype == GPTQ_DTYPE_F16 ? to_floats(f16x2{scales}) : to_floats(bf16x2{scales});
        Pair a[2];
        unpack_half(lane_tile, half / 2, half % 2, lane_zeros, a);
#pragma unroll
        for (uint32_t second = 0; second < 2; second++) {
            // Whole numbers of up to 9 bits times a 16-bit float: exact in f32, and rounded once.
            const float2 codes = to_floats(a[second]);
            const float scale = second == 0 ? of_columns.x : of_columns.y;
            uint16_t* const to = rows + (half * 8 + 2 * q) * kStride + warp * kStripColumns + g + second * 8;
            Out low, high;
            round_to(codes.x * kOperandUnits<Pair> * scale, low);
            round_to(codes.y * kOperandUnits<Pair> * scale, high);
            to[0] = low.bits;
            to[kStride] = high.bits;
        }
    }
    __syncthreads();
#pragma unroll
    for (uint32_t at = threadIdx.x; at < kTileRows * kColumns / 8; at += GPTQ_TILE_DEQUANTIZE_THREADS) {
        const uint32_t row = at / (kColumns / 8), column = at % (kColumns / 8) * 8, k = tile * kTileRows + row;
        if (k >= p.in_features || blockIdx.x * kColumns + column >= p.columns) continue;
        const uint32_t to = p.order == nullptr ? k : p.order[k];
        store_global(static_cast<Out*>(p.out) + size_t(to) * p.out_stride + blockIdx.x * kColumns + column,
                     load<uint4>(rows + row * kStride + column));
    }
}

GPTQ_DEVICE void gather(const GptqTileGatherParams& p) {
    // Two elements a thread: it is latency that this takes, not bandwidth.
    const uint32_t k = (blockIdx.x * GPTQ_TILE_GATHER_THREADS + threadIdx.x) * 2;
    let_next_kernel_begin();
    uint32_t both = 0;
    if (p.order != nullptr && k < p.in_features) both = load_constant(reinterpret_cast<const uint32_t*>(p.order + k));
    const uint32_t first = p.order != nullptr ? both & 0xffff : k, second = p.order != nullptr ? both >> 16 : k + 1;
    wait_for_earlier_kernels();
    if (k >= p.in_features) return;
    const uint16_t* const row = p.x + size_t(blockIdx.y) * p.in_features;
    store(p.out + size_t(blockIdx.y) * p.in_features + k, row[first] | uint32_t(row[second]) << 16);
}

}  // namespace gptq

#define TILE_DEQUANTIZE(width, bits, X, asymmetric)                                                        \
    GPTQ_FAMILY_KERNEL(dequantize_##width##_##X, GPTQ_TILE_DEQUANTIZE_THREADS, GptqTileDequantizeParams) { \
        gptq::dequantize<bits, gptq::X, asymmetric>(params);                                               \
    }
#define TILE_GATHER                                                                                      \
    GPTQ_FAMILY_KERNEL(gather, GPTQ_TILE_GATHER_THREADS, GptqTileGatherParams) { gptq::gather(params); }
