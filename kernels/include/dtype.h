/* Element types as launch parameters say them. C11, so that Rust can read it. */
#ifndef GPTQ_DTYPE_H
#define GPTQ_DTYPE_H

#define GPTQ_DTYPE_F32 0u
#define GPTQ_DTYPE_F16 1u
#define GPTQ_DTYPE_BF16 2u

#endif
