// x W + bias for one to four rows of x, from the packed words: the dense matrix is never written.
//
// A block of threads has 32 columns and one part of K. A lane has 4 columns, so that it loads 16 bytes of a row of words
// at a time, and every fourth tile of 32 rows:
//
//      columns ->   0..3     4..7           28..31
//      tile 0     lane 0   lane 1   ...    lane 7      warp 0
//      tile 1     lane 8   lane 9   ...    lane 15
//      tile 2     lane 16  ...
//      tile 3     lane 24  ...             lane 31
//      tile 4     lane 0   ...                         warp 1
//      ..
//
// The words of a lane's next tile are under way while it works on the present one. Within a tile the products x (code -
// zero) are summed in f32, then scaled once. Four lanes of a warp, the warps of a block and, where K was split, the
// splits are added in that order, always.
#pragma once

#include "family.cuh"

namespace gptq {

constexpr uint32_t kDotWarps = GPTQ_DEQUANTIZE_DOT_THREADS / kWarp;
constexpr uint32_t kDotColumns = GPTQ_DEQUANTIZE_DOT_COLUMNS;
constexpr uint32_t kLaneColumns = 4;
constexpr uint32_t kLanesAcross = kDotColumns / kLaneColumns;
constexpr uint32_t kWarpTiles = kWarp / kLanesAcross;

/// Consecutive elements of x, 4 or 8.
template <uint32_t count>
GPTQ_DEVICE void read_x(const f16* x, float (&values)[count]) { read_floats(x, GPTQ_DTYPE_F16, 0, values); }
template <uint32_t count>
GPTQ_DEVICE void read_x(const bf16* x, float (&values)[count]) { read_floats(x, GPTQ_DTYPE_BF16, 0, values); }
template <uint32_t count>
GPTQ_DEVICE void read_x(const float* x, float (&values)[count]) { read_floats(x, GPTQ_DTYPE_F32, 0, values); }

/// Adds the sums of all warps and writes what the block has. `sums` is [warps, rows, columns].
template <class X, uint32_t kRows>
GPTQ_DEVICE void write_sums(const GptqDequantizeDotParams& p, const float* sums) {
    __syncthreads();
    const uint32_t row = threadIdx.x / kDotColumns, column = blockIdx.x * kDotColumns + threadIdx.x % kDotColumns;
    if (row >= smaller(kRows, p.rows) || column >= p.out_features) return;
    float sum = 0.0f;
#pragma unroll
    for (uint32_t warp = 0; warp < kDotWarps; warp++) sum += sums[warp * kRows * kDotColumns + threadIdx.x];
    if (p.splits > 1) {
        p.partial[(size_t(blockIdx.y) * p.rows + row) * p.out_features + column] = sum;
        return;
    }
    if (p.bias != nullptr) sum += read_float(p.bias, p.bias_dtype, column);
    round_to(sum, static_cast<X*>(p.out)[size_t(row) * p.out_features + column]);
}

/// What a lane has loaded of a tile before it works on it.
template <class F>
struct LaneTile {
    uint32_t words[F::bits][kLaneColumns];

