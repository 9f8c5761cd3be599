// The fused product for x in bf16. A file for each type: they compile at the same time.
#include "dot.cuh"

GPTQ_DOT_ENTRIES(bf16, gptq::bf16)
