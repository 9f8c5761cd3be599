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

#include "product.cuh"
#include "ptx_group.cuh"

namespace gptq {

template <int kBits_, class X_,
          int kTokens_,       // rows of x of a block
          int kStrips_,       // strips of a warp
          int kAcross_,       // warps side by side
          int kUnitTiles_,    // tiles of a strip in a unit
          int kStages_,       // of the ring
          int kRunRows_,      // rows of W that surely share a scale: 128, 64 or 32
          bool kAsymmetric_,  // whether zero points are read
          bool kGroups_>      // whether with wgmma
struct TileShape {
    static constexpr int kBits = kBits_;
    using X = X_;
    using Pair = typename PairOf<X>::type;
    static constexpr uint32_t kTokens = kTokens_, kStrips = kStrips_, kAcross = kAcross_, kUnitTiles = kUnitTiles_,
                              kStages = kStages_,
                              kRunRows = kRunRows_;
    static constexpr bool kAsymmetric = kAsymmetric_, kGroups = kGroups_;

    static constexpr uint32_t kTokenTiles = kTokens / 8;
    static constexpr uint32_t kThreads = kAcross * kWarp;
    static constexpr uint32_t kBlockStrips = kAcross * kStrips, kColumns = kBlockStrips * kStripColumns;
    /// Tiles of a run, or runs of a tile.
    static constexpr uint32_t kRunTiles = kRunRows <= kTileRows ? 1 : kRunRows / kTileRows;
    static constexpr uint32_t kTileRuns = kRunRows >= kTileRows ? 1 : kTileRows / kRunRows;
    static constexpr uint32_t kRunSteps = kTileSteps / kTileRuns;
    static constexpr uint32_t kUnitRuns = kUnitTiles * kTileRows / kRunRows;
    /// Of each run: 16 scales and as many zero points.
    static constexpr uint32_t kRunBytes = 48, kRunParts = kAsymmetric ? 3 : 2;

    /// Of a stage: pieces of x, then what each warp has.
    static constexpr uint32_t kPieceBytes = kTokens * kTileRows * 2, kXBytes = kPieceBytes * kUnitTiles;
    static constexpr uint32_t kTilesBytes = kUnitTiles * kTileBytes<kBits>;
    static constexpr uint32_t kStripBytes = kTilesBytes + kUnitRuns * kRunBytes;
    static constexpr uint32_t kWarpBytes = kStrips * kStripBytes;
    /// wgmma wants pieces of x at multiples of 1024.
    static constexpr uint32_t kStageUnit = kGroups ? 1024 : 128;
    static constexpr uint32_t kStageBytes = (kXBytes + kThreads / kWarp * kWarpBytes + kStageUnit - 1) / kStageUnit * kStageUnit;
    /// The ring, and a word behind it. Rust counts the same.
    static constexpr uint32_t kSharedBytes = kStages * kStageBytes + 16;
    /// Floats of the sums of a block.
    static constexpr uint32_t kSums = kTokens * kColumns;
    /// The run of a unit in which a step of its i-th tile lies.
    GPTQ_DEVICE static constexpr uint32_t run_of(uint32_t i, uint32_t step) {
        return i / kRunTiles * kTileRuns + step / kRunSteps;
    }
    GPTQ_DEVICE static constexpr bool begins_run(uint32_t i, uint32_t step) {
        return i % kRunTiles == 0 && step % kRunSteps == 0;
    }
    GPTQ_DEVICE static constexpr bool ends_run(uint32_t i, uint32_t step) {
        return (i + 1) % kRunTiles == 0 && (step + 1) % kRunSteps == 0;
    }
    static_assert(kRunRows == 128 || kRunRows == 64 || kRunRows == 32, "runs that have whole steps");
    static_assert(kThreads % 128 == 0, "rows of x are copied by eight at least");
    static_assert(!kGroups || kAcross % 4 == 0, "four warps side by side are a group");
    static_assert(kTokens % 16 == 0, "x is read for two tiles of tokens at a time");
};

/// Where a block is in the row of units.
struct TilePlace {
    uint32_t units, column_blocks;
    uint32_t unit, column_block, token_block;

