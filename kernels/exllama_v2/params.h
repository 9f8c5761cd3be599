/* Launch parameters of the family exllama_v2: those of every family for layers in tiles. */
#ifndef GPTQ_EXLLAMA_V2_PARAMS_H
#define GPTQ_EXLLAMA_V2_PARAMS_H

#include "tile.h"

#endif
