// The fused product for x in f32. A file for each type: they compile at the same time.
#include "dot.cuh"

GPTQ_DOT_ENTRIES(f32, float)
