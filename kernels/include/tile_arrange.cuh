// A layer as files hold it becomes one as tile.cuh arranges it.
//
// A lane puts together the 32 codes that it will have of a tile, one after the other: two columns, 16 rows. Rows of the
// file are words apart that lie N words apart in memory, so a block first brings all words that it needs, 16 or more
// columns of each row, into shared memory. Sorted rows (act-order) are taken from anywhere in K, and their block brings the
// whole column strip.
//
// A family instantiates TILE_ARRANGE for the formats that it takes, behind its params.h, which says GPTQ_FAMILY.
#pragma once

#include "dequant.cuh"
#include "tile.cuh"
#include "tile.h"

namespace gptq {

/// Brings words [rows, columns] into shared memory; past the last column there are zeros. N is a multiple of 8.
GPTQ_DEVICE void stage_words(uint32_t* to, const uint32_t* qweight, uint32_t out_features, uint32_t first_row,
                             uint32_t rows, uint32_t first_column, uint32_t columns) {
    const uint32_t fours = columns / 4;
    for (uint32_t at = threadIdx.x; at < rows * fours; at += blockDim.x) {
        const uint32_t row = at / fours, column = at % fours * 4;
        const bool wanted = first_column + column < out_features;
        copy_async(to + row * columns + column,
                   qweight + size_t(first_row + row) * out_features + (wanted ? first_column + column : 0), wanted);
    }
    commit_copies();
    wait_copies<0>();
    __syncthreads();
}

enum class Source { blocks, sorted, rows };

template <class F, Source source>
GPTQ_DEVICE void arrange(const GptqTileArrangeParams& p) {
    GPTQ_SHARED_DYNAMIC(uint32_t, staged);
    const uint32_t lane = threadIdx.x % kWarp, g = lane / 4, q = lane % 4;
    const uint32_t first_strip = blockIdx.x * p.block_strips, first_tile = blockIdx.y * p.block_tiles;
    const uint32_t columns = p.block_strips * kStripColumns;
    const uint32_t first_row = source == Source::blocks ? first_tile * kTileRows : 0;
    const uint32_t end_row =
        source == Source::blocks ? smaller(p.in_features, first_row + p.block_tiles * kTileRows) : p.in_features;
    if constexpr (source != Source::rows) {
        stage_words(staged, p.qweight, p.out_features, first_row / kBlock * F::bits,
                    (end_row - first_row) / kBlock * F::bits, first_strip * kStripColumns, columns);
    }
    for (uint32_t unit = threadIdx.x / kWarp; unit < p.block_strips * p.block_tiles; unit += blockDim.x / kWarp) {
        const uint32_t of_block = unit / p.block_tiles, strip = first_strip + of_block;
        const uint32_t tile = first_tile + unit % p.block_tiles;
        if (strip >= p.strips || tile >= p.tiles) continue;
        LaneTile<F::bits> lane_tile{};
#pragma unroll
        for (uint32_t pair = 0; pair < 2 * kTileSteps; pair++) {
            const uint32_t k = tile * kTileRows + pair * 8 + 2 * q;
            if (k >= p.in_features) break;
            uint32_t rows[2] = {k - first_row, k + 1 - first_row};
            if constexpr (source != Source::blocks) {
                const uint32_t both = load_constant(reinterpret_cast<const uint32_t*>(p.order) + k / 2);
                rows[0] = both & 0xffff, rows[1] = both >> 16;
            }
#pragma unroll
            for (uint32_t second = 0; second < 2; second++) {
                const uint32_t column = g + 8 * second, n = strip * kStripColumns + column;
#pragma unroll
                for (uint32_t half = 0; half < 2; half++) {
                    uint32_t code = 0;
                    if constexpr (source == Source::rows) {
                        if (n < p.out_features) code = read_code<F>(p.qweight + n, p.out_features, rows[half]);
                    } else {
                        code = read_code<F>(staged + of_block * kStripColumns + column, columns, rows[half]);
                    }
                    lane_tile.put(pair / 2, pair % 2 * 2 + second, half, code);
                }
            }
        }
        lane_tile.write(static_cast<char*>(p.weights) + (size_t(strip) * p.tiles + tile) * kTileBytes<F::bits>, lane);
    }
}

/// A thread has a group of columns g and g + 8 of a strip.
template <class F>
GPTQ_DEVICE void arrange_groups(const GptqTileGroupsParams& p) {
    const size_t at = size_t(blockIdx.x) * GPTQ_TILE_GROUPS_THREADS + threadIdx.x;
    const size_t group_of_strip = at / 8;
    if (group_of_strip >= size_t(p.strips) * p.arranged_groups) return;
    const uint32_t strip = uint32_t(group_of_strip / p.arranged_groups), g = at % 8;
    const uint32_t group = uint32_t(group_of_strip % p.arranged_groups);
    const size_t zero_words = (size_t(p.out_features) * F::bits + 31) / 32;
    uint32_t scales = 0, zeros = 0;
#pragma unroll
    for (uint32_t second = 0; second < 2; second++) {
        const uint32_t n = strip * kStripColumns + g + second * 8;
        if (group >= p.groups || n >= p.out_features) continue;
        scales |= uint32_t(p.scales[size_t(group) * p.out_features + n]) << (16 * second);
        if (p.arranged_zeros != nullptr) zeros |= read_code<F>(p.qzeros + group * zero_words, 1, n) << (8 * second);
    }
    store(p.arranged_scales + at * 2, scales);
    if (p.arranged_zeros != nullptr) store(p.arranged_zeros + at * 2, uint16_t(zeros));
}

}  // namespace gptq

#define TILE_ARRANGE(format, bits, planar)                                                          \
    GPTQ_FAMILY_KERNEL(arrange_blocks_##format, GPTQ_TILE_ARRANGE_THREADS, GptqTileArrangeParams) { \
        gptq::arrange<gptq::Format<bits, planar>, gptq::Source::blocks>(params);                    \
    }                                                                                               \
    GPTQ_FAMILY_KERNEL(arrange_sorted_##format, GPTQ_TILE_ARRANGE_THREADS, GptqTileArrangeParams) { \
        gptq::arrange<gptq::Format<bits, planar>, gptq::Source::sorted>(params);                    \
    }                                                                                               \
    GPTQ_FAMILY_KERNEL(arrange_rows_##format, GPTQ_TILE_ARRANGE_THREADS, GptqTileArrangeParams) {   \
        gptq::arrange<gptq::Format<bits, planar>, gptq::Source::rows>(params);                      \
    }                                                                                               \
    GPTQ_FAMILY_KERNEL(groups_##format, GPTQ_TILE_GROUPS_THREADS, GptqTileGroupsParams) {           \
        gptq::arrange_groups<gptq::Format<bits, planar>>(params);                                   \
    }
