// Every PTX instruction that the kernels use, each once for the GPU and once for the emulator. By PTX ISA 9.0.
//
// The types of 16-bit floats are ours, and hold bits: CUDA's headers for them are large, differ between toolkits, and
// do not compile without one.
#pragma once

#include "rt.cuh"

namespace gptq {

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};
/// Two in one register, the first in the low half.
struct f16x2 {
    uint32_t bits;
};
struct bf16x2 {
    uint32_t bits;
};

#ifdef GPTQ_EMULATOR

namespace emulated {

inline float to_float(f16 value) {
    _Float16 half;
    memcpy(&half, &value.bits, sizeof half);
    return static_cast<float>(half);
}
template <class From>
inline f16 to_f16(From value) {
    const _Float16 half = static_cast<_Float16>(value);
    f16 result;
    memcpy(&result.bits, &half, sizeof half);
    return result;
}
inline float to_float(bf16 value) { return __uint_as_float(uint32_t(value.bits) << 16); }
/// To the nearest, ties to even.
inline bf16 to_bf16(float value) {
    const uint32_t bits = __float_as_uint(value);
    if (value != value) return {uint16_t(bits >> 16 | 0x40)};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

/// a * b + c so that rounding it again, to at most 24 bits, rounds once: the product of 11-bit numbers is exact, and the
/// sum is rounded to odd (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
inline double fma_to_odd(float a, float b, float c) {
    const double product = double(a) * double(b), addend = c;
    const double sum = product + addend;
    const double of_addend = sum - product;
    const double error = (product - (sum - of_addend)) + (addend - of_addend);
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    if (error != 0 && (bits & 1) == 0) bits += (error > 0) == (sum > 0) ? 1 : -1;
    double odd;
    memcpy(&odd, &bits, sizeof odd);
    return odd;
}
inline f16 fma(f16 a, f16 b, f16 c) { return to_f16(fma_to_odd(to_float(a), to_float(b), to_float(c))); }
inline bf16 fma(bf16 a, bf16 b, bf16 c) {
    // Two 8-bit numbers and a third: rounding the f32 to odd needs the double first.
    const double exact = fma_to_odd(to_float(a), to_float(b), to_float(c));
    float rounded = static_cast<float>(exact);
    uint32_t bits = __float_as_uint(rounded);
    if (double(rounded) != exact && (bits & 1) == 0) bits += (exact > double(rounded)) == (rounded > 0) ? 1 : -1;
    return to_bf16(__uint_as_float(bits));
}

template <class Half, class Pair, class Operation>
inline Pair each(Pair a, Pair b, Pair c, Operation operation) {
    const Half low = operation(Half{uint16_t(a.bits)}, Half{uint16_t(b.bits)}, Half{uint16_t(c.bits)});
    const Half high =
        operation(Half{uint16_t(a.bits >> 16)}, Half{uint16_t(b.bits >> 16)}, Half{uint16_t(c.bits >> 16)});
    return {low.bits | uint32_t(high.bits) << 16};
}

}  // namespace emulated

#endif

// Integers

/// prmt: bytes of (low, high), chosen by the digits of `selector`: 0 to 3 are those of `low`, 4 to 7 of `high`.
GPTQ_DEVICE uint32_t choose_bytes(uint32_t low, uint32_t high, uint32_t selector) {
#ifdef GPTQ_EMULATOR
    const uint64_t both = uint64_t(high) << 32 | low;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) result |= uint32_t(both >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
    return result;
#else
    uint32_t result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "r"(selector));
    return result;
#endif
}

