// The product for some rows of x, 9 to 64.
//
// Here reading x is what costs: a block that has 16 columns reads M / 4 times as many bytes of x as of weights. So a block is
// wide, and x goes through shared memory once for all its columns. Warps stand side by side, kStrips strips each, in
// kRowWarps rows, which divide the tiles of a stage.
//
//                  strips 0, 1   2, 3   4, 5  ..   as many as the launch says
//   tiles 0, 2, ..     w0         w1     w2
//   tiles 1, 3, ..     w7         w8     w9         and all of them meet at a barrier once a stage
//
// A stage has everything that its tiles need: x, weights, scales and zero points. A ring of stages is on the way in shared
// memory. (Weights on the way in registers, as in product_few.cuh, did not work here: what a warp waits for is counted on
// six counters, which loads on the way share with all others, so that each tile waited for the youngest of them.)
//
// How many columns a block has, and in how many parts K is divided, is chosen so that there is one block for each
// multiprocessor, or a little less: nothing is left over for a second wave.
#pragma once

#include "product.cuh"

namespace gptq {

/// A stage in shared memory: pieces of x, then of each tile and strip the tile, then of each their scales and zero points.
template <class S, int kRowWarps_, int kTiles_, int kCount_>
struct Stages {
    static constexpr uint32_t kRowWarps = kRowWarps_;
    /// Tiles of a stage that a row of warps takes.
    static constexpr uint32_t kTiles = kTiles_;
    /// Stages of the ring.
    static constexpr uint32_t kCount = kCount_;
    static constexpr uint32_t kPieces = kTiles * kRowWarps;
    static constexpr uint32_t kTileBytes_ = kTileBytes<S::kBits>;
    /// Of each run of a tile: 16 scales and as many zero points.
    static constexpr uint32_t kRunBytes = 48;
    static constexpr uint32_t kWeightsAt = kPieces * S::kPieceBytes;

    GPTQ_DEVICE static uint32_t tile_at(uint32_t piece, uint32_t strip, uint32_t strips) {
        return kWeightsAt + (piece * strips + strip) * kTileBytes_;
    }
    GPTQ_DEVICE static uint32_t runs_at(uint32_t piece, uint32_t strip, uint32_t strips) {
        return kWeightsAt + kPieces * strips * kTileBytes_ + (piece * strips + strip) * S::kRuns * kRunBytes;
    }
    GPTQ_DEVICE static uint32_t bytes(uint32_t strips) { return runs_at(kPieces, 0, strips); }
};

/// What a warp copies of x: every so many rows of a stage, whole. A lane's part of them is the same in each stage, and its
/// addresses grow evenly: little is left to count in the loop.
template <class S, class St>
struct RowsOfX {
    static constexpr uint32_t kParts = St::kPieces * 8;
    static constexpr uint32_t kAtOnce = kWarp / kParts;
    static_assert(kWarp % kParts == 0, "a warp copies whole rows of a stage");
    uint32_t token, k, step;

    GPTQ_DEVICE RowsOfX(uint32_t begin, uint32_t warp, uint32_t warps, uint32_t lane) {
        token = warp * kAtOnce + lane / kParts, step = warps * kAtOnce;
        k = begin * kTileRows + lane % kParts * 8;
    }

    /// Zeros past K.
    GPTQ_DEVICE void copy(const Product& p, char* stage, uint32_t number, uint32_t lane) const {
        const uint32_t first = k + number * (St::kPieces * kTileRows), part = lane % 8;
        const bool wanted = first < p.in_features;
        // x has 64 rows of 2^17 at most: its bytes are counted in 32 bits.
        uint32_t from = (token * p.in_features + (wanted ? first : 0)) * 2;
        char* const to = stage + lane % kParts / 8 * S::kPieceBytes;
        for (uint32_t t = token; t < p.rows; t += step) {
            copy_async(to + piece_offset(t, part), static_cast<const char*>(p.x) + from, wanted);
            from += step * p.in_features * 2;
        }
    }
};

/// What a warp copies of its own strips: a tile of each, with its scales and zero points.
template <class S, class St>
struct Strips {
    static constexpr uint32_t kParts = St::kTileBytes_ / 16, kRunParts = S::kAsymmetric ? 3 : 2;
    static constexpr uint32_t kRunCopies = S::kStrips * S::kRuns * kRunParts;
    static constexpr uint32_t kRunRounds = (kRunCopies + kWarp - 1) / kWarp;
    const char* weights;
    uint32_t to, run_to[kRunRounds], run[kRunRounds];
    const char* groups[kRunRounds];
    /// Bytes from group to group: of scales, or of zero points.
    uint32_t group_bytes[kRunRounds];

    /// `strip` is the warp's first one, `of_block` the same counted from the block's, which has `strips`.
    GPTQ_DEVICE Strips(const Product& p, uint32_t strip, uint32_t of_block, uint32_t strips, uint32_t lane) {
        weights = static_cast<const char*>(p.weights) + size_t(strip) * p.tiles * St::kTileBytes_ + lane * 16;
        to = St::tile_at(0, of_block, strips) + lane * 16;
#pragma unroll
        for (uint32_t round = 0; round < kRunRounds; round++) {
            const uint32_t at = round * kWarp + lane, part = at % kRunParts, s = at / kRunParts / S::kRuns;
            run[round] = at / kRunParts % S::kRuns;
            run_to[round] = St::runs_at(0, of_block + s, strips) + run[round] * St::kRunBytes + part * 16;
            const size_t first = size_t(strip + s) * p.groups;
            group_bytes[round] = part == 2 ? 16 : 32;
            groups[round] = part == 2 ? static_cast<const char*>(p.zeros) + first * 16
                                      : static_cast<const char*>(p.scales) + first * 32 + part * 16;
        }
    }

