// The product for few rows of x, up to 16.
//
// A block has kStrips strips of 16 columns and a part of K. Its warps take the tiles of that part in turn: warp w the tiles
// w, w + kWarps, .. of every strip, so that all warps together read on through contiguous memory. A warp keeps kAhead
// tiles of each strip on the way in registers, and as many pieces of x on the way to shared memory, which only this warp
// reads: no barrier of the block until the end.
//
//            k ->   tile 0  1  2  3  4  5  6  7  8  ..
//   strip 0        | w0 w1 w2 w3 w0 w1 w2 w3 w0 ..        sums of 16 x kTokens
//   strip 1        | w0 w1 w2 w3 w0 w1 w2 w3 w0 ..        in f32, in registers
//
// Blocks of a multiprocessor read the same x at about the same time: it comes through the L1.
#pragma once

#include "product.cuh"

namespace gptq {

/// Where a warp reads, and what it has on the way.
template <class S>
struct Stream {
    const Product& p;
    const uint32_t lane;
    const uint32_t strip;
    const char* x;
    /// kAhead pieces of x.
    char* pieces;

    LaneTile<S::kBits> tiles[S::kAhead][S::kStrips];
    LaneScales<S> scales[S::kAhead][S::kStrips];

    GPTQ_DEVICE Stream(const Product& p, uint32_t lane, char* pieces)
        : p(p), lane(lane), strip(blockIdx.x * S::kStrips), pieces(pieces) {
        x = static_cast<const char*>(p.x) + size_t(lane / 8) * p.in_features * 2 + lane % 8 * 16;
    }

    /// Lets come what no kernel writes: the weights of a tile, their scales and zero points.
    GPTQ_DEVICE void read(uint32_t slot, uint32_t tile) {
        const size_t strip_bytes = size_t(p.tiles) * kTileBytes<S::kBits>;
        const char* weights = static_cast<const char*>(p.weights) + strip * strip_bytes;
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
            tiles[slot][s].read(weights + s * strip_bytes + size_t(tile) * kTileBytes<S::kBits>, lane);
        }
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) scales[slot][s].read(p, strip + s, tile, lane);
    }

    /// Lets x [rows, tile * 64 ..] be copied. Rows past the last are left as they are in shared memory; nobody reads them.
    GPTQ_DEVICE void copy(uint32_t slot, uint32_t tile) {
        char* const piece = pieces + slot * S::kPieceBytes;
        const bool wanted = tile * kTileRows + lane % 8 * 8 < p.in_features;
        const char* from = x + (wanted ? size_t(tile) * (kTileRows * 2) : 0);
#pragma unroll
        for (uint32_t first = 0; first < S::kTokens; first += 4) {
            if (first + lane / 8 < p.rows) {
                copy_async_shared_by_warps(piece + piece_offset(first + lane / 8, lane % 8), from, wanted);
            }
            from += size_t(p.in_features) * 8;
        }
    }
};

/// Shared memory: the pieces of x of all warps, or their sums, whichever is more. Rust counts the same.
template <class S, int kWarps>
GPTQ_DEVICE void multiply_few(const Product& p) {
    GPTQ_SHARED_DYNAMIC(char, shared);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t begin = blockIdx.y * p.split_tiles, end = smaller(begin + p.split_tiles, p.tiles);
    const uint32_t first = begin + warp;
    Stream<S> stream(p, lane, shared + warp * S::kAhead * S::kPieceBytes);
#pragma unroll
    for (uint32_t slot = 0; slot < S::kAhead; slot++) {
        if (first + slot * kWarps < end) stream.read(slot, first + slot * kWarps);
    }
    let_next_kernel_begin();
    wait_for_earlier_kernels();
#pragma unroll
    for (uint32_t slot = 0; slot < S::kAhead; slot++) {
        if (first + slot * kWarps < end) stream.copy(slot, first + slot * kWarps);
        commit_copies();
    }

    float sums[S::kStrips][S::kTokenTiles][4] = {};
#pragma unroll 1
    for (uint32_t base = first; base < end; base += S::kAhead * kWarps) {
#pragma unroll
        for (uint32_t slot = 0; slot < S::kAhead; slot++) {
            const uint32_t tile = base + slot * kWarps, later = tile + S::kAhead * kWarps;
            if (tile >= end) break;
            wait_copies<S::kAhead - 1>();
            __syncwarp();
            typename S::Pair x[S::kTokenTiles][kTileSteps][2];
            read_piece<S>(stream.pieces + slot * S::kPieceBytes, 0, p.rows, lane, x);
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                add_tile<S>(stream.tiles[slot][s], stream.scales[slot][s], p.scale_dtype, x, sums[s]);
            }
            if (later < end) {
                stream.read(slot, later);
                __syncwarp();
                stream.copy(slot, later);
            }
            commit_copies();
        }
    }

    // The sums take the place of x.
    wait_copies<0>();
    __syncthreads();
    constexpr uint32_t kColumns = S::kStrips * kStripColumns;
    const uint32_t stride = sum_stride(kColumns);
    float* const all_sums = reinterpret_cast<float*>(shared);
#pragma unroll
    for (uint32_t s = 0; s < S::kStrips; s++) {
        keep_sums(all_sums + warp * p.rows * stride + s * kStripColumns, stride, p.rows, lane, sums[s]);
    }
    __syncthreads();
    finish<typename S::X, kWarps>(p, all_sums, kColumns, kWarps * kWarp);
}

}  // namespace gptq
