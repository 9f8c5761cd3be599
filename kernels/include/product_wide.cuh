// out = x W + bias for some rows of x, more than product.cuh serves well: x stays in shared memory.
//
// K is split over blocks until a block's part of x fits into its shared memory, where it is copied once. Each warp of a
// block then walks over units of kStrips strips by itself, through all tiles of the block's part of K, and goes on to its
// next unit without a barrier: weights keep coming while sums are written. Sums of a unit go to global memory as lanes hold
// them; the warp that comes last to a unit adds the parts, in order.
#pragma once

#include "product.cuh"

namespace gptq {

template <class S>
GPTQ_DEVICE void finish_unit(const Product& p, uint32_t unit, uint32_t lane, const float (&sums)[S::kStrips][S::kTokenTiles][4]) {
    constexpr uint32_t kVectors = S::kStrips * S::kTokenTiles * kWarp;
    const uint32_t g = lane / 4, q = lane % 4;
    float* const parts = p.partial + size_t(unit) * p.splits * kVectors * 4;
    float total[S::kStrips][S::kTokenTiles][4];
    if (p.splits > 1) {
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
            for (uint32_t t = 0; t < S::kTokenTiles; t++) {
                const float(&of)[4] = sums[s][t];
                const uint4 four = make_uint4(__float_as_uint(of[0]), __float_as_uint(of[1]), __float_as_uint(of[2]), __float_as_uint(of[3]));
                store_global(parts + (blockIdx.y * kVectors + (s * S::kTokenTiles + t) * kWarp + lane) * 4, four);
            }
        }
        __syncwarp();
        uint32_t earlier = 0;
        if (lane == 0) earlier = count_arrival(p.arrived + unit);
        earlier = __shfl_sync(kAllLanes, earlier, 0);
        if (earlier != p.splits - 1) return;
        __syncwarp();
        if (lane == 0) p.arrived[unit] = 0;
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
            for (uint32_t t = 0; t < S::kTokenTiles; t++) {
                float sum[4] = {};
                for (uint32_t split = 0; split < p.splits; split++) {
                    const uint4 four = load<uint4>(parts + (split * kVectors + (s * S::kTokenTiles + t) * kWarp + lane) * 4);
                    sum[0] += __uint_as_float(four.x);
                    sum[1] += __uint_as_float(four.y);
                    sum[2] += __uint_as_float(four.z);
                    sum[3] += __uint_as_float(four.w);
                }
#pragma unroll
                for (uint32_t i = 0; i < 4; i++) total[s][t][i] = sum[i];
            }
        }
    } else {
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
            for (uint32_t t = 0; t < S::kTokenTiles; t++) {
#pragma unroll
                for (uint32_t i = 0; i < 4; i++) total[s][t][i] = sums[s][t][i];
            }
        }
    }
#pragma unroll
    for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
        for (uint32_t t = 0; t < S::kTokenTiles; t++) {
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                const uint32_t row = t * 8 + q * 2 + i % 2, column = (unit * S::kStrips + s) * kStripColumns + g + i / 2 * 8;
                if (row < p.rows && column < p.out_features) write_output<typename S::X>(p, row, column, total[s][t][i]);
            }
        }
    }
}

template <class S>
GPTQ_DEVICE void multiply_some(const Product& p) {
    GPTQ_SHARED_DYNAMIC(char, shared);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t begin = blockIdx.y * p.split_tiles, end = smaller(begin + p.split_tiles, p.tiles);
    const uint32_t strips = (p.out_features + 127) / 128 * 8, units = strips / S::kStrips, stride = gridDim.x * S::kWarps;
    const uint32_t first_unit = blockIdx.x + warp * gridDim.x;
    const size_t strip_bytes = size_t(p.tiles) * kTileBytes<S::kBits>;

    LaneTile<S::kBits> tiles[S::kAhead][S::kStrips];
    LaneScales<S> scales[S::kAhead][S::kStrips];
    // What is read next.
    uint32_t next_unit = first_unit, next_tile = begin;
    const auto read = [&](uint32_t slot) {
        if (next_unit >= units) return;
        const uint32_t strip = next_unit * S::kStrips;
        const char* weights = p.weights + size_t(strip) * strip_bytes + next_tile * kTileBytes<S::kBits>;
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) tiles[slot][s].read(weights + s * strip_bytes, lane);
#pragma unroll
        for (uint32_t run = 0; run < S::kRuns; run++) {
            const uint32_t group = high_product(2 * (next_tile * S::kRuns + run) + 1, p.inverse_of_group);
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                const size_t at = (size_t(strip + s) * p.groups + group) * 8 + lane / 4;
                scales[slot][s].scales[run] = load_constant(p.scales + at);
                if constexpr (S::kAsymmetric) scales[slot][s].zeros[run] = load_constant(p.zeros + at);
            }
        }
        if (++next_tile == end) {
            next_tile = begin;
            next_unit += stride;
        }
    };
#pragma unroll
    for (uint32_t slot = 0; slot < S::kAhead; slot++) read(slot);

    let_next_kernel_begin();
    wait_for_earlier_kernels();
    const uint32_t pieces = (end - begin) * 8;
    for (uint32_t token = warp; token < p.rows; token += S::kWarps) {
        for (uint32_t part = lane; part < pieces; part += kWarp) {
            const uint32_t k = (begin * 8 + part) * 8;
            const bool wanted = k < p.in_features;
            copy_async(shared + part / 8 * S::kPieceBytes + piece_offset(token, part % 8),
                       p.x + (size_t(token) * p.in_features + (wanted ? k : 0)) * 2, wanted);
        }
    }
    commit_copies();
    wait_copies<0>();
    __syncthreads();

    float sums[S::kStrips][S::kTokenTiles][4] = {};
    uint32_t unit = first_unit, tile = begin;
    while (unit < units) {
#pragma unroll
        for (uint32_t slot = 0; slot < S::kAhead; slot++) {
            if (unit >= units) break;
            typename S::Pair x[S::kTokenTiles][kTileSteps][2];
            read_piece<S>(shared + (tile - begin) * S::kPieceBytes, p.rows, lane, x);
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) add_tile<S>(tiles[slot][s], scales[slot][s], x, sums[s]);
            read(slot);
            if (++tile == end) {
                finish_unit<S>(p, unit, lane, sums);
#pragma unroll
                for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
                    for (uint32_t t = 0; t < S::kTokenTiles; t++) {
#pragma unroll
                        for (uint32_t i = 0; i < 4; i++) sums[s][t][i] = 0.0f;
                    }
                }
                tile = begin;
                unit += stride;
            }
        }
    }
}

}  // namespace gptq