    GPTQ_DEVICE void copy(const Product& p, char* stage, uint32_t piece, uint32_t tile, uint32_t strips,
                          uint32_t lane) const {
        const char* const from = weights + size_t(tile) * St::kTileBytes_;
        char* const tiles = stage + to + piece * strips * St::kTileBytes_;
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
            for (uint32_t first = 0; first < kParts; first += kWarp) {
                if (first + kWarp > kParts && first + lane >= kParts) continue;
                copy_async(tiles + s * St::kTileBytes_ + first * 16, from + s * size_t(p.tiles) * St::kTileBytes_ + first * 16);
            }
        }
#pragma unroll
        for (uint32_t round = 0; round < kRunRounds; round++) {
            if ((round + 1) * kWarp > kRunCopies && round * kWarp + lane >= kRunCopies) continue;
            const uint32_t group = high_product(2 * (tile * S::kRuns + run[round]) + 1, p.inverse_of_group);
            copy_async(stage + run_to[round] + piece * strips * (S::kRuns * St::kRunBytes),
                       groups[round] + size_t(group) * group_bytes[round]);
        }
    }
};

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
template <class S, int kRowWarps, int kTiles, int kCount>
GPTQ_DEVICE void multiply_some(const Product& p) {
    using St = Stages<S, kRowWarps, kTiles, kCount>;
    GPTQ_SHARED_DYNAMIC(char, shared);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t column_warps = blockDim.x / kWarp / kRowWarps, strips = column_warps * S::kStrips;
    const uint32_t row_warp = warp / column_warps, of_block = warp % column_warps * S::kStrips;
    // The last block may be wider than what is left: strips come in eights, and warps without one only help with x.
    const uint32_t strip = blockIdx.x * strips + of_block;
    const bool has_strips = strip < p.strips;
    const uint32_t begin = blockIdx.y * p.split_tiles, end = smaller(begin + p.split_tiles, p.tiles);
    const uint32_t stage_bytes = St::bytes(strips);

    const RowsOfX<S, St> rows_of_x(begin, warp, column_warps * kRowWarps, lane);
    const Strips<S, St> own(p, has_strips ? strip : 0, of_block, strips, lane);
    const auto copy_weights = [&](uint32_t stage, char* to) {
#pragma unroll
        for (uint32_t i = 0; i < kTiles; i++) {
            const uint32_t piece = i * kRowWarps + row_warp, tile = begin + stage * St::kPieces + piece;
            if (has_strips && tile < end) own.copy(p, to, piece, tile, strips, lane);
        }
    };
    const auto copy_rows = [&](uint32_t stage, char* to) {
        if (begin + stage * St::kPieces < end) rows_of_x.copy(p, to, stage, lane);
        commit_copies();
    };
    // Weights are there before the kernel in front of this one has ended.
#pragma unroll
    for (uint32_t stage = 0; stage < St::kCount - 1; stage++) copy_weights(stage, shared + stage * stage_bytes);
    let_next_kernel_begin();
    wait_for_earlier_kernels();
#pragma unroll
    for (uint32_t stage = 0; stage < St::kCount - 1; stage++) copy_rows(stage, shared + stage * stage_bytes);

    float sums[S::kStrips][S::kTokenTiles][4] = {};
    uint32_t place = 0;
#pragma unroll 1
    for (uint32_t stage = 0; begin + stage * St::kPieces < end; stage++) {
        // This stage has come, and everybody is done with the one before, whose place the next takes.
        wait_copies<St::kCount - 2>();
        __syncthreads();
        char* const next = shared + (place == 0 ? St::kCount - 1 : place - 1) * stage_bytes;
        copy_weights(stage + St::kCount - 1, next);
        copy_rows(stage + St::kCount - 1, next);
        const char* const here = shared + place * stage_bytes;
        place = place + 1 == St::kCount ? 0 : place + 1;
#pragma unroll
        for (uint32_t i = 0; i < kTiles; i++) {
            const uint32_t piece = i * kRowWarps + row_warp;
            if (!has_strips || begin + stage * St::kPieces + piece >= end) break;
            LaneTile<S::kBits> tiles[S::kStrips];
            LaneScales<S> scales[S::kStrips];
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                tiles[s].read_shared(here + St::tile_at(piece, of_block + s, strips), lane);
                scales[s].template read_shared<St::kRunBytes>(here + St::runs_at(piece, of_block + s, strips), lane);
            }
            const char* const x_piece = here + piece * S::kPieceBytes;
            if constexpr (S::kTokenTiles > 4) {
                add_tile_to_many<S>(tiles, scales, p, x_piece, lane, sums);
            } else {
                typename S::Pair x[S::kTokenTiles][kTileSteps][2];
                read_piece<S>(x_piece, 0, p.rows, lane, x);
#pragma unroll
                for (uint32_t s = 0; s < S::kStrips; s++) {
                    add_tile<S>(tiles[s], scales[s], p.scale_dtype, x, sums[s]);
                }
            }
        }
    }

    // The sums take the place of the ring.
    wait_copies<0>();
    __syncthreads();
    const uint32_t columns = strips * kStripColumns, stride = sum_stride(columns);
    float* const all_sums = reinterpret_cast<float*>(shared);
#pragma unroll
    for (uint32_t s = 0; s < S::kStrips; s++) {
        keep_sums(all_sums + row_warp * p.rows * stride + (of_block + s) * kStripColumns, stride, p.rows, lane, sums[s]);
    }
    __syncthreads();
    finish<typename S::X, kRowWarps>(p, all_sums, columns, blockDim.x);
}

}  // namespace gptq
