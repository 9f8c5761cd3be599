// The product for few rows of x, up to 64: as many as registers have sums for.
//
// A block has kStrips strips of 16 columns and a part of K, which its warps divide by units: a unit is a tile, or two where
// those surely share their scales. Warp w takes the units w, w + kWarps, .. of every strip, so that all warps together read
// on through contiguous memory, and keeps kAhead of them on the way in registers. No barrier of the block until the end.
//
//            k ->   unit 0  1  2  3  4  5  6  7  8  ..
//   strip 0        | w0 w1 w2 w3 w0 w1 w2 w3 w0 ..        sums of 16 x kTokens
//   strip 1        | w0 w1 w2 w3 w0 w1 w2 w3 w0 ..        in f32, in registers
//
// One row of x lies in shared memory, as much of it as the part of K is long. More rows come as the weights do, in pieces
// that only one warp reads. Blocks of a multiprocessor read the same x at about the same time: up to 8 rows come through the
// L1.
//
// A unit's registers are filled again after it, or early, tile by tile: then loads are on the way while the rest of the unit is
// multiplied. With several rows of x and two strips only a tile of x is in registers at a time.
//
// What is counted while the loop runs is an address for each strip, one for x and a number for scales: counting anew for
// each tile took more instructions than its product.
#pragma once

#include "product.cuh"

namespace gptq {

/// How x comes.
enum class Row {
    /// In pieces, of several rows.
    pieces,
    /// One row, all at the start.
    whole,
};

/// When a warp asks for the weights that come next into the registers of a unit.
enum class Refill {
    /// After the unit.
    late,
    /// After each tile, which takes some registers more.
    early,
};

/// Weights on their way to a warp.
template <class S, int kWarps>
struct Weights {
    static constexpr uint32_t kTiles = S::kUnitTiles;
    static constexpr uint32_t kUnitBytes = kTiles * kTileBytes<S::kBits>;
    static constexpr uint32_t kRunsOfUnit = S::kRuns;

    const Product& p;
    /// Of the unit of slot 0 in this round, for this lane: of each strip, and of the high bits where they lie apart.
    const char* tiles_at[S::kStrips];
    const char* high_at[S::kStrips];
    /// Of the strips' scales and zero points, for this lane, in bytes of zero points: scales take twice as many.
    uint32_t groups_at;
    /// Twice the number of its first run, and one.
    uint32_t twice_run;

    LaneTile<S::kBits> tiles[S::kAhead][S::kStrips][kTiles];
    LaneScales<S> scales[S::kAhead][S::kStrips];

    GPTQ_DEVICE Weights(const Product& p, uint32_t lane, uint32_t unit) : p(p) {
        const uint32_t strip = blockIdx.x * S::kStrips;
        const size_t strip_bytes = size_t(p.tiles) * kTileBytes<S::kBits>;
        const char* const first = static_cast<const char*>(p.weights) + strip * strip_bytes + size_t(unit) * kUnitBytes;
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
            tiles_at[s] = first + s * strip_bytes + LaneTile<S::kBits>::at(lane);
            high_at[s] = first + s * strip_bytes + LaneTile<S::kBits>::high_at(lane);
        }
        groups_at = strip * p.groups * 16 + lane / 4 * 2;
        twice_run = 2 * unit * kRunsOfUnit + 1;
    }

    /// Lets tile `t` of strip `s` of the unit of `slot` come, `rounds` rounds after this one.
    template <uint32_t slot, uint32_t rounds>
    GPTQ_DEVICE void read_tile(uint32_t s, uint32_t t) {
        constexpr uint32_t bytes = (rounds * S::kAhead + slot) * kWarps * kUnitBytes;
        const uint32_t tile = t * kTileBytes<S::kBits>;
        tiles[slot][s][t].read_lane(tiles_at[s] + (bytes + tile), high_at[s] + (bytes + tile));
    }

