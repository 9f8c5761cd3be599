// The plainest product there is: a thread for each element of out.
#include "dequant.cuh"
#include "params.h"

GPTQ_KERNEL(gptq_my_backend_product_b4_f16, MY_BACKEND_THREADS, MyBackendParams) {
    using Format = gptq::Format<4, false>;
    const uint32_t row = blockIdx.x, column = blockIdx.y * MY_BACKEND_THREADS + threadIdx.x;
    if (column >= params.out_features) return;
    const gptq::f16* x = static_cast<const gptq::f16*>(params.x) + size_t(row) * params.in_features;
    const uint32_t zero_words = (params.out_features * Format::bits + 31) / 32;

    float total = 0.0f;
    for (uint32_t first = 0, group = 0; first < params.in_features; first += params.group_rows, group++) {
        const uint32_t end = gptq::smaller(first + params.group_rows, params.in_features);
        const float zero = float(gptq::read_code<Format>(params.qzeros + size_t(group) * zero_words, 1, column));
        float sum = 0.0f;
        for (uint32_t k = first; k < end; k++) {
            const float code = float(gptq::read_code<Format>(params.qweight + column, params.out_features, k));
            sum = fmaf(gptq::to_float(x[k]), code - zero, sum);
        }
        const size_t at = size_t(group) * params.out_features + column;
        total = fmaf(gptq::read_float(params.scales, params.scale_dtype, at), sum, total);
    }
    if (params.bias != nullptr) total += gptq::read_float(params.bias, params.bias_dtype, column);
    gptq::round_to(total, static_cast<gptq::f16*>(params.out)[size_t(row) * params.out_features + column]);
}
