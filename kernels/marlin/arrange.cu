// Layers of 4 and 8 bits become tiles.
#include "params.h"
#include "tile_arrange.cuh"

TILE_ARRANGE(b4, 4, false)
TILE_ARRANGE(b8, 8, false)
