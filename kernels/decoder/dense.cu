// A plain matrix by one x: the head, and layers that a rule left in floating point. A warp has some rows, and reads each of
// them 512 bytes at a time.
#include "family.cuh"

namespace gptq {

constexpr uint32_t kRowsOfWarp = GPTQ_DECODER_DENSE_ROWS / kDecoderWarps;
/// Pieces of each row that a lane loads at once.
constexpr uint32_t kPiecesAtOnce = 4;

template <class T>
GPTQ_DEVICE void dense(const GptqDecoderDenseParams& p) {
    constexpr uint32_t E = kPiece<T>;
    const uint32_t lane = threadIdx.x % kWarp, pieces = p.in_features / E;
    const uint32_t first = blockIdx.x * GPTQ_DECODER_DENSE_ROWS + threadIdx.x / kWarp * kRowsOfWarp;
    let_next_kernel_begin();
    wait_for_earlier_kernels();
    const char* rows[kRowsOfWarp];
    float sums[kRowsOfWarp] = {};
#pragma unroll
    for (uint32_t r = 0; r < kRowsOfWarp; r++) {
        // Rows past the last repeat it, and are not written.
        rows[r] = static_cast<const char*>(p.weight) + 16 * size_t(smaller(first + r, p.out_features - 1)) * pieces;
    }
#pragma unroll 1
    for (uint32_t base = lane; base < pieces; base += kWarp * kPiecesAtOnce) {
        uint4 weights[kRowsOfWarp][kPiecesAtOnce];
#pragma unroll
        for (uint32_t u = 0; u < kPiecesAtOnce; u++) {
#pragma unroll
            for (uint32_t r = 0; r < kRowsOfWarp; r++) {
                if (base + u * kWarp < pieces) weights[r][u] = load_stream(rows[r] + 16 * size_t(base + u * kWarp));
            }
        }
#pragma unroll
        for (uint32_t u = 0; u < kPiecesAtOnce; u++) {
            if (base + u * kWarp >= pieces) break;
            float x[E];
            read_piece<T>(p.x, base + u * kWarp, x);
#pragma unroll
            for (uint32_t r = 0; r < kRowsOfWarp; r++) {
                float weight[E];
                unpack(weights[r][u], weight, T{});
#pragma unroll
                for (uint32_t e = 0; e < E; e++) sums[r] = fmaf(weight[e], x[e], sums[r]);
            }
        }
    }
#pragma unroll
    for (uint32_t r = 0; r < kRowsOfWarp; r++) {
        float sum = sum_of_warp(sums[r]);
        const uint32_t row = first + r;
        if (lane != 0 || row >= p.out_features) continue;
        if (p.bias != nullptr) sum += to_float(static_cast<const T*>(p.bias)[row]);
        if (p.out_is_f32 != 0) {
            static_cast<float*>(p.out)[row] = sum;
        } else {
            round_to(sum, static_cast<T*>(p.out)[row]);
        }
    }
}

}  // namespace gptq

GPTQ_DECODER_ENTRIES(dense, GPTQ_DECODER_THREADS, GptqDecoderDenseParams)
