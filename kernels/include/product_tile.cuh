// The product for a middle number of rows of x, 17 and more: tiles of many columns by many tokens, on tensor cores.
//
// tile_products.cuh says how a family instantiates it.
//
// A block has kColumns columns (of strips side by side) and kTokens rows of x, and goes down K in units of kUnitTiles tiles. A unit
// has everything that it needs in one stage of a ring in shared memory: pieces of x, which all warps read, and for each warp
// the tiles of its own strips, with their scales and zero points. Sums of a run of rows that share a scale are f32, of whole
// numbers, and scaled once.
//
// All units of a product stand in one row: down K first, then column block after column block, then over the next tokens.
// Each block of the grid takes an equal share of that row, and has its ring running over the borders. Where several blocks
// have parts of the same sums, each writes its own, and the one that comes last adds them in the order of blocks.
//
// Two ways to multiply: mma.sync, where a warp has two strips or more and reads x with ldmatrix, and wgmma, where four warps
// read x together, straight from shared memory, and their operand A is the same as mma.sync's.
#pragma once

#include "product_feed.cuh"
#include "ptx_group.cuh"

namespace gptq {

template <class S>
GPTQ_DEVICE LaneZeros<S::kBits, typename S::Pair> lane_zeros(uint32_t both) {
    using Zeros = LaneZeros<S::kBits, typename S::Pair>;
    if constexpr (S::kAsymmetric) return Zeros::of(both);
    return Zeros::middle();
}

GPTQ_DEVICE float2 scales_as_floats(uint32_t scales, uint32_t dtype) {
    return dtype == GPTQ_DTYPE_F16 ? to_floats(f16x2{scales}) : to_floats(bf16x2{scales});
}

template <class S>
struct TileSums {
    float of[S::kStrips][S::kTokenTiles][4];

    GPTQ_DEVICE void clear() {
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
            for (uint32_t t = 0; t < S::kTokenTiles; t++) {
#pragma unroll
                for (uint32_t i = 0; i < 4; i++) of[s][t][i] = 0.0f;
            }
        }
    }
};

/// sums += scales * of_run
template <class S>
GPTQ_DEVICE void add_run(TileSums<S>& sums, const TileSums<S>& of_run, const WarpStage<S>& stage, uint32_t run, uint32_t lane,
                         uint32_t scale_dtype) {
#pragma unroll
    for (uint32_t s = 0; s < S::kStrips; s++) {
        const float2 scales = scales_as_floats(stage.scales(s, run, lane), scale_dtype);
#pragma unroll
        for (uint32_t t = 0; t < S::kTokenTiles; t++) add_scaled(sums.of[s][t], scales, of_run.of[s][t]);
    }
}

template <class S>
GPTQ_DEVICE void write_tile(const Product& p, const TilePlace& place, uint32_t lane, uint32_t first_strip, TileSums<S>& sums) {
    using X = typename S::X;
    const uint32_t first_token = place.token_block * S::kTokens + lane / 4;
    const bool in_words = reinterpret_cast<uintptr_t>(p.out) % 4 == 0;
#pragma unroll
    for (uint32_t s = 0; s < S::kStrips; s++) {
        const uint32_t column = (first_strip + s) * kStripColumns;
        if (column >= p.out_features) return;
        const bool whole = column + 8 < p.out_features;
        float bias[2] = {};
        if (p.bias != nullptr) {
            bias[0] = read_float(p.bias, p.bias_dtype, column + lane / 4);
            if (whole) bias[1] = read_float(p.bias, p.bias_dtype, column + lane / 4 + 8);
        }
        X* out = counted_late(static_cast<X*>(p.out)) + size_t(first_token) * p.out_features + column + lane % 4 * 2;
        int32_t rows_left = int32_t(p.rows) - int32_t(first_token);
#pragma unroll
        for (uint32_t t = 0; t < S::kTokenTiles; t++) {
            const float(&of)[4] = sums.of[s][t];
            // Two tokens of a column become two columns of a token.
            const auto with_bias = [](float sum, float bias) { return fmaf(sum, kOperandUnits<typename S::Pair>, bias); };
            const uint32_t low = transpose_matrix(pair_of(with_bias(of[0], bias[0]), with_bias(of[1], bias[0]), X{}));
            const uint32_t high = transpose_matrix(pair_of(with_bias(of[2], bias[1]), with_bias(of[3], bias[1]), X{}));
            if (rows_left > 0) {
                if (in_words) {
                    store_global(out, low);
                    if (whole) store_global(out + 8, high);
                } else {
                    store_global(out, uint16_t(low));
                    store_global(out + 1, uint16_t(low >> 16));
                    if (whole) store_global(out + 8, uint16_t(high));
                    if (whole) store_global(out + 9, uint16_t(high >> 16));
                }
            }
            out += size_t(8) * p.out_features;
            rows_left -= 8;
        }
    }
}

