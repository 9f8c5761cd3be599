// out = x W + bias for few rows of x ("tokens"), from arranged weights (tile.cuh), in one launch.
//
// A block has kStrips strips of 16 columns and a part of K. Its warps take the tiles of that part in turn: warp w the tiles
// w, w + kWarps, .. of every strip, so that all warps together read on through contiguous memory. A warp keeps kAhead
// tiles of each strip on the way in registers, and as many pieces of x, 64 rows of W long, on the way to shared memory,
// which only this warp reads: no barrier of the block until the end.
//
//            k ->   tile 0  1  2  3  4  5  6  7  8  ..
//   strip 0        | w0 w1 w2 w3 w0 w1 w2 w3 w0 ..        sums of 16 x kTokens
//   strip 1        | w0 w1 w2 w3 w0 w1 w2 w3 w0 ..        in f32, in registers
//
// Products of a group are summed with weights that are whole numbers, code - zero, which is exact in 16-bit floats; the
// scale is applied to the f32 sum. At the end the warps' sums are added in shared memory, in order. Where K is split
// over blocks too, each writes what it has, and the one that comes last adds all parts, in order: equal launches give
// equal bits.
#pragma once

#include "dequant.cuh"
#include "tile.cuh"

namespace gptq {

/// What a launch says of a layer and its product. Pointers to weights, scales and x are aligned to 16 bytes.
struct Product {
    const char* weights;
    const uint32_t* scales;
    const uint16_t* zeros;
    const void* bias;
    const char* x;
    void* out;
    /// [splits, rows, columns of all blocks] and a counter for each block in x, zero before and after; with one split unused.
    float* partial;
    uint32_t* arrived;
    uint32_t in_features;
    uint32_t out_features;
    /// Of the arrangement: tiles and groups of a strip.
    uint32_t tiles;
    uint32_t groups;
    /// Which group a run of rows is in: floor((2 run + 1) * inverse / 2^32), where a run has the rows that share a scale.
    uint32_t inverse_of_group;
    uint32_t rows;
    uint32_t splits;
    /// Tiles of a split; the last one has fewer.
    uint32_t split_tiles;
    uint32_t bias_dtype;
    float scale;
};

template <int kBits_, class X_, int kTokens_, int kStrips_, int kWarps_, int kAhead_, int kRunSteps_, bool kAsymmetric_>
struct ProductShape {
    static constexpr int kBits = kBits_;
    /// f16 or bf16, of x and out.
    using X = X_;
    /// Rows of x at most: 1, or a multiple of 8.
    static constexpr uint32_t kTokens = kTokens_;
    /// Strips of a block; every warp works on all of them.
    static constexpr uint32_t kStrips = kStrips_;
    static constexpr uint32_t kWarps = kWarps_;
    /// Tiles of each strip, and pieces of x, that a warp has on the way.
    static constexpr uint32_t kAhead = kAhead_;
    /// Steps of 16 rows that surely share a scale: 4, 2 or 1.
    static constexpr uint32_t kRunSteps = kRunSteps_;
    /// Whether zero points are read; otherwise they are half of what codes reach.
    static constexpr bool kAsymmetric = kAsymmetric_;

    using Pair = typename PairOf<X>::type;
    static constexpr uint32_t kThreads = kWarps * kWarp;
    static constexpr uint32_t kTokenTiles = (kTokens + 7) / 8;
    static constexpr uint32_t kColumns = kStrips * kStripColumns;
    static constexpr uint32_t kRuns = kTileSteps / kRunSteps;
    /// Bytes of a piece of x.
    static constexpr uint32_t kPieceBytes = kTokens * kTileRows * 2;
    /// Floats from token to token of the sums in shared memory: so that lanes which write at once meet different banks.
    static constexpr uint32_t kSumStride = kColumns + 4;

