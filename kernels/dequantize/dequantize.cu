// The dense matrix: [K, N] row-major, or a panel of its rows and columns.
//
// A thread of `blocks` has 32 rows of as many columns as fill 16 bytes: it loads b words of each column, 16 bytes at a
// time, all before it uses the first, and stores 32 rows of 16 bytes. Neighbours in a warp have neighbouring columns, so
// a warp stores 512 contiguous bytes at a time.
//
//      columns ->   t0       t1       t2            t31
//      row 0      [16 B]   [16 B]   [16 B]   ...   [16 B]
//      row 1      [16 B]   ...
//      ..
//      row 31     [16 B]
//
// A 16-bit scale times an integer of 9 bits is exact in f32, so rounding that product is rounding once.
#include "family.cuh"

namespace gptq {

template <class F, class Out>
GPTQ_DEVICE void dequantize_blocks(const GptqDequantizeParams& p) {
    constexpr uint32_t kColumns = 16 / sizeof(Out);
    const uint32_t panel_column = (blockIdx.x * blockDim.x + threadIdx.x) * kColumns;
    if (panel_column >= p.columns) return;
    const uint32_t column = p.first_column + panel_column, tile = p.first_row / kBlock + blockIdx.y;

    uint32_t words[F::bits][kColumns];
    const uint32_t* qweight = p.qweight + size_t(tile) * F::bits * p.out_features + column;
#pragma unroll
    for (uint32_t w = 0; w < F::bits; w++) {
#pragma unroll
        for (uint32_t c = 0; c < kColumns; c += 4) {
            const uint4 four = load_stream(qweight + size_t(w) * p.out_features + c);
            words[w][c] = four.x, words[w][c + 1] = four.y, words[w][c + 2] = four.z, words[w][c + 3] = four.w;
        }
    }

    const uint32_t group = tile * kBlock / p.group_rows;
    float scales[kColumns];
    read_floats(p.scales, p.scale_dtype, size_t(group) * p.out_features + column, scales);
    uint32_t zero_codes[kColumns];
    read_codes<F>(p.qzeros + group * zero_words<F>(p.out_features), column, zero_codes);

    Out* out = static_cast<Out*>(p.out) + size_t(blockIdx.y) * kBlock * p.out_stride + panel_column;
#pragma unroll
    for (uint32_t i = 0; i < kBlock; i++) {
        float values[kColumns];
#pragma unroll
        for (uint32_t c = 0; c < kColumns; c++) {
            const FloatZero<F> zero(zero_codes[c]);
            values[c] = scales[c] * less_zero([&](uint32_t w) { return words[w][c]; }, i, zero);
        }
        store_global(out + size_t(i) * p.out_stride, pack16(values, Out{}));
    }
}

/// A thread has 32 rows of one column, and finds group, code and zero point of each by itself.
template <class F, class Out>
GPTQ_DEVICE void dequantize_rows(const GptqDequantizeParams& p) {
    const uint32_t panel_column = blockIdx.x * blockDim.x + threadIdx.x;
    if (panel_column >= p.columns) return;
    const uint32_t column = p.first_column + panel_column;
    const uint32_t end = smaller((blockIdx.y + 1) * kBlock, p.rows);
    Out* out = static_cast<Out*>(p.out) + panel_column;
    uint32_t last_group = ~0u;
    float scale = 0.0f, zero = 0.0f;
#pragma unroll 4
    for (uint32_t panel_row = blockIdx.y * kBlock; panel_row < end; panel_row++) {
        const uint32_t k = p.first_row + panel_row;
        const uint32_t group = group_of(p.g_idx, p.g_idx_bytes, p.group_rows, k);
        if (group != last_group) {
            scale = read_float(p.scales, p.scale_dtype, size_t(group) * p.out_features + column);
            zero = float(read_code<F>(p.qzeros + group * zero_words<F>(p.out_features), 1, column));
            last_group = group;
        }
        const float code = float(read_code<F>(p.qweight + column, p.out_features, k));
        multiply_once(scale, code - zero, out[size_t(panel_row) * p.out_stride]);
    }
}

}  // namespace gptq

#define ENTRIES_OF_FORMAT(format, bits, planar, name, Out)                                          \
    GPTQ_KERNEL(gptq_dequantize_blocks_##format##_##name, GPTQ_DEQUANTIZE_BLOCKS_THREADS, GptqDequantizeParams) { \
        gptq::dequantize_blocks<gptq::Format<bits, planar>, Out>(params);                           \
    }                                                                                               \
    GPTQ_KERNEL_RESIDENT(gptq_dequantize_rows_##format##_##name, GPTQ_DEQUANTIZE_ROWS_THREADS, 8,                 \
                         GptqDequantizeParams) {                                                                  \
        gptq::dequantize_rows<gptq::Format<bits, planar>, Out>(params);                             \
    }

GPTQ_FORMATS(ENTRIES_OF_FORMAT, f16, gptq::f16)
GPTQ_FORMATS(ENTRIES_OF_FORMAT, bf16, gptq::bf16)
GPTQ_FORMATS(ENTRIES_OF_FORMAT, f32, float)
