/* What a launch of a product says of a layer and of its rows of x. C11, so that Rust can read it. */
#ifndef GPTQ_PRODUCT_H
#define GPTQ_PRODUCT_H

#include <assert.h>
#include <stdint.h>

#include "dtype.h"

/* The weights are arranged as tile.cuh says. Every pointer but bias and out is aligned to 16 bytes. */
struct GptqProductParams {
    /* [strips, tiles], a tile of 128 * bits bytes. */
    const void* weights;
    /* [strips, groups, 8, 2], 16-bit floats of scale_dtype, and bytes in the same order; zeros is not read by kernels for
     * symmetric layers. */
    const void* scales;
    const void* zeros;
    /* [N] of bias_dtype, or null. */
    const void* bias;
    /* [rows, K], columns in the order of the arrangement's rows, and [rows, N]; both of the type in the kernel's name. */
    const void* x;
    void* out;
    /* [splits, rows, gridDim.x * columns of a block], where splits is more than 1. */
    float* partial;
    /* A cell for each block in x, where splits is more than 1: see count_arrival. */
    uint64_t* arrived;
    uint64_t arrival_mark;
    uint32_t in_features;
    uint32_t out_features;
    uint32_t strips;
    /* Tiles and groups of a strip. */
    uint32_t tiles;
    uint32_t groups;
    /* Which group a run of rows is in: floor((2 run + 1) * inverse_of_group / 2^32), where a run has as many rows as the
     * kernel's name says. */
    uint32_t inverse_of_group;
    uint32_t rows;
    /* Parts of K, gridDim.y, and the tiles of each; the last one may have fewer. */
    uint32_t splits;
    uint32_t split_tiles;
    uint32_t scale_dtype;
    uint32_t bias_dtype;
    /* For one row of x: whether weights are asked for ahead of x. Where this launch begins before the kernel in front has
     * ended, x has to wait; and where blocks are many, the weights of each matter more than when it starts to add. */
    uint32_t weights_first;
    uint32_t reserved;
};
static_assert(sizeof(struct GptqProductParams) == 128, "Rust's copy of the struct has 128 bytes");

#endif