    static constexpr size_t shared_bytes(uint32_t rows) {
        const size_t pieces = size_t(kWarps) * kAhead * kPieceBytes, sums = size_t(kWarps) * rows * kSumStride * 4;
#ifdef GPTQ_TRY_RING
        return pieces + sums + size_t(kWarps) * kAhead * kStrips * 512;
#endif
        return pieces + sums;
    }
};

/// A piece of x in shared memory: [token][8 times 16 bytes], the 16 bytes in an order in which 8 tokens' lie in 8 banks.
GPTQ_DEVICE uint32_t piece_offset(uint32_t token, uint32_t part) { return token * 128 + (part ^ token % 8) * 16; }

/// The operands B of all steps of a tile.
template <class S>
GPTQ_DEVICE void read_piece(const char* piece, uint32_t rows, uint32_t lane,
                            typename S::Pair (&x)[S::kTokenTiles][kTileSteps][2]) {
#pragma unroll
    for (uint32_t t = 0; t < S::kTokenTiles; t++) {
        const uint32_t token = S::kTokens == 1 ? 0 : smaller(t * 8 + lane % 8, rows - 1);
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
};

/// Where a warp reads, and what it has on the way.
template <class S>
struct Stream {
    const Product& p;
    const uint32_t lane;
    /// Of the block's first strip; the others follow at a fixed distance.
    const char* weights;
    const uint32_t* scales;
    const uint16_t* zeros;
    const char* x;
    char* pieces;
#ifdef GPTQ_TRY_RING
    char* ring;
#endif

    LaneTile<S::kBits> tiles[S::kAhead][S::kStrips];
    LaneScales<S> tile_scales[S::kAhead][S::kStrips];

    GPTQ_DEVICE Stream(const Product& p, uint32_t lane, char* pieces) : p(p), lane(lane), pieces(pieces) {
        const uint32_t strip = blockIdx.x * S::kStrips;
        weights = p.weights + size_t(strip) * p.tiles * kTileBytes<S::kBits>;
        scales = p.scales + size_t(strip) * p.groups * 8 + lane / 4;
        zeros = p.zeros + size_t(strip) * p.groups * 8 + lane / 4;
        x = p.x + size_t(lane / 8) * p.in_features * 2 + lane % 8 * 16;
    }

    /// Lets the weights of a tile, their scales and zero points come.
    GPTQ_DEVICE void read(uint32_t slot, uint32_t tile) {
        const size_t strip_bytes = size_t(p.tiles) * kTileBytes<S::kBits>;
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
#ifdef GPTQ_TRY_RING
            copy_async(ring + ((slot * S::kStrips + s) * kWarp + lane) * 16, weights + s * strip_bytes + tile * kTileBytes<S::kBits> + lane * 16);
#else
            tiles[slot][s].read(weights + s * strip_bytes + tile * kTileBytes<S::kBits>, lane);
#endif
        }
#pragma unroll
        for (uint32_t run = 0; run < S::kRuns; run++) {
            const uint32_t group = high_product(2 * (tile * S::kRuns + run) + 1, p.inverse_of_group);
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                const uint32_t at = (s * p.groups + group) * 8;
                tile_scales[slot][s].scales[run] = load_constant(scales + at);
                if constexpr (S::kAsymmetric) tile_scales[slot][s].zeros[run] = load_constant(zeros + at);
            }
        }
    }

    /// Lets x [rows, tile * 64 ..] be copied. Rows of x past the last are left as they are in shared memory; nobody writes
    /// what comes out of them.
    GPTQ_DEVICE void copy(uint32_t slot, uint32_t tile) {
        char* const piece = pieces + slot * S::kPieceBytes;
        const bool wanted = tile * kTileRows + lane % 8 * 8 < p.in_features;
        const char* from = x + (wanted ? tile * (kTileRows * 2) : 0);
#pragma unroll
        for (uint32_t first = 0; first < S::kTokens; first += 4) {
            if (first + lane / 8 < p.rows) {
                copy_async(piece + piece_offset(first + lane / 8, lane % 8), from, wanted);
            }
            from += size_t(p.in_features) * 8;
        }
    }
};

