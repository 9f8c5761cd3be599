// x W + bias on tensor cores, from words in the order of the file.
//
// Weights are the 16-row operand of mma.sync and tokens (rows of x) the narrow one, so that one to eight tokens cost the
// same. A warp works on a chunk at a time, 32 columns of four rows of words, which are 32 rows of W. Lane 4 g + t uses the
// words of columns 4 g.. in row t:
//
//      columns ->     0..3     4..7            28..31
//      word row 0    lane 0   lane 4    ...    lane 28
//      word row 1    lane 1   lane 5    ...    lane 29
//      word row 2    lane 2   ...
//      word row 3    lane 3   ...              lane 31
//
// That is the fragment as it stands: mma.sync gives lane 4 g + t rows g and g + 8 of a tile and its t-th pairs of k. Columns
// 4 g and 4 g + 1 are rows g and g + 8 of one tile, 4 g + 2 and 4 g + 3 those of another, and the k of word t are lane t's. So
// nothing is rearranged at rest.
//
// All the work, column after column of blocks and in each item after item down K, is one row of items, and each block has
// as many of them as any other:
//
//      columns      0..255                256..511              512..767
//      items        0 1 2 3 4 5 6 7 8 9 | 0 1 2 3 4 5 6 7 8 9 | 0 1 2 3 4 5 6 7 8 9
//      blocks       0 0 0 0 0 0 0 0 1 1   1 1 1 1 1 1 2 2 2 2   2 2 2 2 3 3 3 3 3 3 ..
//
// Where several have parts of the same columns, each writes its sums, and who comes last adds them in the order of blocks:
// equal launches give equal bits. Within a block, warps stand side by side, and below one another in the rows of an item.
// Sums of a group are scaled once, in f32.
#pragma once

#include "feed.cuh"
#include "output.cuh"
#include "ptx_matrix.cuh"

namespace gptq {

/// The sums of a lane: of two tiles of columns, each by tiles of tokens.
template <class S>
struct Sums {
    float of[2][S::token_tiles][4] = {};

    /// Columns 4 g to 4 g + 3 of token 2 t + i of a tile of tokens.
    GPTQ_DEVICE float4 row(uint32_t m, uint32_t i) const {
        return make_float4(of[0][m][i], of[0][m][2 + i], of[1][m][i], of[1][m][2 + i]);
    }
    GPTQ_DEVICE void add_row(uint32_t m, uint32_t i, float4 row) {
        of[0][m][i] += row.x, of[0][m][2 + i] += row.y, of[1][m][i] += row.z, of[1][m][2 + i] += row.w;
    }
    /// this += scales * sums, which become zero.
    GPTQ_DEVICE void add_scaled(const float (&scales)[kLaneColumns], Sums& sums) {
#pragma unroll
        for (uint32_t tile = 0; tile < 2; tile++) {
#pragma unroll
            for (uint32_t m = 0; m < S::token_tiles; m++) {
#pragma unroll
                for (uint32_t i = 0; i < 4; i++) {
                    of[tile][m][i] = fmaf(scales[2 * tile + i / 2], sums.of[tile][m][i], of[tile][m][i]);
                    sums.of[tile][m][i] = 0.0f;
                }
            }
        }
    }
};

/// Calls `use(m, i, token)` for each of a lane's rows of outputs that there are.
template <class S, class Use>
GPTQ_DEVICE void each_row(const GptqExllamaV1ProductParams& p, uint32_t column, Use use) {
    const uint32_t t = threadIdx.x % 4;
#pragma unroll
    for (uint32_t m = 0; m < S::token_tiles; m++) {
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t token = m * kTileTokens + 2 * t + i;
            if (blockIdx.y * S::tokens + token < p.rows && column < p.out_features) use(m, i, token);
        }
    }
}

