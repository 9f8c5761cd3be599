// The fused product for x in f16. A file for each type: they compile at the same time.
#include "dot.cuh"

GPTQ_DOT_ENTRIES(f16, gptq::f16)
