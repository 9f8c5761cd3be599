// Products of layers of 4 bits with x in f16.
#include "params.h"
#include "tile_products.cuh"

PAIRS_OF_TILES(b4s, 4, f16, false, 2)
WHOLE_TILES(b4s, 4, f16, false, 2, 2, 512, 2)
PAIRS_OF_TILES(b4, 4, f16, true, 2)
WHOLE_TILES(b4, 4, f16, true, 2, 2, 512, 2)
PARTS_OF_TILES(b4, 4, f16, true, TWO_ON_HOPPER)
SMALLEST_PARTS(b4, 4, f16)
