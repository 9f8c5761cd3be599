// Products of layers of 3 bits with x in bf16.
#include "params.h"
#include "tile_products.cuh"

#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
PAIRS_OF_TILES(b3, 3, bf16, true, 2)
MORE_ROWS(b3, 3, bf16, true, Refill::early)
FROM_FIFTY_SIX_ROWS(b3, 3, bf16, true, Refill::late)
FORTY_EIGHT_ROWS(b3, 3, bf16, true)
WHOLE_TILES(b3, 3, bf16, true, 2, 1, 512, 2)
PARTS_OF_TILES(b3, 3, bf16, true, TWO_ON_HOPPER)
SMALLEST_PARTS(b3, 3, bf16)
#endif
