// Which products there are. A file for each width and type: they compile at the same time.
//
// Kinds are named after the rows of x that they take at most, and the few ones after the strips and warps of a block:
// m1_t2_w16. Which of them a call gets is decided by crates/tiles/src/products.rs, which knows the numbers of this file.
//
// A family instantiates them for each width and type, in files of their own, behind its params.h, which says GPTQ_FAMILY.
#pragma once

#include "tile.h"
#include "product_few.cuh"
#include "product_some.cuh"
#include "product_tile.cuh"

// Two blocks to a multiprocessor where code for older GPUs would spill registers then: there, as many as there is room for.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define TWO_ON_HOPPER 1
#define EARLY_ON_HOPPER Refill::late
#else
#define TWO_ON_HOPPER 2
#define EARLY_ON_HOPPER Refill::early
#endif

// Before Ampere pieces of x are copied through registers: blocks have as many as there are, and ask for weights late.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define FROM_AMPERE(then, otherwise) otherwise
#else
#define FROM_AMPERE(then, otherwise) then
#endif

// `blocks` is how many a multiprocessor has room for, `ahead` how many units of two tiles, or one, a warp has on the way,
// `refill` when it asks for more.
#define FEW_OF(how, blocks, w, bits, X, tokens, strips, warps, ahead, refill, run, asymmetric)             \
    GPTQ_FAMILY_KERNEL_RESIDENT(m##tokens##_t##strips##_w##warps##_##w##_r##run##_##X, warps * 32, blocks, \
                                GptqProductParams) {                                                       \
        using Shape = gptq::ProductShape<bits, gptq::X, tokens, strips, ahead, run, asymmetric>;           \
        gptq::multiply_few<Shape, warps, gptq::Row::how, gptq::refill>(params);                            \
    }
#define ONE(blocks, w, bits, X, strips, warps, ahead, refill, run, asymmetric) \
    FEW_OF(whole, blocks, w, bits, X, 1, strips, warps, ahead, refill, run, asymmetric)
#define FEW(blocks, w, bits, X, tokens, strips, warps, ahead, refill, run, asymmetric) \
    FEW_OF(pieces, FROM_AMPERE(blocks, 1), w, bits, X, tokens, strips, warps, ahead, FROM_AMPERE(refill, Refill::late), run, \
           asymmetric)
#define SOME(name, threads, bits, X, tokens, row_warps, tiles, stages, run, asymmetric)                                  \
    GPTQ_FAMILY_KERNEL(name##_##X, threads, GptqProductParams) {                                                         \
        gptq::multiply_some<gptq::ProductShape<bits, gptq::X, tokens, 2, 1, run, asymmetric>, row_warps, tiles, stages>( \
            params);                                                                                                     \
    }