    GPTQ_DEVICE TilePlace(uint32_t units, uint32_t column_blocks, uint32_t item)
        : units(units), column_blocks(column_blocks) {
        unit = item % units;
        const uint32_t tile = item / units;
        column_block = tile % column_blocks, token_block = tile / column_blocks;
    }

    /// Whether that came to other sums.
    GPTQ_DEVICE bool advance() {
        unit += 1;
        if (unit < units) return false;
        unit = 0;
        column_block += 1;
        if (column_block == column_blocks) column_block = 0, token_block += 1;
        return true;
    }
};

/// Copies one unit after another.
template <class S>
struct TileFeed {
    static constexpr uint32_t kRowParts = S::kUnitTiles * 8, kRowsAtOnce = S::kThreads / kRowParts;
    static constexpr uint32_t kRowCopies = (S::kTokens + kRowsAtOnce - 1) / kRowsAtOnce;
    const Product& p;
    TilePlace place;
    uint32_t warp, lane;
    SharedAddress x_to, tiles_to, runs_to;
    // Of the unit that is copied next.
    const char* x;
    const char* tiles;
    /// Rows of x that there are from this thread's first.
    int32_t rows_left;
    const char* runs;

    GPTQ_DEVICE TileFeed(const Product& p, const TilePlace& place, SharedAddress shared) : p(p), place(place) {
        warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        const uint32_t token = threadIdx.x / kRowParts, part = threadIdx.x % kRowParts;
        x_to = shared + part / 8 * S::kPieceBytes + piece_offset(token, part % 8);
        const SharedAddress own = shared + S::kXBytes + warp * S::kWarpBytes;
        tiles_to = own + lane * 16;
        runs_to = own + of_strip() * S::kStripBytes + S::kTilesBytes + of_run() * S::kRunBytes + lane % S::kRunParts * 16;
        if constexpr (S::kGroups && (S::kTokens < 64 || S::kThreads < 512)) {
            // Where there are registers for them.
            keep(x_to);
            keep(tiles_to);
            keep(runs_to);
        }
        seek();
    }

    // What a lane copies of scales and zero points.
    GPTQ_DEVICE uint32_t of_run() const { return lane / S::kRunParts % S::kUnitRuns; }
    GPTQ_DEVICE uint32_t of_strip() const { return lane / S::kRunParts / S::kUnitRuns; }

    GPTQ_DEVICE void seek() {
        const uint32_t part = threadIdx.x % kRowParts;
        const uint32_t token = place.token_block * S::kTokens + threadIdx.x / kRowParts;
        rows_left = int32_t(p.rows) - int32_t(token);
        x = static_cast<const char*>(p.x) + (size_t(token) * p.in_features + place.unit * (S::kUnitTiles * kTileRows) + part * 8) * 2;
        // Warps past the last strip multiply it once more, and write nothing.
        const uint32_t strip =
            smaller(place.column_block * S::kBlockStrips + warp * S::kStrips, p.strips - S::kStrips);
        tiles = static_cast<const char*>(p.weights) +
                (size_t(strip) * p.tiles + place.unit * S::kUnitTiles) * kTileBytes<S::kBits> + lane * 16;
        const size_t group = size_t(strip + of_strip()) * p.groups;
        runs = S::kAsymmetric && lane % S::kRunParts == 2
                   ? static_cast<const char*>(p.zeros) + group * 16
                   : static_cast<const char*>(p.scales) + group * 32 + lane % S::kRunParts * 16;
    }

    GPTQ_DEVICE void copy_weights(uint32_t stage) const {
#pragma unroll
        for (uint32_t i = 0; i < S::kUnitTiles; i++) {
            // Past the last tile the first is read again; x is zero there.
            const bool there = i == 0 || place.unit * S::kUnitTiles + i < p.tiles;
            const char* const from = tiles + (there ? i * kTileBytes<S::kBits> : 0);
            const SharedAddress to = tiles_to + stage * S::kStageBytes + i * kTileBytes<S::kBits>;
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
                for (uint32_t at = 0; at < kTileBytes<S::kBits>; at += kWarp * 16) {
                    copy_async(to + s * S::kStripBytes + at, from + s * size_t(p.tiles) * kTileBytes<S::kBits> + at);
                }
            }
        }
        if (lane < S::kStrips * S::kUnitRuns * S::kRunParts) {
            const uint32_t run = place.unit * S::kUnitRuns + of_run();
            const uint32_t group = smaller(high_product(2 * run + 1, p.inverse_of_group), p.groups - 1);
            const uint32_t group_bytes = S::kAsymmetric && lane % S::kRunParts == 2 ? 16 : 32;
            copy_async(runs_to + stage * S::kStageBytes, runs + size_t(group) * group_bytes);
        }
    }

