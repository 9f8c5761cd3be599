/* Launch parameters of the kernels that dequantize. C11: Rust's structs are made from this file.
 *
 * qweight is [ceil(K * bits / 32), N], codes packed along K; qzeros is [G, ceil(N * bits / 32)], direct (v2) zero points
 * packed along N; scales are [G, N]. All as files hold them, row-major and contiguous.
 *
 * Act-order, where rows of one group are anywhere, comes in two ways. Either g_idx names the group of each row; or the
 * rows of qweight were sorted by group, by gptq_dequantize_sort, and w_rows tells which row of W each of them is.
 *
 * Two kernels do each job. `blocks` is fast and takes:
 *   - in_features a multiple of 32; group_rows a multiple of 32, or one group; g_idx_bytes 0
 *   - out_features, and first_column, columns and out_stride where there are any, multiples of 8
 *   - every pointer aligned to 16 bytes
 *   - to dequantize: scales in f16 or bf16
 * `rows` takes everything: any K and N, any groups, g_idx, pointers aligned to their element.
 */
#ifndef GPTQ_DEQUANTIZE_PARAMS_H
#define GPTQ_DEQUANTIZE_PARAMS_H

#include <assert.h>
#include <stdint.h>

#include "dtype.h"

/* Threads of a block. */
#define GPTQ_DEQUANTIZE_BLOCKS_THREADS 128u
#define GPTQ_DEQUANTIZE_ROWS_THREADS 128u
#define GPTQ_DEQUANTIZE_DOT_THREADS 256u
#define GPTQ_DEQUANTIZE_SUM_THREADS 256u
#define GPTQ_DEQUANTIZE_SORT_THREADS 256u
#define GPTQ_DEQUANTIZE_GATHER_THREADS 128u
/* Rows of W that a block of threads reads at a time: all kernels that dequantize have a block of the grid in y for so
 * many. */
#define GPTQ_DEQUANTIZE_TILE_ROWS 32u
/* Columns of a block of threads: of `rows`; `blocks` has 16 bytes of output for each thread. */
#define GPTQ_DEQUANTIZE_ROWS_COLUMNS 128u
/* Columns of a block of threads of both kernels of the dot. */
#define GPTQ_DEQUANTIZE_DOT_COLUMNS 32u
/* Rows of x at most. */
#define GPTQ_DEQUANTIZE_DOT_MOST_ROWS 4u

/* gptq_dequantize_{blocks,rows}_<format>_<out dtype>: out[k, n - first_column] = scale * (code - zero), rounded once, for
 * a panel of columns of W.
 *
 * Grid of `blocks`: x = ceil(columns / (128 * (16 / bytes of an output))), y = K / 32.
 * Grid of `rows`:   x = ceil(columns / 128), y = ceil(K / 32). */
struct GptqDequantizeParams {
    const uint32_t* qweight;
    const uint32_t* qzeros;
    const void* scales;
    /* [K], the group of each row; null where g_idx_bytes is 0. */
    const void* g_idx;
    /* [K], the row of W that each row of qweight is; null where it is the same. */
    const uint32_t* w_rows;
    /* [K, columns] with out_stride elements from row to row. */
    void* out;
    uint32_t in_features;
    uint32_t out_features;
    /* Rows of a group; K where there is one group. The last group may have fewer. */
    uint32_t group_rows;
    /* The first column that is wanted, and how many. */
    uint32_t first_column;
    uint32_t columns;
    uint32_t out_stride;
    uint32_t scale_dtype;
    /* 0: groups are consecutive rows. 2: g_idx is uint16_t, 4: uint32_t. */
    uint32_t g_idx_bytes;
};
static_assert(sizeof(struct GptqDequantizeParams) == 80, "Rust's copy of the struct has 80 bytes");

/* gptq_dequantize_sort_<format>: row i of `sorted` is row w_rows[i] of qweight. K is a multiple of 32.
 *
 * Grid: x = ceil(N / 256), y = K / 32. */
struct GptqDequantizeSortParams {
    const uint32_t* qweight;
    const uint32_t* w_rows;
    /* As qweight, elsewhere. */
    uint32_t* sorted;
    uint32_t out_features;
};
static_assert(sizeof(struct GptqDequantizeSortParams) == 32, "Rust's copy of the struct has 32 bytes");

/* gptq_dequantize_gather_{16,32}bit: gathered[m, i] = x[m, w_rows[i]].
 *
 * Grid: x = ceil(K / 128), y = rows. */
struct GptqDequantizeGatherParams {
    const uint32_t* w_rows;
    /* [rows, K], both. */
    const void* x;
    void* gathered;
    uint32_t in_features;
};
static_assert(sizeof(struct GptqDequantizeGatherParams) == 32, "Rust's copy of the struct has 32 bytes");

/* gptq_dequantize_dot_{blocks,rows}_<format>_<x dtype>_m<rows of x at most>: out = x W + bias, out and x of one type.
 *
 * Grid: x = ceil(out_features / 32), y = splits. With one split the kernel writes out; with more it writes the sums of
 * each to `partial`, and gptq_dequantize_sum_<x dtype> has to follow. Sums are added in an order that does not depend on
 * time: equal launches give equal bits.
 *
 * Of a layer whose rows were sorted, `rows` finds the elements of x by w_rows; `blocks` has no such pointer to read and
 * takes x gathered. */
struct GptqDequantizeDotParams {
    const uint32_t* qweight;
    const uint32_t* qzeros;
    const void* scales;
    /* As above. */
    const void* g_idx;
    const uint32_t* w_rows;
    /* [N], or null. */
    const void* bias;
    /* [rows, K]. */
    const void* x;
    /* [rows, N]. */
    void* out;
    /* [splits, rows, N], where splits is more than 1. */
    float* partial;
    uint32_t in_features;
    uint32_t out_features;
    uint32_t group_rows;
    uint32_t scale_dtype;
    uint32_t bias_dtype;
    uint32_t g_idx_bytes;
    /* M: 1 to the number in the kernel's name. */
    uint32_t rows;
    /* Parts of K; each has ceil(ceil(K / 32) / splits) tiles of 32 rows, the last ones fewer or none. */
    uint32_t splits;
};
static_assert(sizeof(struct GptqDequantizeDotParams) == 104, "Rust's copy of the struct has 104 bytes");

/* gptq_dequantize_sum_<out dtype>: out = the sum of `partial` over splits, plus bias, rounded once.
 *
 * Grid: x = ceil(rows * columns / 256). */
struct GptqDequantizeSumParams {
    /* [splits, rows, columns]. */
    const float* partial;
    /* [columns], or null. */
    const void* bias;
    /* [rows, columns] with out_stride elements from row to row. */
    void* out;
    uint32_t rows;
    uint32_t columns;
    uint32_t out_stride;
    uint32_t splits;
    uint32_t bias_dtype;
};
static_assert(sizeof(struct GptqDequantizeSumParams) == 48, "Rust's copy of the struct has 48 bytes");

#endif