    GPTQ_DEVICE void read(const GptqDequantizeDotParams& p, uint32_t tile, uint32_t column) {
        const uint32_t* qweight = p.qweight + size_t(tile) * F::bits * p.out_features + column;
#pragma unroll
        for (uint32_t w = 0; w < F::bits; w++) {
            const uint4 four = load_stream(qweight + size_t(w) * p.out_features);
            words[w][0] = four.x, words[w][1] = four.y, words[w][2] = four.z, words[w][3] = four.w;
        }
    }
};

/// totals += x W over one tile.
template <class F, class X, uint32_t kRows>
GPTQ_DEVICE void add_tile(const GptqDequantizeDotParams& p, const LaneTile<F>& lane_tile, uint32_t tile, uint32_t column,
                          float (&totals)[kRows][kLaneColumns]) {
    const uint32_t group = tile * kBlock / p.group_rows;
    uint32_t zeros[kLaneColumns];
    read_codes<F>(p.qzeros + group * zero_words<F>(p.out_features), column, zeros);
    float scales[kLaneColumns];
    read_floats(p.scales, p.scale_dtype, size_t(group) * p.out_features + column, scales);

    // Elements of a row of x that are there at a time. Eight of four rows would leave registers for one block to a
    // multiprocessor, and nothing would hide the loads.
    constexpr uint32_t kRun = kRows > 2 ? 4 : 8;
    float sums[kRows][kLaneColumns] = {};
#pragma unroll
    for (uint32_t first = 0; first < kBlock; first += kRun) {
        float x[kRows][kRun];
#pragma unroll
        for (uint32_t m = 0; m < kRows; m++) {
            // Rows past the last repeat it, and are not written.
            const uint32_t row = smaller(m, p.rows - 1);
            read_x(static_cast<const X*>(p.x) + size_t(row) * p.in_features + tile * kBlock + first, x[m]);
        }
#pragma unroll
        for (uint32_t c = 0; c < kLaneColumns; c++) {
            const FloatZero<F> zero(zeros[c]);
#pragma unroll
            for (uint32_t i = 0; i < kRun; i++) {
                const float weight = less_zero([&](uint32_t w) { return lane_tile.words[w][c]; }, first + i, zero);
#pragma unroll
                for (uint32_t m = 0; m < kRows; m++) sums[m][c] = fmaf(x[m][i], weight, sums[m][c]);
            }
        }
    }
#pragma unroll
    for (uint32_t m = 0; m < kRows; m++) {
#pragma unroll
        for (uint32_t c = 0; c < kLaneColumns; c++) totals[m][c] = fmaf(scales[c], sums[m][c], totals[m][c]);
    }
}

template <class F, class X, uint32_t kRows>
GPTQ_DEVICE void dot_blocks(const GptqDequantizeDotParams& p) {
    GPTQ_SHARED(float, sums, kDotWarps * kRows * kDotColumns);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t lane_column = lane % kLanesAcross * kLaneColumns, column = blockIdx.x * kDotColumns + lane_column;
    const uint32_t tiles = p.in_features / kBlock, tiles_of_split = (tiles + p.splits - 1) / p.splits;
    const uint32_t end = smaller((blockIdx.y + 1) * tiles_of_split, tiles);
    uint32_t tile = blockIdx.y * tiles_of_split + warp * kWarpTiles + lane / kLanesAcross;

    float totals[kRows][kLaneColumns] = {};
    if (column < p.out_features && tile < end) {
        constexpr uint32_t kStep = kDotWarps * kWarpTiles;
        LaneTile<F> next;
        next.read(p, tile, column);
#pragma unroll 1
        for (; tile < end; tile += kStep) {
            const LaneTile<F> present = next;
            if (tile + kStep < end) next.read(p, tile + kStep, column);
            add_tile<F, X>(p, present, tile, column, totals);
        }
    }

#pragma unroll
    for (uint32_t m = 0; m < kRows; m++) {
#pragma unroll
        for (uint32_t c = 0; c < kLaneColumns; c++) {
            float total = totals[m][c];
#pragma unroll
            for (uint32_t lanes = kLanesAcross; lanes < kWarp; lanes *= 2) {
                total += __shfl_xor_sync(kAllLanes, total, int(lanes));
            }
            if (lane < kLanesAcross) sums[(warp * kRows + m) * kDotColumns + lane_column + c] = total;
        }
    }
    write_sums<X, kRows>(p, sums);
}

/// A lane has one column, a warp every eighth tile; each row finds its group, code and zero point by itself.
template <class F, class X, uint32_t kRows>
GPTQ_DEVICE void dot_rows(const GptqDequantizeDotParams& p) {
    GPTQ_SHARED(float, sums, kDotWarps * kRows * kDotColumns);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t column = blockIdx.x * kDotColumns + lane;
    const uint32_t tiles = (p.in_features + kBlock - 1) / kBlock, tiles_of_split = (tiles + p.splits - 1) / p.splits;
    const uint32_t end = smaller((blockIdx.y + 1) * tiles_of_split, tiles);
    const X* x = static_cast<const X*>(p.x);

    float totals[kRows] = {};
    for (uint32_t tile = blockIdx.y * tiles_of_split + warp; tile < end && column < p.out_features; tile += kDotWarps) {
        const uint32_t tile_end = smaller((tile + 1) * kBlock, p.in_features);
        uint32_t last_group = ~0u;
        float scale = 0.0f, zero = 0.0f;
        float of_tile[kRows] = {};
#pragma unroll 4
        for (uint32_t k = tile * kBlock; k < tile_end; k++) {
            const uint32_t group = group_of(p.g_idx, p.g_idx_bytes, p.group_rows, k);
            if (group != last_group) {
                scale = read_float(p.scales, p.scale_dtype, size_t(group) * p.out_features + column);
                zero = float(read_code<F>(p.qzeros + group * zero_words<F>(p.out_features), 1, column));
                last_group = group;
            }
            const float weight = scale * (float(read_code<F>(p.qweight + column, p.out_features, k)) - zero);
            const uint32_t x_column = row_of_w(p.w_rows, k);
#pragma unroll
            for (uint32_t m = 0; m < kRows; m++) {
                const uint32_t row = smaller(m, p.rows - 1);
                of_tile[m] = fmaf(to_float(x[size_t(row) * p.in_features + x_column]), weight, of_tile[m]);
            }
        }
#pragma unroll
        for (uint32_t m = 0; m < kRows; m++) totals[m] += of_tile[m];
    }
#pragma unroll
    for (uint32_t m = 0; m < kRows; m++) sums[(warp * kRows + m) * kDotColumns + lane] = totals[m];
    write_sums<X, kRows>(p, sums);
}

/// One output of each thread.
template <class X>
GPTQ_DEVICE void sum_splits(const GptqDequantizeSumParams& p) {
    const uint32_t count = p.rows * p.columns, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const uint32_t row = at / p.columns, column = at % p.columns;
    float sum = 0.0f;
    for (uint32_t split = 0; split < p.splits; split++) sum += p.partial[size_t(split) * count + at];
    if (p.bias != nullptr) sum += read_float(p.bias, p.bias_dtype, column);
    round_to(sum, static_cast<X*>(p.out)[size_t(row) * p.out_stride + column]);
}

}  // namespace gptq