    /// The same for scales and zero points.
    template <uint32_t slot, uint32_t rounds>
    GPTQ_DEVICE void read_groups() {
        constexpr uint32_t units = (rounds * S::kAhead + slot) * kWarps;
#pragma unroll
        for (uint32_t run = 0; run < kRunsOfUnit; run++) {
            const uint32_t group = high_product(twice_run + 2 * (units * kRunsOfUnit + run), p.inverse_of_group);
#pragma unroll
            for (uint32_t s = 0; s < S::kStrips; s++) {
                const uint32_t at = groups_at + (s * p.groups + group) * 16;
                auto& to = scales[slot][s];
                to.scales[run] = load_constant(reinterpret_cast<const uint32_t*>(static_cast<const char*>(p.scales) + at * 2u));
                if constexpr (S::kAsymmetric) {
                    to.zeros[run] = load_constant(reinterpret_cast<const uint16_t*>(static_cast<const char*>(p.zeros) + at));
                }
            }
        }
    }

    /// All of the unit.
    template <uint32_t slot, uint32_t rounds>
    GPTQ_DEVICE void read() {
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
#pragma unroll
            for (uint32_t t = 0; t < kTiles; t++) read_tile<slot, rounds>(s, t);
        }
        read_groups<slot, rounds>();
    }

    GPTQ_DEVICE void next_round() {
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
            tiles_at[s] += S::kAhead * kWarps * kUnitBytes;
            high_at[s] += S::kAhead * kWarps * kUnitBytes;
        }
        twice_run += 2 * S::kAhead * kWarps * kRunsOfUnit;
    }
};

/// The first address from `pointer` on that is a multiple of `of`. Shared memory is promised to be aligned to 16 bytes.
GPTQ_DEVICE char* next_multiple(char* pointer, uintptr_t of) {
    return pointer + (of - reinterpret_cast<uintptr_t>(pointer) % of) % of;
}

/// x on its way to a warp, in pieces. They begin at multiples of 128 bytes, the rows of `piece_offset`. Nobody asks which rows
/// there are: in place of those past the last come others, whose sums are not written.
template <class S, int kWarps>
struct Pieces {
    static constexpr uint32_t kUnitRows = S::kUnitTiles * kTileRows;
    static constexpr uint32_t kSlotBytes = S::kUnitTiles * S::kPieceBytes;
    /// Each of four rows.
    static constexpr uint32_t kCopies = S::kTokens / 4;

    /// Of the unit of slot 0 in this round: row lane / 8, the part lane % 8 of a tile.
    const char* from;
    /// Bytes from there to the row of each copy; there are 64 rows of 2^18 bytes at most. An address of each would take twice the
    /// registers.
    uint32_t distances[kCopies];
    /// Columns from there to the end of x.
    int left;
    /// Of slot 0: where this lane writes its row's part of a tile, and what it reads.
    SharedAddress to, matrices;

    GPTQ_DEVICE Pieces(const Product& p, uint32_t lane, uint32_t unit, char* pieces) {
        const uint32_t row_bytes = p.in_features * 2, first_row = smaller(lane / 8, p.rows - 1);
        from = static_cast<const char*>(p.x) + (first_row * row_bytes + unit * (kUnitRows * 2) + lane % 8 * 16);
#pragma unroll
        for (uint32_t copy = 1; copy < kCopies; copy++) {
            const uint32_t row = copy * 4 + lane / 8;
            distances[copy] = (row - first_row) * row_bytes;
            if (row >= p.rows) {
                // Half of the row eight before and half of the one behind that, where they are there: what is asked for twice at a
                // time comes later.
                const bool are_there = row >= 8 && row < p.rows + 7;
                distances[copy] = are_there ? distances[copy] - 8 * row_bytes + row_bytes / 256 * 128 : 0;
            }
            keep(distances[copy]);
        }
        left = int(p.in_features) - int(unit * kUnitRows + lane % 8 * 8);
        to = shared_address(pieces + piece_offset(lane / 8, lane % 8));
        matrices = shared_address(pieces + piece_offset(lane % 8, lane / 8));
        keep(to);
        keep(matrices);
    }

    /// Lets x of the unit of `slot` be copied.
    template <uint32_t slot, uint32_t rounds>
    GPTQ_DEVICE void copy() {
        constexpr uint32_t units = (rounds * S::kAhead + slot) * kWarps;
#pragma unroll
        for (uint32_t copy = 0; copy < kCopies; copy++) {
            const char* const row = copy == 0 ? from : counted_late(from + distances[copy]);
            const SharedAddress first = copy % 2 == 0 ? to : four_parts_on(to);
#pragma unroll
            for (uint32_t t = 0; t < S::kUnitTiles; t++) {
                const bool wanted = left > int(units * kUnitRows + t * kTileRows);
                const char* const at = row + (units * (kUnitRows * 2) + t * (kTileRows * 2));
                const uint32_t before = slot * kSlotBytes + t * S::kPieceBytes + copy * 512;
                // Of 16 rows too little stays in the L1 until another block wants it.
                if constexpr (S::kTokens > 8) {
                    copy_async(first + before, at, wanted);
                } else {
                    copy_async_shared_by_warps(first + before, at, wanted);
                }
            }
        }
    }

