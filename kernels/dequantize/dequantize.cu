// The dense matrix: [K, N] row-major, or a panel of its columns; and the sorting of rows that makes act-order layers fast.
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

/// The rows of W that `count` rows of qweight from `first`, a multiple of 4, are.
template <uint32_t count>
GPTQ_DEVICE void read_rows_of_w(const uint32_t* w_rows, uint32_t first, uint32_t (&rows)[count]) {
#pragma unroll
    for (uint32_t i = 0; i < count; i += 4) {
        const uint32_t k = first + i;
        const uint4 four = w_rows == nullptr ? make_uint4(k, k + 1, k + 2, k + 3) : load<uint4>(w_rows + k);
        rows[i] = four.x, rows[i + 1] = four.y, rows[i + 2] = four.z, rows[i + 3] = four.w;
    }
}

template <class F, class Out>
GPTQ_DEVICE void dequantize_blocks(const GptqDequantizeParams& p) {
    constexpr uint32_t kColumns = 16 / sizeof(Out);
    const uint32_t panel_column = (blockIdx.x * blockDim.x + threadIdx.x) * kColumns;
    if (panel_column >= p.columns) return;
    const uint32_t column = p.first_column + panel_column, tile = blockIdx.y;

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

    Out* out = static_cast<Out*>(p.out) + panel_column;
    // Stores are not moved past one another, so that rows are looked up some at a time.
    constexpr uint32_t kRows = 8;
#pragma unroll
    for (uint32_t first = 0; first < kBlock; first += kRows) {
        uint32_t rows[kRows];
        read_rows_of_w(p.w_rows, tile * kBlock + first, rows);
#pragma unroll
        for (uint32_t i = 0; i < kRows; i++) {
            float values[kColumns];
#pragma unroll
            for (uint32_t c = 0; c < kColumns; c++) {
                const FloatZero<F> zero(zero_codes[c]);
                values[c] = scales[c] * less_zero([&](uint32_t w) { return words[w][c]; }, first + i, zero);
            }
            store_global(out + size_t(rows[i]) * p.out_stride, pack16(values, Out{}));
        }
    }
}

/// A thread has 32 rows of one column, and finds group, code and zero point of each by itself.
template <class F, class Out>
GPTQ_DEVICE void dequantize_rows(const GptqDequantizeParams& p) {
    const uint32_t panel_column = blockIdx.x * blockDim.x + threadIdx.x;
    if (panel_column >= p.columns) return;
    const uint32_t column = p.first_column + panel_column;
    const uint32_t end = smaller((blockIdx.y + 1) * kBlock, p.in_features);
    Out* out = static_cast<Out*>(p.out) + panel_column;
    uint32_t last_group = ~0u;
    float scale = 0.0f, zero = 0.0f;
#pragma unroll 4
    for (uint32_t k = blockIdx.y * kBlock; k < end; k++) {
        const uint32_t group = group_of(p.g_idx, p.g_idx_bytes, p.group_rows, k);
        if (group != last_group) {
            scale = read_float(p.scales, p.scale_dtype, size_t(group) * p.out_features + column);
            zero = float(read_code<F>(p.qzeros + group * zero_words<F>(p.out_features), 1, column));
            last_group = group;
        }
        const float code = float(read_code<F>(p.qweight + column, p.out_features, k));
        multiply_once(scale, code - zero, out[size_t(row_of_w(p.w_rows, k)) * p.out_stride]);
    }
}

/// A thread makes a block of 32 rows of one column. What a warp reads for a row are neighbours.
template <class F>
GPTQ_DEVICE void sort_rows(const GptqDequantizeSortParams& p) {
    const uint32_t column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= p.out_features) return;
    uint32_t words[F::bits] = {};
#pragma unroll
    for (uint32_t first = 0; first < kBlock; first += 8) {
        uint32_t rows[8];
        read_rows_of_w(p.w_rows, blockIdx.y * kBlock + first, rows);
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            put_code<F>(words, first + i, read_code<F>(p.qweight + column, p.out_features, rows[i]));
        }
    }
    uint32_t* sorted = p.sorted + size_t(blockIdx.y) * F::bits * p.out_features + column;
#pragma unroll
    for (uint32_t w = 0; w < F::bits; w++) sorted[size_t(w) * p.out_features] = words[w];
}

template <class T>
GPTQ_DEVICE void gather_x(const GptqDequantizeGatherParams& p) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.in_features) return;
    const size_t row = size_t(blockIdx.y) * p.in_features;
    static_cast<T*>(p.gathered)[row + i] = static_cast<const T*>(p.x)[row + p.w_rows[i]];
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

#define SORT_OF_FORMAT(format, bits, planar, _)                                                                   \
    GPTQ_KERNEL(gptq_dequantize_sort_##format, GPTQ_DEQUANTIZE_SORT_THREADS, GptqDequantizeSortParams) {           \
        gptq::sort_rows<gptq::Format<bits, planar>>(params);                                                      \
    }

GPTQ_KERNEL(gptq_dequantize_gather_16bit, GPTQ_DEQUANTIZE_GATHER_THREADS, GptqDequantizeGatherParams) {
    gptq::gather_x<uint16_t>(params);
}
GPTQ_KERNEL(gptq_dequantize_gather_32bit, GPTQ_DEQUANTIZE_GATHER_THREADS, GptqDequantizeGatherParams) {
    gptq::gather_x<uint32_t>(params);
}

GPTQ_FORMATS(SORT_OF_FORMAT, )
GPTQ_FORMATS(ENTRIES_OF_FORMAT, f16, gptq::f16)
GPTQ_FORMATS(ENTRIES_OF_FORMAT, bf16, gptq::bf16)
GPTQ_FORMATS(ENTRIES_OF_FORMAT, f32, float)
