/* Launch parameters of the family marlin: those of every family for layers in tiles. Zero points are built in. */
#ifndef GPTQ_MARLIN_PARAMS_H
#define GPTQ_MARLIN_PARAMS_H

#include "tile.h"

/* What names of kernels begin with: gptq_marlin_. */
#define GPTQ_FAMILY marlin

#endif
