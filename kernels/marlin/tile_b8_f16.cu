// Tiles for layers of 8 bits with x in f16.
#include "params.h"
#include "tile_products.cuh"

TILES(b8s, 8, f16, 128, false)
LARGE_TILES(b8s, 8, f16, 128, false)
TILES(b8s, 8, f16, 64, false)
LARGE_TILES(b8s, 8, f16, 64, false)
TILES(b8s, 8, f16, 32, false)
