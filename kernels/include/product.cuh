// out = x W + bias from arranged weights (tile.cuh), in one launch: what the kernels for few rows of x (product_few.cuh)
// and for some (product_some.cuh) share.
//
// Products of a run of rows that share a scale are summed with weights that are whole numbers, code - zero, by a power of two
// (kOperandUnits), which 16-bit floats hold exactly; the scale is applied to the f32 sum, and the power of two undone at the end.
// Where K is split over blocks, each writes the sums that it has, and the one that comes last adds all parts in order: equal
// launches give equal bits.
#pragma once

#include "dequant.cuh"
#include "product.h"
#include "ptx_matrix.cuh"
#include "tile.cuh"

namespace gptq {

using Product = GptqProductParams;

template <int kBits_, class X_, int kTokens_, int kStrips_, int kAhead_, int kRunRows_, bool kAsymmetric_>
struct ProductShape {
    static constexpr int kBits = kBits_;
    /// f16 or bf16, of x and out.
    using X = X_;
    /// Rows of x at most: 1, or a multiple of 8.
    static constexpr uint32_t kTokens = kTokens_;
    /// Strips of a warp.
    static constexpr uint32_t kStrips = kStrips_;
    /// Tiles of each strip that a warp of product_few.cuh has on the way.
    static constexpr uint32_t kAhead = kAhead_;
    /// Rows of W that surely share a scale: 64, 32, 16 or 8; 128 for product_few.cuh.
    static constexpr uint32_t kRunRows = kRunRows_;
    /// Whether zero points are read; otherwise they are half of what codes reach.
    static constexpr bool kAsymmetric = kAsymmetric_;

    using Pair = typename PairOf<X>::type;
    static constexpr uint32_t kTokenTiles = (kTokens + 7) / 8;
    static constexpr uint32_t kRuns = kRunRows < kTileRows ? kTileRows / kRunRows : 1;
    /// Tiles of a unit of product_few.cuh.
    static constexpr uint32_t kUnitTiles = kRunRows > kTileRows ? kRunRows / kTileRows : 1;
    /// Whether codes are multiplied as subnormals, by product_few.cuh: with more rows of x that has gained nothing.
    static constexpr bool kOfSubnormals = kTokens == 1 && kUnitTiles == 2 && kHasSubnormals<kBits, Pair>;
    /// Bytes of a piece of x: as many of its columns as a tile has rows.
    static constexpr uint32_t kPieceBytes = kTokens * kTileRows * 2;
};

/// Where 16 bytes of a piece of x are in shared memory: [token][8 times 16 bytes], in an order in which those of 8 tokens
/// lie in different banks.
GPTQ_DEVICE uint32_t piece_offset(uint32_t token, uint32_t part) { return token * 128 + (part ^ token % 8) * 16; }

/// The operands B of the steps of a tile, for the tokens from `first_token` on. Tokens past the last are read as the last.
template <class S, uint32_t kTokenTiles>
GPTQ_DEVICE void read_piece(const char* piece, uint32_t first_token, uint32_t rows, uint32_t lane,
                            typename S::Pair (&x)[kTokenTiles][kTileSteps][2]) {
#pragma unroll
    for (uint32_t t = 0; t < kTokenTiles; t++) {
        const uint32_t token = S::kTokens == 1 ? 0 : smaller(first_token + t * 8 + lane % 8, rows - 1);
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            uint32_t matrices[4];
            load_matrices(matrices, piece + piece_offset(token, half * 4 + lane / 8));
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) x[t][half * 2 + i / 2][i % 2].bits = matrices[i];
        }
    }
}

/// What a lane needs of the scales and zero points of a tile: of each run, for its two columns.
template <class S>
struct LaneScales {
    uint32_t scales[S::kRuns];
    uint32_t zeros[S::kAsymmetric ? S::kRuns : 1];

