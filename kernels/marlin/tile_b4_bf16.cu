// Tiles for layers of 4 bits with x in bf16.
#include "params.h"
#include "tile_products.cuh"

#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
LONG_TILES(b4s, bf16)
TILES(b4s, 4, bf16, 64, false)
LARGE_TILES(b4s, 4, bf16, 64, false)
TILES(b4s, 4, bf16, 32, false)
#endif
