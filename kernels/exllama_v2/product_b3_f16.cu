// Products of layers of 3 bits with x in f16.
#include "params.h"
#include "tile_products.cuh"

WHOLE_TILES(b3, 3, f16, true, 2, 4, 512, 2)
PARTS_OF_TILES(b3, 3, f16, true)
SMALLEST_PARTS(b3, 3, f16)
