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
