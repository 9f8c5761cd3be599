// What a kernel file includes first: it makes the same source compile with nvcc and, for the emulator, as C++.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef GPTQ_EMULATOR

#include "emulator.h"

#define GPTQ_DEVICE __forceinline__

// Defines an entry and adds it to the kernels that the emulator can launch.
#define GPTQ_KERNEL(name, threads, Params)                                                                    \
    extern "C" void name(const Params params);                                                                \
    static const emulator::Kernel name##_entry{                                                               \
        #name, [](const void* params) { name(*static_cast<const Params*>(params)); }, sizeof(Params), threads}; \
    extern "C" void name(const Params params)
#define GPTQ_KERNEL_RESIDENT(name, threads, resident, Params) GPTQ_KERNEL(name, threads, Params)

// Shared memory is an address here, not a declaration: all fibers run on one host thread.
#define GPTQ_SHARED(T, name, count)       \
    static const char name##_key = 0;     \
    T* const name = static_cast<T*>(emulator::static_shared(&name##_key, sizeof(T) * (count)))
#define GPTQ_SHARED_DYNAMIC(T, name) T* const name = static_cast<T*>(emulator::dynamic_shared())
#define GPTQ_SHARED_SWIZZLED(name) GPTQ_SHARED_DYNAMIC(char, name)

#else

#define GPTQ_DEVICE __device__ __forceinline__

// Defines an entry: extern "C", at most `threads` threads a block, one struct of parameters called `params`.
#define GPTQ_KERNEL(name, threads, Params) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Params params)
// The same, with as many blocks to a multiprocessor as `resident` says. Left alone, ptxas spills a little in some kernels to
// make room for more blocks; told a number, it uses all the registers that leaves. Which is better was tried for each kernel.
#define GPTQ_KERNEL_RESIDENT(name, threads, resident, Params) \
    extern "C" __global__ void __launch_bounds__(threads, resident) name(const __grid_constant__ Params params)

// An array in shared memory.
#define GPTQ_SHARED(T, name, count) __shared__ T name[count]
// The shared memory that the launch asks for. One declaration of raw bytes: nvcc wants all `extern __shared__` arrays of
// a file to have one type.
#define GPTQ_SHARED_DYNAMIC(T, name)                                   \
    extern __shared__ __align__(16) unsigned char gptq_dynamic_shared[]; \
    T* const name = reinterpret_cast<T*>(gptq_dynamic_shared)
// The same at a multiple of 1024 bytes, for kernels that declare no other shared memory.
#define GPTQ_SHARED_SWIZZLED(name)                                               \
    extern __shared__ __align__(1024) unsigned char gptq_dynamic_shared_swizzled[]; \
    char* const name = reinterpret_cast<char*>(gptq_dynamic_shared_swizzled)

#endif

// An entry of the family that includes this: gptq_<GPTQ_FAMILY>_<name>, for kernels that several families instantiate.
#define GPTQ_FAMILY_KERNEL(name, threads, Params) GPTQ_EXPANDED_KERNEL(GPTQ_OF_FAMILY(GPTQ_FAMILY, name), threads, Params)
#define GPTQ_FAMILY_KERNEL_RESIDENT(name, threads, resident, Params) \
    GPTQ_EXPANDED_KERNEL_RESIDENT(GPTQ_OF_FAMILY(GPTQ_FAMILY, name), threads, resident, Params)
// Names are put together on the way through these, before they are quoted.
#define GPTQ_EXPANDED_KERNEL(name, threads, Params) GPTQ_KERNEL(name, threads, Params)
#define GPTQ_EXPANDED_KERNEL_RESIDENT(name, threads, resident, Params) GPTQ_KERNEL_RESIDENT(name, threads, resident, Params)
#define GPTQ_OF_FAMILY(family, name) GPTQ_JOINED(family, name)
#define GPTQ_JOINED(family, name) gptq_##family##_##name

namespace gptq {

constexpr uint32_t kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

GPTQ_DEVICE uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

}  // namespace gptq