    /// Of a tile of a strip.
    GPTQ_DEVICE void read(const Product& p, uint32_t strip, uint32_t tile, uint32_t lane) {
#pragma unroll
        for (uint32_t run = 0; run < S::kRuns; run++) {
            const uint32_t group = high_product(2 * (tile * S::kRuns + run) + 1, p.inverse_of_group);
            const size_t at = (size_t(strip) * p.groups + group) * 8 + lane / 4;
            scales[run] = load_constant(static_cast<const uint32_t*>(p.scales) + at);
            if constexpr (S::kAsymmetric) zeros[run] = load_constant(static_cast<const uint16_t*>(p.zeros) + at);
        }
    }

    /// Of a copy in shared memory: of each run 16 scales and 16 zero points, `run_bytes` from run to run.
    template <uint32_t run_bytes>
    GPTQ_DEVICE void read_shared(const char* runs, uint32_t lane) {
#pragma unroll
        for (uint32_t run = 0; run < S::kRuns; run++) {
            scales[run] = load<uint32_t>(runs + run * run_bytes + lane / 4 * 4);
            if constexpr (S::kAsymmetric) zeros[run] = load<uint16_t>(runs + run * run_bytes + 32 + lane / 4 * 2);
        }
    }

    GPTQ_DEVICE LaneZeros<S::kBits, typename S::Pair> zeros_of(uint32_t run) const {
        using Zeros = LaneZeros<S::kBits, typename S::Pair>;
        if constexpr (S::kAsymmetric) return Zeros::of(zeros[run]);
        return Zeros::middle();
    }

    GPTQ_DEVICE float2 scales_of(uint32_t run, uint32_t dtype) const {
        return dtype == GPTQ_DTYPE_F16 ? to_floats(f16x2{scales[run]}) : to_floats(bf16x2{scales[run]});
    }
};

GPTQ_DEVICE void add_scaled(float (&sums)[4], float2 scales, const float (&of_run)[4]) {
    sums[0] = fmaf(scales.x, of_run[0], sums[0]);
    sums[1] = fmaf(scales.x, of_run[1], sums[1]);
    sums[2] = fmaf(scales.y, of_run[2], sums[2]);
    sums[3] = fmaf(scales.y, of_run[3], sums[3]);
}

/// sums += W x over one tile of one strip.
template <class S, uint32_t kTokenTiles>
GPTQ_DEVICE void add_tile(const LaneTile<S::kBits>& tile, const LaneScales<S>& lane_scales, uint32_t scale_dtype,
                          const typename S::Pair (&x)[kTokenTiles][kTileSteps][2], float (&sums)[kTokenTiles][4]) {
    using Pair = typename S::Pair;
#pragma unroll
    for (uint32_t run = 0; run < S::kRuns; run++) {
        const auto zeros = lane_scales.zeros_of(run);
        float of_run[kTokenTiles][4] = {};
        if constexpr (S::kRunRows < kStepRows) {
            Pair a[2];
            unpack_half(tile, run / 2, run % 2, zeros, a);
#pragma unroll
            for (uint32_t t = 0; t < kTokenTiles; t++) {
                const Pair half[1] = {x[t][run / 2][run % 2]};
                multiply_accumulate(of_run[t], a, half);
            }
        } else {
            constexpr uint32_t kSteps = S::kRunRows / kStepRows;
#pragma unroll
            for (uint32_t step = run * kSteps; step < (run + 1) * kSteps; step++) {
                Pair a[4];
                unpack(tile, step, zeros, a);
#pragma unroll
                for (uint32_t t = 0; t < kTokenTiles; t++) multiply_accumulate(of_run[t], a, x[t][step]);
            }
        }
        const float2 scales = lane_scales.scales_of(run, scale_dtype);
#pragma unroll
        for (uint32_t t = 0; t < kTokenTiles; t++) add_scaled(sums[t], scales, of_run[t]);
    }
}

/// Floats from row to row of sums in shared memory: so that lanes which write at once meet different banks.
GPTQ_DEVICE uint32_t sum_stride(uint32_t columns) { return columns + 4; }

