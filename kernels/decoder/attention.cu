// Positions, cache and attention of one token.
//
// A warp of `turn` has one head. A block of `attend` has one head and some of the keys: as many lanes as fill a key with 16
// bytes each have one at a time, so that a warp reads several keys side by side, and every group of lanes keeps a softmax of
// its own. They are put together at the end: by shuffles in a warp, in shared memory in a block, in global memory where
// blocks share the keys (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
// "Flash-Decoding", 2023).
#include "family.cuh"

namespace gptq {

/// HeadPairs of elements that a lane of `turn` has: one, and the one half a head behind it.
constexpr uint32_t kPairsOfLane = GPTQ_DECODER_MOST_WIDTH / 2 / kWarp;

struct HeadPairs {
    float low[kPairsOfLane], high[kPairsOfLane];
};

/// `low` and `high` of every pair of this lane, of as many as half a head has.
template <class T>
GPTQ_DEVICE void read_pairs(const T* low, const T* high, uint32_t half, HeadPairs& pairs) {
#pragma unroll
    for (uint32_t u = 0; u < kPairsOfLane; u++) {
        const uint32_t i = threadIdx.x + u * kWarp;
        pairs.low[u] = i < half ? to_float(low[i]) : 0.0f;
        pairs.high[u] = i < half ? to_float(high[i]) : 0.0f;
    }
}

template <class T>
GPTQ_DEVICE void turn(const GptqDecoderTurnParams& p) {
    const uint32_t head = blockIdx.x, half = p.width / 2;
    const bool is_query = head < p.heads, is_value = head >= p.heads + p.groups;
    const uint32_t group = is_query ? 0 : (head - p.heads) % p.groups;
    const T* const norm = static_cast<const T*>(is_value ? nullptr : is_query ? p.q_norm : p.k_norm);
    const auto at = [&](const void* from, uint32_t index) { return static_cast<const T*>(from) + size_t(index) * p.width; };
    const T* const from = is_query ? at(p.q, head) : at(is_value ? p.v : p.k, group);
    let_next_kernel_begin();
    // What no kernel writes: where the token is, angles, and the weights of norms. Whoever writes the position has looked
    // whether there is room.
    const uint32_t position = smaller(*p.position, p.capacity - 1);
    HeadPairs angles, weights, x;
    if (!is_value) read_pairs(p.cosines + size_t(position) * half, p.sines + size_t(position) * half, half, angles);
    if (norm != nullptr) read_pairs(norm, norm + half, half, weights);
    wait_for_earlier_kernels();

    read_pairs(from, from + half, half, x);
    if (norm != nullptr) {
        float square = 0.0f;
#pragma unroll
        for (uint32_t u = 0; u < kPairsOfLane; u++) square = fmaf(x.low[u], x.low[u], fmaf(x.high[u], x.high[u], square));
        const float factor = 1.0f / sqrtf(sum_of_warp(square) / float(p.width) + p.eps);
#pragma unroll
        for (uint32_t u = 0; u < kPairsOfLane; u++) {
            x.low[u] = x.low[u] * factor * weights.low[u];
            x.high[u] = x.high[u] * factor * weights.high[u];
        }
    }
    T* const to = is_query ? static_cast<T*>(p.turned) + size_t(head) * p.width
                           : static_cast<T*>(is_value ? p.values : p.keys) + (size_t(group) * p.capacity + position) * p.width;
#pragma unroll
    for (uint32_t u = 0; u < kPairsOfLane; u++) {
        const uint32_t i = threadIdx.x + u * kWarp;
        if (i >= half) continue;
        const float cosine = is_value ? 1.0f : angles.low[u], sine = is_value ? 0.0f : angles.high[u];
        round_to(x.low[u] * cosine - x.high[u] * sine, to[i]);
        round_to(x.low[u] * sine + x.high[u] * cosine, to[i + half]);
    }
}

constexpr float kNothing = -INFINITY;

/// exp(score - most), where both may be those of no key at all.
GPTQ_DEVICE float weight_of(float score, float most) { return score == kNothing ? 0.0f : expf(score - most); }

/// Values weighted by a softmax that is under way: the largest score, the sum of weights, the weighted sum of `count` values.
template <uint32_t count>
struct Softmax {
    float most = kNothing, total = 0.0f, sums[count] = {};

