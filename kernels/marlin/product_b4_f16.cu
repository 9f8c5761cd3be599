// Products of layers of 4 bits with x in f16.
#include "params.h"
#include "tile_products.cuh"

WHOLE_TILES(b4s, 4, f16, false, 2, 4, 512, 2)
MORE_BLOCKS(b4s, 4, f16, false)
PARTS_OF_TILES(b4s, 4, f16, false)
