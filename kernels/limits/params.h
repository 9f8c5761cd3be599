/* Launch parameters of the kernels that show what a GPU's memory gives: what other kernels are compared with.
 *
 * Any grid and any block will do: threads go round in steps of the whole grid. */
#ifndef GPTQ_LIMITS_PARAMS_H
#define GPTQ_LIMITS_PARAMS_H

#include <assert.h>
#include <stdint.h>

/* Threads of a block, at most. */
#define GPTQ_LIMITS_THREADS 512u

/* gptq_limits_read: reads everything and writes nothing. */
struct GptqLimitsReadParams {
    /* Aligned to 16 bytes. */
    const void* from;
    /* Pieces of 16 bytes. */
    uint64_t count;
    /* Written only where the bits of all that a thread reads come to a number that they do not come to. */
    uint32_t* sink;
};
static_assert(sizeof(struct GptqLimitsReadParams) == 24, "Rust's copy of the struct has 24 bytes");

/* gptq_limits_copy: copies. */
struct GptqLimitsCopyParams {
    /* Both aligned to 16 bytes. */
    const void* from;
    void* to;
    /* Pieces of 16 bytes. */
    uint64_t count;
};
static_assert(sizeof(struct GptqLimitsCopyParams) == 24, "Rust's copy of the struct has 24 bytes");

#endif