    /// Zeros past the last row, and past K.
    GPTQ_DEVICE void copy_x(uint32_t stage) const {
        const uint32_t part = threadIdx.x % kRowParts;
        const bool in_k = place.unit * (S::kUnitTiles * kTileRows) + part * 8 < p.in_features;
#pragma unroll
        for (uint32_t i = 0; i < kRowCopies; i++) {
            if (S::kTokens % kRowsAtOnce != 0 && threadIdx.x / kRowParts + i * kRowsAtOnce >= S::kTokens) break;
            const bool wanted = in_k && int32_t(i * kRowsAtOnce) < rows_left;
            copy_async(x_to + stage * S::kStageBytes + i * (kRowsAtOnce * 128), x + i * (size_t(p.in_features) * kRowsAtOnce * 2), wanted);
        }
    }

    GPTQ_DEVICE void advance() {
        x += S::kUnitTiles * kTileRows * 2;
        tiles += S::kUnitTiles * kTileBytes<S::kBits>;
        if (place.advance()) seek();
    }
};

/// What a warp has of a stage in shared memory.
template <class S>
struct WarpStage {
    SharedAddress at;

    GPTQ_DEVICE void tile(uint32_t s, uint32_t i, uint32_t lane, LaneTile<S::kBits>& to) const {
#pragma unroll
        for (uint32_t w = 0; w < S::kBits; w += 4) {
            const uint4 four = load_shared(at + s * S::kStripBytes + i * kTileBytes<S::kBits> + w * 128 + lane * 16);
            to.words[w] = four.x, to.words[w + 1] = four.y, to.words[w + 2] = four.z, to.words[w + 3] = four.w;
        }
    }
    GPTQ_DEVICE SharedAddress run(uint32_t s, uint32_t run) const {
        return at + s * S::kStripBytes + S::kTilesBytes + run * S::kRunBytes;
    }
    /// Scales of columns g and g + 8.
    GPTQ_DEVICE uint32_t scales(uint32_t s, uint32_t run_, uint32_t lane) const {
        return load_shared_word(run(s, run_) + lane / 4 * 4);
    }
    /// Zero points of columns g and g + 8.
    GPTQ_DEVICE uint32_t zeros(uint32_t s, uint32_t run_, uint32_t lane) const {
        constexpr uint32_t kHalf = 1u << (S::kBits - 1);
        return S::kAsymmetric ? load_shared_half(run(s, run_) + 32 + lane / 4 * 2) : kHalf | kHalf << 8;
    }
};

template <class S>
GPTQ_DEVICE LaneZeros<S::kBits, typename S::Pair> lane_zeros(uint32_t both) {
    return {both & 0xff, both >> 8};
}

GPTQ_DEVICE float2 scales_as_floats(uint32_t scales, uint32_t dtype) {
    return dtype == GPTQ_DTYPE_F16 ? to_floats(f16x2{scales}) : to_floats(bf16x2{scales});
}

/// The operands A of a tile, of all strips.
template <class S>
struct TileOperands {
    typename S::Pair a[S::kStrips][kTileSteps][4];

    GPTQ_DEVICE void read(const WarpStage<S>& stage, uint32_t i, uint32_t lane) {
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
            LaneTile<S::kBits> tile;
            stage.tile(s, i, lane, tile);
            uint32_t zeros = 0;
#pragma unroll
            for (uint32_t step = 0; step < kTileSteps; step++) {
                if (step % S::kRunSteps == 0) zeros = stage.zeros(s, S::run_of(i, step), lane);
                unpack(tile, step, lane_zeros<S>(zeros), a[s][step]);
            }
        }
    }
};

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

/// What wgmma works on stays in its registers until here.
template <class S>
GPTQ_DEVICE void hold([[maybe_unused]] TileSums<S>& sums) {
#ifndef GPTQ_EMULATOR
#pragma unroll
    for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
        for (uint32_t t = 0; t < S::kTokenTiles; t++) {
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) asm volatile("" : "+f"(sums.of[s][t][i])::"memory");
        }
    }
