/* Launch parameters of the kernels for layers in the order of the file: 4 bits, x in f16. C11: Rust's structs are made
 * from this file.
 *
 * qweight is [K / 8, N], eight codes of consecutive rows in a word; qzeros is [G, N / 8], direct (v2) zero points packed
 * along N; scales are [G, N] in f16. All row-major and contiguous. Rows stand in the order of their groups: those of an
 * act-order layer were sorted by gptq_exllama_v1_sort_rows, and x has to be gathered to match. The last group may be short.
 *
 * All kernels take in_features and out_features that are multiples of 8, and pointers aligned to 16 bytes but where it says
 * otherwise. Of groups of more than one:
 *   - gptq_exllama_v1_*_rows* take groups of any number of rows
 *   - gptq_exllama_v1_product_* take multiples of 32, and in_features that is one even with a single group
 *   - the others take multiples of 8
 */
#ifndef GPTQ_EXLLAMA_V1_PARAMS_H
#define GPTQ_EXLLAMA_V1_PARAMS_H

#include <assert.h>
#include <stdint.h>

#include "dtype.h"

/* Threads of a block of every kernel but those that say otherwise. */
#define GPTQ_EXLLAMA_V1_THREADS 256u
/* Columns of a block of dot, and rows of x that it takes at most. */
#define GPTQ_EXLLAMA_V1_DOT_COLUMNS 32u
#define GPTQ_EXLLAMA_V1_DOT_MOST_ROWS 4u
/* Threads of a block of reconstruct, and rows of W that a thread has. */
#define GPTQ_EXLLAMA_V1_RECONSTRUCT_THREADS 128u
#define GPTQ_EXLLAMA_V1_RECONSTRUCT_ROWS 32u
/* Columns of a block of sort_rows. */
#define GPTQ_EXLLAMA_V1_SORT_COLUMNS 32u

/* gptq_exllama_v1_product_m<rows>_n<columns>: out = x W + bias on tensor cores, from compute capability 7.5 on.
 *
 * A block has as many rows and columns as its name says. What is below one another in its columns is divided into items of
 * item_rows rows of W, which product.cu says for each kernel, as it does threads and shared memory.
 * Grid: x = blocks, up to as many as there are items, ceil(in_features / item_rows) * ceil(out_features / columns), and up
 * to 255 for each block of columns; y = ceil(rows / rows of a block). Blocks in x share the items evenly, and need not run
 * at once. Where they are as many as the blocks of columns, or divide them, neither `partial` nor `arrived` is used.
 * Sums are added in an order that does not depend on time: equal launches give equal bits. */
struct GptqExllamaV1ProductParams {
    const uint32_t* qweight;
    const uint32_t* qzeros;
    const void* scales;
    /* [N], or null. */
    const void* bias;
    /* [rows, K]. */
    const void* x;
    /* [rows, N], aligned to 2 bytes. */
    void* out;
    /* [y, x, 2, rows of a block, columns of a block], where y and x are those of the grid. */
    float* partial;
    /* [y, columns of all blocks / 32]: see count_arrival, and the mark of its cells. */
    uint64_t* arrived;
    uint64_t arrival_mark;
    uint32_t in_features;
    uint32_t out_features;
    /* Rows of a group; K where there is one group. */
    uint32_t group_rows;
    uint32_t bias_dtype;
    /* M. */
    uint32_t rows;
    uint32_t reserved;
};
static_assert(sizeof(struct GptqExllamaV1ProductParams) == 96, "Rust's copy of the struct has 96 bytes");

/* gptq_exllama_v1_dot_m{1,2,4} and dot_rows_m4: the same without tensor cores, for as many rows as the name says, or
 * fewer.
 *
 * Grid: x = 1, y = ceil(out_features / DOT_COLUMNS), z = splits. With one split it writes out; with more it writes the sums
 * of each to `partial`, and gptq_exllama_v1_sum has to follow. */
struct GptqExllamaV1DotParams {
    const uint32_t* qweight;
    const uint32_t* qzeros;
    const void* scales;
    /* [N], or null. */
    const void* bias;
    /* [rows, K]. */
    const void* x;
    /* [rows, N], aligned to 2 bytes. */
    void* out;
    /* [splits, rows, N], where splits is more than 1. */
    float* partial;
    uint32_t in_features;
    uint32_t out_features;
    uint32_t group_rows;
    uint32_t bias_dtype;
    uint32_t rows;
    /* Parts of K. */
    uint32_t splits;
};
static_assert(sizeof(struct GptqExllamaV1DotParams) == 80, "Rust's copy of the struct has 80 bytes");

/* gptq_exllama_v1_sum: out = the sum of `partial` over splits, plus bias.
 *
 * Grid: x = ceil(rows * out_features / (4 * 256)). */
struct GptqExllamaV1SumParams {
    const float* partial;
    const void* bias;
    void* out;
    uint32_t rows;
    uint32_t out_features;
    uint32_t splits;
    uint32_t bias_dtype;
};
static_assert(sizeof(struct GptqExllamaV1SumParams) == 40, "Rust's copy of the struct has 40 bytes");

/* gptq_exllama_v1_reconstruct and reconstruct_rows: W, or a panel of its columns, each weight rounded once.
 *
 * Grid: x = ceil(columns / (columns of a thread * RECONSTRUCT_THREADS)), where a thread of reconstruct has 8 columns and one
 * of reconstruct_rows has 1; y = ceil(in_features / RECONSTRUCT_ROWS). */
struct GptqExllamaV1ReconstructParams {
    const uint32_t* qweight;
    const uint32_t* qzeros;
    const void* scales;
    /* [in_features, columns], rows out_stride elements apart. */
    void* out;
    uint32_t in_features;
    uint32_t out_features;
    uint32_t group_rows;
    /* Where the panel begins, how wide it is, elements from row to row of out: multiples of 8. */
    uint32_t first_column;
    uint32_t columns;
    uint32_t out_stride;
};
static_assert(sizeof(struct GptqExllamaV1ReconstructParams) == 56, "Rust's copy of the struct has 56 bytes");

/* gptq_exllama_v1_sort_rows: row k of `sorted` is row sorted_rows[k] of `qweight`.
 *
 * Grid: x = ceil(in_features / 8 / 32), y = ceil(out_features / 32). */
struct GptqExllamaV1SortParams {
    const uint32_t* qweight;
    /* [K], a permutation. */
    const uint32_t* sorted_rows;
    uint32_t* sorted;
    uint32_t in_features;
    uint32_t out_features;
};
static_assert(sizeof(struct GptqExllamaV1SortParams) == 32, "Rust's copy of the struct has 32 bytes");

/* gptq_exllama_v1_gather_x: gathered[m, k] = x[m, sorted_rows[k]], or x[m, k] where sorted_rows is null.
 *
 * Grid: x = ceil(in_features / 8 / 256), y = rows, or as many as a grid may have, whose blocks then take several. */
struct GptqExllamaV1GatherParams {
    /* [rows, K], aligned to 2 bytes. */
    const void* x;
    const uint32_t* sorted_rows;
    void* gathered;
    uint32_t in_features;
    uint32_t rows;
};
static_assert(sizeof(struct GptqExllamaV1GatherParams) == 32, "Rust's copy of the struct has 32 bytes");

#endif