    GPTQ_DEVICE void next_round() {
        from += S::kAhead * kWarps * (kUnitRows * 2);
        left -= int(S::kAhead * kWarps * kUnitRows);
    }

    /// The operands B of steps of a tile of `slot`, from the first, or the third, on.
    template <uint32_t slot, uint32_t tile, uint32_t first_step = 0, uint32_t steps>
    GPTQ_DEVICE void read(typename S::Pair (&x)[S::kTokenTiles][steps][2]) const {
#pragma unroll
        for (uint32_t t = 0; t < S::kTokenTiles; t++) {
#pragma unroll
            for (uint32_t step = 0; step < steps; step += 2) {
                uint32_t loaded[4];
                const SharedAddress first = first_step + step == 0 ? matrices : four_parts_on(matrices);
                load_matrices(loaded, first + (slot * kSlotBytes + tile * S::kPieceBytes + t * 1024));
#pragma unroll
                for (uint32_t i = 0; i < 4; i++) x[t][step + i / 2][i % 2].bits = loaded[i];
            }
        }
    }

private:
    /// The address of the part four further in `piece_offset`, or of the same part four rows on, less 512.
    GPTQ_DEVICE static SharedAddress four_parts_on(SharedAddress address) {
#ifdef GPTQ_EMULATOR
        return reinterpret_cast<SharedAddress>(reinterpret_cast<uintptr_t>(address) ^ 64);
#else
        return address ^ 64;
#endif
    }
};

/// One row of x in shared memory.
template <class S, int kWarps>
struct WholeRow {
    static constexpr uint32_t kUnitBytes = S::kUnitTiles * kTileRows * 2;

    /// Of the unit of slot 0 in this round.
    SharedAddress at;

    GPTQ_DEVICE WholeRow(char* row, uint32_t lane, uint32_t unit)
        : at(shared_address(row + unit * kUnitBytes + of_lane(lane))) {}

    /// Where a lane reads: its matrices are the parts of a tile one after the other, or a part of both tiles, then the next.
    GPTQ_DEVICE static uint32_t of_lane(uint32_t lane) {
        const uint32_t matrix = lane / 8;
        return S::kOfSubnormals ? matrix % 2 * (kTileRows * 2) + matrix / 2 * 16 : matrix * 16;
    }

    GPTQ_DEVICE void next_round() { at += S::kAhead * kWarps * kUnitBytes; }

    template <uint32_t slot, uint32_t tile>
    GPTQ_DEVICE void read(typename S::Pair (&x)[1][kTileSteps][2]) const {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            uint32_t loaded[4];
            load_matrices(loaded, at + (slot * kWarps * kUnitBytes + tile * (kTileRows * 2) + half * 64));
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) x[0][half * 2 + i / 2][i % 2].bits = loaded[i];
        }
    }
};

/// The operands B of both tiles of a unit: parts of 8 rows, of one tile and the other.
template <class S, uint32_t slot, int kWarps>
GPTQ_DEVICE void read_both(const WholeRow<S, kWarps>& source, typename S::Pair (&x)[2 * kTileSteps][2]) {
#pragma unroll
    for (uint32_t step = 0; step < kTileSteps; step++) {
        uint32_t loaded[4];
        load_matrices(loaded, source.at + (slot * kWarps * WholeRow<S, kWarps>::kUnitBytes + step * (kStepRows * 2)));
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) x[step * 2 + i / 2][i % 2].bits = loaded[i];
    }
}

/// Lets the columns [first, first + count) of one row of x come to shared memory; past the last there are zeros.
template <int kThreads>
GPTQ_DEVICE void copy_row(const Product& p, char* row, uint32_t first, uint32_t count) {
    // Elements of 16 bytes.
    constexpr uint32_t kEight = 8;
    for (uint32_t at = threadIdx.x; at * kEight < count; at += kThreads) {
        const uint32_t column = first + at * kEight;
        const char* const from = static_cast<const char*>(p.x) + size_t(column) * 2;
        copy_async_shared_by_warps(row + at * 16, from, column < p.in_features);
    }
    commit_copies();
}

