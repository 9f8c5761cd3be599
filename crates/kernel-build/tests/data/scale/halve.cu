#include "half.h"
#include "params.h"

// Through dynamic shared memory, so that a launch has to ask for some.
extern "C" __global__ void gptq_test_halve_f32(const __grid_constant__ struct gptq_test_scale_params params) {
    extern __shared__ float staged[];
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    float* values = reinterpret_cast<float*>(params.values);
    staged[threadIdx.x] = i < params.count ? values[i] : 0.0f;
    __syncthreads();
    if (i < params.count) values[i] = staged[threadIdx.x] * GPTQ_TEST_HALF;
}
