// The dense matrix, and x in the order of an arrangement.
#include "params.h"
#include "tile_dense.cuh"

TILE_DEQUANTIZE(exllama_v2, 2, f16)
TILE_DEQUANTIZE(exllama_v2, 3, f16)
TILE_DEQUANTIZE(exllama_v2, 4, f16)
TILE_DEQUANTIZE(exllama_v2, 8, f16)
#if defined(GPTQ_EMULATOR) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
TILE_DEQUANTIZE(exllama_v2, 2, bf16)
TILE_DEQUANTIZE(exllama_v2, 3, bf16)
TILE_DEQUANTIZE(exllama_v2, 4, bf16)
TILE_DEQUANTIZE(exllama_v2, 8, bf16)
#endif
TILE_GATHER(exllama_v2)
