/* A header on the include path. */
#define GPTQ_TEST_HALF 0.5f
