#ifndef GPTQ_TEST_SCALE_PARAMS_H
#define GPTQ_TEST_SCALE_PARAMS_H

#include <stdint.h>

/// Launch parameters of `gptq_test_scale_f32`: values[i] *= factor for i < count.
struct gptq_test_scale_params {
    /// Device address of the values.
    uint64_t values;
    /// How many there are.
    uint32_t count;
    /// What each is multiplied with.
    float factor;
};

#endif
