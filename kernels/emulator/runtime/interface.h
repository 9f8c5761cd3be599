// What the Rust side of the emulator calls. `src/ffi.rs` mirrors it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "emulator.h"

namespace emulator {

// The numbers are those of `src/fault.rs`.
enum class What : uint32_t {
    out_of_bounds_read = 1,
    out_of_bounds_write,
    misaligned,
    write_to_input,
    uninitialised_read,
    read_before_wait,
    write_before_wait,
    race,
    divergent_barrier,
    divergent_warp,
    undefined_lane,
    not_shared_memory,
};

/// Why a launch was stopped.
struct Fault {
    What what;
    uint32_t bytes;
    Index block, thread;
    /// The other thread of a race; of another block than `block` where `other_is_of_other_block`.
    uint32_t other_thread, other_is_of_other_block;
    uint64_t address;
    /// The region that `address` is in or nearest to, and where in it. Null: nothing is near.
    const char* region;
    int64_t offset;
    uint64_t region_bytes;
    /// Return addresses in the kernel, or null.
    const void* site;
    const void* other_site;
};

struct Launch {
    Call call;
    const void* params;
    size_t params_bytes;
    Index grid, block;
    size_t shared_bytes;
    uint64_t seed;
};

}  // namespace emulator

extern "C" {
const emulator::Kernel* gptq_emulator_kernels();
/// Makes memory known to the calling thread. `name` outlives the registration.
void gptq_emulator_register(void* start, size_t bytes, int writable, int initialised, const char* name);
void gptq_emulator_unregister(void* start);
/// How many bytes of a registered region hold a value.
size_t gptq_emulator_initialised(const void* start);
/// Runs a launch on the calling thread. 0: it ended; 1: `fault` says why not.
int gptq_emulator_run(const emulator::Launch* launch, emulator::Fault* fault);
}