namespace gptq {

/// What registers leave room for, by the width of codes: so many blocks to a multiprocessor without a spill. And what was faster on
/// an H200 where there is room for either.
template <int kWide, Refill kOneRefill, int kOneOf4, int kFarOf4, int kOneOf8, int kFarOf8, int kEightOf4, int kEightOf8,
          Refill kEightRefill, int kSixteenAhead, Refill kMoreRefill, int kMoreOf4, int kMoreOf8, int kMoreAhead>
struct Room {
    /// Of 16 warps with two strips.
    static constexpr int wide = kWide;
    /// With two strips of one row of x: of 4 warps and of 8, the units that each warp has on the way, and when it asks for more. With
    /// 3 units on the way 4 warps ask late.
    static constexpr int one_of_4 = kOneOf4, far_of_4 = kFarOf4, one_of_8 = kOneOf8, far_of_8 = kFarOf8;
    static constexpr Refill one_refill = kOneRefill, refill_of_4 = kFarOf4 > 2 ? Refill::late : kOneRefill;
    /// With two strips of eight rows of x: of 4 warps and of 8, and when they ask for more.
    static constexpr int eight_of_4 = kEightOf4, eight_of_8 = kEightOf8;
    static constexpr Refill eight_refill = kEightRefill;
    /// With 16 rows of x: the units that 4 and 8 warps have on the way. With one they ask for more early.
    static constexpr int sixteen_ahead = kSixteenAhead;
    static constexpr Refill sixteen_refill = kSixteenAhead > 1 ? Refill::late : Refill::early;
    /// With 24 rows of x: of 4 warps, and when they ask for more, and of 8. With 32: the units that 4 warps have on the way.
    static constexpr Refill more_refill = kMoreRefill;
    static constexpr int more_of_4 = kMoreOf4, more_of_8 = kMoreOf8, more_ahead = kMoreAhead;
};
using room_b2 = Room<TWO_ON_HOPPER, Refill::late, 4, 3, 2, 3, 6, 3, Refill::early, 2, EARLY_ON_HOPPER, 4, 2, 2>;
using room_b3 = Room<1, Refill::early, 4, 3, 2, 2, 5, 3, Refill::late, 2, Refill::late, 4, 1, 2>;
using room_b4 = Room<2, Refill::early, 6, 2, 3, 2, 6, 4, Refill::late, 1, EARLY_ON_HOPPER, 4, 2, 2>;
using room_b4s = Room<2, Refill::early, 6, 2, 3, 2, 7, 4, Refill::early, 2, EARLY_ON_HOPPER, 4, 2, 2>;
using room_b8 = Room<1, Refill::late, 5, 1, 2, 1, 5, 2, Refill::early, 1, EARLY_ON_HOPPER, 3, 1, 1>;
using room_b8s = room_b8;

}  // namespace gptq

