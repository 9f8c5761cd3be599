// Which memory a kernel may touch, and who touched it last.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "interface.h"

namespace emulator {

enum class Access { read, write, atomic };

struct Region;

/// Checks an access of the current fiber before it happens: bounds, alignment, values, races. Stops the launch where
/// it is at fault.
void check(const void* address, size_t bytes, Access access, const void* site);
/// As `check`, for memory that has to be shared.
void check_shared(const void* address, size_t bytes, Access access, const void* site);

/// Marks shared memory as the destination of a copy under way, or as holding a value again.
void set_pending(const void* address, size_t bytes, bool pending);

/// `shared`: what other blocks did there means nothing.
Region* add_region(void* start, size_t bytes, bool writable, bool initialised, bool shared, const char* name);
void remove_region(const void* start);

/// An array in the shared memory of a block. It lies apart from the others, so that an index past an end is found.
class SharedMemory {
public:
    SharedMemory(size_t bytes, const char* name, const void* key);
    ~SharedMemory();
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    void* start() const { return start_; }
    /// What names it: nothing else about a declaration is the same in all threads.
    const void* key() const { return key_; }
    /// Another block begins: no byte holds a value.
    void forget();

private:
    void* allocation_;
    void* start_;
    const void* key_;
    Region* region_;
};

}  // namespace emulator