/// sums += W x over one tile of one strip.
template <class S>
GPTQ_DEVICE void add_tile(const LaneTile<S::kBits>& tile, const LaneScales<S>& lane_scales,
                          const typename S::Pair (&x)[S::kTokenTiles][kTileSteps][2],
                          float (&sums)[S::kTokenTiles][4]) {
    using Pair = typename S::Pair;
#pragma unroll
    for (uint32_t run = 0; run < S::kRuns; run++) {
        constexpr uint32_t kHalf = 1u << (S::kBits - 1);
        const uint32_t zeros = S::kAsymmetric ? lane_scales.zeros[run] : kHalf | kHalf << 8;
        const LaneZeros<S::kBits, Pair> lane_zeros(zeros & 0xff, zeros >> 8);
        float of_run[S::kTokenTiles][4] = {};
#pragma unroll
        for (uint32_t step = run * S::kRunSteps; step < (run + 1) * S::kRunSteps; step++) {
            Pair a[4];
            unpack(tile, step, lane_zeros, a);
#pragma unroll
            for (uint32_t t = 0; t < S::kTokenTiles; t++) multiply_accumulate(of_run[t], a, x[t][step]);
        }
        const float2 scales = to_floats(f16x2{lane_scales.scales[run]});
#pragma unroll
        for (uint32_t t = 0; t < S::kTokenTiles; t++) {
            sums[t][0] = fmaf(scales.x, of_run[t][0], sums[t][0]);
            sums[t][1] = fmaf(scales.x, of_run[t][1], sums[t][1]);
            sums[t][2] = fmaf(scales.y, of_run[t][2], sums[t][2]);
            sums[t][3] = fmaf(scales.y, of_run[t][3], sums[t][3]);
        }
    }
}

/// Bias, the layer's factor, and one rounding.
template <class X>
GPTQ_DEVICE void write_output(const Product& p, uint32_t row, uint32_t column, float sum) {
    sum *= p.scale;
    if (p.bias != nullptr) sum += read_float(p.bias, p.bias_dtype, column);
    round_to(sum, static_cast<X*>(p.out)[size_t(row) * p.out_features + column]);
}

/// Adds the sums of the warps, [warps, rows, kSumStride], and then those of the blocks that share the columns.
template <class S>
GPTQ_DEVICE void finish(const Product& p, const float* sums) {
    const uint32_t first_column = blockIdx.x * S::kColumns;
    const uint32_t all_columns = gridDim.x * S::kColumns;
    for (uint32_t at = threadIdx.x; at < p.rows * S::kColumns; at += S::kThreads) {
        const uint32_t row = at / S::kColumns, column = at % S::kColumns;
        float sum = 0.0f;
#pragma unroll
        for (uint32_t warp = 0; warp < S::kWarps; warp++) sum += sums[(warp * p.rows + row) * S::kSumStride + column];
        if (p.splits > 1) {
            p.partial[(size_t(blockIdx.y) * p.rows + row) * all_columns + first_column + column] = sum;
        } else if (first_column + column < p.out_features) {
            write_output<typename S::X>(p, row, first_column + column, sum);
        }
    }
    if (p.splits == 1) return;

    GPTQ_SHARED(uint32_t, earlier, 1);
    __syncthreads();
    if (threadIdx.x == 0) *earlier = count_arrival(p.arrived + blockIdx.x);
    __syncthreads();
    if (*earlier != p.splits - 1) return;
    if (threadIdx.x == 0) p.arrived[blockIdx.x] = 0;
    for (uint32_t at = threadIdx.x; at < p.rows * S::kColumns; at += S::kThreads) {
        const uint32_t row = at / S::kColumns, column = first_column + at % S::kColumns;
        if (column >= p.out_features) continue;
        float sum = 0.0f;
#pragma unroll 4
        for (uint32_t split = 0; split < p.splits; split++) {
            sum += p.partial[(size_t(split) * p.rows + row) * all_columns + column];
        }
        write_output<typename S::X>(p, row, column, sum);
    }
}