/// Adds the sums of warps below one another, in order, to those of the first.
template <class S>
GPTQ_DEVICE void add_down(const GptqExllamaV1ProductParams& p, char* shared, const Place<S>& place, Sums<S>& totals) {
    float* const sums = reinterpret_cast<float*>(shared + S::copies_bytes);
    const uint32_t quad = place.across * kStripColumns + place.g * kLaneColumns;
    const auto at = [&](uint32_t down, uint32_t token) {
        return sums + ((down - 1) * S::tokens + token) * S::sums_stride + quad;
    };
    // The sums of the columns before have been read.
    __syncthreads();
    if (place.down > 0) {
        each_row<S>(p, 0, [&](uint32_t m, uint32_t i, uint32_t token) { store(at(place.down, token), totals.row(m, i)); });
    }
    __syncthreads();
    if (place.down > 0) return;
    each_row<S>(p, 0, [&](uint32_t m, uint32_t i, uint32_t token) {
#pragma unroll
        for (uint32_t down = 1; down < S::down; down++) totals.add_row(m, i, load<float4>(at(down, token)));
    });
}

/// Writes what a block has of a warp's columns, or adds it to what other blocks have.
template <class S>
GPTQ_DEVICE void finish(const GptqExllamaV1ProductParams& p, uint32_t column_block, const Sums<S>& totals) {
    // Made anew: registers are dear in the loop that calls this.
    const Items<S> items(p);
    const Place<S> place;
    const uint32_t strip = column_block * S::columns + place.across * kStripColumns;
    const uint32_t column = strip + place.g * kLaneColumns, first_row = blockIdx.y * S::tokens;
    if (strip >= p.out_features) return;
    const uint32_t first = items.block_of(column_block * items.of_column);
    const uint32_t last = items.block_of(column_block * items.of_column + items.of_column - 1);
    if (first == last) {
        each_row<S>(p, column, [&](uint32_t m, uint32_t i, uint32_t token) {
            write_out(p, first_row + token, column, totals.row(m, i));
        });
        return;
    }

    // A block has at most two parts of columns: the end of some, then the beginning of others.
    const auto part = [&](uint32_t block, bool begins, uint32_t token) {
        const size_t number = (size_t(blockIdx.y) * gridDim.x + block) * 2 + begins;
        const uint32_t quad = place.across * kStripColumns + place.g * kLaneColumns;
        return p.partial + (number * S::tokens + token) * S::columns + quad;
    };
    each_row<S>(p, column, [&](uint32_t m, uint32_t i, uint32_t token) {
        store(part(blockIdx.x, blockIdx.x == first, token), totals.row(m, i));
    });
    __syncwarp();
    uint64_t* const cell =
        p.arrived + (size_t(blockIdx.y) * items.column_blocks + column_block) * S::across + place.across;
    uint32_t earlier = 0;
    if (place.lane == 0) earlier = count_arrival(cell, p.arrival_mark);
    earlier = __shfl_sync(kAllLanes, earlier, 0);
    if (earlier != last - first) return;
    __syncwarp();
    if (place.lane == 0) *cell = p.arrival_mark;
    // As many loads under way as registers hold: what a lane waits for here, nothing hides.
    Sums<S> sums;
#pragma unroll S::parts_at_once
    for (uint32_t block = first; block <= last; block++) {
        each_row<S>(p, column, [&](uint32_t m, uint32_t i, uint32_t token) {
            sums.add_row(m, i, load<float4>(part(block, block == first, token)));
        });
    }
    each_row<S>(p, column, [&](uint32_t m, uint32_t i, uint32_t token) {
        write_out(p, first_row + token, column, sums.row(m, i));
    });
}

