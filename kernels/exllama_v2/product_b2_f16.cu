// Products of layers of 2 bits with x in f16.
#include "params.h"
#include "tile_products.cuh"

PAIRS_OF_TILES(b2, 2, f16, true, 2)
MORE_ROWS(b2, 2, f16, true, Refill::early)
MORE_ROWS_OF_2_AND_4_BITS(b2, 2, f16, true, Refill::early)
FROM_FIFTY_SIX_ROWS(b2, 2, f16, true, EARLY_ON_HOPPER)
FORTY_EIGHT_ROWS(b2, 2, f16, true)
WHOLE_TILES(b2, 2, f16, true, 2, 2, 384, 2)
PARTS_OF_TILES(b2, 2, f16, true, TWO_ON_HOPPER)
SMALLEST_PARTS(b2, 2, f16)