/// Writes the sums of a block: those of a thread far enough from one another for all threads' to be side by side.
template <class S>
GPTQ_DEVICE void store_sums(float* to, const TileSums<S>& sums) {
    float* const own = counted_late(to) + threadIdx.x * 4;
#pragma unroll
    for (uint32_t i = 0; i < S::kTokenTiles * S::kStrips; i++) {
        const float(&of)[4] = sums.of[i % S::kStrips][i / S::kStrips];
        store_global(own + i * (S::kAcross * kWarp * 4), make_uint4(__float_as_uint(of[0]), __float_as_uint(of[1]),
                                                                    __float_as_uint(of[2]), __float_as_uint(of[3])));
    }
}

/// Adds to sums[first ..] what `store_sums` wrote of them.
template <class S, uint32_t first, uint32_t count>
GPTQ_DEVICE void add_stored(const float* from, TileSums<S>& sums) {
    const float* const own = counted_late(from) + threadIdx.x * 4;
    uint4 loaded[count];
#pragma unroll
    for (uint32_t i = 0; i < count; i++) loaded[i] = load_global(own + (first + i) * (S::kAcross * kWarp * 4));
#pragma unroll
    for (uint32_t i = 0; i < count; i++) add(sums.of[(first + i) % S::kStrips][(first + i) / S::kStrips], loaded[i]);
}

/// Whether all that there is of some sums is in this block now. If several blocks have parts of them, each writes its own, and
/// the one that comes last adds them all, in the order of blocks.
template <class S>
GPTQ_DEVICE bool collect(const Product& p, const TilePlace& place, uint32_t* earlier, TileSums<S>& sums) {
    const uint32_t tile = place.token_block * place.column_blocks + place.column_block, share = p.split_tiles;
    const uint32_t first_unit = tile * place.units;
    const uint32_t first = first_unit / share, last = (first_unit + place.units - 1) / share;
    if (first == last) return true;
    // A block has two places: for what it begins with, and for what comes later.
    const auto part_of = [&](uint32_t block) {
        return p.partial + size_t(block * 2 + (block * share < first_unit ? 1 : 0)) * S::kSums;
    };
    store_sums(part_of(blockIdx.x), sums);
    __syncthreads();
    if (threadIdx.x == 0) *earlier = count_arrival(p.arrived + tile, p.arrival_mark);
    __syncthreads();
    if (*earlier != last - first) return false;
    if (threadIdx.x == 0) p.arrived[tile] = p.arrival_mark;
    sums.clear();
    constexpr uint32_t kAll = S::kTokenTiles * S::kStrips, kAtOnce = kAll < 8 ? kAll : 8;
#pragma unroll 1
    for (uint32_t block = first; block <= last; block++) {
        const float* const part = part_of(block);
        // So many loads are under way.
        add_stored<S, 0, kAtOnce>(part, sums);
        if constexpr (kAll > 8) add_stored<S, 8, (kAll > 16 ? 8 : kAll - 8)>(part, sums);
        if constexpr (kAll > 16) add_stored<S, 16, (kAll > 24 ? 8 : kAll - 16)>(part, sums);
        if constexpr (kAll > 24) add_stored<S, 24, kAll - 24>(part, sums);
    }
    return true;
}

/// sums += W x over the tiles of a unit, with mma.sync.
template <class S>
GPTQ_DEVICE void add_unit(const Product& p, const WarpStage<S>& stage, SharedAddress pieces, uint32_t lane, TileSums<S>& sums) {
    TileSums<S> of_run;
    // Of two tiles of tokens, for a step of 16 rows: [tile][half].
    const SharedAddress row = pieces + (lane / 16 * 8 + lane % 8) * 128;
    const uint32_t swap = lane % 8, half = lane / 8 % 2;
    // Runs that end with a tile leave no room for what another would read ahead.
#pragma unroll(S::kRunTiles == 1 ? 1 : S::kUnitTiles)
    for (uint32_t i = 0; i < S::kUnitTiles; i++) {
        LaneTile<S::kBits> tiles[S::kStrips];
        uint32_t zeros[S::kStrips];
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) stage.tile(s, i, lane, tiles[s]);
#pragma unroll
        for (uint32_t step = 0; step < kTileSteps; step++) {
            if (S::begins_run(i, step)) of_run.clear();
            typename S::Pair a[S::kStrips][4];
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                if (step % S::kRunSteps == 0) zeros[s] = stage.zeros(s, S::run_of(i, step), lane);
                unpack(tiles[s], step, lane_zeros<S>(zeros[s]), a[s]);
            }
            const SharedAddress of_step = row + i * S::kPieceBytes + ((step * 2 + half) ^ swap) * 16;
#pragma unroll
            for (uint32_t t = 0; t < S::kTokenTiles; t += 2) {
                uint32_t matrices[4];
                load_matrices(matrices, of_step + t * 1024);
#pragma unroll
                for (uint32_t two = 0; two < 2; two++) {
                    const typename S::Pair b[2] = {{matrices[two * 2]}, {matrices[two * 2 + 1]}};
#pragma unroll
                    for (uint32_t s = 0; s < S::kStrips; s++) multiply_accumulate(of_run.of[s][t + two], a[s], b);
                }
            }
            if (S::ends_run(i, step)) add_run<S>(sums, of_run, stage, S::run_of(i, step), lane, p.scale_dtype);
        }
    }
}