/// A number that is known when this is compiled, as an argument.
template <uint32_t i>
struct Index {
    GPTQ_DEVICE constexpr operator uint32_t() const { return i; }
};

/// Calls `use` with Index<0>, Index<1>, .. while it returns true.
template <uint32_t count, uint32_t i = 0, class Use>
GPTQ_DEVICE void while_true(const Use& use) {
    if constexpr (i < count) {
        if (use(Index<i>{})) while_true<count, i + 1>(use);
    }
}

/// Adds the sums of a run, scaled, to those of all.
template <class S>
GPTQ_DEVICE void add_run(float (&sums)[S::kTokenTiles][4], const LaneScales<S>& scales, uint32_t scale_dtype,
                         const float (&of_run)[S::kTokenTiles][4]) {
    const float2 of_columns = scales.scales_of(0, scale_dtype);
#pragma unroll
    for (uint32_t tokens = 0; tokens < S::kTokenTiles; tokens++) {
        if constexpr (S::kTokens == 1) {
            sums[tokens][0] = fmaf(of_columns.x, of_run[tokens][0], sums[tokens][0]);
            sums[tokens][2] = fmaf(of_columns.y, of_run[tokens][2], sums[tokens][2]);
        } else {
            add_scaled(sums[tokens], of_columns, of_run[tokens]);
        }
    }
}

/// sums += 2^(bit of column - 24) W x over a unit, for one row of x and codes that are multiplied as subnormals: an A has the
/// codes of 8 rows of both tiles, which stand at the same bits. Ones in their place make the sums of x.
template <class S, Refill kRefill, uint32_t slot, class W, int kWarps>
GPTQ_DEVICE void add_subnormals(const WholeRow<S, kWarps>& source, W& weights, bool more, uint32_t scale_dtype,
                                float (&sums)[S::kStrips][1][4]) {
    using Pair = typename S::Pair;
    static_assert(S::kUnitTiles == 2 && S::kAsymmetric, "2 bits have pairs of tiles and zero points here");
    constexpr uint32_t kTogether = S::kStrips > 1 ? 2 : 1;
    // The bits of the lower 8 rows of a step, and of the upper, count differently.
    constexpr float kUpperToLower = 1.0f / (1 << subnormal_at(2));
    Pair x[2 * kTileSteps][2];
    read_both<S, slot>(source, x);
    constexpr Pair one = {0x00010001u};
    const Pair ones[4] = {one, one, one, one};
    float of_ones[2][4] = {};
#pragma unroll
    for (uint32_t first = 0; first < S::kStrips; first += kTogether) {
        float of_run[kTogether][2][4] = {};
#pragma unroll
        for (uint32_t part = 0; part < 2 * kTileSteps; part++) {
            if (first == 0) multiply_accumulate(of_ones[part % 2], ones, x[part]);
#pragma unroll
            for (uint32_t s = 0; s < kTogether; s++) {
                Pair a[4];
#pragma unroll
                for (uint32_t i = 0; i < 4; i++) {
                    a[i] = subnormals_of(weights.tiles[slot][first + s][i / 2], part / 2, part % 2 * 2 + i % 2);
                }
                multiply_accumulate(of_run[s][part % 2], a, x[part]);
            }
        }
        if (kRefill == Refill::early && more) {
#pragma unroll
            for (uint32_t s = 0; s < kTogether; s++) {
                weights.template read_tile<slot, 1>(first + s, 0);
                weights.template read_tile<slot, 1>(first + s, 1);
            }
        }
#pragma unroll
        for (uint32_t s = 0; s < kTogether; s++) {
            const auto& scales = weights.scales[slot][first + s];
            const float2 of_columns = scales.scales_of(0, scale_dtype);
            const float zeros[2] = {small_integer(scales.zeros[0] & 0xff), small_integer(scales.zeros[0] >> 8)};
#pragma unroll
            for (uint32_t second = 0; second < 2; second++) {
                // Where all codes are the zero point, and that is a power of two, both differences are zero, as W x is.
                const float zero = zeros[second] * float(1 << subnormal_at(second));
                const float lower = fmaf(-zero, of_ones[0][2 * second], of_run[s][0][2 * second]);
                const float upper = fmaf(-zero / kUpperToLower, of_ones[1][2 * second], of_run[s][1][2 * second]);
                float& sum = sums[first + s][0][2 * second];
                sum = fmaf(second == 0 ? of_columns.x : of_columns.y, fmaf(upper, kUpperToLower, lower), sum);
            }
        }
    }
    if (more) {
        if constexpr (kRefill == Refill::early) {
            weights.template read_groups<slot, 1>();
        } else {
            weights.template read<slot, 1>();
        }
    }
}

