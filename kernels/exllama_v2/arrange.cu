// Layers of every format become tiles.
#include "params.h"
#include "tile_arrange.cuh"

TILE_ARRANGE(b2, 2, false)
TILE_ARRANGE(b3, 3, false)
TILE_ARRANGE(b3p, 3, true)
TILE_ARRANGE(b4, 4, false)
TILE_ARRANGE(b8, 8, false)