/// Starts c (+)= W x over a step, for the 64 columns of four warps.
template <class S>
GPTQ_DEVICE void multiply_step(bool add, float (&c)[S::kTokenTiles][4], const typename S::Pair (&a)[4], const GroupOperand& b,
                               uint32_t step) {
#ifdef GPTQ_EMULATOR
    const uint32_t lane = threadIdx.x % kWarp;
    for (uint32_t t = 0; t < S::kTokenTiles; t++) {
        if (!add) c[t][0] = c[t][1] = c[t][2] = c[t][3] = 0;
        uint32_t matrices[2];
        load_matrices(matrices, b.address + piece_offset(t * 8 + lane % 8, step * 2 + lane / 8 % 2));
        const typename S::Pair of_step[2] = {{matrices[0]}, {matrices[1]}};
        multiply_accumulate(c[t], a, of_step);
    }
#elif defined(GPTQ_HAS_WGMMA)
    if (add) {
        multiply_group<true>(c, a, b.descriptor(step));
    } else {
        multiply_group<false>(c, a, b.descriptor(step));
    }
#endif
}

/// Products with wgmma.
template <class S>
struct GroupProduct {
    /// Whether the next tile is unpacked while the present one is multiplied, which takes registers for two.
    static constexpr bool kReadsAhead = S::kWay == Way::ahead;
    static_assert(S::kUnitTiles % 2 == 0, "the first tile of a unit has the first operands");

    /// Of the tiles of a unit by turns.
    typename S::Pair a[kReadsAhead ? 2 : 1][kTileSteps][4];

    /// sums += W x over the tiles of a unit, of which the first is unpacked. While it is multiplied, `copy_next` is called, and
    /// `read_next` while the last one is; the operands of the first are free then.
    template <class CopyNext, class ReadNext>
    GPTQ_DEVICE void add_unit(const Product& p, const WarpStage<S>& stage, SharedAddress pieces, uint32_t lane, TileSums<S>& sums,
                              const CopyNext& copy_next, const ReadNext& read_next) {
        TileSums<S> of_run;
        const auto add = [&](uint32_t run) {
            wait_group_multiply<0>();
#pragma unroll
            for (uint32_t t = 0; t < S::kTokenTiles; t++) hold(of_run.of[0][t]);
            add_run<S>(sums, of_run, stage, run, lane, p.scale_dtype);
        };
#pragma unroll
        for (uint32_t i = 0; i < S::kUnitTiles; i++) {
            const GroupOperand b(pieces + i * S::kPieceBytes);
#pragma unroll
            for (uint32_t r = 0; r < S::kTileRuns; r++) {
                const uint32_t first_step = r * S::kRunSteps;
                if (S::begins_run(i, first_step) && (r > 0 || (kReadsAhead && i > 0))) add(S::run_of(i, first_step) - 1);
                begin_group_multiply();
#pragma unroll
                for (uint32_t step = first_step; step < first_step + S::kRunSteps; step++) {
                    multiply_step<S>(!S::begins_run(i, step), of_run.of[0], a[kReadsAhead ? i % 2 : 0][step], b, step);
                }
                commit_group_multiply();
            }
            if (i == 0) copy_next();
            if constexpr (kReadsAhead) {
                // Then the operands of the tile before are free.
                wait_group_multiply<int(S::kTileRuns)>();
            } else if (S::ends_run(i, kTileSteps - 1)) {
                add(S::run_of(i, kTileSteps - 1));
            } else {
                wait_group_multiply<0>();
            }
            if (i + 1 < S::kUnitTiles) {
                read(stage, i + 1, lane);
            } else {
                read_next();
            }
        }
        if constexpr (kReadsAhead) add(S::kUnitRuns - 1);
    }

    /// Unpacks a tile of a unit, which its warp has copied.
    GPTQ_DEVICE void read(const WarpStage<S>& stage, uint32_t i, uint32_t lane) {
        LaneTile<S::kBits> tile;
        stage.tile(0, i, lane, tile);
        uint32_t zeros = 0;
#pragma unroll
        for (uint32_t step = 0; step < kTileSteps; step++) {
            if (step % S::kRunSteps == 0) zeros = stage.zeros(0, S::run_of(i, step), lane);
            unpack(tile, step, lane_zeros<S>(zeros), a[kReadsAhead ? i % 2 : 0][step]);
        }
    }
};