/// sums += W x over the unit of `slot`, whose x `source` has. If there is `more`, what comes next is asked for, `x_was_read`
/// included, which copies x.
template <class S, Refill kRefill, uint32_t slot, class Source, class W, class XWasRead>
GPTQ_DEVICE void add_unit(const Source& source, W& weights, bool more, const XWasRead& x_was_read, uint32_t scale_dtype,
                          float (&sums)[S::kStrips][S::kTokenTiles][4]) {
    using Pair = typename S::Pair;
    constexpr bool kEarly = kRefill == Refill::early;
    const auto& tiles = weights.tiles[slot];
    const auto& scales = weights.scales[slot];
    const auto refill = [&](uint32_t first, uint32_t count, uint32_t t) {
        if constexpr (kEarly) {
#pragma unroll
            for (uint32_t s = first; s < first + count; s++) {
                if (more) weights.template read_tile<slot, 1>(s, t);
            }
        }
    };
    if constexpr (S::kRunRows < kTileRows) {
        Pair x[S::kTokenTiles][kTileSteps][2];
        source.template read<slot, 0>(x);
        if (kEarly) x_was_read();
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
            add_tile<S>(tiles[s][0], scales[s], scale_dtype, x, sums[s]);
            refill(s, 1, 0);
        }
    } else if constexpr (S::kStrips == 2 && (S::kTokens > 8 || (S::kTokens > 1 && S::kBits != 3))) {
        // Tile after tile: x of one, and what the run adds up to of both strips. Not where unpacking takes many registers. Of more
        // rows, where weights of two units are on the way, x of half a tile: that takes longer where there are registers for all.
        constexpr uint32_t kParts = S::kTokens > 16 && S::kAhead > 1 ? 2 : 1, kSteps = kTileSteps / kParts;
        float of_run[S::kStrips][S::kTokenTiles][4] = {};
        while_true<S::kUnitTiles * kParts>([&](auto number) {
            constexpr uint32_t t = number / kParts, first_step = number % kParts * kSteps;
            Pair x[S::kTokenTiles][kSteps][2];
            source.template read<slot, t, first_step>(x);
            if (kEarly && number == S::kUnitTiles * kParts - 1) x_was_read();
#pragma unroll
            for (uint32_t step = 0; step < kSteps; step++) {
#pragma unroll
                for (uint32_t s = 0; s < S::kStrips; s++) {
                    Pair a[4];
                    unpack(tiles[s][t], first_step + step, scales[s].zeros_of(0), a);
#pragma unroll
                    for (uint32_t tokens = 0; tokens < S::kTokenTiles; tokens++) {
                        multiply_accumulate(of_run[s][tokens], a, x[tokens][step]);
                    }
                }
            }
            if (first_step + kSteps == kTileSteps) refill(0, S::kStrips, t);
            return true;
        });
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) add_run<S>(sums[s], scales[s], scale_dtype, of_run[s]);
    } else {
        // Strip after strip, or two by turns, so that products do not wait for the one before: x of all tiles.
        constexpr uint32_t kTogether = S::kTokenTiles == 1 && S::kStrips > 1 ? 2 : 1;
        Pair x[S::kUnitTiles][S::kTokenTiles][kTileSteps][2];
        source.template read<slot, 0>(x[0]);
        if constexpr (S::kUnitTiles == 2) source.template read<slot, 1>(x[1]);
        if (kEarly) x_was_read();
#pragma unroll
        for (uint32_t first = 0; first < S::kStrips; first += kTogether) {
            float of_run[kTogether][S::kTokenTiles][4] = {};
#pragma unroll
            for (uint32_t t = 0; t < S::kUnitTiles; t++) {
#pragma unroll
                for (uint32_t step = 0; step < kTileSteps; step++) {
#pragma unroll
                    for (uint32_t s = 0; s < kTogether; s++) {
                        Pair a[4];
                        unpack(tiles[first + s][t], step, scales[first + s].zeros_of(0), a);
#pragma unroll
                        for (uint32_t tokens = 0; tokens < S::kTokenTiles; tokens++) {
                            multiply_accumulate(of_run[s][tokens], a, x[t][tokens][step]);
                        }
                    }
                }
                refill(first, kTogether, t);
            }
#pragma unroll
            for (uint32_t s = 0; s < kTogether; s++) {
                add_run<S>(sums[first + s], scales[first + s], scale_dtype, of_run[s]);
            }
        }
    }
    if (more) {
        if constexpr (kEarly) {
            weights.template read_groups<slot, 1>();
        } else {
            weights.template read<slot, 1>();
        }
    }
    if (!kEarly) x_was_read();
}

