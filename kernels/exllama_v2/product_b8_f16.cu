// Products of layers of 8 bits with x in f16.
#include "params.h"
#include "tile_products.cuh"

PAIRS_OF_TILES(b8s, 8, f16, false, 1)
MORE_ROWS(b8s, 8, f16, false, Refill::early)
WHOLE_TILES(b8s, 8, f16, false, 1, 1, 512, 1)
PAIRS_OF_TILES(b8, 8, f16, true, 1)
MORE_ROWS(b8, 8, f16, true, Refill::early)
WHOLE_TILES(b8, 8, f16, true, 1, 1, 512, 1)
PARTS_OF_TILES(b8, 8, f16, true, 1)
SMALLEST_PARTS(b8, 8, f16)