template <class S>
GPTQ_DEVICE void multiply_few(const Product& p) {
    GPTQ_SHARED_DYNAMIC(char, shared);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, q = lane % 4;
    float* const all_sums = reinterpret_cast<float*>(shared + S::kWarps * S::kAhead * S::kPieceBytes);

    const uint32_t begin = blockIdx.y * p.split_tiles, split_end = smaller(begin + p.split_tiles, p.tiles);
#ifdef GPTQ_TRY_CONTIGUOUS
    const uint32_t share = (p.split_tiles + S::kWarps - 1) / S::kWarps;
    const uint32_t first = begin + warp * share, end = smaller(first + share, split_end);
    constexpr uint32_t kStride = 1;
#else
    const uint32_t first = begin + warp, end = split_end;
    constexpr uint32_t kStride = S::kWarps;
#endif
    Stream<S> stream(p, lane, shared + warp * S::kAhead * S::kPieceBytes);
#ifdef GPTQ_TRY_RING
    stream.ring = shared + S::kWarps * S::kAhead * S::kPieceBytes + S::kWarps * p.rows * S::kSumStride * 4 + warp * S::kAhead * S::kStrips * 512;
#endif
    const auto copy_first = [&] {
#pragma unroll
        for (uint32_t slot = 0; slot < S::kAhead; slot++) {
            if (first + slot * kStride < end) stream.copy(slot, first + slot * kStride);
#ifdef GPTQ_TRY_RING
            if (first + slot * kStride < end) stream.read(slot, first + slot * kStride);
#endif
            commit_copies();
        }
    };
#ifdef GPTQ_TRY_X_FIRST
    let_next_kernel_begin();
    wait_for_earlier_kernels();
    copy_first();
#endif
#pragma unroll
    for (uint32_t slot = 0; slot < S::kAhead; slot++) {
#ifndef GPTQ_TRY_RING
        if (first + slot * kStride < end) stream.read(slot, first + slot * kStride);
#endif
    }
#ifndef GPTQ_TRY_X_FIRST
    let_next_kernel_begin();
    wait_for_earlier_kernels();
    copy_first();
#endif

    float sums[S::kStrips][S::kTokenTiles][4] = {};
#pragma unroll 1
    for (uint32_t base = first; base < end; base += S::kAhead * kStride) {
#pragma unroll
        for (uint32_t slot = 0; slot < S::kAhead; slot++) {
            const uint32_t tile = base + slot * kStride, later = tile + S::kAhead * kStride;
            if (tile >= end) break;
            wait_copies<S::kAhead - 1>();
            __syncwarp();
#ifdef GPTQ_TRY_RING
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                const uint4 four = load<uint4>(stream.ring + ((slot * S::kStrips + s) * kWarp + lane) * 16);
                uint32_t* w = stream.tiles[slot][s].words; w[0] = four.x, w[1] = four.y, w[2] = four.z, w[3] = four.w;
            }
#endif
            typename S::Pair x[S::kTokenTiles][kTileSteps][2];
            read_piece<S>(stream.pieces + slot * S::kPieceBytes, p.rows, lane, x);
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                add_tile<S>(stream.tiles[slot][s], stream.tile_scales[slot][s], x, sums[s]);
            }
            if (later < end) {
                stream.read(slot, later);
                __syncwarp();
                stream.copy(slot, later);
            }
            commit_copies();
        }
    }

    float* const warp_sums = all_sums + warp * p.rows * S::kSumStride;
#pragma unroll
    for (uint32_t t = 0; t < S::kTokenTiles; t++) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t row = t * 8 + q * 2 + i % 2;
            if (row >= p.rows) continue;
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                warp_sums[row * S::kSumStride + s * kStripColumns + g + i / 2 * 8] = sums[s][t][i];
            }
        }
    }
    __syncthreads();
    finish<S>(p, all_sums);
}

}  // namespace gptq
