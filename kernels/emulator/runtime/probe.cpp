// What the emulator needs of a compiler and a machine; nothing is called.
#include <sys/mman.h>

#if __cplusplus < 201703L
#error "C++17 is needed"
#endif

_Float16 gptq_emulator_probe(float value) { return static_cast<_Float16>(value); }
