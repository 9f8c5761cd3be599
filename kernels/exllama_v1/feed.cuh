// What a block of product reads, and how it comes: words and x by cp.async through shared memory, scales by registers.
//
// Words: a ring of stages for each warp, so that bytes under way cost no registers. Eight lanes that follow one another copy
// a line of 128 bytes, which is not what each of them uses. Lanes that copied what they use would ask for a quarter of a
// line at a time: four requests to the L2 for a line, and twice the sectors.
//
// x: where a block has few tokens, by registers through the L1, which warps side by side read at the same time, and warps
// never wait for one another. Where it has many, in stages that all warps share.
#pragma once

#include "params.h"
#include "word.cuh"

namespace gptq {

constexpr uint32_t kChunkRows = 32;
constexpr uint32_t kChunkWordRows = kChunkRows / kWordRows;
constexpr uint32_t kStripColumns = 32;
constexpr uint32_t kChunkBytes = kChunkWordRows * kStripColumns * 4;
constexpr uint32_t kTileTokens = 8;

template <uint32_t kTokenTiles,  // tiles of eight tokens that a block has
          uint32_t kAcross,      // warps side by side, on 32 columns each
          uint32_t kDown,        // warps below one another
          uint32_t kUnitChunks,  // chunks of 32 rows that a warp has of an item
          uint32_t kStages,      // items in shared memory; all but one are under way
          bool kStaged>          // whether x comes through shared memory
struct ProductShape {
    static constexpr uint32_t token_tiles = kTokenTiles, across = kAcross, down = kDown, unit_chunks = kUnitChunks,
                              stages = kStages;
    static constexpr bool staged = kStaged;
    static constexpr uint32_t warps = kAcross * kDown, threads = warps * kWarp;
    static constexpr uint32_t tokens = kTokenTiles * kTileTokens, columns = kAcross * kStripColumns;
    static constexpr uint32_t item_chunks = kDown * kUnitChunks, item_rows = item_chunks * kChunkRows;

    /// Of a warp's ring of words, of a stage of x, and of all that is copied.
    static constexpr uint32_t ring_bytes = kStages * kUnitChunks * kChunkBytes;
    static constexpr uint32_t x_bytes = kStaged ? tokens * item_rows * 2 : 0;
    static constexpr uint32_t copies_bytes = warps * ring_bytes + kStages * x_bytes;
    /// A row of sums is padded so that the lanes of a quarter warp meet different banks.
    static constexpr uint32_t sums_stride = columns + 4;
    static constexpr uint32_t shared_bytes = copies_bytes + (kDown - 1) * tokens * sums_stride * 4;
    /// Of how many blocks the sums are read at once: as many as registers hold.
    static constexpr uint32_t parts_at_once = kTokenTiles < 4 ? 4 / kTokenTiles : 1;
    static_assert(kStages >= 2, "one stage is worked on while the others are under way");
};

/// Which thread this is.
template <class S>
struct Place {
    uint32_t lane, g, t, across, down;

    GPTQ_DEVICE Place() {
        const uint32_t warp = threadIdx.x / kWarp;
        lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
        across = warp % S::across, down = warp / S::across;
    }
};

/// The row of items, and who has which.
template <class S>
struct Items {
    uint32_t chunks, column_blocks;
    /// Of the columns of a block, and in all.
    uint32_t of_column, count;

    GPTQ_DEVICE explicit Items(const GptqExllamaV1ProductParams& p) {
        chunks = p.in_features / kChunkRows;
        column_blocks = (p.out_features + S::columns - 1) / S::columns;
        of_column = (chunks + S::item_chunks - 1) / S::item_chunks;
        count = column_blocks * of_column;
    }
    GPTQ_DEVICE uint32_t first_of(uint32_t block) const { return uint32_t(uint64_t(count) * block / gridDim.x); }
    GPTQ_DEVICE uint32_t block_of(uint32_t item) const {
        return uint32_t(((uint64_t(item) + 1) * gridDim.x - 1) / count);
    }
};

/// Whether every item has the c-th chunk of a warp.
template <class S>
GPTQ_DEVICE constexpr bool surely_there(uint32_t c) {
    return S::down == 1 && c == 0;
}

/// Columns past the last repeat it, and are not written.
GPTQ_DEVICE uint32_t clamp_column(const GptqExllamaV1ProductParams& p, uint32_t column) {
    return smaller(column, p.out_features - kLaneColumns);
}

/// Copies a warp's words of one item after another.
template <class S>
struct WordFeed {
    const GptqExllamaV1ProductParams& p;
    const Items<S>& items;
    /// What this lane copies next, of an item `item` of these columns.
    const uint32_t* words;
    uint32_t column, first_row, item;
    /// In the first stage: where this lane copies to, and what it uses.
    SharedAddress to, from;

