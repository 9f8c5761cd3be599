// Reading and copying, and nothing else: the limits that benchmarks divide by.
#include "ptx.cuh"
#include "params.h"
#include "rt.cuh"

namespace gptq {

/// Loads under way in a thread.
constexpr uint32_t kDepth = 8;

/// Calls `use` with every piece of 16 bytes that falls to this thread, and its index, several loads ahead: also of those
/// that are left over at the end, which are all there are where little is read.
template <class Use>
GPTQ_DEVICE void each_piece(const void* from, uint64_t count, const Use& use) {
    const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
    const char* bytes = static_cast<const char*>(from);
    for (uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < count; at += kDepth * step) {
        uint4 pieces[kDepth];
#pragma unroll
        for (uint32_t i = 0; i < kDepth; i++) {
            if (at + i * step < count) pieces[i] = load_stream(bytes + 16 * (at + i * step));
        }
#pragma unroll
        for (uint32_t i = 0; i < kDepth; i++) {
            if (at + i * step < count) use(at + i * step, pieces[i]);
        }
    }
}

}  // namespace gptq

GPTQ_KERNEL(gptq_limits_read, GPTQ_LIMITS_THREADS, GptqLimitsReadParams) {
    uint32_t all = 0;
    gptq::each_piece(params.from, params.count, [&](uint64_t, uint4 piece) {
        all |= piece.x ^ piece.y ^ piece.z ^ piece.w;
    });
    // An exclusive or of random words, or-ed, has every bit set soon; the compiler cannot know.
    if (all == 0x5eed5eedu) *params.sink = all;
}

GPTQ_KERNEL(gptq_limits_copy, GPTQ_LIMITS_THREADS, GptqLimitsCopyParams) {
    char* const to = static_cast<char*>(params.to);
    gptq::each_piece(params.from, params.count, [&](uint64_t at, uint4 piece) { gptq::store_global(to + 16 * at, piece); });
}
