// Every trick of dequant.cuh by itself: a thread has a block of 32 codes and a zero point.
#include "dequant.cuh"

struct alignas(8) CodesParams {
    const uint32_t* words;  // [blocks, bits]
    const uint32_t* zeros;  // [blocks]
    uint16_t* f16;          // [blocks, 32] code - zero, and so on
    uint16_t* bf16;
    float* f32;
    uint32_t* runs;  // [blocks, 32] codes, read in runs of 4 and of 8
    uint32_t blocks;
    uint32_t padding;
};

namespace {

template <class F>
GPTQ_DEVICE void codes(const CodesParams& params) {
    const uint32_t block = blockIdx.x * blockDim.x + threadIdx.x;
    if (block >= params.blocks) return;
    const uint32_t* words = params.words + block * F::bits;
    const auto word = [&](uint32_t w) { return words[w]; };
    const uint32_t zero = params.zeros[block], first = block * gptq::kBlock;

    const gptq::FloatZero<F> float_zero(zero);
    for (uint32_t i = 0; i < gptq::kBlock; i++) params.f32[first + i] = gptq::less_zero(word, i, float_zero);

    const gptq::Pairs<F> pairs = gptq::pair_up<F>(word);
    const gptq::HalfZero<F> half_zero(zero);
    const gptq::Bfloat16Zero<F> bfloat16_zero(zero);
    for (uint32_t i = 0; i < gptq::kBlock / 2; i++) {
        const uint32_t half = gptq::less_zero(pairs, i, half_zero).bits;
        const uint32_t bfloat16 = gptq::less_zero(pairs, i, bfloat16_zero).bits;
        params.f16[first + i] = uint16_t(half);
        params.f16[first + i + 16] = uint16_t(half >> 16);
        params.bf16[first + i] = uint16_t(bfloat16);
        params.bf16[first + i + 16] = uint16_t(bfloat16 >> 16);
    }

    for (uint32_t i = 0; i < 16; i += 4) {
        uint32_t run[4];
        gptq::read_codes<F>(params.words, first + i, run);
        for (uint32_t c = 0; c < 4; c++) params.runs[first + i + c] = run[c];
    }
    for (uint32_t i = 16; i < 32; i += 8) {
        uint32_t run[8];
        gptq::read_codes<F>(params.words, first + i, run);
        for (uint32_t c = 0; c < 8; c++) params.runs[first + i + c] = run[c];
    }
}

}  // namespace

#define CODES(name, bits, planar) \
    GPTQ_KERNEL(gptq_test_codes_##name, 64, CodesParams) { codes<gptq::Format<bits, planar>>(params); }
CODES(b2, 2, false)
CODES(b3, 3, false)
CODES(b4, 4, false)
CODES(b8, 8, false)
CODES(b3p, 3, true)
CODES(b5, 5, true)
CODES(b6, 6, true)
CODES(b7, 7, true)
