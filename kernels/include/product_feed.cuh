// What a block of product_tile.cuh works on: the shape of its tile, where it is in the row of units, and how a unit gets into
// shared memory.
#pragma once

#include "product.cuh"

namespace gptq {

/// How a block multiplies.
enum class Way {
    /// Each warp for itself, with mma.sync.
    warps,
    /// Groups of four warps with wgmma, by turns: odd ones unpack the first tile of a unit before they meet the others, even ones
    /// behind that, so that these unpack while those multiply.
    turns,
    /// Groups that unpack the next tile while the present one is multiplied, from one unit to the next too.
    ahead,
};

/// The way of groups: ahead, but where 64 rows of x with 8 bits leave no registers for two tiles, or runs of 32 rows of W no time
/// in which to unpack the second.
GPTQ_DEVICE constexpr Way group_way(int bits, int rows, int run) {
    return run < int(kTileRows) || (bits == 8 && rows == 64) ? Way::turns : Way::ahead;
}

template <int kBits_, class X_,
          int kTokens_,       // rows of x of a block
          int kStrips_,       // strips of a warp
          int kAcross_,       // warps side by side
          int kUnitTiles_,    // tiles of a strip in a unit
          int kStages_,       // of the ring
          int kRunRows_,      // rows of W that surely share a scale: 128, 64 or 32
          bool kAsymmetric_,  // whether zero points are read
          Way kWay_>
struct TileShape {
    static constexpr int kBits = kBits_;
    using X = X_;
    using Pair = typename PairOf<X>::type;
    static constexpr uint32_t kTokens = kTokens_, kStrips = kStrips_, kAcross = kAcross_, kUnitTiles = kUnitTiles_,
                              kStages = kStages_,
                              kRunRows = kRunRows_;
    static constexpr bool kAsymmetric = kAsymmetric_;
    static constexpr Way kWay = kWay_;
    /// Whether with wgmma.
    static constexpr bool kGroups = kWay != Way::warps;

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
    static_assert(kThreads / (kUnitTiles * 8) % 8 == 0, "rows of x are copied by eights, which their places in a piece count on");
    static_assert(!kGroups || kAcross % 4 == 0, "four warps side by side are a group");
    static_assert(kGroups || kTokens % 16 == 0, "x is read for two tiles of tokens at a time");
    static_assert(!kGroups || kStrips == 1, "a group has the operands of one strip a warp");
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
        if constexpr (S::kGroups && (S::kTokens < 64 || S::kThreads <= 256)) {
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
            copy_async(x_to + stage * S::kStageBytes + i * (kRowsAtOnce * 128), x + size_t(i * (p.in_features * (kRowsAtOnce * 2))), wanted);
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
    /// Zero points of columns g and g + 8, where they are read.
    GPTQ_DEVICE uint32_t zeros(uint32_t s, uint32_t run_, uint32_t lane) const {
        return S::kAsymmetric ? load_shared_half(run(s, run_) + 32 + lane / 4 * 2) : 0;
    }
};

}  // namespace gptq
