// Tiles for layers of 4 bits with x in f16.
#include "params.h"
#include "tile_products.cuh"

LONG_TILES(b4s, f16)
TILES(b4s, 4, f16, 64, false)
LARGE_TILES(b4s, 4, f16, 64, false)
TILES(b4s, 4, f16, 32, false)
