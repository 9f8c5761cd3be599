// The dense matrix, or a panel of its columns, for products with many rows of x.
//
// A thread has 32 rows of eight columns: it loads the four words of each, 16 bytes at a time, all before it uses the first,
// and stores 32 rows of 16 bytes. Neighbours have neighbouring columns, so that a warp stores 512 contiguous bytes at a
// time. code - zero is exact in f16, and its product with the scale is rounded once.
#include "output.cuh"
#include "word.cuh"

namespace gptq {

constexpr uint32_t kThreadColumns = 8;
constexpr uint32_t kThreadWordRows = GPTQ_EXLLAMA_V1_RECONSTRUCT_ROWS / kWordRows;

/// A row of words, in one group: eight rows of eight columns.
GPTQ_DEVICE void write_word_row(const GptqExllamaV1ReconstructParams& p, const uint32_t (&words)[kThreadColumns],
                                uint32_t word_row, uint32_t column, f16* out) {
    const size_t first = size_t(word_row * kWordRows / p.group_rows) * p.out_features + column;
    const uint4 scales = load<uint4>(static_cast<const uint16_t*>(p.scales) + first);
    const uint32_t codes = p.qzeros[first / 8];
    WordZero low[kLaneColumns], high[kLaneColumns];
    read_zeros(codes, low);
    read_zeros(codes >> 16, high);
    f16x2 pairs[kThreadColumns][4];
#pragma unroll
    for (uint32_t c = 0; c < kThreadColumns; c++) unpack(words[c], c < 4 ? low[c] : high[c - 4], pairs[c]);
    const f16x2 scale[4] = {{scales.x}, {scales.y}, {scales.z}, {scales.w}};
#pragma unroll
    for (uint32_t i = 0; i < kWordRows; i++) {
        // Row i is in the low halves of pairs i, and in the high ones of pairs i - 4.
        uint32_t row[4];
#pragma unroll
        for (uint32_t two = 0; two < 4; two++) {
            const uint32_t left = pairs[2 * two][i % 4].bits, right = pairs[2 * two + 1][i % 4].bits;
            row[two] = multiply({choose_bytes(left, right, i < 4 ? 0x5410 : 0x7632)}, scale[two]).bits;
        }
        store_global(out + size_t(i) * p.out_stride, make_uint4(row[0], row[1], row[2], row[3]));
    }
}

GPTQ_DEVICE void reconstruct(const GptqExllamaV1ReconstructParams& p) {
    const uint32_t panel_column = (blockIdx.x * blockDim.x + threadIdx.x) * kThreadColumns;
    const uint32_t first = blockIdx.y * kThreadWordRows, column = p.first_column + panel_column;
    if (panel_column >= p.columns) return;
    uint32_t words[kThreadWordRows][kThreadColumns];
#pragma unroll
    for (uint32_t r = 0; r < kThreadWordRows; r++) {
        if (first + r >= p.in_features / kWordRows) break;
        const uint32_t* const row = p.qweight + size_t(first + r) * p.out_features + column;
        const uint4 left = load_stream(row), right = load_stream(row + 4);
        words[r][0] = left.x, words[r][1] = left.y, words[r][2] = left.z, words[r][3] = left.w;
        words[r][4] = right.x, words[r][5] = right.y, words[r][6] = right.z, words[r][7] = right.w;
    }
    let_next_kernel_begin();
    wait_for_earlier_kernels();
    f16* out = static_cast<f16*>(p.out) + panel_column;
#pragma unroll
    for (uint32_t r = 0; r < kThreadWordRows; r++) {
        if (first + r >= p.in_features / kWordRows) break;
        write_word_row(p, words[r], first + r, column, out + size_t(first + r) * kWordRows * p.out_stride);
    }
}

/// A thread has 32 rows of one column, and finds the group of each by itself.
GPTQ_DEVICE void reconstruct_rows(const GptqExllamaV1ReconstructParams& p) {
    const uint32_t panel_column = blockIdx.x * blockDim.x + threadIdx.x, column = p.first_column + panel_column;
    const uint32_t first = blockIdx.y * GPTQ_EXLLAMA_V1_RECONSTRUCT_ROWS;
    const uint32_t end = smaller(first + GPTQ_EXLLAMA_V1_RECONSTRUCT_ROWS, p.in_features);
    if (panel_column >= p.columns) return;
    let_next_kernel_begin();
    wait_for_earlier_kernels();
    f16* const out = static_cast<f16*>(p.out) + panel_column;
#pragma unroll 4
    for (uint32_t k = first; k < end; k++) {
        const size_t at = size_t(k / p.group_rows) * p.out_features + column;
        const uint32_t code = p.qweight[size_t(k / kWordRows) * p.out_features + column] >> k % kWordRows * 4 & 15;
        const uint32_t zero = p.qzeros[at / 8] >> column % 8 * 4 & 15;
        // An f16 times an integer of 5 bits is exact in f32.
        const float weight = read_float(p.scales, GPTQ_DTYPE_F16, at) * (float(code) - float(zero));
        round_to(weight, out[size_t(k) * p.out_stride]);
    }
}

}  // namespace gptq

GPTQ_KERNEL(gptq_exllama_v1_reconstruct, GPTQ_EXLLAMA_V1_RECONSTRUCT_THREADS, GptqExllamaV1ReconstructParams) {
    gptq::reconstruct(params);
}
GPTQ_KERNEL(gptq_exllama_v1_reconstruct_rows, GPTQ_EXLLAMA_V1_RECONSTRUCT_THREADS, GptqExllamaV1ReconstructParams) {
    gptq::reconstruct_rows(params);
}