    /// Adds what another one has.
    GPTQ_DEVICE void add(float other_most, float other_total, const float (&other_sums)[count]) {
        const float larger = other_most > most ? other_most : most;
        const float mine = weight_of(most, larger), others = weight_of(other_most, larger);
        most = larger;
        total = total * mine + other_total * others;
#pragma unroll
        for (uint32_t e = 0; e < count; e++) sums[e] = sums[e] * mine + other_sums[e] * others;
    }
};

/// Keys that a group of lanes loads at once.
constexpr uint32_t kKeysAtOnce = 4;

template <class T>
GPTQ_DEVICE void attend_keys(const GptqDecoderAttendParams& p, uint32_t first, uint32_t end, uint32_t lane, uint32_t slot,
                             Softmax<kPiece<T>>& softmax) {
    constexpr uint32_t E = kPiece<T>;
    const uint32_t lanes = p.width / E, slots = blockDim.x / lanes;
    const uint32_t group = blockIdx.x / (p.heads / p.groups);
    float q[E];
    read_piece<T>(p.q, size_t(blockIdx.x) * lanes + lane, q);
#pragma unroll
    for (uint32_t e = 0; e < E; e++) q[e] *= p.scale;

    const size_t cache = size_t(group) * p.capacity * lanes + lane;
    // Every lane goes round as often as every other: they meet in shuffles.
#pragma unroll 1
    for (uint32_t base = first; base < end; base += slots * kKeysAtOnce) {
        uint4 keys[kKeysAtOnce], values[kKeysAtOnce];
#pragma unroll
        for (uint32_t u = 0; u < kKeysAtOnce; u++) {
            // Keys past the last repeat it, and do not count.
            const size_t piece = cache + size_t(smaller(base + slot + u * slots, end - 1)) * lanes;
            keys[u] = load_global(static_cast<const char*>(p.keys) + 16 * piece);
            values[u] = load_global(static_cast<const char*>(p.values) + 16 * piece);
        }
        float scores[kKeysAtOnce], most = softmax.most;
#pragma unroll
        for (uint32_t u = 0; u < kKeysAtOnce; u++) {
            float key[E], score = 0.0f;
            unpack(keys[u], key, T{});
#pragma unroll
            for (uint32_t e = 0; e < E; e++) score = fmaf(q[e], key[e], score);
            for (uint32_t other = 1; other < lanes; other *= 2) score += __shfl_xor_sync(kAllLanes, score, int(other));
            scores[u] = base + slot + u * slots < end ? score : kNothing;
            most = scores[u] > most ? scores[u] : most;
        }
        const float kept = weight_of(softmax.most, most);
        softmax.most = most;
        softmax.total *= kept;
#pragma unroll
        for (uint32_t e = 0; e < E; e++) softmax.sums[e] *= kept;
#pragma unroll
        for (uint32_t u = 0; u < kKeysAtOnce; u++) {
            const float weight = weight_of(scores[u], most);
            float value[E];
            unpack(values[u], value, T{});
            softmax.total += weight;
#pragma unroll
            for (uint32_t e = 0; e < E; e++) softmax.sums[e] = fmaf(weight, value[e], softmax.sums[e]);
        }
    }
}

/// Puts `count` parts together, each the largest score, the sum of weights and the sums of a head, and gives this thread's
/// sum, divided.
GPTQ_DEVICE Softmax<1> put_together(const float* parts, uint32_t count, uint32_t width) {
    Softmax<1> all;
    for (uint32_t part = 0; part < count; part++) {
        const float* const of = parts + size_t(part) * (width + 2);
        const float sums[1] = {of[2 + threadIdx.x]};
        all.add(of[0], of[1], sums);
    }
    return all;
}

template <class T>
GPTQ_DEVICE void attend(const GptqDecoderAttendParams& p) {
    constexpr uint32_t E = kPiece<T>;
    GPTQ_SHARED(float, parts, kDecoderWarps * (GPTQ_DECODER_MOST_WIDTH + 2));
    GPTQ_SHARED(uint32_t, earlier, 1);
    const uint32_t lanes = p.width / E, lane = threadIdx.x % lanes, slot = threadIdx.x / lanes;
    let_next_kernel_begin();
    const uint32_t seen_end = smaller(*p.position, p.capacity - 1) + 1;
    wait_for_earlier_kernels();
    const uint32_t seen = p.window == 0 ? seen_end : smaller(p.window, seen_end);
    const uint32_t share = (seen + p.splits - 1) / p.splits;
    const uint32_t first = seen_end - seen + smaller(share * blockIdx.y, seen), end = smaller(first + share, seen_end);

    Softmax<E> softmax;
    attend_keys<T>(p, first, end, lane, slot, softmax);
    for (uint32_t other = lanes; other < kWarp; other *= 2) {
        const float most = __shfl_xor_sync(kAllLanes, softmax.most, int(other));
        const float total = __shfl_xor_sync(kAllLanes, softmax.total, int(other));
        float sums[E];
#pragma unroll
        for (uint32_t e = 0; e < E; e++) sums[e] = __shfl_xor_sync(kAllLanes, softmax.sums[e], int(other));
        softmax.add(most, total, sums);
    }
    float* const part = parts + threadIdx.x / kWarp * (p.width + 2);
    if (threadIdx.x % kWarp == 0) part[0] = softmax.most, part[1] = softmax.total;
    if (threadIdx.x % kWarp < lanes) {
#pragma unroll
        for (uint32_t e = 0; e < E; e++) part[2 + lane * E + e] = softmax.sums[e];
    }
    __syncthreads();

    T* const out = static_cast<T*>(p.out) + size_t(blockIdx.x) * p.width;
    Softmax<1> all;
    if (threadIdx.x < p.width) all = put_together(parts, kDecoderWarps, p.width);
    if (p.splits > 1) {
        float* const of_head = p.partial + size_t(blockIdx.x) * p.splits * (p.width + 2);
        float* const mine = of_head + blockIdx.y * (p.width + 2);
        if (threadIdx.x == 0) mine[0] = all.most, mine[1] = all.total;
        if (threadIdx.x < p.width) mine[2 + threadIdx.x] = all.sums[0];
        __syncthreads();
        if (threadIdx.x == 0) *earlier = count_arrival(p.arrived + blockIdx.x, p.arrival_mark);
        __syncthreads();
        if (*earlier != p.splits - 1) return;
        if (threadIdx.x == 0) p.arrived[blockIdx.x] = p.arrival_mark;
        if (threadIdx.x < p.width) all = put_together(of_head, p.splits, p.width);
    }
    if (threadIdx.x < p.width) round_to(all.sums[0] / all.total, out[threadIdx.x]);
}

}  // namespace gptq

GPTQ_DECODER_ENTRIES(turn, GPTQ_DECODER_TURN_THREADS, GptqDecoderTurnParams)
GPTQ_DECODER_ENTRIES(attend, GPTQ_DECODER_THREADS, GptqDecoderAttendParams)
