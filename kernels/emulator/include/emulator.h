// The words of CUDA C++ that the kernels use, with a meaning on the CPU. `rt.cuh` includes this file instead of
// CUDA's own headers when GPTQ_EMULATOR is defined. What it declares is defined in `runtime/`.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

namespace emulator {

struct Index {
    uint32_t x, y, z;
};

/// Calls a kernel with the struct behind `params`.
using Call = void (*)(const void* params);

/// A kernel that this program holds. Constructing one adds it to the list that the Rust side reads.
struct Kernel {
    const char* name;
    Call call;
    size_t params_bytes;
    uint32_t most_threads;
    const Kernel* next;

    Kernel(const char* name, Call call, size_t params_bytes, uint32_t most_threads);
};

// Which thread this is. Functions, not variables: the hooks on memory need not look at them.
Index thread_index();
Index block_index();
Index block_size();
Index grid_size();

void* dynamic_shared();
/// The same address for the same `key` in all threads of a block.
void* static_shared(const void* key, size_t bytes);

void block_barrier();
void warp_barrier(uint32_t mask);

enum class Lane : uint32_t { index, up, down, exclusive_or };
uint32_t shuffle(Lane mode, uint32_t mask, uint32_t value, uint32_t operand, uint32_t width);
uint32_t ballot(uint32_t mask, bool predicate);

// One access of a whole vector: it has to be aligned to its size, as on a GPU.
void load(void* to, const void* from, size_t bytes);
void store(void* to, const void* from, size_t bytes);

enum class Atomic : uint32_t { add_u32, add_f32, exchange, compare_and_swap, min_u32, max_u32 };
uint32_t atomic(Atomic operation, void* address, uint32_t operand, uint32_t expected);
/// Counts at a cell that may hold anything at first, with an addition that releases and acquires: the only thing that
/// orders blocks.
uint32_t count_arrival(uint64_t* cell, uint64_t mark);

// cp.async. The copy takes place at the wait: whoever reads earlier is at fault. Bytes past `source_bytes` are zero.
void copy_async(void* to, const void* from, size_t bytes, size_t source_bytes);
void commit_copies();
void wait_copies(uint32_t most_pending_groups);

/// ldmatrix of 1, 2 or 4 matrices of 8 x 8 16-bit elements.
void load_matrix(uint32_t* to, const void* row, uint32_t matrices, bool transposed);

enum class Element : uint32_t { f16, bf16 };
/// mma.sync m16n8kK with f32 accumulators; K is 8 or 16: `a` has K / 4 registers, `b` K / 8.
void multiply(Element element, uint32_t k, float* c, const uint32_t* a, const uint32_t* b);

}  // namespace emulator

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())

inline void __syncthreads() __attribute__((always_inline));
inline void __syncthreads() { emulator::block_barrier(); }
inline void __syncwarp(uint32_t mask = 0xffffffffu) __attribute__((always_inline));
inline void __syncwarp(uint32_t mask) { emulator::warp_barrier(mask); }

inline uint32_t __float_as_uint(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float __uint_as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

namespace emulator {

inline uint32_t to_bits(uint32_t value) { return value; }
inline uint32_t to_bits(int32_t value) { return static_cast<uint32_t>(value); }
inline uint32_t to_bits(float value) { return __float_as_uint(value); }
inline void from_bits(uint32_t bits, uint32_t& value) { value = bits; }
inline void from_bits(uint32_t bits, int32_t& value) { value = static_cast<int32_t>(bits); }
inline void from_bits(uint32_t bits, float& value) { value = __uint_as_float(bits); }

template <class T>
__forceinline__ T shuffle_as(Lane mode, uint32_t mask, T value, uint32_t operand, uint32_t width) {
    T result;
    from_bits(shuffle(mode, mask, to_bits(value), operand, width), result);
    return result;
}
template <class T>
__forceinline__ T atomic_as(Atomic operation, T* address, T operand, T expected) {
    T result;
    from_bits(atomic(operation, address, to_bits(operand), to_bits(expected)), result);
    return result;
}

}  // namespace emulator

template <class T>
__forceinline__ T __shfl_sync(uint32_t mask, T value, int lane, int width = 32) {
    return emulator::shuffle_as(emulator::Lane::index, mask, value, uint32_t(lane), uint32_t(width));
}
template <class T>
__forceinline__ T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
    return emulator::shuffle_as(emulator::Lane::up, mask, value, delta, uint32_t(width));
}
template <class T>
__forceinline__ T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
    return emulator::shuffle_as(emulator::Lane::down, mask, value, delta, uint32_t(width));
}
template <class T>
__forceinline__ T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32) {
    return emulator::shuffle_as(emulator::Lane::exclusive_or, mask, value, uint32_t(lanes), uint32_t(width));
}

__forceinline__ uint32_t __ballot_sync(uint32_t mask, int predicate) { return emulator::ballot(mask, predicate != 0); }
__forceinline__ int __any_sync(uint32_t mask, int predicate) { return emulator::ballot(mask, predicate != 0) != 0; }
__forceinline__ int __all_sync(uint32_t mask, int predicate) { return emulator::ballot(mask, predicate == 0) == 0; }

__forceinline__ uint32_t atomicAdd(uint32_t* address, uint32_t value) {
    return emulator::atomic_as(emulator::Atomic::add_u32, address, value, 0u);
}
__forceinline__ int32_t atomicAdd(int32_t* address, int32_t value) {
    return emulator::atomic_as(emulator::Atomic::add_u32, address, value, 0);
}
__forceinline__ float atomicAdd(float* address, float value) {
    return emulator::atomic_as(emulator::Atomic::add_f32, address, value, 0.0f);
}
__forceinline__ uint32_t atomicExch(uint32_t* address, uint32_t value) {
    return emulator::atomic_as(emulator::Atomic::exchange, address, value, 0u);
}
__forceinline__ uint32_t atomicCAS(uint32_t* address, uint32_t expected, uint32_t value) {
    return emulator::atomic_as(emulator::Atomic::compare_and_swap, address, value, expected);
}
__forceinline__ uint32_t atomicMin(uint32_t* address, uint32_t value) {
    return emulator::atomic_as(emulator::Atomic::min_u32, address, value, 0u);
}
__forceinline__ uint32_t atomicMax(uint32_t* address, uint32_t value) {
    return emulator::atomic_as(emulator::Atomic::max_u32, address, value, 0u);
}
