// Tiles for layers of 8 bits with x in bf16.
#include "params.h"
#include "tile_products.cuh"

#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
TILES(b8s, 8, bf16, 128, false)
LARGE_TILES(b8s, 8, bf16, 128, false)
TILES(b8, 8, bf16, 128, true)
LARGE_TILES(b8, 8, bf16, 128, true)
TILES(b8s, 8, bf16, 64, false)
LARGE_TILES(b8s, 8, bf16, 64, false)
TILES(b8, 8, bf16, 64, true)
LARGE_TILES(b8, 8, bf16, 64, true)
TILES(b8, 8, bf16, 32, true)
#endif