    GPTQ_DEVICE WordFeed(const GptqExllamaV1ProductParams& p, const Items<S>& items, const Place<S>& place, char* shared,
                         uint32_t column_block, uint32_t item)
        : p(p), items(items), item(item) {
        const uint32_t row = place.lane / 8, part = place.lane % 8;
        const SharedAddress ring = shared_address(shared) + (place.down * S::across + place.across) * S::ring_bytes;
        to = ring + slot(row, part) * 16;
        from = ring + slot(place.t, place.g) * 16;
        keep(to);
        keep(from);
        column = column_block * S::columns + place.across * kStripColumns + part * kLaneColumns;
        first_row = place.down * S::unit_chunks * kChunkWordRows + row;
        seek();
    }

    /// Where 16 bytes of a chunk are: so that the lanes of a quarter warp meet different banks, those that copy a line and
    /// those that use eight columns of four.
    GPTQ_DEVICE static uint32_t slot(uint32_t row, uint32_t part) { return row * 8 + (part ^ row * 2); }

    GPTQ_DEVICE void seek() {
        const size_t row = item * (S::item_chunks * kChunkWordRows) + first_row;
        words = p.qweight + row * p.out_features + clamp_column(p, column);
    }

    /// Starts to copy the next item to a stage.
    GPTQ_DEVICE void start(uint32_t stage) {
        const uint32_t first_chunk = item * S::item_chunks + first_row / kChunkWordRows;
        const uint32_t* chunk = words;
#pragma unroll
        for (uint32_t c = 0; c < S::unit_chunks; c++) {
            if (surely_there<S>(c) || first_chunk + c < items.chunks) {
                copy_stream_async(to + (stage * S::unit_chunks + c) * kChunkBytes, chunk);
            }
            chunk += size_t(p.out_features) * kChunkWordRows;
        }
        item += 1;
        words += size_t(p.out_features) * (S::item_chunks * kChunkWordRows);
        if (item == items.of_column) {
            item = 0;
            column += S::columns;
            seek();
        }
    }

    GPTQ_DEVICE uint4 of_chunk(uint32_t stage, uint32_t c) const {
        return load_shared(from + (stage * S::unit_chunks + c) * kChunkBytes);
    }
};

/// Reads x of one item after another.
template <class S>
struct XFeed {
    const GptqExllamaV1ProductParams& p;
    const Items<S>& items;
    // Through shared memory.
    static constexpr uint32_t row_vectors = S::item_rows / 8;
    static constexpr uint32_t copies = (S::tokens * row_vectors + S::threads - 1) / S::threads;
    SharedAddress stages_at, from;
    uint32_t item;
    // Through registers: what this lane reads next.
    const f16* x[S::token_tiles];
    uint4 of_item[S::unit_chunks][S::token_tiles];

    GPTQ_DEVICE XFeed(const GptqExllamaV1ProductParams& p, const Items<S>& items, const Place<S>& place, char* shared,
                      uint32_t item)
        : p(p), items(items), item(item) {
        if constexpr (S::staged) {
            stages_at = shared_address(shared) + S::warps * S::ring_bytes;
            const uint32_t part = place.down * S::unit_chunks * 4 + place.t;
            from = stages_at + slot(place.g, part) * 16;
            keep(from);
        } else {
#pragma unroll
            for (uint32_t m = 0; m < S::token_tiles; m++) {
                // Tokens past the last repeat it, and are not written.
                const uint32_t token = smaller(blockIdx.y * S::tokens + m * kTileTokens + place.g, p.rows - 1);
                const uint32_t k = item * S::item_rows + place.down * S::unit_chunks * kChunkRows + place.t * kWordRows;
                x[m] = static_cast<const f16*>(p.x) + size_t(token) * p.in_features + k;
            }
        }
    }

    /// Where eight values of a token's are in a stage: so that the lanes of a quarter warp, four parts of two tokens, meet
    /// different banks.
    GPTQ_DEVICE static uint32_t slot(uint32_t token, uint32_t part) {
        return token * row_vectors + (row_vectors >= 8 ? part ^ token % 2 * 4 : part);
    }

    /// Starts to copy the next item to a stage. Tokens and rows that there are not become zeros.
    GPTQ_DEVICE void start(uint32_t stage) {
#pragma unroll
        for (uint32_t i = 0; i < copies; i++) {
            const uint32_t vector = i * S::threads + threadIdx.x;
            if (S::tokens * row_vectors % S::threads != 0 && vector >= S::tokens * row_vectors) break;
            const uint32_t token = vector / row_vectors, part = vector % row_vectors;
            const uint32_t row = blockIdx.y * S::tokens + token, k = item * S::item_rows + part * 8;
            const bool there = row < p.rows && k < p.in_features;
            const f16* const from = static_cast<const f16*>(p.x) + (there ? size_t(row) * p.in_features + k : 0);
            copy_async(stages_at + stage * S::x_bytes + slot(token, part) * 16, from, there);
        }
        item = item + 1 == items.of_column ? 0 : item + 1;
    }