#define GPTQ_DOT_BLOCKS(format, bits, planar, name, X, rows)                                     \
    GPTQ_KERNEL(gptq_dequantize_dot_blocks_##format##_##name##_m##rows, GPTQ_DEQUANTIZE_DOT_THREADS, \
                GptqDequantizeDotParams) {                                                       \
        gptq::dot_blocks<gptq::Format<bits, planar>, X, rows>(params);                           \
    }
#define GPTQ_DOT_ROWS(format, bits, planar, name, X, rows)                                                  \
    GPTQ_KERNEL_RESIDENT(gptq_dequantize_dot_rows_##format##_##name##_m##rows, GPTQ_DEQUANTIZE_DOT_THREADS, 4, \
                         GptqDequantizeDotParams) {                                                         \
        gptq::dot_rows<gptq::Format<bits, planar>, X, rows>(params);                                        \
    }
#define GPTQ_DOT_OF_FORMAT(format, bits, planar, name, X) \
    GPTQ_DOT_BLOCKS(format, bits, planar, name, X, 1)     \
    GPTQ_DOT_BLOCKS(format, bits, planar, name, X, 2)     \
    GPTQ_DOT_BLOCKS(format, bits, planar, name, X, 4)     \
    GPTQ_DOT_ROWS(format, bits, planar, name, X, 1)       \
    GPTQ_DOT_ROWS(format, bits, planar, name, X, 4)

// All entries for x of one type.
#define GPTQ_DOT_ENTRIES(name, X)                                                                       \
    GPTQ_FORMATS(GPTQ_DOT_OF_FORMAT, name, X)                                                           \
    GPTQ_KERNEL(gptq_dequantize_sum_##name, GPTQ_DEQUANTIZE_SUM_THREADS, GptqDequantizeSumParams) {     \
        gptq::sum_splits<X>(params);                                                                    \
    }