/// sums += W x over a chunk.
template <class S>
GPTQ_DEVICE void add_chunk(uint4 words, const WordZero (&zero)[kLaneColumns], const uint4 (&x)[S::token_tiles],
                           Sums<S>& sums) {
    f16x2 w[kLaneColumns][4];
    unpack(words.x, zero[0], w[0]);
    unpack(words.y, zero[1], w[1]);
    unpack(words.z, zero[2], w[2]);
    unpack(words.w, zero[3], w[3]);
#pragma unroll
    for (uint32_t m = 0; m < S::token_tiles; m++) {
        f16x2 of_x[4];
        pair_up_x(x[m], of_x);
#pragma unroll
        for (uint32_t step = 0; step < 4; step += 2) {
#pragma unroll
            for (uint32_t tile = 0; tile < 2; tile++) {
                const f16x2(&upper)[4] = w[2 * tile], (&lower)[4] = w[2 * tile + 1];
                const f16x2 a[4] = {upper[step], lower[step], upper[step + 1], lower[step + 1]};
                const f16x2 b[2] = {of_x[step], of_x[step + 1]};
                multiply_accumulate(sums.of[tile][m], a, b);
            }
        }
    }
}

template <class S>
GPTQ_DEVICE void product(const GptqExllamaV1ProductParams& p) {
    GPTQ_SHARED_DYNAMIC(char, shared);
    const Place<S> place;
    const Items<S> items(p);
    const uint32_t first = items.first_of(blockIdx.x), count = items.first_of(blockIdx.x + 1) - first;
    uint32_t column_block = first / items.of_column, item = first % items.of_column;

    WordFeed<S> words(p, items, place, shared, column_block, item);
    // W is there already; x may come from the kernel before this one.
    let_next_kernel_begin();
#pragma unroll
    for (uint32_t stage = 0; stage + 1 < S::stages; stage++) {
        if (stage < count) words.start(stage);
        if constexpr (!S::staged) commit_copies();
    }
    GroupFeed<S> group(p, items, place, column_block, item);
    wait_for_earlier_kernels();
    XFeed<S> x(p, items, place, shared, item);
    if constexpr (S::staged) {
#pragma unroll
        for (uint32_t stage = 0; stage + 1 < S::stages; stage++) {
            if (stage < count) x.start(stage);
            commit_copies();
        }
    }

    Sums<S> totals, sums;
    uint32_t stage = 0;
#pragma unroll 1
    for (uint32_t left = count; left > 0; left--) {
        const uint32_t first_chunk = item * S::item_chunks + place.down * S::unit_chunks;
        x.read(first_chunk);
        wait_copies<S::stages - 2>();
        if constexpr (S::staged) {
            __syncthreads();
        } else {
            __syncwarp();
        }
        // All have finished with the stage before this one, so its place is free.
        if (left >= S::stages) {
            const uint32_t free = stage == 0 ? S::stages - 1 : stage - 1;
            words.start(free);
            if constexpr (S::staged) x.start(free);
        }
        commit_copies();
#pragma unroll
        for (uint32_t c = 0; c < S::unit_chunks; c++) {
            if (!surely_there<S>(c) && first_chunk + c >= items.chunks) break;
            if (first_chunk + c >= group.end) {
                totals.add_scaled(group.scales().of, sums);
                group.advance();
            }
            uint4 of_x[S::token_tiles];
            x.of_chunk(stage, c, of_x);
            add_chunk<S>(words.of_chunk(stage, c), group.zero, of_x, sums);
        }
        stage = stage + 1 == S::stages ? 0 : stage + 1;
        item += 1;
        if (item == items.of_column || left == 1) {
            totals.add_scaled(group.scales().of, sums);
            if constexpr (S::down > 1) add_down<S>(p, shared, place, totals);
            if (place.down == 0) finish<S>(p, column_block, totals);
            totals = Sums<S>();
            group.end = 0;
            item = 0, column_block += 1;
        }
    }
}

/// Where there are tensor cores. Compiled for a GPU without, the kernel is there and does nothing; nobody launches it.
template <class S>
GPTQ_DEVICE void product_on_tensor_cores(const GptqExllamaV1ProductParams& p) {
#if defined(GPTQ_EMULATOR) || __CUDA_ARCH__ >= 750
    product<S>(p);
#endif
}

}  // namespace gptq
