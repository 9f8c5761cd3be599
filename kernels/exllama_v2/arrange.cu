// Layers of every format become tiles.
#include "params.h"
#include "tile_arrange.cuh"

TILE_ARRANGE(exllama_v2, b2, 2, false)
TILE_ARRANGE(exllama_v2, b3, 3, false)
TILE_ARRANGE(exllama_v2, b3p, 3, true)
TILE_ARRANGE(exllama_v2, b4, 4, false)
TILE_ARRANGE(exllama_v2, b8, 8, false)