#endif
}

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

/// An address that is not known before: so that what is counted from it is not counted ahead of the loop over units, where it
/// would take registers.
template <class T>
GPTQ_DEVICE T* counted_late(T* address) {
#ifndef GPTQ_EMULATOR
    asm volatile("" : "+l"(address));
#endif
    return address;
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
            const uint32_t low = transpose_matrix(pair_of(of[0] + bias[0], of[1] + bias[0], X{}));
            const uint32_t high = transpose_matrix(pair_of(of[2] + bias[1], of[3] + bias[1], X{}));
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

/// sums += W x over the tiles of a unit, with wgmma: `prepare` has unpacked the first of them to `operands`. While the first
/// is multiplied, `copy_next` is called.
template <class S, class CopyNext>
GPTQ_DEVICE void add_unit_in_groups(const Product& p, const WarpStage<S>& stage, SharedAddress pieces, uint32_t lane,
                                    TileOperands<S>& operands, TileSums<S>& sums, const CopyNext& copy_next) {
    TileSums<S> of_run;
#pragma unroll
    for (uint32_t i = 0; i < S::kUnitTiles; i++) {
        const GroupOperand b(pieces + i * S::kPieceBytes);
        if (i > 0) operands.read(stage, i, lane);
#pragma unroll
        for (uint32_t r = 0; r < S::kTileRuns; r++) {
            begin_group_multiply();
#pragma unroll
            for (uint32_t step = r * S::kRunSteps; step < (r + 1) * S::kRunSteps; step++) {
#pragma unroll
                for (uint32_t s = 0; s < S::kStrips; s++) {
                    multiply_step<S>(!S::begins_run(i, step), of_run.of[s], operands.a[s][step], b, step);
                }
            }
            commit_group_multiply();
            if (i == 0 && r == 0) copy_next();
            wait_group_multiply<0>();
            hold(of_run);
            const uint32_t last_step = (r + 1) * S::kRunSteps - 1;
            if (S::ends_run(i, last_step)) add_run<S>(sums, of_run, stage, S::run_of(i, last_step), lane, p.scale_dtype);
        }
    }
}

template <class S>
GPTQ_DEVICE void multiply_units(const Product& p) {
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
    uint32_t here = 0;
#pragma unroll 1
    for (uint32_t item = begin; item < end; item++) {
        const WarpStage<S> stage{own + here * S::kStageBytes};
        const SharedAddress pieces = ring + here * S::kStageBytes;
        // What this thread has copied of this unit has come.
        wait_copies<S::kStages - 2>();
        const auto wait_for_others = [&] {
            // What the others have copied too, and everybody is done with the unit before, whose stage the next takes.
            if constexpr (S::kGroups) let_groups_read_shared();
            __syncthreads();
        };
        const auto copy_next = [&] {
            const uint32_t to = here == 0 ? S::kStages - 1 : here - 1;
            if (item + S::kStages - 1 < end) {
                feed.copy_weights(to);
                feed.copy_x(to);
                feed.advance();
            }
            commit_copies();
        };
        if constexpr (S::kGroups) {
            // Groups take turns: while the even ones unpack, the odd ones multiply. For those unpack the first tile of a unit,
            // which they have copied themselves, before they meet the others.
            TileOperands<S> operands;
            const bool unpacks_early = warp / 4 % 2 == 1;
            if (unpacks_early) {
                __syncwarp();
            } else {
                wait_for_others();
            }
            operands.read(stage, 0, lane);
            if (unpacks_early) wait_for_others();
            add_unit_in_groups<S>(p, stage, pieces, lane, operands, sums, copy_next);
        } else {
            wait_for_others();
            copy_next();
            add_unit<S>(p, stage, pieces, lane, sums);
        }
        here = here + 1 == S::kStages ? 0 : here + 1;
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

/// The kernel. With wgmma it is empty where there is none; nobody launches it there.
template <class S>
GPTQ_DEVICE void multiply_tiles(const Product& p) {
#if !defined(GPTQ_EMULATOR) && !defined(GPTQ_HAS_WGMMA)
    if constexpr (!S::kGroups) multiply_units<S>(p);
#else
    multiply_units<S>(p);
#endif
}

}  // namespace gptq