/// Nothing, where a warp multiplies for itself.
struct NoGroups {};
template <class S, bool kGroups = S::kGroups>
struct GroupsFor {
    using type = GroupProduct<S>;
};
template <class S>
struct GroupsFor<S, false> {
    using type = NoGroups;
};
template <class S>
using GroupsOf = typename GroupsFor<S>::type;

template <class S>
GPTQ_DEVICE void multiply_tiles(const Product& p) {
    GPTQ_SHARED_SWIZZLED(shared);
    const SharedAddress ring = shared_address(shared);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t units = (p.tiles + S::kUnitTiles - 1) / S::kUnitTiles;
    const uint32_t column_blocks = (p.strips + S::kBlockStrips - 1) / S::kBlockStrips;
    const uint32_t token_blocks = (p.rows + S::kTokens - 1) / S::kTokens;
    const uint32_t begin = blockIdx.x * p.split_tiles;
    const uint32_t end = smaller(begin + p.split_tiles, units * column_blocks * token_blocks);
    // A launch may be cut for more rows than there are.
    if (begin >= end) return;

    TilePlace place(units, column_blocks, begin);
    TileFeed<S> feed(p, place, ring);
    // Weights are there before the kernel in front of this one has ended. Not those of all stages, for which the first would
    // have to wait.
    constexpr uint32_t kEarly = S::kStages > 2 ? 2 : 1;
    {
        TileFeed<S> early = feed;
#pragma unroll 1
        for (uint32_t stage = 0; stage < kEarly && begin + stage < end; stage++) {
            early.copy_weights(stage);
            early.advance();
        }
    }
    let_next_kernel_begin();
    wait_for_earlier_kernels();
#pragma unroll 1
    for (uint32_t stage = 0; stage < S::kStages - 1; stage++) {
        if (begin + stage < end) {
            if (stage >= kEarly) feed.copy_weights(stage);
            feed.copy_x(stage);
            feed.advance();
        }
        commit_copies();
    }

    const SharedAddress own = ring + S::kXBytes + warp * S::kWarpBytes;
    TileSums<S> sums;
    sums.clear();
    // What this warp has copied of the unit that comes next has come.
    const auto wait_for_own = [&] {
        wait_copies<int(S::kStages) - 2>();
        if constexpr (S::kGroups) {
            let_groups_read_shared();
            __syncwarp();
        }
    };
    GroupsOf<S> groups;
    if constexpr (S::kWay == Way::ahead) {
        wait_for_own();
        groups.read({own}, 0, lane);
    }
    // Before the barrier, or behind it.
    const bool unpacks_early = warp / 4 % 2 == 1;
    uint32_t here = 0;
#pragma unroll 1
    for (uint32_t item = begin; item < end; item++) {
        const WarpStage<S> stage{own + here * S::kStageBytes};
        const SharedAddress pieces = ring + here * S::kStageBytes;
        if constexpr (S::kWay != Way::ahead) wait_for_own();
        if constexpr (S::kWay == Way::turns) {
            if (unpacks_early) groups.read(stage, 0, lane);
        }
        // What the others have copied too, and everybody is done with the unit before, whose stage the next takes.
        __syncthreads();
        if constexpr (S::kWay == Way::turns) {
            if (!unpacks_early) groups.read(stage, 0, lane);
        }
        const auto copy_next = [&] {
            const uint32_t to = here == 0 ? S::kStages - 1 : here - 1;
            if (item + S::kStages - 1 < end) {
                feed.copy_weights(to);
                feed.copy_x(to);
                feed.advance();
            }
            commit_copies();
        };
        const uint32_t next = here + 1 == S::kStages ? 0 : here + 1;
        if constexpr (S::kGroups) {
            // Behind the last it is that once more: what is unpacked then is not used.
            const WarpStage<S> next_stage{item + 1 < end ? own + next * S::kStageBytes : stage.at};
            groups.add_unit(p, stage, pieces, lane, sums, copy_next, [&] {
                if constexpr (S::kWay == Way::ahead) {
                    wait_for_own();
                    groups.read(next_stage, 0, lane);
                }
            });
        } else {
            copy_next();
            add_unit<S>(p, stage, pieces, lane, sums);
        }
        here = next;
        const TilePlace of_unit = place;
        if (place.advance() || item + 1 == end) {
            uint32_t* const earlier = reinterpret_cast<uint32_t*>(shared + S::kStages * S::kStageBytes);
            if (collect(p, of_unit, earlier, sums)) {
                write_tile(p, of_unit, lane, of_unit.column_block * S::kBlockStrips + warp * S::kStrips, sums);
            }
            sums.clear();
        }
    }
    wait_copies<0>();
}

}  // namespace gptq
