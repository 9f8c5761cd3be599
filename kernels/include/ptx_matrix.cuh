// The PTX instructions of tensor cores that work on one warp: matrices from shared memory, and products. As ptx.cuh: each once
// for the GPU and once for the emulator.
#pragma once

#include "ptx.cuh"

namespace gptq {

/// ldmatrix: lane 8m + r points to row r of matrix m; lane 4r + q receives elements 2q and 2q + 1 of row r of each.
GPTQ_DEVICE void load_matrices(uint32_t (&to)[4], const void* row) {
#ifdef GPTQ_EMULATOR
    emulator::load_matrix(to, row, 4, false);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

#ifndef GPTQ_EMULATOR
GPTQ_DEVICE void load_matrices(uint32_t (&to)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}
#endif

GPTQ_DEVICE void load_matrices(uint32_t (&to)[2], const void* row) {
#ifdef GPTQ_EMULATOR
    emulator::load_matrix(to, row, 2, false);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

/// ldmatrix.trans: elements of columns instead of rows.
GPTQ_DEVICE void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
#ifdef GPTQ_EMULATOR
    emulator::load_matrix(to, row, 4, true);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

/// movmatrix: of a matrix of 8 x 8 16-bit elements, of which lane 4r + q has elements 2q and 2q + 1 of row r, the transpose.
GPTQ_DEVICE uint32_t transpose_matrix(uint32_t two) {
#ifdef GPTQ_EMULATOR
    const uint32_t lane = threadIdx.x % kWarp, r = lane / 4, q = lane % 4;
    const uint32_t first = __shfl_sync(kAllLanes, two, 8 * q + r / 2), second = __shfl_sync(kAllLanes, two, 8 * q + 4 + r / 2);
    return choose_bytes(first, second, r % 2 == 0 ? 0x5410 : 0x7632);
#else
    uint32_t result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(two));
    return result;
#endif
}

/// mma.sync m16n8k16, f32 accumulators: c += a b.
GPTQ_DEVICE void multiply_accumulate(float (&c)[4], const f16x2 (&a)[4], const f16x2 (&b)[2]) {
#ifdef GPTQ_EMULATOR
    const uint32_t a_bits[4] = {a[0].bits, a[1].bits, a[2].bits, a[3].bits}, b_bits[2] = {b[0].bits, b[1].bits};
    emulator::multiply(emulator::Element::f16, 16, c, a_bits, b_bits);
#elif __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0].bits), "r"(a[1].bits), "r"(a[2].bits), "r"(a[3].bits), "r"(b[0].bits), "r"(b[1].bits));
#else
    // Turing has only k = 8.
    for (int half = 0; half < 2; half++) {
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[2 * half].bits), "r"(a[2 * half + 1].bits), "r"(b[half].bits));
    }
#endif
}

/// mma.sync m16n8k8, f32 accumulators.
GPTQ_DEVICE void multiply_accumulate(float (&c)[4], const f16x2 (&a)[2], const f16x2 (&b)[1]) {
#ifdef GPTQ_EMULATOR
    const uint32_t a_bits[2] = {a[0].bits, a[1].bits};
    emulator::multiply(emulator::Element::f16, 8, c, a_bits, &b[0].bits);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0].bits), "r"(a[1].bits), "r"(b[0].bits));
#endif
}

#if defined(GPTQ_EMULATOR) || __CUDA_ARCH__ >= 800
GPTQ_DEVICE void multiply_accumulate(float (&c)[4], const bf16x2 (&a)[4], const bf16x2 (&b)[2]) {
#ifdef GPTQ_EMULATOR
    const uint32_t a_bits[4] = {a[0].bits, a[1].bits, a[2].bits, a[3].bits}, b_bits[2] = {b[0].bits, b[1].bits};
    emulator::multiply(emulator::Element::bf16, 16, c, a_bits, b_bits);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0].bits), "r"(a[1].bits), "r"(a[2].bits), "r"(a[3].bits), "r"(b[0].bits), "r"(b[1].bits));
#endif
}

GPTQ_DEVICE void multiply_accumulate(float (&c)[4], const bf16x2 (&a)[2], const bf16x2 (&b)[1]) {
#ifdef GPTQ_EMULATOR
    const uint32_t a_bits[2] = {a[0].bits, a[1].bits};
    emulator::multiply(emulator::Element::bf16, 8, c, a_bits, &b[0].bits);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0].bits), "r"(a[1].bits), "r"(b[0].bits));
#endif
}
#endif

}  // namespace gptq
