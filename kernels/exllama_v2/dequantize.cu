// The dense matrix, and x in the order of an arrangement.
#include "params.h"
#include "tile_dense.cuh"

TILE_DEQUANTIZE(b2, 2, f16, true)
TILE_DEQUANTIZE(b3, 3, f16, true)
TILE_DEQUANTIZE(b4, 4, f16, true)
TILE_DEQUANTIZE(b8, 8, f16, true)
#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
TILE_DEQUANTIZE(b2, 2, bf16, true)
TILE_DEQUANTIZE(b3, 3, bf16, true)
TILE_DEQUANTIZE(b4, 4, bf16, true)
TILE_DEQUANTIZE(b8, 8, bf16, true)
#endif
TILE_GATHER
