// Which shapes of blocks there are. All have 256 threads; params.h says what each name means. Behind _k are the rows of W of
// an item, where there is more than one of a size: all warps wait for one another once an item, so that long ones are faster,
// and take more shared memory than every GPU has.
#include "product.cuh"

#define GPTQ_PRODUCT(name, resident, ...)                                                             \
    namespace gptq {                                                                                  \
    using Product_##name = ProductShape<__VA_ARGS__>;                                                 \
    static_assert(Product_##name::threads == GPTQ_EXLLAMA_V1_THREADS, "params.h");                    \
    }                                                                                                 \
    GPTQ_KERNEL_RESIDENT(gptq_exllama_v1_product_##name, GPTQ_EXLLAMA_V1_THREADS, resident,           \
                         GptqExllamaV1ProductParams) {                                                \
        gptq::product_on_tensor_cores<gptq::Product_##name>(params);                                  \
    }

// Three blocks of these on a multiprocessor leave 80 registers. For older GPUs ptxas wants a few more, and would spill.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define GPTQ_SMALL_RESIDENT 2
#else
#define GPTQ_SMALL_RESIDENT 3
#endif

//           name      blocks on a multiprocessor
//                        token tiles, warps across, down, chunks of a warp, stages, x in shared memory
GPTQ_PRODUCT(m8_n32, GPTQ_SMALL_RESIDENT, 1, 1, 8, 4, 3, false)
GPTQ_PRODUCT(m8_n64, GPTQ_SMALL_RESIDENT, 1, 2, 4, 4, 3, false)
GPTQ_PRODUCT(m16_n128, 2, 2, 4, 2, 4, 3, true)
GPTQ_PRODUCT(m32_n128, 1, 4, 4, 2, 4, 4, true)
GPTQ_PRODUCT(m32_n256, 1, 4, 8, 1, 2, 4, true)
GPTQ_PRODUCT(m32_n256_k256, 1, 4, 8, 1, 8, 3, true)
GPTQ_PRODUCT(m64_n128, 1, 8, 4, 2, 2, 3, true)
GPTQ_PRODUCT(m64_n128_k256, 1, 8, 4, 2, 4, 3, true)
GPTQ_PRODUCT(m64_n256, 1, 8, 8, 1, 2, 4, true)
GPTQ_PRODUCT(m64_n256_k128, 1, 8, 8, 1, 4, 3, true)
GPTQ_PRODUCT(m64_n256_k256, 1, 8, 8, 1, 8, 3, true)
