// The dense matrix, and x in the order of an arrangement.
#include "params.h"
#include "tile_dense.cuh"

TILE_DEQUANTIZE(b4s, 4, f16, false)
TILE_DEQUANTIZE(b8s, 8, f16, false)
#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
TILE_DEQUANTIZE(b4s, 4, bf16, false)
TILE_DEQUANTIZE(b8s, 8, bf16, false)
#endif
TILE_GATHER