/// shf.r: 32 bits of (low, high), from bit `shift` on; 0 to 31.
GPTQ_DEVICE uint32_t funnel_shift(uint32_t low, uint32_t high, uint32_t shift) {
#ifdef GPTQ_EMULATOR
    return uint32_t((uint64_t(high) << 32 | low) >> (shift & 31));
#else
    uint32_t result;
    asm("shf.r.wrap.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "r"(shift));
    return result;
#endif
}

/// lop3: a & b | c in one instruction. Written out: nvcc puts constant masks into the instruction, which has room for
/// one, and makes two of it. Volatile, so that it stays where it is used: hoisted, hundreds of them fill the registers.
GPTQ_DEVICE uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) {
#ifdef GPTQ_EMULATOR
    return (a & b) | c;
#else
    uint32_t result;
    asm volatile("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
#endif
}

/// and, volatile as `and_or` is.
GPTQ_DEVICE uint32_t bits_of(uint32_t a, uint32_t mask) {
#ifdef GPTQ_EMULATOR
    return a & mask;
#else
    uint32_t result;
    asm volatile("and.b32 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(mask));
    return result;
#endif
}

/// mul.hi: the high 32 bits of the product.
GPTQ_DEVICE uint32_t high_product(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }

// Floats

/// mul.rz: the product cut off, not rounded.
GPTQ_DEVICE float multiply_toward_zero(float a, float b) {
#ifdef GPTQ_EMULATOR
    const double exact = double(a) * double(b);
    float result = static_cast<float>(exact);
    if (fabs(double(result)) > fabs(exact)) result = __uint_as_float(__float_as_uint(result) - 1);
    return result;
#else
    float result;
    asm("mul.rz.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#endif
}

GPTQ_DEVICE float to_float(f16 value) {
#ifdef GPTQ_EMULATOR
    return emulated::to_float(value);
#else
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#endif
}

GPTQ_DEVICE float to_float(bf16 value) { return __uint_as_float(uint32_t(value.bits) << 16); }
GPTQ_DEVICE float to_float(float value) { return value; }

/// An integer below 2^23, without a conversion, which few lanes do at a time.
GPTQ_DEVICE float small_integer(uint32_t value) { return __uint_as_float(0x4b000000u | value) - 8388608.0f; }

GPTQ_DEVICE float2 to_floats(f16x2 pair) {
    return make_float2(to_float(f16{uint16_t(pair.bits)}), to_float(f16{uint16_t(pair.bits >> 16)}));
}
GPTQ_DEVICE float2 to_floats(bf16x2 pair) {
    return make_float2(__uint_as_float(pair.bits << 16), __uint_as_float(pair.bits & 0xffff0000u));
}

/// cvt.rn.f16x2.f32: both to the nearest, ties to even.
GPTQ_DEVICE f16x2 to_f16x2(float low, float high) {
#ifdef GPTQ_EMULATOR
    return {emulated::to_f16(low).bits | uint32_t(emulated::to_f16(high).bits) << 16};
#elif __CUDA_ARCH__ >= 800
    f16x2 result;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result.bits) : "f"(high), "f"(low));
    return result;
#else
    uint16_t halves[2];
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(halves[0]) : "f"(low));
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(halves[1]) : "f"(high));
    return {halves[0] | uint32_t(halves[1]) << 16};
#endif
}

/// cvt.rn.bf16x2.f32: both to the nearest, ties to even.
GPTQ_DEVICE bf16x2 to_bf16x2(float low, float high) {
#ifdef GPTQ_EMULATOR
    return {emulated::to_bf16(low).bits | uint32_t(emulated::to_bf16(high).bits) << 16};
#elif __CUDA_ARCH__ >= 800
    bf16x2 result;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result.bits) : "f"(high), "f"(low));
    return result;
#else
    // Turing has no bf16.
    const float values[2] = {low, high};
    uint32_t result = 0;
    for (int i = 0; i < 2; i++) {
        const uint32_t bits = __float_as_uint(values[i]);
        const uint32_t rounded = values[i] != values[i] ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        result |= rounded << (16 * i);
    }
    return {result};
#endif
}

/// sub.rn.f16x2
GPTQ_DEVICE f16x2 subtract(f16x2 a, f16x2 b) {
#ifdef GPTQ_EMULATOR
    return emulated::each<f16>(a, b, b, [](f16 a, f16 b, f16) {
        return emulated::to_f16(emulated::to_float(a) - emulated::to_float(b));
    });
#else
    f16x2 result;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(result.bits) : "r"(a.bits), "r"(b.bits));
    return result;
#endif
}

