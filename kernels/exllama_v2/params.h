/* Launch parameters of the family exllama_v2. C11: Rust's structs are made from this file.
 *
 * A layer is arranged once (tile.cuh says how), and multiplied from its arrangement. Layers have in_features a multiple of
 * 32, out_features a multiple of 8, group_rows a multiple of 8, and scales in f16 or bf16. Every pointer is aligned to 16
 * bytes unless it says otherwise.
 *
 * Products, of struct GptqProductParams: gptq_exllama_v2_<kind>_<width>_r<run>_<x dtype>, where width is b2, b3, b4 or b8,
 * with an s behind it for symmetric layers only, and run the rows of W that surely share a scale: 64, 32, 16 or 8.
 */
#ifndef GPTQ_EXLLAMA_V2_PARAMS_H
#define GPTQ_EXLLAMA_V2_PARAMS_H

#include "product.h"

/* Rows of a tile, columns of a strip. */
#define GPTQ_EXLLAMA_V2_TILE_ROWS 64u
#define GPTQ_EXLLAMA_V2_STRIP_COLUMNS 16u

/* gptq_exllama_v2_arrange_{blocks,sorted,rows}_<format>: packed words to tiles.
 *
 * `blocks` takes rows as they are; `sorted` and `rows` take them in an order. The first two bring what a block reads into
 * dynamic shared memory: for `blocks` block_tiles * 2 * bits words of 16 * block_strips columns, for `sorted` all of K, so
 * that `rows` takes layers that are too long.
 *
 * Grid: x = ceil(strips / block_strips), y = ceil(tiles / block_tiles). */
#define GPTQ_EXLLAMA_V2_ARRANGE_THREADS 512u
struct GptqExllamaV2ArrangeParams {
    /* [K * bits / 32, N], as files hold it. */
    const uint32_t* qweight;
    /* Which row of the file is which row of the arrangement, [tiles * 64] of 16 bits, any past K; null for `blocks`. */
    const uint16_t* order;
    /* [strips, tiles], a tile of 128 * bits bytes. */
    void* weights;
    uint32_t in_features;
    uint32_t out_features;
    uint32_t strips;
    uint32_t tiles;
    /* Of a block of threads. */
    uint32_t block_strips;
    uint32_t block_tiles;
};
static_assert(sizeof(struct GptqExllamaV2ArrangeParams) == 48, "Rust's copy of the struct has 48 bytes");

/* gptq_exllama_v2_groups_<format>: scales and zero points to the order that tile.cuh says.
 *
 * Grid: x = ceil(strips * arranged_groups * 8 / 256). */
#define GPTQ_EXLLAMA_V2_GROUPS_THREADS 256u
struct GptqExllamaV2GroupsParams {
    /* [groups, N] of 16-bit floats, and [groups, ceil(N * bits / 32)] packed, direct (v2) zero points. */
    const uint16_t* scales;
    const uint32_t* qzeros;
    /* [strips, arranged_groups, 16] both. */
    uint16_t* arranged_scales;
    uint8_t* arranged_zeros;
    uint32_t out_features;
    uint32_t strips;
    uint32_t groups;
    /* As many as all rows of tiles have; those past the last are zero. */
    uint32_t arranged_groups;
};
static_assert(sizeof(struct GptqExllamaV2GroupsParams) == 48, "Rust's copy of the struct has 48 bytes");

/* gptq_exllama_v2_dequantize_<width>_<out dtype>: out[k, n - first_column] = scale * (code - zero), rounded once, with rows
 * in the order of the file.
 *
 * Grid: x = ceil(columns / 128), y = tiles. */
#define GPTQ_EXLLAMA_V2_DEQUANTIZE_THREADS 256u
#define GPTQ_EXLLAMA_V2_DEQUANTIZE_COLUMNS 128u
struct GptqExllamaV2DequantizeParams {
    const void* weights;
    const void* scales;
    const void* zeros;
    /* As for GptqExllamaV2ArrangeParams. */
    const uint16_t* order;
    /* [K, columns] with out_stride elements from row to row. */
    void* out;
    uint32_t in_features;
    uint32_t tiles;
    uint32_t groups;
    /* For runs of 8 rows. */
    uint32_t inverse_of_group;
    /* A multiple of 128; then columns and out_stride, multiples of 8. */
    uint32_t first_column;
    uint32_t columns;
    uint32_t out_stride;
    uint32_t scale_dtype;
};
static_assert(sizeof(struct GptqExllamaV2DequantizeParams) == 72, "Rust's copy of the struct has 72 bytes");

/* gptq_exllama_v2_gather: out[m, k] = x[m, order[k]], elements of 16 bits. x is aligned to its element. Without an order it
 * is a copy.
 *
 * Grid: x = ceil(in_features / 1024), y = rows. */
#define GPTQ_EXLLAMA_V2_GATHER_THREADS 128u
struct GptqExllamaV2GatherParams {
    const uint16_t* x;
    const uint16_t* order;
    uint16_t* out;
    uint32_t in_features;
    uint32_t reserved;
};
static_assert(sizeof(struct GptqExllamaV2GatherParams) == 32, "Rust's copy of the struct has 32 bytes");

#endif
