// What a token is between its layers: its embedding, norms with the sum that comes before them, the gate.
#include "family.cuh"

namespace gptq {

/// Pieces of a row that a thread holds. Those of a wider row it reads again.
constexpr uint32_t kHeldPieces = 4;

/// Piece `at` of x with what comes to it, as it is kept; gives its sum of squares.
template <class T>
GPTQ_DEVICE float add_delta(const GptqDecoderNormParams& p, size_t at, float (&x)[kPiece<T>], float square) {
    read_piece<T>(p.x, at, x);
    if (p.delta != nullptr) {
        float delta[kPiece<T>];
        read_piece<T>(p.delta, at, delta);
#pragma unroll
        for (uint32_t e = 0; e < kPiece<T>; e++) {
            // What is normed is what is kept.
            T kept;
            round_to(x[e] + delta[e], kept);
            x[e] = to_float(kept);
        }
        write_piece<T>(p.x, at, x);
    }
#pragma unroll
    for (uint32_t e = 0; e < kPiece<T>; e++) square = fmaf(x[e], x[e], square);
    return square;
}

template <class T>
GPTQ_DEVICE void write_normed(const GptqDecoderNormParams& p, size_t at, float (&x)[kPiece<T>], float factor, uint4 weights) {
    float weight[kPiece<T>];
    unpack(weights, weight, T{});
#pragma unroll
    for (uint32_t e = 0; e < kPiece<T>; e++) x[e] = x[e] * factor * weight[e];
    write_piece<T>(p.out, at, x);
}

template <class T>
GPTQ_DEVICE void norm(const GptqDecoderNormParams& p) {
    const uint32_t pieces = p.width / kPiece<T>;
    const size_t row = size_t(blockIdx.x) * pieces;
    const auto load_weights = [&](uint32_t i) { return load_global(static_cast<const char*>(p.weight) + 16 * size_t(i)); };
    let_next_kernel_begin();
    // Weights are what no kernel writes.
    uint4 weights[kHeldPieces];
#pragma unroll
    for (uint32_t h = 0; h < kHeldPieces; h++) {
        const uint32_t i = threadIdx.x + h * blockDim.x;
        if (i < pieces) weights[h] = load_weights(i);
    }
    wait_for_earlier_kernels();
    float held[kHeldPieces][kPiece<T>], square = 0.0f;
#pragma unroll
    for (uint32_t h = 0; h < kHeldPieces; h++) {
        const uint32_t i = threadIdx.x + h * blockDim.x;
        if (i < pieces) square = add_delta<T>(p, row + i, held[h], square);
    }
    for (uint32_t i = threadIdx.x + kHeldPieces * blockDim.x; i < pieces; i += blockDim.x) {
        float x[kPiece<T>];
        square = add_delta<T>(p, row + i, x, square);
    }
    const float factor = 1.0f / sqrtf(sum_of_block(square) / float(p.width) + p.eps);
#pragma unroll
    for (uint32_t h = 0; h < kHeldPieces; h++) {
        const uint32_t i = threadIdx.x + h * blockDim.x;
        if (i < pieces) write_normed<T>(p, row + i, held[h], factor, weights[h]);
    }
    for (uint32_t i = threadIdx.x + kHeldPieces * blockDim.x; i < pieces; i += blockDim.x) {
        // The thread wrote it itself.
        float x[kPiece<T>];
        read_piece<T>(p.x, row + i, x);
        write_normed<T>(p, row + i, x, factor, load_weights(i));
    }
}

template <class T>
GPTQ_DEVICE void gate(const GptqDecoderGateParams& p) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    let_next_kernel_begin();
    if (i >= p.pieces) return;
    wait_for_earlier_kernels();
    float gate[kPiece<T>], up[kPiece<T>];
    read_piece<T>(p.gate, i, gate);
    read_piece<T>(p.up, i, up);
#pragma unroll
    for (uint32_t e = 0; e < kPiece<T>; e++) up[e] *= gate[e] / (1.0f + expf(-gate[e]));
    write_piece<T>(p.out, i, up);
}

}  // namespace gptq

GPTQ_DECODER_ENTRIES(norm, GPTQ_DECODER_THREADS, GptqDecoderNormParams)
GPTQ_DECODER_ENTRIES(gate, GPTQ_DECODER_THREADS, GptqDecoderGateParams)

GPTQ_KERNEL(gptq_decoder_embed, GPTQ_DECODER_THREADS, GptqDecoderEmbedParams) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    gptq::let_next_kernel_begin();
    if (i >= params.pieces) return;
    gptq::wait_for_earlier_kernels();
    // Whoever writes the token has looked whether there is such a row; a wrong one is not read past the end.
    const uint32_t row = gptq::smaller(*params.token, params.rows - 1);
    const char* from = static_cast<const char*>(params.table) + 16 * (size_t(row) * params.pieces + i);
    gptq::store_global(static_cast<char*>(params.x) + 16 * i, gptq::load_global(from));
}
