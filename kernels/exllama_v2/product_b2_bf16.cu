// Products of layers of 2 bits with x in bf16.
#include "params.h"
#include "tile_products.cuh"

#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
PAIRS_OF_TILES(b2, 2, bf16, true, 2)
MORE_ROWS(b2, 2, bf16, true, Refill::late)
MORE_ROWS_OF_2_AND_4_BITS(b2, 2, bf16, true, Refill::late)
FROM_FIFTY_SIX_ROWS(b2, 2, bf16, true, EARLY_ON_HOPPER)
FORTY_EIGHT_ROWS(b2, 2, bf16, true)
WHOLE_TILES(b2, 2, bf16, true, 2, 2, 384, 2)
PARTS_OF_TILES(b2, 2, bf16, true, TWO_ON_HOPPER)
SMALLEST_PARTS(b2, 2, bf16)
#endif
