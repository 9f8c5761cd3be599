// Which products there are. A file for each width and type: they compile at the same time.
//
// Kinds are named after the rows of x that they take at most, and the few ones after the strips of a block: m1_t2. Which of
// them a call gets is decided by crates/tiles/src/products.rs, which knows the numbers of this file. Symmetric layers of
// 4 bits have more of them than others, layers whose groups are not in whole tiles fewer.
//
// A family instantiates them for each width and type, in files of their own, behind its params.h, which says GPTQ_FAMILY.
#pragma once

#include "tile.h"
#include "product_few.cuh"
#include "product_some.cuh"
#include "product_tile.cuh"

#define FEW(name, threads, bits, X, tokens, strips, warps, ahead, run, asymmetric)                                    \
    GPTQ_FAMILY_KERNEL(name##_##X, threads, GptqProductParams) {                                                      \
        gptq::multiply_few<gptq::ProductShape<bits, gptq::X, tokens, strips, ahead, run, asymmetric>, warps>(params); \
    }
// With two blocks to a multiprocessor.
#define FEW_RESIDENT(name, threads, bits, X, tokens, strips, warps, ahead, run, asymmetric)                           \
    GPTQ_FAMILY_KERNEL_RESIDENT(name##_##X, threads, 2, GptqProductParams) {                                          \
        gptq::multiply_few<gptq::ProductShape<bits, gptq::X, tokens, strips, ahead, run, asymmetric>, warps>(params); \
    }
#define SOME(name, threads, bits, X, tokens, row_warps, tiles, stages, run, asymmetric)                                  \
    GPTQ_FAMILY_KERNEL(name##_##X, threads, GptqProductParams) {                                                         \
        gptq::multiply_some<gptq::ProductShape<bits, gptq::X, tokens, 2, 1, run, asymmetric>, row_warps, tiles, stages>( \
            params);                                                                                                     \
    }

// Groups in whole tiles. `ahead` is how many tiles a warp has on the way, `tiles` how many it
// has of a stage, and `stages` how many of those there are.
#define WHOLE_TILES(w, bits, X, asymmetric, m1_ahead, m16_ahead, m32_threads, m64_tiles) \
    FEW(m1_t2_##w##_r64, 512, bits, X, 1, 2, 16, m1_ahead, 64, asymmetric)               \
    FEW(m8_t2_##w##_r64, 512, bits, X, 8, 2, 16, m1_ahead, 64, asymmetric)               \
    FEW(m16_t2_##w##_r64, 256, bits, X, 16, 2, 8, m16_ahead, 64, asymmetric)             \
    SOME(m32_##w##_r64, m32_threads, bits, X, 32, 2, 1, 4, 64, asymmetric)               \
    SOME(m64_##w##_r64, 256, bits, X, 64, 1, m64_tiles, 4, 64, asymmetric)

// Other blocks, for numbers of columns that leave multiprocessors idle with those above.
#define MORE_BLOCKS(w, bits, X, asymmetric)                                   \
    FEW(m1_t1_##w##_r64, 512, bits, X, 1, 1, 16, 4, 64, asymmetric)           \
    FEW(m1_t4_##w##_r64, 512, bits, X, 1, 4, 16, 1, 64, asymmetric)           \
    FEW(m8_t4_##w##_r64, 256, bits, X, 8, 4, 8, 2, 64, asymmetric)            \
    FEW_RESIDENT(m16_t4_##w##_r64, 256, bits, X, 16, 4, 8, 2, 64, asymmetric)

// Smaller groups.
#define PARTS_OF_TILES(w, bits, X, asymmetric)                      \
    FEW(m1_t2_##w##_r32, 512, bits, X, 1, 2, 16, 1, 32, asymmetric) \
    FEW(m8_t2_##w##_r32, 512, bits, X, 8, 2, 16, 1, 32, asymmetric) \
    SOME(m64_##w##_r32, 256, bits, X, 64, 1, 2, 4, 32, asymmetric)  \
    FEW(m8_t2_##w##_r16, 512, bits, X, 8, 2, 16, 1, 16, asymmetric) \
    SOME(m64_##w##_r16, 256, bits, X, 64, 1, 2, 4, 16, asymmetric)
#define SMALLEST_PARTS(w, bits, X)                         \
    FEW(m8_t2_##w##_r8, 256, bits, X, 8, 2, 8, 1, 8, true) \
    SOME(m64_##w##_r8, 256, bits, X, 64, 1, 2, 4, 8, true)

// Tiles, for 17 rows and more, with and without wgmma (product_tile.cuh): g64_c256 is 64 rows of x by 256 columns with wgmma,
// m64_c256 the same with mma.sync. crates/tiles/src/products/tile.rs chooses between them. Of a shape: rows of x, strips of a
// warp, warps side by side, tiles of a unit, stages.
#define TILE(name, bits, X, rows, strips, across, unit, stages, run, asymmetric, groups)                           \
    GPTQ_FAMILY_KERNEL_RESIDENT(name##_##X, across * gptq::kWarp, 1, GptqProductParams) {                          \
        using Shape = gptq::TileShape<bits, gptq::X, rows, strips, across, unit, stages, run, asymmetric, groups>; \
        gptq::multiply_tiles<Shape>(params);                                                                       \
    }

// For runs of 128, 64 or 32 rows of W.
#define TILES(w, bits, X, run, asymmetric)                                                       \
    TILE(m32_c256_##w##_r##run, bits, X, 32, 2, 8, 2, 3, run, asymmetric, false)                 \
    TILE(g32_c256_##w##_r##run, bits, X, 32, 1, 16, 2, bits == 8 ? 3 : 4, run, asymmetric, true) \
    TILE(g64_c256_##w##_r##run, bits, X, 64, 1, 16, 2, bits == 8 ? 3 : 4, run, asymmetric, true) \
    TILE(g128_c128_##w##_r##run, bits, X, 128, 1, 8, 2, 4, run, asymmetric, true)

// For runs of whole tiles: with shorter ones registers would spill.
#define LARGE_TILES(w, bits, X, run, asymmetric) \
    TILE(m64_c256_##w##_r##run, bits, X, 64, 2, 8, 2, bits == 8 ? 2 : 3, run, asymmetric, false)

// For 4 bits in runs of 128 rows with zero points built in, instead of those: units of 256 rows, fewer columns, and numbers of
// rows in between.
#define LONG_TILES(w, X)                                               \
    TILE(m32_c256_##w##_r128, 4, X, 32, 2, 8, 2, 3, 128, false, false) \
    TILE(m64_c256_##w##_r128, 4, X, 64, 2, 8, 2, 3, 128, false, false) \
    TILE(g32_c128_##w##_r128, 4, X, 32, 1, 8, 4, 6, 128, false, true)  \
    TILE(g32_c256_##w##_r128, 4, X, 32, 1, 16, 4, 4, 128, false, true) \
    TILE(g48_c256_##w##_r128, 4, X, 48, 1, 16, 4, 3, 128, false, true) \
    TILE(g64_c128_##w##_r128, 4, X, 64, 1, 8, 4, 4, 128, false, true)  \
    TILE(g64_c256_##w##_r128, 4, X, 64, 1, 16, 4, 3, 128, false, true) \
    TILE(g96_c128_##w##_r128, 4, X, 96, 1, 8, 2, 5, 128, false, true)  \
    TILE(g128_c128_##w##_r128, 4, X, 128, 1, 8, 2, 4, 128, false, true)
