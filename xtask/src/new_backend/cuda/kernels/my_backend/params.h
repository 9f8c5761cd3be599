/* Launch parameters of gptq_my_backend_product_b4_f16. C11; src/params.rs says the same in Rust. */
#ifndef MY_BACKEND_PARAMS_H
#define MY_BACKEND_PARAMS_H

#include <assert.h>
#include <stdint.h>

#define MY_BACKEND_THREADS 128u

/* out = x * W + bias, for 4 bits and consecutive groups. Each thread computes one element of out.
 * Grid: x = rows, y = ceil(out_features / MY_BACKEND_THREADS). Block: MY_BACKEND_THREADS. */
struct MyBackendParams {
    /* [rows, in_features], f16. */
    const void* x;
    /* [rows, out_features], f16. */
    void* out;
    /* [ceil(in_features / 8), out_features], codes packed along K. */
    const uint32_t* qweight;
    /* [groups, ceil(out_features / 8)], direct zero points packed along N. */
    const uint32_t* qzeros;
    /* [groups, out_features], of scale_dtype. */
    const void* scales;
    /* [out_features], of bias_dtype; null: none. */
    const void* bias;
    uint32_t in_features;
    uint32_t out_features;
    /* Rows of a group; the last may have fewer. */
    uint32_t group_rows;
    /* As dtype.h says. */
    uint32_t scale_dtype;
    uint32_t bias_dtype;
    uint32_t unused;
};
static_assert(sizeof(struct MyBackendParams) == 72, "src/params.rs has 72 bytes");

#endif