/// Writes a lane's sums of a strip to shared memory [rows, sum_stride], where the strip begins at `sums`.
template <uint32_t kTokenTiles>
GPTQ_DEVICE void keep_sums(float* sums, uint32_t stride, uint32_t rows, uint32_t lane,
                           const float (&of_strip)[kTokenTiles][4]) {
#pragma unroll
    for (uint32_t t = 0; t < kTokenTiles; t++) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t row = t * 8 + lane % 4 * 2 + i % 2;
            if (row < rows) sums[row * stride + lane / 4 + i / 2 * 8] = of_strip[t][i];
        }
    }
}

GPTQ_DEVICE void add(float (&sums)[4], const uint4& four) {
    sums[0] += __uint_as_float(four.x);
    sums[1] += __uint_as_float(four.y);
    sums[2] += __uint_as_float(four.z);
    sums[3] += __uint_as_float(four.w);
}

/// Four columns of out from their sums, bias added and rounded once.
template <class X>
GPTQ_DEVICE void write_output(const Product& p, uint32_t row, uint32_t column, float (&sums)[4]) {
    if (column >= p.out_features) return;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) sums[i] *= kOperandUnits<typename PairOf<X>::type>;
    if (p.bias != nullptr) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) sums[i] += read_float(p.bias, p.bias_dtype, column + i);
    }
    X* const out = static_cast<X*>(p.out) + size_t(row) * p.out_features + column;
    X rounded[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) round_to(sums[i], rounded[i]);
    if (reinterpret_cast<uintptr_t>(p.out) % 8 == 0) {
        store(out, make_uint2(rounded[0].bits | uint32_t(rounded[1].bits) << 16,
                              rounded[2].bits | uint32_t(rounded[3].bits) << 16));
    } else {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) out[i] = rounded[i];
    }
}

/// Adds kParts sums of the block in shared memory, [kParts, rows, sum_stride], and then those of the blocks that share its
/// columns. All threads of the block take part, after a barrier.
template <class X, uint32_t kParts>
GPTQ_DEVICE void finish(const Product& p, const float* sums, uint32_t columns, uint32_t threads) {
    const uint32_t first_column = blockIdx.x * columns, fours = columns / 4, stride = sum_stride(columns);
    const size_t all_columns = size_t(gridDim.x) * columns;
    for (uint32_t at = threadIdx.x; at < p.rows * fours; at += threads) {
        const uint32_t row = at / fours, column = at % fours * 4;
        float sum[4] = {};
#pragma unroll
        for (uint32_t part = 0; part < kParts; part++) {
            add(sum, load<uint4>(sums + (part * p.rows + row) * stride + column));
        }
        if (p.splits > 1) {
            store_global(p.partial + (size_t(blockIdx.y) * p.rows + row) * all_columns + first_column + column,
                         make_uint4(__float_as_uint(sum[0]), __float_as_uint(sum[1]), __float_as_uint(sum[2]),
                                    __float_as_uint(sum[3])));
        } else {
            write_output<X>(p, row, first_column + column, sum);
        }
    }
    if (p.splits == 1) return;

    GPTQ_SHARED(uint32_t, earlier, 1);
    __syncthreads();
    if (threadIdx.x == 0) *earlier = count_arrival(p.arrived + blockIdx.x, p.arrival_mark);
    __syncthreads();
    if (*earlier != p.splits - 1) return;
    if (threadIdx.x == 0) p.arrived[blockIdx.x] = p.arrival_mark;
    for (uint32_t at = threadIdx.x; at < p.rows * fours; at += threads) {
        const uint32_t row = at / fours, column = first_column + at % fours * 4;
        const float* const parts = p.partial + size_t(row) * all_columns + column;
        float sum[4] = {};
#pragma unroll 8
        for (uint32_t split = 0; split < p.splits; split++) {
            add(sum, load<uint4>(parts + split * p.rows * all_columns));
        }
        write_output<X>(p, row, column, sum);
    }
}

}  // namespace gptq
