#include "params.h"

extern "C" __global__ void gptq_test_scale_f32(const __grid_constant__ struct gptq_test_scale_params params) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    float* values = reinterpret_cast<float*>(params.values);
    if (i < params.count) values[i] *= params.factor;
}
