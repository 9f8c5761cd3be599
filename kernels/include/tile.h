/* Launch parameters of kernels for layers that are arranged in tiles. C11: Rust's structs are made from this file.
 *
 * A layer is arranged once (tile.cuh says how), and multiplied from its arrangement. Layers have in_features a multiple of
 * 32, out_features a multiple of 8, group_rows a multiple of 8, and scales in f16 or bf16. Every pointer is aligned to 16
 * bytes unless it says otherwise.
 *
 * Each family of kernels has those below, by names that begin with gptq_<family>_, for the widths and groups that it takes:
 * <width> is b2, b3, b4 or b8, with an s behind it where zero points are built in and none are stored, <run> the rows of W
 * that surely share a scale: 64, 32, 16 or 8.
 *
 * Products, of struct GptqProductParams: <kind>_<width>_r<run>_<x dtype>.
 */
#ifndef GPTQ_TILE_H
#define GPTQ_TILE_H

#include "product.h"

/* Rows of a tile, columns of a strip. */
#define GPTQ_TILE_ROWS 64u
#define GPTQ_TILE_STRIP_COLUMNS 16u

/* arrange_{blocks,sorted,rows}_<format>: packed words to tiles.
 *
 * `blocks` takes rows as they are; `sorted` and `rows` take them in an order. The first two bring what a block reads into
 * dynamic shared memory: for `blocks` block_tiles * 2 * bits words of 16 * block_strips columns, for `sorted` all of K, so
 * that `rows` takes layers that are too long.
 *
 * Grid: x = ceil(strips / block_strips), y = ceil(tiles / block_tiles). */
#define GPTQ_TILE_ARRANGE_THREADS 512u
struct GptqTileArrangeParams {
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
static_assert(sizeof(struct GptqTileArrangeParams) == 48, "Rust's copy of the struct has 48 bytes");

/* groups_<format>: scales and zero points to the order that tile.cuh says.
 *
 * Grid: x = ceil(strips * arranged_groups * 8 / 256). */
#define GPTQ_TILE_GROUPS_THREADS 256u
struct GptqTileGroupsParams {
    /* [groups, N] of 16-bit floats, and [groups, ceil(N * bits / 32)] packed, direct (v2) zero points, which are not read where
     * arranged_zeros is null. */
    const uint16_t* scales;
    const uint32_t* qzeros;
    /* [strips, arranged_groups, 16] both; arranged_zeros may be null. */
    uint16_t* arranged_scales;
    uint8_t* arranged_zeros;
    uint32_t out_features;
    uint32_t strips;
    uint32_t groups;
    /* As many as all rows of tiles have; those past the last are zero. */
    uint32_t arranged_groups;
};
static_assert(sizeof(struct GptqTileGroupsParams) == 48, "Rust's copy of the struct has 48 bytes");

/* dequantize_<width>_<out dtype>: out[k, n - first_column] = scale * (code - zero), rounded once, with rows in the order of
 * the file.
 *
 * Grid: x = ceil(columns / 128), y = tiles. */
#define GPTQ_TILE_DEQUANTIZE_THREADS 256u
#define GPTQ_TILE_DEQUANTIZE_COLUMNS 128u
struct GptqTileDequantizeParams {
    const void* weights;
    const void* scales;
    /* Not read where zero points are built in. */
    const void* zeros;
    /* As for GptqTileArrangeParams. */
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
static_assert(sizeof(struct GptqTileDequantizeParams) == 72, "Rust's copy of the struct has 72 bytes");

/* gather: out[m, k] = x[m, order[k]], elements of 16 bits. x is aligned to its element. Without an order it is a copy.
 *
 * Grid: x = ceil(in_features / 512), y = rows. */
#define GPTQ_TILE_GATHER_THREADS 256u
struct GptqTileGatherParams {
    const uint16_t* x;
    const uint16_t* order;
    uint16_t* out;
    uint32_t in_features;
    uint32_t reserved;
};
static_assert(sizeof(struct GptqTileGatherParams) == 32, "Rust's copy of the struct has 32 bytes");

#endif
