// Products of layers of 2 bits with x in f16.
#include "params.h"
#include "tile_products.cuh"

WHOLE_TILES(b2, 2, f16, true, 2, 4, 384, 2)
PARTS_OF_TILES(b2, 2, f16, true)
SMALLEST_PARTS(b2, 2, f16)
