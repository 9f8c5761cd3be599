// A kernel with a barrier, a copy that has to be waited for and an edge, and copies of it that each lack one thing. What
// a test does not find here it would not find in a real kernel.
#include "ptx.cuh"

struct alignas(8) ReverseParams {
    const uint4* from;  // [count]
    uint4* to;          // [count]
    uint32_t count;
    uint32_t padding;
};

namespace {

enum class Broken { nothing, barrier, wait, edge, divergent, alignment, shared_edge, output_overlap };

constexpr uint32_t kThreads = 64;

/// Reverses the order of vectors within each piece of kThreads: through shared memory, so that every thread reads what
/// another one copied.
template <Broken broken>
GPTQ_DEVICE void reverse(const ReverseParams& params) {
    GPTQ_SHARED(uint4, piece, kThreads);
    const uint32_t thread = threadIdx.x, first = blockIdx.x * kThreads;
    const uint32_t count = gptq::smaller(kThreads, params.count - first);
    if (thread < count || broken == Broken::edge) gptq::copy_async(&piece[thread], params.from + first + thread);
    gptq::commit_copies();
    if (broken != Broken::wait) gptq::wait_copies<0>();
    if (broken == Broken::divergent) {
        if (thread < count) __syncthreads();
    } else if (broken != Broken::barrier) {
        __syncthreads();
    }
    if (thread >= count) return;
    const uint32_t from = broken == Broken::shared_edge ? kThreads + thread : count - 1 - thread;
    const uint4 value = gptq::load<uint4>(&piece[from]);
    char* to = reinterpret_cast<char*>(params.to + first + thread);
    if (broken == Broken::alignment) to += 4;
    if (broken == Broken::output_overlap) to = reinterpret_cast<char*>(params.to + thread);
    gptq::store(to, value);
}

}  // namespace

#define REVERSE(name) \
    GPTQ_KERNEL(gptq_test_reverse_##name, kThreads, ReverseParams) { reverse<Broken::name>(params); }
REVERSE(nothing)
REVERSE(barrier)
REVERSE(wait)
REVERSE(edge)
REVERSE(divergent)
REVERSE(alignment)
REVERSE(shared_edge)
REVERSE(output_overlap)

struct alignas(8) WarpParams {
    const uint32_t* from;  // [32]
    uint32_t* to;          // [32]
};

namespace {

enum class WarpBroken { nothing, barrier, lane, divergent, order };

/// Each lane hands a value to its neighbour, once by a shuffle and once through shared memory.
template <WarpBroken broken>
GPTQ_DEVICE void neighbours(const WarpParams& params) {
    GPTQ_SHARED(uint32_t, slots, gptq::kWarp);
    const uint32_t lane = threadIdx.x, value = params.from[lane], next = (lane + 1) % gptq::kWarp;
    uint32_t shuffled = 0;
    if (broken == WarpBroken::lane) {
        // Lane 15 reads from lane 16, which takes no part.
        if (lane < 16) shuffled = __shfl_sync(0xffffu, value, int(next));
    } else if (broken != WarpBroken::divergent || lane != 5) {
        shuffled = __shfl_sync(gptq::kAllLanes, value, int(next));
    }
    slots[lane] = value;
    if (broken != WarpBroken::barrier) __syncwarp();
    params.to[lane] = shuffled + slots[next] * 1000;
    // Floats added in the order in which lanes come: no race, and no fixed result.
    if (broken == WarpBroken::order) {
        __syncwarp();
        atomicAdd(reinterpret_cast<float*>(params.to), 1.0f / float(lane + 1));
    }
}

}  // namespace

#define NEIGHBOURS(name) \
    GPTQ_KERNEL(gptq_test_neighbours_##name, gptq::kWarp, WarpParams) { neighbours<WarpBroken::name>(params); }
NEIGHBOURS(nothing)
NEIGHBOURS(barrier)
NEIGHBOURS(lane)
NEIGHBOURS(divergent)
NEIGHBOURS(order)
