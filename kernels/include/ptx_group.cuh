// wgmma: products of four warps together, and what they need around them. Hopper (sm_90a) only; elsewhere the same names
// are there and do nothing, and there are no kernels that use them. In the emulator each warp multiplies for itself.
#pragma once

#include "ptx_matrix.cuh"

#if !defined(GPTQ_EMULATOR) && defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define GPTQ_HAS_WGMMA 1
#endif

namespace gptq {

/// fence.proxy.async: what this thread wrote to shared memory before (copies that it has waited for, too) is seen by wgmma
/// after a barrier.
GPTQ_DEVICE void let_groups_read_shared() {
#ifdef GPTQ_HAS_WGMMA
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/// wgmma.fence: registers that were written before may be used by the next wgmma.
GPTQ_DEVICE void begin_group_multiply() {
#ifdef GPTQ_HAS_WGMMA
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

/// wgmma.commit_group
GPTQ_DEVICE void commit_group_multiply() {
#ifdef GPTQ_HAS_WGMMA
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

/// wgmma.wait_group: until at most so many groups are under way.
template <int most_pending>
GPTQ_DEVICE void wait_group_multiply() {
#ifdef GPTQ_HAS_WGMMA
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(most_pending) : "memory");
#endif
}

/// Operand B of wgmma in shared memory: tokens of 128 bytes (64 elements along k) in 16-byte parts that are swapped by
/// `part ^ token % 8`, eight tokens behind the other. The address is a multiple of 1024.
struct GroupOperand {
#ifdef GPTQ_EMULATOR
    const char* address;
    GPTQ_DEVICE explicit GroupOperand(SharedAddress address) : address(address) {}
#else
    uint32_t low;
    GPTQ_DEVICE explicit GroupOperand(SharedAddress address) : low(address >> 4 | 1u << 16) {}
    /// Of the step's 16 elements along k.
    GPTQ_DEVICE uint64_t descriptor(uint32_t step) const {
        // 1024 bytes from eight tokens to the next eight; the swizzle of 128 bytes.
        constexpr uint32_t kHigh = 1024 / 16 | 1u << 30;
        return uint64_t(kHigh) << 32 | (low + step * 2);
    }
#endif
};

/// What wgmma works on stays in its registers until here.
GPTQ_DEVICE void hold([[maybe_unused]] float (&c)[4]) {
#ifndef GPTQ_EMULATOR
    asm volatile("" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])::"memory");
#endif
}

#ifdef GPTQ_HAS_WGMMA
// wgmma of 64 columns by so many tiles of eight rows of x, c (+)= a b: by the numbers of the registers of c, then a, b, add.
#define GPTQ_GROUP_OF(tiles, n, type, Pair, registers, of_a, of_b, of_add, ...)                                            \
    template <bool add>                                                                                                   \
    GPTQ_DEVICE void multiply_group(float (&c)[tiles][4], const Pair (&a)[4], uint64_t b) {                               \
        asm volatile("{ .reg .pred p; setp.ne.b32 p, " of_add ", 0;\n"                                                    \
                     "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" registers "}, {" of_a "}, " of_b \
                     ", p, 1, 1, 0; }"                                                                                    \
                     : __VA_ARGS__                                                                                        \
                     : "r"(a[0].bits), "r"(a[1].bits), "r"(a[2].bits), "r"(a[3].bits), "l"(b), "n"(int(add)));            \
    }
#define GPTQ_GROUP(tiles, n, registers, of_a, of_b, of_add, ...)                                     \
    GPTQ_GROUP_OF(tiles, n, "f16", f16x2, registers, of_a, of_b, of_add, __VA_ARGS__)                \
    GPTQ_GROUP_OF(tiles, n, "bf16", bf16x2, registers, of_a, of_b, of_add, __VA_ARGS__)
#define GPTQ_SUMS(t) "+f"(c[t][0]), "+f"(c[t][1]), "+f"(c[t][2]), "+f"(c[t][3])
#define GPTQ_REGISTERS_2 "%0, %1, %2, %3, %4, %5, %6, %7"
#define GPTQ_SUMS_2 GPTQ_SUMS(0), GPTQ_SUMS(1)
#define GPTQ_REGISTERS_4 GPTQ_REGISTERS_2 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define GPTQ_SUMS_4 GPTQ_SUMS_2, GPTQ_SUMS(2), GPTQ_SUMS(3)
#define GPTQ_REGISTERS_5 GPTQ_REGISTERS_4 ", %16, %17, %18, %19"
#define GPTQ_SUMS_5 GPTQ_SUMS_4, GPTQ_SUMS(4)
#define GPTQ_REGISTERS_6 GPTQ_REGISTERS_5 ", %20, %21, %22, %23"
#define GPTQ_SUMS_6 GPTQ_SUMS_5, GPTQ_SUMS(5)
#define GPTQ_REGISTERS_7 GPTQ_REGISTERS_6 ", %24, %25, %26, %27"
#define GPTQ_SUMS_7 GPTQ_SUMS_6, GPTQ_SUMS(6)
#define GPTQ_REGISTERS_8 GPTQ_REGISTERS_7 ", %28, %29, %30, %31"
#define GPTQ_SUMS_8 GPTQ_SUMS_7, GPTQ_SUMS(7)
#define GPTQ_REGISTERS_9 GPTQ_REGISTERS_8 ", %32, %33, %34, %35"
#define GPTQ_SUMS_9 GPTQ_SUMS_8, GPTQ_SUMS(8)
#define GPTQ_REGISTERS_10 GPTQ_REGISTERS_9 ", %36, %37, %38, %39"
#define GPTQ_SUMS_10 GPTQ_SUMS_9, GPTQ_SUMS(9)
#define GPTQ_REGISTERS_11 GPTQ_REGISTERS_10 ", %40, %41, %42, %43"
#define GPTQ_SUMS_11 GPTQ_SUMS_10, GPTQ_SUMS(10)
#define GPTQ_REGISTERS_12 GPTQ_REGISTERS_11 ", %44, %45, %46, %47"
#define GPTQ_SUMS_12 GPTQ_SUMS_11, GPTQ_SUMS(11)
#define GPTQ_REGISTERS_14 GPTQ_REGISTERS_12 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define GPTQ_SUMS_14 GPTQ_SUMS_12, GPTQ_SUMS(12), GPTQ_SUMS(13)
#define GPTQ_REGISTERS_16 GPTQ_REGISTERS_12 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define GPTQ_SUMS_16 GPTQ_SUMS_12, GPTQ_SUMS(12), GPTQ_SUMS(13), GPTQ_SUMS(14), GPTQ_SUMS(15)
#define GPTQ_REGISTERS_18 GPTQ_REGISTERS_16 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define GPTQ_SUMS_18 GPTQ_SUMS_16, GPTQ_SUMS(16), GPTQ_SUMS(17)
#define GPTQ_REGISTERS_19 GPTQ_REGISTERS_18 ", %72, %73, %74, %75"
#define GPTQ_SUMS_19 GPTQ_SUMS_18, GPTQ_SUMS(18)
GPTQ_GROUP(4, "32", GPTQ_REGISTERS_4, "%16, %17, %18, %19", "%20", "%21", GPTQ_SUMS_4)
GPTQ_GROUP(5, "40", GPTQ_REGISTERS_5, "%20, %21, %22, %23", "%24", "%25", GPTQ_SUMS_5)
GPTQ_GROUP(6, "48", GPTQ_REGISTERS_6, "%24, %25, %26, %27", "%28", "%29", GPTQ_SUMS_6)
GPTQ_GROUP(7, "56", GPTQ_REGISTERS_7, "%28, %29, %30, %31", "%32", "%33", GPTQ_SUMS_7)
GPTQ_GROUP(8, "64", GPTQ_REGISTERS_8, "%32, %33, %34, %35", "%36", "%37", GPTQ_SUMS_8)
GPTQ_GROUP(9, "72", GPTQ_REGISTERS_9, "%36, %37, %38, %39", "%40", "%41", GPTQ_SUMS_9)
GPTQ_GROUP(10, "80", GPTQ_REGISTERS_10, "%40, %41, %42, %43", "%44", "%45", GPTQ_SUMS_10)
GPTQ_GROUP(11, "88", GPTQ_REGISTERS_11, "%44, %45, %46, %47", "%48", "%49", GPTQ_SUMS_11)
GPTQ_GROUP(12, "96", GPTQ_REGISTERS_12, "%48, %49, %50, %51", "%52", "%53", GPTQ_SUMS_12)
GPTQ_GROUP(14, "112", GPTQ_REGISTERS_14, "%56, %57, %58, %59", "%60", "%61", GPTQ_SUMS_14)
GPTQ_GROUP(16, "128", GPTQ_REGISTERS_16, "%64, %65, %66, %67", "%68", "%69", GPTQ_SUMS_16)
GPTQ_GROUP(18, "144", GPTQ_REGISTERS_18, "%72, %73, %74, %75", "%76", "%77", GPTQ_SUMS_18)
GPTQ_GROUP(19, "152", GPTQ_REGISTERS_19, "%76, %77, %78, %79", "%80", "%81", GPTQ_SUMS_19)
#endif

}  // namespace gptq
