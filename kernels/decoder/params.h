/* Launch parameters of the kernels that stand between the quantized layers of a decoder: one token of one sequence, so that
 * all of it can be one graph.
 *
 * The type of activations is in a kernel's name; T below is it, and E is how many of it fill 16 bytes. Numbers between are
 * f32. Pointers are aligned to 16 bytes unless a comment says otherwise. Every kernel may begin before the one ahead of it
 * on the stream has ended: it waits by itself. */
#ifndef GPTQ_DECODER_PARAMS_H
#define GPTQ_DECODER_PARAMS_H

#include <assert.h>
#include <stdint.h>

/* Threads of a block of all kernels but `turn`. */
#define GPTQ_DECODER_THREADS 256u
/* Threads of a block of `turn`. */
#define GPTQ_DECODER_TURN_THREADS 32u
/* Rows of W of a block of `dense`. */
#define GPTQ_DECODER_DENSE_ROWS 16u
/* The widest head that `attend` takes. */
#define GPTQ_DECODER_MOST_WIDTH 256u

/* gptq_decoder_embed: a row of a matrix, whatever its type. Grid: as many threads as pieces. */
struct GptqDecoderEmbedParams {
    /* [rows, pieces] of 16 bytes. */
    const void* table;
    /* Which row. Aligned to 4 bytes. */
    const uint32_t* token;
    void* x;
    /* Pieces of 16 bytes in a row. */
    uint32_t pieces;
    uint32_t rows;
};
static_assert(sizeof(struct GptqDecoderEmbedParams) == 32, "Rust's copy of the struct has 32 bytes");

/* gptq_decoder_norm_<type>: x += delta, then out = x / sqrt(mean(x^2) + eps) * weight. Grid: x = rows. */
struct GptqDecoderNormParams {
    /* T [rows, width]. */
    void* x;
    /* T [rows, width], or null: then x stays as it is. */
    const void* delta;
    /* T [width]. No kernel writes it. */
    const void* weight;
    /* T [rows, width]. */
    void* out;
    /* A multiple of E. */
    uint32_t width;
    float eps;
};
static_assert(sizeof(struct GptqDecoderNormParams) == 40, "Rust's copy of the struct has 40 bytes");

/* gptq_decoder_turn_<type>: norms the heads of queries and keys where there are norms, turns them as their position says, and
 * puts keys and values into the cache. No kernel writes norms, angles and the position. Grid: x = heads + 2 groups. */
struct GptqDecoderTurnParams {
    /* T [heads, width]. */
    const void* q;
    /* T [groups, width]. */
    const void* k;
    const void* v;
    /* T [width], or null, both of them. */
    const void* q_norm;
    const void* k_norm;
    /* [capacity, width / 2]. */
    const float* cosines;
    const float* sines;
    /* Which row of the cache this token is. Aligned to 4 bytes. */
    const uint32_t* position;
    /* T [heads, width]. */
    void* turned;
    /* T [groups, capacity, width]. */
    void* keys;
    void* values;
    uint32_t heads;
    uint32_t groups;
    /* Even, at most GPTQ_DECODER_MOST_WIDTH. */
    uint32_t width;
    uint32_t capacity;
    float eps;
    uint32_t reserved;
};
static_assert(sizeof(struct GptqDecoderTurnParams) == 112, "Rust's copy of the struct has 112 bytes");

/* gptq_decoder_attend_<type>: attention of one query of each head to the keys in the cache, up to its own position. Grid:
 * x = heads, y = splits: blocks in y share the keys. Sums are added in an order that does not depend on time. No kernel writes
 * the position. */
struct GptqDecoderAttendParams {
    /* T [heads, width]. */
    const void* q;
    /* T [groups, capacity, width]. */
    const void* keys;
    const void* values;
    /* Aligned to 4 bytes. */
    const uint32_t* position;
    /* T [heads, width]. */
    void* out;
    /* [heads, splits, width + 2], where splits is more than 1. */
    float* partial;
    /* A cell for each head, where splits is more than 1: see count_arrival. */
    uint64_t* arrived;
    uint64_t arrival_mark;
    uint32_t heads;
    uint32_t groups;
    /* E, 2 E, 4 E .. 32 E, at most GPTQ_DECODER_MOST_WIDTH. */
    uint32_t width;
    uint32_t capacity;
    /* How many keys a query sees, its own among them; 0 for all. */
    uint32_t window;
    /* Up to 255. */
    uint32_t splits;
    /* What scores are multiplied with. */
    float scale;
    uint32_t reserved;
};
static_assert(sizeof(struct GptqDecoderAttendParams) == 96, "Rust's copy of the struct has 96 bytes");

/* gptq_decoder_gate_<type>: out = silu(gate) * up, elementwise. Grid: as many threads as pieces. */
struct GptqDecoderGateParams {
    /* T [pieces, E] */
    const void* gate;
    const void* up;
    void* out;
    uint32_t pieces;
    uint32_t reserved;
};
static_assert(sizeof(struct GptqDecoderGateParams) == 32, "Rust's copy of the struct has 32 bytes");

/* gptq_decoder_dense_<type>: out = W x + bias, for one x. Grid: x = ceil(out_features / GPTQ_DECODER_DENSE_ROWS). */
struct GptqDecoderDenseParams {
    /* T [out_features, in_features]. No kernel writes it. */
    const void* weight;
    /* T [out_features], or null. */
    const void* bias;
    /* T [in_features]. */
    const void* x;
    /* [out_features]: f32 where out_is_f32 is not 0, T otherwise. */
    void* out;
    /* A multiple of E. */
    uint32_t in_features;
    uint32_t out_features;
    uint32_t out_is_f32;
    uint32_t reserved;
};
static_assert(sizeof(struct GptqDecoderDenseParams) == 48, "Rust's copy of the struct has 48 bytes");

#endif