/// mul.rn.f16x2
GPTQ_DEVICE f16x2 multiply(f16x2 a, f16x2 b) {
#ifdef GPTQ_EMULATOR
    return emulated::each<f16>(a, b, b, [](f16 a, f16 b, f16) {
        return emulated::to_f16(emulated::to_float(a) * emulated::to_float(b));
    });
#else
    f16x2 result;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(result.bits) : "r"(a.bits), "r"(b.bits));
    return result;
#endif
}

/// fma.rn.f16x2
GPTQ_DEVICE f16x2 multiply_add(f16x2 a, f16x2 b, f16x2 c) {
#ifdef GPTQ_EMULATOR
    return emulated::each<f16>(a, b, c, [](f16 a, f16 b, f16 c) { return emulated::fma(a, b, c); });
#else
    f16x2 result;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result.bits) : "r"(a.bits), "r"(b.bits), "r"(c.bits));
    return result;
#endif
}

#if defined(GPTQ_EMULATOR) || __CUDA_ARCH__ >= 800
/// fma.rn.bf16x2. Ampere has neither mul nor sub of them: multiply by one, or add zero.
GPTQ_DEVICE bf16x2 multiply_add(bf16x2 a, bf16x2 b, bf16x2 c) {
#ifdef GPTQ_EMULATOR
    return emulated::each<bf16>(a, b, c, [](bf16 a, bf16 b, bf16 c) { return emulated::fma(a, b, c); });
#else
    bf16x2 result;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result.bits) : "r"(a.bits), "r"(b.bits), "r"(c.bits));
    return result;
#endif
}
#endif

// Memory. Addresses are aligned to the size of the access.

/// ld.global.nc, 16 bytes of what is read once: past the L1, 128 bytes into the L2. Never for what another kernel of a
/// programmatic dependent launch writes: the load may move above the wait.
GPTQ_DEVICE uint4 load_stream(const void* address) {
    uint4 value;
#ifdef GPTQ_EMULATOR
    emulator::load(&value, address, sizeof value);
#else
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(address));
#endif
    return value;
}

/// The same for one, two or four words.
GPTQ_DEVICE void load_stream(const void* address, uint32_t (&to)[4]) {
    const uint4 value = load_stream(address);
    to[0] = value.x, to[1] = value.y, to[2] = value.z, to[3] = value.w;
}
GPTQ_DEVICE void load_stream(const void* address, uint32_t (&to)[2]) {
#ifdef GPTQ_EMULATOR
    emulator::load(to, address, sizeof to);
#else
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "l"(address));
#endif
}
GPTQ_DEVICE void load_stream(const void* address, uint32_t (&to)[1]) {
#ifdef GPTQ_EMULATOR
    emulator::load(to, address, sizeof to);
#else
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];" : "=r"(to[0]) : "l"(address));
#endif
}

/// ld.global.nc of what no kernel writes while this one may run, and more than one warp reads.
GPTQ_DEVICE uint32_t load_constant(const uint32_t* address) {
    uint32_t value;
#ifdef GPTQ_EMULATOR
    emulator::load(&value, address, sizeof value);
#else
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(value) : "l"(address));
#endif
    return value;
}
GPTQ_DEVICE uint16_t load_constant(const uint16_t* address) {
    uint16_t value;
#ifdef GPTQ_EMULATOR
    emulator::load(&value, address, sizeof value);
#else
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(value) : "l"(address));
#endif
    return value;
}

/// ld.global of 16 bytes.
GPTQ_DEVICE uint4 load_global(const void* address) {
    uint4 value;
#ifdef GPTQ_EMULATOR
    emulator::load(&value, address, sizeof value);
#else
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(address)
                 : "memory");
#endif
    return value;
}

/// 4, 8 or 16 bytes at once, as uint32_t, uint2 or uint4.
template <class T>
GPTQ_DEVICE T load(const void* address) {
#ifdef GPTQ_EMULATOR
    T value;
    emulator::load(&value, address, sizeof value);
    return value;
#else
    return *static_cast<const T*>(address);
#endif
}

template <class T>
GPTQ_DEVICE void store(void* address, T value) {
#ifdef GPTQ_EMULATOR
    emulator::store(address, &value, sizeof value);
#else
    *static_cast<T*>(address) = value;
#endif
}

