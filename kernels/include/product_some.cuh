// The product for some rows of x, 9 to 64.
//
// Here reading x is what costs: a block that has 16 columns reads M / 4 times as many bytes of x as of weights. So a block is
// wide, and x goes through shared memory once for all its columns: a ring of stages, each some columns of x of all rows.
// Warps stand side by side, kStrips strips each, in kRowWarps rows, which divide the tiles of a stage.
//
//                  strips 0, 1   2, 3   4, 5  ..   as many as the launch says
//   tiles 0, 2, ..     w0         w1     w2
//   tiles 1, 3, ..     w7         w8     w9         and all of them meet at a barrier once a stage
//
// How many columns a block has, and in how many parts K is divided, is chosen so that there is one block for each
// multiprocessor, or a little less: nothing is left over for a second wave.
#pragma once

#include "product.cuh"

namespace gptq {

template <class S, int kRowWarps_>
struct Stages {
    static constexpr uint32_t kRowWarps = kRowWarps_;
    /// Tiles of a stage that a row of warps takes.
    static constexpr uint32_t kTiles = S::kAhead < 2 ? 1 : 2;
    static constexpr uint32_t kCount = 4;
    static constexpr uint32_t kPieces = kTiles * kRowWarps;
    static constexpr uint32_t kBytes = kPieces * S::kPieceBytes;
    static_assert(S::kAhead % kTiles == 0, "slots are used in turn");
};

/// Lets the stage that begins at `tile` come: pieces of x, zeros past K. All threads of the block take part.
template <class S, class St>
GPTQ_DEVICE void copy_stage(const Product& p, char* stage, uint32_t tile, uint32_t end) {
    for (uint32_t at = threadIdx.x; at < p.rows * St::kPieces * 8; at += blockDim.x) {
        const uint32_t part = at % 8, piece = at / 8 % St::kPieces, token = at / 8 / St::kPieces;
        const uint32_t k = (tile + piece) * kTileRows + part * 8;
        if (tile + piece >= end) continue;
        const bool wanted = k < p.in_features;
        copy_async(stage + piece * S::kPieceBytes + piece_offset(token, part),
                   static_cast<const char*>(p.x) + (size_t(token) * p.in_features + (wanted ? k : 0)) * 2, wanted);
    }
}

/// sums += W x over a tile of all strips, for more tokens than there are registers for operands of: weights are unpacked
/// first, and x is read for two tiles of tokens at a time, as far as there are rows.
template <class S>
GPTQ_DEVICE void add_tile_to_many(const LaneTile<S::kBits> (&tiles)[S::kStrips], const LaneScales<S> (&scales)[S::kStrips],
                                  const Product& p, const char* piece, uint32_t lane,
                                  float (&sums)[S::kStrips][S::kTokenTiles][4]) {
    using Pair = typename S::Pair;
    constexpr uint32_t kHalves = kTileSteps * 2, kRunHalves = S::kRunRows / 8;
    Pair a[S::kStrips][kHalves][2];
#pragma unroll
    for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
        for (uint32_t half = 0; half < kHalves; half++) {
            unpack_half(tiles[s], half / 2, half % 2, scales[s].zeros_of(half / kRunHalves), a[s][half]);
        }
    }
#pragma unroll
    for (uint32_t t = 0; t < S::kTokenTiles; t += 2) {
        if (t * 8 >= p.rows) break;
        Pair x[2][kTileSteps][2];
        read_piece<S>(piece, t * 8, p.rows, lane, x);
#pragma unroll
        for (uint32_t run = 0; run < S::kRuns; run++) {
            float of_run[S::kStrips][2][4] = {};
#pragma unroll
            for (uint32_t half = run * kRunHalves; half < (run + 1) * kRunHalves; half += kRunHalves == 1 ? 1 : 2) {
#pragma unroll
                for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
                    for (uint32_t i = 0; i < 2; i++) {
                        if constexpr (kRunHalves == 1) {
                            const Pair of_half[1] = {x[i][half / 2][half % 2]};
                            multiply_accumulate(of_run[s][i], a[s][half], of_half);
                        } else {
                            const Pair whole[4] = {a[s][half][0], a[s][half][1], a[s][half + 1][0], a[s][half + 1][1]};
                            multiply_accumulate(of_run[s][i], whole, x[i][half / 2]);
                        }
                    }
                }
            }
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                const float2 of_columns = scales[s].scales_of(run, p.scale_dtype);
#pragma unroll
                for (uint32_t i = 0; i < 2; i++) add_scaled(sums[s][t + i], of_columns, of_run[s][i]);
            }
        }
    }
}