    /// Reads what a warp needs of the item that begins at `first_chunk`, where x comes by registers.
    GPTQ_DEVICE void read(uint32_t first_chunk) {
        if constexpr (!S::staged) {
#pragma unroll
            for (uint32_t c = 0; c < S::unit_chunks; c++) {
                if (!surely_there<S>(c) && first_chunk + c >= items.chunks) break;
#pragma unroll
                for (uint32_t m = 0; m < S::token_tiles; m++) of_item[c][m] = load_global(x[m] + c * kChunkRows);
            }
            const bool last = first_chunk + S::item_chunks >= items.of_column * S::item_chunks;
            const int32_t on = int32_t(S::item_rows) - (last ? int32_t(items.of_column * S::item_rows) : 0);
#pragma unroll
            for (uint32_t m = 0; m < S::token_tiles; m++) x[m] += on;
        }
    }

    /// What this lane uses of a chunk: of the token g of each tile, the t-th eight of 32.
    GPTQ_DEVICE void of_chunk(uint32_t stage, uint32_t c, uint4 (&to)[S::token_tiles]) const {
#pragma unroll
        for (uint32_t m = 0; m < S::token_tiles; m++) {
            if constexpr (S::staged) {
                // `from` may have its lowest bit of the chunk's number the other way round.
                const SharedAddress of_lane = from + stage * S::x_bytes + m * (kTileTokens * row_vectors * 16);
                to[m] = load_shared(chunk_of(of_lane, c));
            } else {
                to[m] = of_item[c][m];
            }
        }
    }

    GPTQ_DEVICE static SharedAddress chunk_of(SharedAddress of_lane, uint32_t c) {
        const bool swapped = row_vectors >= 8 && threadIdx.x % kWarp / 4 % 2 == 1 && S::unit_chunks > 1;
        return swapped && c % 2 == 1 ? of_lane + c * 64 - 128 : of_lane + c * 64;
    }
};

/// Scales and zero points of a lane's four columns, group after group as the warp needs them; those of the next group are
/// under way.
template <class S>
struct GroupFeed {
    const GptqExllamaV1ProductParams& p;
    const Items<S>& items;
    uint32_t group_chunks, inverse, column, first_chunk;
    /// The chunk at which the present group ends: none before the first `advance`.
    uint32_t end = 0;
    WordZero zero[kLaneColumns];
    uint2 present_scales;
    // The first chunk of the warp's that the next group has, as an item and a chunk of it.
    uint32_t next_item, next_c = 0, next_end;
    uint2 next_scales;
    uint32_t next_zeros;

    GPTQ_DEVICE GroupFeed(const GptqExllamaV1ProductParams& p, const Items<S>& items, const Place<S>& place,
                          uint32_t column_block, uint32_t item)
        : p(p), items(items), present_scales(make_uint2(0, 0)), next_item(item) {
        group_chunks = p.group_rows / kChunkRows;
        inverse = 0x80000000u / group_chunks + 1;
        column = column_block * S::columns + place.across * kStripColumns + place.g * kLaneColumns;
        first_chunk = place.down * S::unit_chunks;
        read_next();
    }

    GPTQ_DEVICE void read_next() {
        uint32_t chunk = next_item * S::item_chunks + first_chunk + next_c;
        if (chunk >= items.chunks) {
            // On to the next columns.
            next_item = next_c = 0;
            column += S::columns;
            chunk = smaller(first_chunk, items.chunks - 1);
        }
        // floor(chunk / group_chunks), as (2 chunk + 1) / (2 group_chunks) is far enough from whole numbers.
        const uint32_t group = high_product(2 * chunk + 1, inverse);
        next_end = (group + 1) * group_chunks;
        const size_t at = size_t(group) * p.out_features + clamp_column(p, column);
        next_scales = load<uint2>(static_cast<const uint16_t*>(p.scales) + at);
        next_zeros = reinterpret_cast<const uint16_t*>(p.qzeros)[at / 4];
    }

    /// The next group becomes the present one.
    GPTQ_DEVICE void advance() {
        present_scales = next_scales;
        end = next_end;
        read_zeros(next_zeros, zero);
        // The warp's first chunk from there on.
        next_item = (end - first_chunk) / S::item_chunks, next_c = (end - first_chunk) % S::item_chunks;
        if (next_c >= S::unit_chunks) next_item += 1, next_c = 0;
        read_next();
    }

    struct Scales {
        float of[kLaneColumns];
    };
    GPTQ_DEVICE Scales scales() const {
        const float2 low = to_floats(f16x2{present_scales.x}), high = to_floats(f16x2{present_scales.y});
        return {{low.x, low.y, high.x, high.y}};
    }
};

}  // namespace gptq
