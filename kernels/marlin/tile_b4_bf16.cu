// Tiles for layers of 4 bits with x in bf16.
#include "params.h"
#include "tile_products.cuh"

#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
TILES(b4s, 4, bf16, 128, false)
LARGE_TILES(b4s, 4, bf16, 128, false)
TILES(b4s, 4, bf16, 64, false)
LARGE_TILES(b4s, 4, bf16, 64, false)
TILES(b4s, 4, bf16, 32, false)
MORE_TILES(b4s, 4, bf16, 128, false)
#endif