// Groups in whole pairs of tiles. `ahead` is for one row of x in blocks that have registers for it.
#define PAIRS_OF_TILES(w, bits, X, asymmetric, ahead)                                                                 \
    ONE(4, w, bits, X, 1, 8, ahead, Refill::early, 128, asymmetric)                                                   \
    ONE(2, w, bits, X, 1, 16, ahead, Refill::early, 128, asymmetric)                                                  \
    ONE(gptq::room_##w::one_of_4, w, bits, X, 2, 4, gptq::room_##w::far_of_4, room_##w::refill_of_4, 128, asymmetric) \
    ONE(gptq::room_##w::one_of_8, w, bits, X, 2, 8, gptq::room_##w::far_of_8, room_##w::one_refill, 128, asymmetric)  \
    ONE(gptq::room_##w::wide, w, bits, X, 2, 16, 1, room_##w::one_refill, 128, asymmetric)                            \
    FEW(2, w, bits, X, 8, 1, 16, 1, Refill::late, 128, asymmetric)                                                    \
    FEW(gptq::room_##w::eight_of_4, w, bits, X, 8, 2, 4, 1, room_##w::eight_refill, 128, asymmetric)                  \
    FEW(gptq::room_##w::eight_of_8, w, bits, X, 8, 2, 8, 1, room_##w::eight_refill, 128, asymmetric)                  \
    FEW(gptq::room_##w::wide, w, bits, X, 8, 2, 16, 1, room_##w::eight_refill, 128, asymmetric)                       \
    FEW(4, w, bits, X, 16, 2, 4, gptq::room_##w::sixteen_ahead, room_##w::sixteen_refill, 128, asymmetric)            \
    FEW(2, w, bits, X, 16, 2, 8, gptq::room_##w::sixteen_ahead, room_##w::sixteen_refill, 128, asymmetric)            \
    FEW(1, w, bits, X, 16, 2, 16, 1, Refill::early, 128, asymmetric)

// The same for 17 rows of x and more. Sums take most of the registers, and few blocks have room. `refill` is for blocks that
// have too few registers for the early one in some code.
#define MORE_ROWS(w, bits, X, asymmetric, refill)                                                   \
    FEW(gptq::room_##w::more_of_4, w, bits, X, 24, 2, 4, 1, room_##w::more_refill, 128, asymmetric) \
    FEW(gptq::room_##w::more_of_8, w, bits, X, 24, 2, 8, 1, refill, 128, asymmetric)                \
    FEW(3, w, bits, X, 32, 2, 4, gptq::room_##w::more_ahead, Refill::late, 128, asymmetric)         \
    FEW(1, w, bits, X, 32, 2, 8, 1, Refill::early, 128, asymmetric)                                 \
    FEW(1, w, bits, X, 40, 2, 8, 1, Refill::early, 128, asymmetric)                                 \
    FEW(1, w, bits, X, 48, 2, 8, 1, Refill::early, 128, asymmetric)
// Where K is long, and where columns are many. With 3 and 8 bits registers would spill.
#define MORE_ROWS_OF_2_AND_4_BITS(w, bits, X, asymmetric, refill) \
    FEW(1, w, bits, X, 24, 2, 16, 1, refill, 128, asymmetric)     \
    FEW(1 + TWO_ON_HOPPER, w, bits, X, 40, 2, 4, 1, Refill::late, 128, asymmetric)
// Not tried with 8 bits.
#define FROM_FIFTY_SIX_ROWS(w, bits, X, asymmetric, refill)         \
    FEW(1, w, bits, X, 56, 2, 8, 1, Refill::early, 128, asymmetric) \
    FEW(1, w, bits, X, 64, 2, 8, 1, refill, 128, asymmetric)
// For layers of many columns, where there are no tiles.
#define FORTY_EIGHT_ROWS(w, bits, X, asymmetric) FEW(2, w, bits, X, 48, 2, 4, 1, Refill::early, 128, asymmetric)

// Groups in whole tiles. `tiles` is how many a warp has of a stage, and `stages` how many of those there are.
#define WHOLE_TILES(w, bits, X, asymmetric, ahead, wide, m32_threads, m64_tiles) \
    ONE(wide, w, bits, X, 2, 16, ahead, Refill::late, 64, asymmetric)            \
    FEW(wide, w, bits, X, 8, 2, 16, 1, Refill::late, 64, asymmetric)             \
    FEW(2, w, bits, X, 16, 2, 8, 2, Refill::late, 64, asymmetric)                \
    SOME(m32_##w##_r64, m32_threads, bits, X, 32, 2, 1, 4, 64, asymmetric)       \
    SOME(m64_##w##_r64, 256, bits, X, 64, 1, m64_tiles, 4, 64, asymmetric)

// Smaller groups.
#define PARTS_OF_TILES(w, bits, X, asymmetric, blocks)                 \
    ONE(blocks, w, bits, X, 2, 16, 1, Refill::late, 32, asymmetric)    \
    FEW(blocks, w, bits, X, 8, 2, 16, 1, Refill::late, 32, asymmetric) \
    SOME(m64_##w##_r32, 256, bits, X, 64, 1, 2, 4, 32, asymmetric)     \
    FEW(blocks, w, bits, X, 8, 2, 16, 1, Refill::late, 16, asymmetric) \
    SOME(m64_##w##_r16, 256, bits, X, 64, 1, 2, 4, 16, asymmetric)
#define SMALLEST_PARTS(w, bits, X)                        \
    FEW(2, w, bits, X, 8, 2, 8, 1, Refill::late, 8, true) \
    SOME(m64_##w##_r8, 256, bits, X, 64, 1, 2, 4, 8, true)

// Tiles, for 17 rows and more, with and without wgmma (product_tile.cuh): g64_c256 is 64 rows of x by 256 columns with wgmma,
// m64_c256 the same with mma.sync. crates/tiles/src/products/tile.rs chooses between them. Of a shape: rows of x, strips of a
// warp, warps side by side, tiles of a unit, stages.
#define TILE_OF(way, name, bits, X, rows, strips, across, unit, stages, run, asymmetric)                              \
    GPTQ_FAMILY_KERNEL_RESIDENT(name##_##X, across * gptq::kWarp, 1, GptqProductParams) {                            \
        using Shape = gptq::TileShape<bits, gptq::X, rows, strips, across, unit, stages, run, asymmetric, way>;      \
        gptq::multiply_tiles<Shape>(params);                                                                         \
    }
#define TILE(name, bits, X, rows, strips, across, unit, stages, run, asymmetric) \
    TILE_OF(gptq::Way::warps, name, bits, X, rows, strips, across, unit, stages, run, asymmetric)
// Those with wgmma. Other code has no such entry, so that whoever asks for one there is told.
#if defined(GPTQ_EMULATOR) || defined(GPTQ_HAS_WGMMA)
#define GROUP_TILE(name, bits, X, rows, strips, across, unit, stages, run, asymmetric) \
    TILE_OF(gptq::group_way(bits, rows, run), name, bits, X, rows, strips, across, unit, stages, run, asymmetric)
#else
#define GROUP_TILE(...)
#endif

// For runs of 128, 64 or 32 rows of W.
#define TILES(w, bits, X, run, asymmetric)                                                       \
    TILE(m32_c256_##w##_r##run, bits, X, 32, 2, 8, 2, 3, run, asymmetric)                        \
    GROUP_TILE(g32_c256_##w##_r##run, bits, X, 32, 1, 16, (bits == 4 && run == 128 ? 4 : 2),     \
               bits == 8 ? 3 : 4, run, asymmetric)                                               \
    GROUP_TILE(g64_c256_##w##_r##run, bits, X, 64, 1, 16, 2, bits == 8 ? 3 : 4, run, asymmetric) \
    GROUP_TILE(g128_c128_##w##_r##run, bits, X, 128, 1, 8, 2, 4, run, asymmetric)

// For runs of whole tiles: with shorter ones registers would spill.
#define LARGE_TILES(w, bits, X, run, asymmetric) \
    TILE(m64_c256_##w##_r##run, bits, X, 64, 2, 8, 2, bits == 8 ? 2 : 3, run, asymmetric)

// For 4 bits in runs of 128 rows with zero points built in, instead of those: units of 256 rows, fewer columns, and numbers of
// rows in between.
#define LONG_TILES(w, X)                                                \
    TILE(m32_c256_##w##_r128, 4, X, 32, 2, 8, 2, 3, 128, false)         \
    TILE(m64_c256_##w##_r128, 4, X, 64, 2, 8, 2, 3, 128, false)         \
    GROUP_TILE(g32_c128_##w##_r128, 4, X, 32, 1, 8, 4, 6, 128, false)   \
    GROUP_TILE(g32_c256_##w##_r128, 4, X, 32, 1, 16, 4, 4, 128, false)  \
    GROUP_TILE(g40_c256_##w##_r128, 4, X, 40, 1, 16, 4, 3, 128, false)  \
    GROUP_TILE(g48_c128_##w##_r128, 4, X, 48, 1, 8, 4, 5, 128, false)   \
    GROUP_TILE(g48_c256_##w##_r128, 4, X, 48, 1, 16, 4, 3, 128, false)  \
    GROUP_TILE(g56_c256_##w##_r128, 4, X, 56, 1, 16, 4, 3, 128, false)  \
    GROUP_TILE(g64_c128_##w##_r128, 4, X, 64, 1, 8, 4, 4, 128, false)   \
    GROUP_TILE(g64_c256_##w##_r128, 4, X, 64, 1, 16, 4, 3, 128, false)  \
    GROUP_TILE(g72_c128_##w##_r128, 4, X, 72, 1, 8, 4, 4, 128, false)   \
    GROUP_TILE(g72_c192_##w##_r128, 4, X, 72, 1, 12, 2, 5, 128, false)  \
    GROUP_TILE(g80_c128_##w##_r128, 4, X, 80, 1, 8, 2, 6, 128, false)   \
    GROUP_TILE(g88_c192_##w##_r128, 4, X, 88, 1, 12, 2, 4, 128, false)  \
    GROUP_TILE(g96_c128_##w##_r128, 4, X, 96, 1, 8, 2, 5, 128, false)   \
    GROUP_TILE(g112_c128_##w##_r128, 4, X, 112, 1, 8, 2, 5, 128, false) \
    GROUP_TILE(g128_c128_##w##_r128, 4, X, 128, 1, 8, 2, 4, 128, false) \
    GROUP_TILE(g144_c128_##w##_r128, 4, X, 144, 1, 8, 2, 4, 128, false) \
    GROUP_TILE(g152_c128_##w##_r128, 4, X, 152, 1, 8, 2, 4, 128, false)