/// Shared memory: x, or the sums of all warps, whichever is more. Rust counts the same.
template <class S, int kWarps, Row kRow, Refill kRefill>
GPTQ_DEVICE void multiply_few(const Product& p) {
    GPTQ_SHARED_DYNAMIC(char, shared);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t begin = blockIdx.y * p.split_tiles, end_tile = smaller(begin + p.split_tiles, p.tiles);
    const uint32_t first = begin / S::kUnitTiles + warp, end = end_tile / S::kUnitTiles;
    Weights<S, kWarps> weights(p, lane, first);
    const auto read_first = [&] {
        while_true<S::kAhead>([&](auto slot) {
            if (first + slot * kWarps >= end) return false;
            weights.template read<slot, 0>();
            return true;
        });
    };

    float sums[S::kStrips][S::kTokenTiles][4] = {};
    const auto run = [&](auto& x, const auto& ready, const auto& used, const auto& taken) {
#pragma unroll 1
        for (uint32_t base = first; base < end; base += S::kAhead * kWarps) {
            while_true<S::kAhead>([&](auto slot) {
                const uint32_t unit = base + slot * kWarps;
                if (unit >= end) return false;
                const bool more = unit + S::kAhead * kWarps < end;
                ready();
                const auto x_was_read = [&] {
                    if (more) used(slot);
                };
                if constexpr (S::kOfSubnormals) {
                    add_subnormals<S, kRefill, slot>(x, weights, more, p.scale_dtype, sums);
                } else {
                    add_unit<S, kRefill, slot>(x, weights, more, x_was_read, p.scale_dtype, sums);
                }
                taken();
                return true;
            });
            weights.next_round();
            x.next_round();
        }
    };
    // The next kernel may begin when this one may read x, not sooner: with more than two under way blocks crowd on some
    // multiprocessors, and small layers take longer than one after the other.
    if constexpr (kRow == Row::pieces) {
        read_first();
        wait_for_earlier_kernels_behind_loads(p.rows);
        let_next_kernel_begin();
        char* const pieces = next_multiple(shared, 128);
        Pieces<S, kWarps> x(p, lane, first, pieces + warp * S::kAhead * Pieces<S, kWarps>::kSlotBytes);
        while_true<S::kAhead>([&](auto slot) {
            if (first + slot * kWarps < end) x.template copy<slot, 0>();
            commit_copies();
            return true;
        });
        const auto ready = [] {
            wait_copies<S::kAhead - 1>();
            __syncwarp();
        };
        const auto used = [&](auto slot) {
            __syncwarp();
            x.template copy<slot, 1>();
        };
        run(x, ready, used, [] { commit_copies(); });
        wait_copies<0>();
    } else {
        if (p.weights_first != 0) read_first();
        wait_for_earlier_kernels_behind_loads(p.rows);
        let_next_kernel_begin();
        copy_row<kWarps * int(kWarp)>(p, shared, begin * kTileRows, (end_tile - begin) * kTileRows);
        if (p.weights_first == 0) read_first();
        wait_copies<0>();
        __syncthreads();
        WholeRow<S, kWarps> x(shared, lane, warp);
        run(x, [] {}, [](auto) {}, [] {});
    }

    if constexpr (S::kOfSubnormals) {
#pragma unroll
        for (uint32_t s = 0; s < S::kStrips; s++) {
            sums[s][0][0] *= float(1 << (24 - subnormal_at(0))) / kOperandUnits<typename S::Pair>;
            sums[s][0][2] *= float(1 << (24 - subnormal_at(1))) / kOperandUnits<typename S::Pair>;
        }
    }
    // The sums take the place of x.
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
