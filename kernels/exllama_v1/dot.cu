// x W + bias for one to four rows of x without tensor cores: for GPUs that have none, and for groups that a chunk of 32
// rows would straddle.
//
// A lane reads words of four columns, as lanes of the product do, but keeps to itself: it sums x (code - zero) over the
// eight rows of a word in f32 and scales the sum by that word's group, so that groups of 8 rows are no special case. Where a
// word may lie in several groups, each row is scaled by itself. The next words are under way meanwhile.
#include "output.cuh"
#include "word.cuh"

namespace gptq {

constexpr uint32_t kDotWarps = GPTQ_EXLLAMA_V1_THREADS / kWarp;
constexpr uint32_t kDotColumns = GPTQ_EXLLAMA_V1_DOT_COLUMNS;
constexpr uint32_t kLanesAcross = kDotColumns / kLaneColumns;
/// Rows of words that a block has at a time, one a lane.
constexpr uint32_t kDotStep = kDotWarps * (kWarp / kLanesAcross);

/// Scales and zero points of four columns in the group of row `k`.
GPTQ_DEVICE uint32_t read_group(const GptqExllamaV1DotParams& p, uint32_t k, uint32_t column,
                                float (&scales)[kLaneColumns]) {
    const size_t first = size_t(k / p.group_rows) * p.out_features + column;
    read_floats(p.scales, GPTQ_DTYPE_F16, first, scales);
    return reinterpret_cast<const uint16_t*>(p.qzeros)[first / 4];
}

/// totals += x W over one row of words. `kInOneGroup`: all eight rows of it are.
template <uint32_t kRows, bool kInOneGroup>
GPTQ_DEVICE void add_word_row(const GptqExllamaV1DotParams& p, uint4 words, uint32_t word_row, uint32_t column,
                              float (&totals)[kRows][kLaneColumns]) {
    using Code = Format<4, false>;
    const uint32_t four[kLaneColumns] = {words.x, words.y, words.z, words.w}, k = word_row * kWordRows;
    float x[kRows][kWordRows];
#pragma unroll
    for (uint32_t m = 0; m < kRows; m++) {
        // Rows past the last repeat it, and are not written.
        read_floats(p.x, GPTQ_DTYPE_F16, size_t(smaller(m, p.rows - 1)) * p.in_features + k, x[m]);
    }
    constexpr uint32_t kRun = kInOneGroup ? kWordRows : 1;
#pragma unroll
    for (uint32_t run = 0; run < kWordRows; run += kRun) {
        float scales[kLaneColumns];
        const uint32_t zeros = read_group(p, k + run, column, scales);
#pragma unroll
        for (uint32_t c = 0; c < kLaneColumns; c++) {
            const FloatZero<Code> zero(zeros >> 4 * c & 15);
            float sums[kRows] = {};
#pragma unroll
            for (uint32_t i = run; i < run + kRun; i++) {
                const float weight = less_zero([&](uint32_t) { return four[c]; }, i, zero);
#pragma unroll
                for (uint32_t m = 0; m < kRows; m++) sums[m] = fmaf(x[m][i], weight, sums[m]);
            }
#pragma unroll
            for (uint32_t m = 0; m < kRows; m++) totals[m][c] = fmaf(scales[c], sums[m], totals[m][c]);
        }
    }
}

template <uint32_t kRows, bool kInOneGroup>
GPTQ_DEVICE void dot(const GptqExllamaV1DotParams& p) {
    GPTQ_SHARED(float, sums, kDotWarps * kRows * kDotColumns);
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t lane_column = lane % kLanesAcross * kLaneColumns, first_column = blockIdx.y * kDotColumns;
    // Columns past the last repeat it, and are not written.
    const uint32_t column = smaller(first_column + lane_column, p.out_features - kLaneColumns);
    const uint32_t word_rows = p.in_features / kWordRows;
    const uint32_t begin = uint32_t(uint64_t(word_rows) * blockIdx.z / p.splits);
    const uint32_t end = uint32_t(uint64_t(word_rows) * (blockIdx.z + 1) / p.splits);

    float totals[kRows][kLaneColumns] = {};
    uint32_t word_row = begin + threadIdx.x / kLanesAcross;
    if (word_row < end) {
        const auto read = [&](uint32_t row) { return load_stream(p.qweight + size_t(row) * p.out_features + column); };
        uint4 next = read(word_row);
#pragma unroll 1
        for (; word_row < end; word_row += kDotStep) {
            const uint4 present = next;
            if (word_row + kDotStep < end) next = read(word_row + kDotStep);
            add_word_row<kRows, kInOneGroup>(p, present, word_row, column, totals);
        }
    }

#pragma unroll
    for (uint32_t m = 0; m < kRows; m++) {
#pragma unroll
        for (uint32_t c = 0; c < kLaneColumns; c++) {
#pragma unroll
            for (uint32_t lanes = kLanesAcross; lanes < kWarp; lanes *= 2) {
                totals[m][c] += __shfl_xor_sync(kAllLanes, totals[m][c], int(lanes));
            }
        }
        if (lane < kLanesAcross) {
            store(sums + (warp * kRows + m) * kDotColumns + lane_column,
                  make_float4(totals[m][0], totals[m][1], totals[m][2], totals[m][3]));
        }
    }
    __syncthreads();

    const uint32_t row = threadIdx.x / kLanesAcross, out_column = first_column + lane_column;
    if (row >= smaller(kRows, p.rows) || out_column >= p.out_features) return;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (uint32_t w = 0; w < kDotWarps; w++) add(sum, load<float4>(sums + (w * kRows + row) * kDotColumns + lane_column));
    write_sum(p, row, out_column, sum);
}

}  // namespace gptq

#define GPTQ_DOT(name, rows, in_one_group)                                                        \
    GPTQ_KERNEL(gptq_exllama_v1_dot_##name, GPTQ_EXLLAMA_V1_THREADS, GptqExllamaV1DotParams) {    \
        gptq::dot<rows, in_one_group>(params);                                                    \
    }

GPTQ_DOT(m1, 1, true)
GPTQ_DOT(m2, 2, true)
GPTQ_DOT(m4, 4, true)
GPTQ_DOT(rows_m4, 4, false)

GPTQ_KERNEL(gptq_exllama_v1_sum, GPTQ_EXLLAMA_V1_THREADS, GptqExllamaV1SumParams) { gptq::sum_splits(params); }