/// Shared memory: the ring, or the sums of kRowWarps rows of warps, whichever is more. Rust counts the same.
template <class S, int kRowWarps>
GPTQ_DEVICE void multiply_some(const Product& p) {
    using St = Stages<S, kRowWarps>;
    GPTQ_SHARED_DYNAMIC(char, shared);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t column_warps = blockDim.x / kWarp / kRowWarps, column_warp = warp % column_warps;
    const uint32_t row_warp = warp / column_warps, columns = column_warps * S::kStrips * kStripColumns;
    // The last block may be wider than what is left: strips come in eights, and warps without one only help with x.
    const uint32_t strip = (blockIdx.x * column_warps + column_warp) * S::kStrips;
    const bool has_strips = strip < p.strips;
    const uint32_t begin = blockIdx.y * p.split_tiles, end = smaller(begin + p.split_tiles, p.tiles);
    const size_t strip_bytes = size_t(p.tiles) * kTileBytes<S::kBits>;
    const char* const weights = static_cast<const char*>(p.weights) + strip * strip_bytes;

    LaneTile<S::kBits> tiles[S::kAhead][S::kStrips];
    LaneScales<S> scales[S::kAhead][S::kStrips];
    const auto read = [&](uint32_t slot, uint32_t tile) {
        if (!has_strips || tile >= end) return;
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
            tiles[slot][s].read(weights + s * strip_bytes + size_t(tile) * kTileBytes<S::kBits>, lane);
        }
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) scales[slot][s].read(p, strip + s, tile, lane);
    };
#pragma unroll
    for (uint32_t slot = 0; slot < S::kAhead; slot++) read(slot, begin + slot * kRowWarps + row_warp);

    let_next_kernel_begin();
    wait_for_earlier_kernels();
    const auto copy = [&](uint32_t stage) {
        const uint32_t tile = begin + stage * St::kPieces;
        if (tile < end) copy_stage<S, St>(p, shared + stage % St::kCount * St::kBytes, tile, end);
        commit_copies();
    };
#pragma unroll
    for (uint32_t stage = 0; stage < St::kCount - 1; stage++) copy(stage);

    float sums[S::kStrips][S::kTokenTiles][4] = {};
    constexpr uint32_t kStagesOfSlots = S::kAhead / St::kTiles;
#pragma unroll 1
    for (uint32_t first_stage = 0; begin + first_stage * St::kPieces < end; first_stage += kStagesOfSlots) {
#pragma unroll
        for (uint32_t next = 0; next < kStagesOfSlots; next++) {
            const uint32_t stage = first_stage + next;
            if (begin + stage * St::kPieces >= end) break;
            // This stage has come, and everybody is done with the one before, whose place the next takes.
            wait_copies<St::kCount - 2>();
            __syncthreads();
            copy(stage + St::kCount - 1);
            const char* const x_stage = shared + stage % St::kCount * St::kBytes;
#pragma unroll
            for (uint32_t i = 0; i < St::kTiles; i++) {
                const uint32_t slot = next * St::kTiles + i, piece = i * kRowWarps + row_warp;
                const uint32_t tile = begin + stage * St::kPieces + piece;
                if (!has_strips || tile >= end) continue;
                const char* const x_piece = x_stage + piece * S::kPieceBytes;
                if constexpr (S::kTokenTiles > 4) {
                    add_tile_to_many<S>(tiles[slot], scales[slot], p, x_piece, lane, sums);
                } else {
                    typename S::Pair x[S::kTokenTiles][kTileSteps][2];
                    read_piece<S>(x_piece, 0, p.rows, lane, x);
#pragma unroll
                    for (uint32_t s = 0; s < S::kStrips; s++) {
                        add_tile<S>(tiles[slot][s], scales[slot][s], p.scale_dtype, x, sums[s]);
                    }
                }
                read(slot, tile + S::kAhead * kRowWarps);
            }
        }
    }

    // The sums take the place of x.
    wait_copies<0>();
    __syncthreads();
    const uint32_t stride = sum_stride(columns);
    float* const all_sums = reinterpret_cast<float*>(shared);
#pragma unroll
    for (uint32_t s = 0; s < S::kStrips; s++) {
        keep_sums(all_sums + row_warp * p.rows * stride + (column_warp * S::kStrips + s) * kStripColumns, stride, p.rows,
                  lane, sums[s]);
    }
    __syncthreads();
    finish<typename S::X, kRowWarps>(p, all_sums, columns, blockDim.x);
}

}  // namespace gptq
