/* Launch parameters of the family exllama_v2: those of every family for layers in tiles. */
#ifndef GPTQ_EXLLAMA_V2_PARAMS_H
#define GPTQ_EXLLAMA_V2_PARAMS_H

#include "tile.h"

/* What names of kernels begin with: gptq_exllama_v2_. */
#define GPTQ_FAMILY exllama_v2

#endif
