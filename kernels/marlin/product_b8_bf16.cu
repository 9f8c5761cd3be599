// Products of layers of 8 bits with x in bf16.
#include "params.h"
#include "tile_products.cuh"

#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
PAIRS_OF_TILES(b8s, 8, bf16, false, 1)
MORE_ROWS(b8s, 8, bf16, false, Refill::early)
WHOLE_TILES(b8s, 8, bf16, false, 1, 1, 512, 1)
PARTS_OF_TILES(b8s, 8, bf16, false, 1)
#endif