/// st.global of 16 bytes. Written out: nvcc turns an assignment of a uint4 whose parts come out of different instructions
/// into four stores.
GPTQ_DEVICE void store_global(void* address, uint4 value) {
#ifdef GPTQ_EMULATOR
    emulator::store(address, &value, sizeof value);
#else
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.x), "r"(value.y), "r"(value.z),
                 "r"(value.w)
                 : "memory");
#endif
}

/// st.global of 4 bytes, and of 2.
GPTQ_DEVICE void store_global(void* address, uint32_t value) {
#ifdef GPTQ_EMULATOR
    emulator::store(address, &value, sizeof value);
#else
    asm volatile("st.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
#endif
}
GPTQ_DEVICE void store_global(void* address, uint16_t value) {
#ifdef GPTQ_EMULATOR
    emulator::store(address, &value, sizeof value);
#else
    asm volatile("st.global.u16 [%0], %1;" ::"l"(address), "h"(value) : "memory");
#endif
}

/// An address in shared memory. 32 bits on the GPU, where a pointer has 64 and is turned into one at each use.
#ifdef GPTQ_EMULATOR
using SharedAddress = char*;
GPTQ_DEVICE SharedAddress shared_address(void* pointer) { return static_cast<char*>(pointer); }
#else
using SharedAddress = uint32_t;
GPTQ_DEVICE SharedAddress shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
#endif

/// ld.shared of 16 bytes.
GPTQ_DEVICE uint4 load_shared(SharedAddress address) {
    uint4 value;
#ifdef GPTQ_EMULATOR
    emulator::load(&value, address, sizeof value);
#else
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(address)
                 : "memory");
#endif
    return value;
}

/// ld.shared of 4 and 2 bytes.
GPTQ_DEVICE uint32_t load_shared_word(SharedAddress address) {
    uint32_t value;
#ifdef GPTQ_EMULATOR
    emulator::load(&value, address, sizeof value);
#else
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
#endif
    return value;
}
GPTQ_DEVICE uint32_t load_shared_half(SharedAddress address) {
    uint16_t value;
#ifdef GPTQ_EMULATOR
    emulator::load(&value, address, sizeof value);
#else
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(address) : "memory");
#endif
    return value;
}

/// Keeps a number, or an address in shared memory, in its register: what comes out of a shuffle is not computed anew. Left
/// alone, ptxas saves a register by computing it in each round of a loop. All lanes of a warp call it.
template <class T>
GPTQ_DEVICE void keep([[maybe_unused]] T& number) {
#ifndef GPTQ_EMULATOR
    static_assert(sizeof(T) == 4, "a register");
    uint32_t lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    asm volatile("shfl.sync.idx.b32 %0, %0, %1, 31, -1;" : "+r"(number) : "r"(lane));
#endif
}

/// An address that is not known before: so that what is counted from it is not counted ahead of a loop, where it would take
/// registers, and once for several accesses.
template <class T>
GPTQ_DEVICE T* counted_late(T* address) {
#ifndef GPTQ_EMULATOR
    asm volatile("" : "+l"(address));
#endif
    return address;
}

/// cp.async of 16 bytes past the L1, where `wanted`; zeros otherwise, and nothing is read. Turing copies at once.
GPTQ_DEVICE void copy_async(void* shared, const void* global, bool wanted = true) {
#ifdef GPTQ_EMULATOR
    emulator::copy_async(shared, global, 16, wanted ? 16 : 0);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(wanted ? 16 : 0)
                 : "memory");
#else
    *static_cast<uint4*>(shared) = wanted ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
#endif
}

/// The same through the L1: for what other warps of the multiprocessor read at about the same time.
GPTQ_DEVICE void copy_async_shared_by_warps(void* shared, const void* global, bool wanted = true) {
#if defined(GPTQ_EMULATOR) || __CUDA_ARCH__ < 800
    copy_async(shared, global, wanted);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(wanted ? 16 : 0)
                 : "memory");
#endif
}

