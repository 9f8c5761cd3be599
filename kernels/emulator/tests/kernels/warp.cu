// Warp operations by themselves, for comparison with what the PTX manual says.
#include "ptx_matrix.cuh"

struct alignas(8) ProductParams {
    const uint16_t* a;  // [16, 16] row-major, or [16, 8]
    const uint16_t* b;  // [8, 16]: column-major k x n, or [8, 8]
    float* c;           // [16, 8], in and out
};

namespace {

/// a through ldmatrix, b from memory, c back to memory.
template <class Pair, int k>
GPTQ_DEVICE void product(const ProductParams& params) {
    GPTQ_SHARED(uint4, staged, 16 * k / 8);
    const uint32_t lane = threadIdx.x, g = lane / 4, q = lane % 4;
    if (lane < 16 * k / 8) gptq::copy_async(&staged[lane], reinterpret_cast<const uint4*>(params.a) + lane);
    gptq::commit_copies();
    gptq::wait_copies<0>();
    __syncwarp();
    uint32_t a_bits[k / 4];
    gptq::load_matrices(a_bits, &staged[lane % 16 * (k / 8) + (lane / 16) % (k / 8)]);
    Pair a[k / 4], b[k / 8];
    for (int i = 0; i < k / 4; i++) a[i].bits = a_bits[i];
    for (int i = 0; i < k / 8; i++) b[i].bits = gptq::load<uint32_t>(params.b + g * k + q * 2 + i * 8);
    float c[4];
    for (uint32_t i = 0; i < 4; i++) c[i] = params.c[(g + i / 2 * 8) * 8 + q * 2 + i % 2];
    gptq::multiply_accumulate(c, a, b);
    for (uint32_t i = 0; i < 4; i++) params.c[(g + i / 2 * 8) * 8 + q * 2 + i % 2] = c[i];
}

}  // namespace

GPTQ_KERNEL(gptq_test_product_f16_k16, 32, ProductParams) { product<gptq::f16x2, 16>(params); }
GPTQ_KERNEL(gptq_test_product_f16_k8, 32, ProductParams) { product<gptq::f16x2, 8>(params); }
GPTQ_KERNEL(gptq_test_product_bf16_k16, 32, ProductParams) { product<gptq::bf16x2, 16>(params); }
GPTQ_KERNEL(gptq_test_product_bf16_k8, 32, ProductParams) { product<gptq::bf16x2, 8>(params); }

struct alignas(8) LanesParams {
    const uint32_t* from;  // [32]
    uint32_t* to;          // [32 * 8]
};

GPTQ_KERNEL(gptq_test_lanes, 32, LanesParams) {
    const uint32_t lane = threadIdx.x, value = params.from[lane];
    uint32_t* to = params.to + lane * 8;
    to[0] = __shfl_sync(gptq::kAllLanes, value, 3, 8);
    to[1] = __shfl_up_sync(gptq::kAllLanes, value, 3, 16);
    to[2] = __shfl_down_sync(gptq::kAllLanes, value, 5, 16);
    to[3] = __shfl_xor_sync(gptq::kAllLanes, value, 17);
    to[4] = __ballot_sync(gptq::kAllLanes, lane % 3 == 0);
    to[5] = uint32_t(__any_sync(gptq::kAllLanes, lane == 31)) + 2 * uint32_t(__all_sync(gptq::kAllLanes, lane < 31));
    GPTQ_SHARED(uint4, rows, 32);
    gptq::store(&rows[lane], make_uint4(lane * 4, lane * 4 + 1, lane * 4 + 2, lane * 4 + 3));
    __syncwarp();
    uint32_t transposed[4];
    gptq::load_matrices_transposed(transposed, &rows[lane]);
    to[6] = transposed[1];
    // Two halves of a warp at the same time, each with a mask of its own.
    to[7] = lane < 16 ? __shfl_xor_sync(0x0000ffffu, value, 1) : __shfl_xor_sync(0xffff0000u, value, 2);
}
