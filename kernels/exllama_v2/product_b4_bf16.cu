// Products of layers of 4 bits with x in bf16.
#include "params.h"
#include "tile_products.cuh"

#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
PAIRS_OF_TILES(b4s, 4, bf16, false, 2)
MORE_ROWS(b4s, 4, bf16, false, Refill::early)
MORE_ROWS_OF_2_AND_4_BITS(b4s, 4, bf16, false, Refill::early)
FROM_FIFTY_SIX_ROWS(b4s, 4, bf16, false, EARLY_ON_HOPPER)
WHOLE_TILES(b4s, 4, bf16, false, 2, 2, 512, 2)
PAIRS_OF_TILES(b4, 4, bf16, true, 2)
MORE_ROWS(b4, 4, bf16, true, EARLY_ON_HOPPER)
MORE_ROWS_OF_2_AND_4_BITS(b4, 4, bf16, true, EARLY_ON_HOPPER)
FROM_FIFTY_SIX_ROWS(b4, 4, bf16, true, EARLY_ON_HOPPER)
WHOLE_TILES(b4, 4, bf16, true, 2, 2, 512, 2)
PARTS_OF_TILES(b4, 4, bf16, true, TWO_ON_HOPPER)
SMALLEST_PARTS(b4, 4, bf16)
#endif