/// The same with an address in shared memory.
GPTQ_DEVICE void copy_async_shared_by_warps(SharedAddress shared, const void* global, bool wanted = true) {
#ifdef GPTQ_EMULATOR
    copy_async(static_cast<void*>(shared), global, wanted);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(wanted ? 16 : 0) : "memory");
#else
    const uint4 v = wanted ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#endif
}

/// cp.async as `copy_async`, with an address in shared memory.
GPTQ_DEVICE void copy_async(SharedAddress shared, const void* global, bool wanted = true) {
#ifdef GPTQ_EMULATOR
    copy_async(static_cast<void*>(shared), global, wanted);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(wanted ? 16 : 0) : "memory");
#else
    const uint4 v = wanted ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#endif
}

/// The same for what is read once: 128 bytes into the L2.
GPTQ_DEVICE void copy_stream_async(SharedAddress shared, const void* global) {
#if !defined(GPTQ_EMULATOR) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
#else
    copy_async(shared, global);
#endif
}

/// cp.async.commit_group: the copies since the last one become a group.
GPTQ_DEVICE void commit_copies() {
#ifdef GPTQ_EMULATOR
    emulator::commit_copies();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// cp.async.wait_group: until at most that many groups of this thread are under way. Other threads need a barrier too.
template <int most_pending_groups>
GPTQ_DEVICE void wait_copies() {
#ifdef GPTQ_EMULATOR
    emulator::wait_copies(most_pending_groups);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(most_pending_groups) : "memory");
#endif
}

// Order between blocks, and between kernels

/// Counts those that arrive at a cell in global memory, up to 255 of them, and tells how many came before: so blocks that
/// share work find out who comes last. What the threads of this block wrote before the barrier ahead of it is seen by
/// whoever counts later, and the other way round. Called by one thread of a block.
///
/// A cell that nobody has arrived at holds `mark`, whose low byte is zero, or anything else that is no count above it:
/// scratch need not be cleared. Whoever comes last writes `mark` there again. (initcheck reports the read of a cell that
/// nobody wrote: it is meant.)
GPTQ_DEVICE uint32_t count_arrival(uint64_t* cell, uint64_t mark) {
#ifdef GPTQ_EMULATOR
    return emulator::count_arrival(cell, mark);
#else
    const auto add_one = [&] {
        uint64_t before;
        asm volatile("atom.acq_rel.gpu.global.add.u64 %0, [%1], 1;" : "=l"(before) : "l"(cell) : "memory");
        return before;
    };
    const uint64_t before = add_one();
    if (before - mark < 256) return uint32_t(before - mark);
    // Not a count: whoever replaces it first is the first.
    uint64_t seen = before + 1;
    while (true) {
        uint64_t found;
        asm volatile("atom.acq_rel.gpu.global.cas.b64 %0, [%1], %2, %3;"
                     : "=l"(found)
                     : "l"(cell), "l"(seen), "l"(mark + 1)
                     : "memory");
        if (found == seen) return 0;
        if (found - mark < 256) return uint32_t(add_one() - mark);
        seen = found;
    }
#endif
}

/// griddepcontrol.launch_dependents: a next kernel that was launched to overlap this one may begin.
GPTQ_DEVICE void let_next_kernel_begin() {
#if !defined(GPTQ_EMULATOR) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// griddepcontrol.wait: until the kernels before this one have ended and all that they wrote is seen. Before it, a kernel
/// that may overlap its predecessor touches only what no kernel writes. Nothing where it was launched in the plain way.
GPTQ_DEVICE void wait_for_earlier_kernels() {
#if !defined(GPTQ_EMULATOR) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The same, behind the loads that stand before it. ptxas has no reason to keep ld.global.nc ahead of the wait, and did not
/// where it had made their branch into predicates: then nothing was on the way while this kernel waited. It moves neither over
/// an exit: without `work` there is nothing to wait for.
GPTQ_DEVICE void wait_for_earlier_kernels_behind_loads([[maybe_unused]] uint32_t work) {
#if !defined(GPTQ_EMULATOR) && __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred p; setp.eq.u32 p, %0, 0; @p exit; griddepcontrol.wait; }" ::"r"(work) : "memory");
#endif
}

}  // namespace gptq
