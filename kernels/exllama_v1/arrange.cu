// Act-order: rows of W sorted by group once, columns of x gathered to match at every call.
#include "output.cuh"
#include "word.cuh"

namespace gptq {

/// A thread makes one word of four columns. Blocks of one strip of columns follow one another: what eight of them read
/// again, each for one of its rows, is still in the cache.
GPTQ_DEVICE void sort_rows(const GptqExllamaV1SortParams& p) {
    constexpr uint32_t kLanesAcross = GPTQ_EXLLAMA_V1_SORT_COLUMNS / kLaneColumns;
    const uint32_t word_row = blockIdx.x * (GPTQ_EXLLAMA_V1_THREADS / kLanesAcross) + threadIdx.x / kLanesAcross;
    const uint32_t column = blockIdx.y * GPTQ_EXLLAMA_V1_SORT_COLUMNS + threadIdx.x % kLanesAcross * kLaneColumns;
    if (word_row >= p.in_features / kWordRows || column >= p.out_features) return;
    uint32_t rows[kWordRows];
#pragma unroll
    for (uint32_t i = 0; i < kWordRows; i += 4) {
        const uint4 four = load<uint4>(p.sorted_rows + word_row * kWordRows + i);
        rows[i] = four.x, rows[i + 1] = four.y, rows[i + 2] = four.z, rows[i + 3] = four.w;
    }
    uint4 sorted = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (uint32_t i = 0; i < kWordRows; i++) {
        const uint32_t from = rows[i] % kWordRows * 4;
        const uint4 words = load<uint4>(p.qweight + size_t(rows[i] / kWordRows) * p.out_features + column);
        sorted.x |= (words.x >> from & 15) << 4 * i;
        sorted.y |= (words.y >> from & 15) << 4 * i;
        sorted.z |= (words.z >> from & 15) << 4 * i;
        sorted.w |= (words.w >> from & 15) << 4 * i;
    }
    store_global(p.sorted + size_t(word_row) * p.out_features + column, sorted);
}

/// A thread has eight columns, and keeps them for all the rows that its block has.
GPTQ_DEVICE void gather_x(const GptqExllamaV1GatherParams& p) {
    const uint32_t first = (blockIdx.x * blockDim.x + threadIdx.x) * kWordRows;
    if (first >= p.in_features) return;
    uint32_t columns[kWordRows];
#pragma unroll
    for (uint32_t i = 0; i < kWordRows; i += 4) {
        const uint32_t at = first + i;
        const uint4 four = p.sorted_rows ? load<uint4>(p.sorted_rows + at) : make_uint4(at, at + 1, at + 2, at + 3);
        columns[i] = four.x, columns[i + 1] = four.y, columns[i + 2] = four.z, columns[i + 3] = four.w;
    }
    let_next_kernel_begin();
    wait_for_earlier_kernels();
    for (uint32_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const uint16_t* x = static_cast<const uint16_t*>(p.x) + size_t(row) * p.in_features;
        uint32_t pairs[kWordRows / 2];
#pragma unroll
        for (uint32_t i = 0; i < kWordRows / 2; i++) {
            pairs[i] = x[columns[2 * i]] | uint32_t(x[columns[2 * i + 1]]) << 16;
        }
        store_global(static_cast<uint16_t*>(p.gathered) + size_t(row) * p.in_features + first,
                     make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
    }
}

}  // namespace gptq

GPTQ_KERNEL(gptq_exllama_v1_sort_rows, GPTQ_EXLLAMA_V1_THREADS, GptqExllamaV1SortParams) { gptq::sort_rows(params); }
GPTQ_KERNEL(gptq_exllama_v1_gather_x, GPTQ_EXLLAMA_V1_THREADS, GptqExllamaV1GatherParams) { gptq::gather_x(params); }
