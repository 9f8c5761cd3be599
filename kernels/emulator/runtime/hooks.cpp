// The functions that `-fsanitize=thread` makes a kernel call before it reads or writes. The sanitizer's own library is
// not linked: these take its place, so raw pointers work unchanged and the return address is the place in the source.

#include "memory.h"
#include "state.h"

using emulator::Access;
using emulator::check;

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define GPTQ_HOOKS(bytes)                                                                                  \
    void __tsan_read##bytes(void* address) { check(address, bytes, Access::read, GPTQ_CALL_SITE); }        \
    void __tsan_write##bytes(void* address) { check(address, bytes, Access::write, GPTQ_CALL_SITE); }      \
    void __tsan_unaligned_read##bytes(void* address) { check(address, bytes, Access::read, GPTQ_CALL_SITE); } \
    void __tsan_unaligned_write##bytes(void* address) { check(address, bytes, Access::write, GPTQ_CALL_SITE); }
GPTQ_HOOKS(1)
GPTQ_HOOKS(2)
GPTQ_HOOKS(4)
GPTQ_HOOKS(8)
GPTQ_HOOKS(16)

void __tsan_read_range(void* address, size_t bytes) { check(address, bytes, Access::read, GPTQ_CALL_SITE); }
void __tsan_write_range(void* address, size_t bytes) { check(address, bytes, Access::write, GPTQ_CALL_SITE); }

// clang calls these where gcc copies inline.
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    check(from, bytes, Access::read, GPTQ_CALL_SITE);
    check(to, bytes, Access::write, GPTQ_CALL_SITE);
    return memcpy(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
    check(to, bytes, Access::write, GPTQ_CALL_SITE);
    return memset(to, value, bytes);
}

}  // extern "C"

namespace emulator {

void load(void* to, const void* from, size_t bytes) {
    check(from, bytes, Access::read, GPTQ_CALL_SITE);
    memcpy(to, from, bytes);
}

void store(void* to, const void* from, size_t bytes) {
    check(to, bytes, Access::write, GPTQ_CALL_SITE);
    memcpy(to, from, bytes);
}

uint32_t atomic(Atomic operation, void* address, uint32_t operand, uint32_t expected) {
    check(address, sizeof(uint32_t), Access::atomic, GPTQ_CALL_SITE);
    uint32_t before;
    memcpy(&before, address, sizeof before);
    uint32_t after = before;
    switch (operation) {
        case Atomic::add_u32: after = before + operand; break;
        case Atomic::add_f32: after = __float_as_uint(__uint_as_float(before) + __uint_as_float(operand)); break;
        case Atomic::exchange: after = operand; break;
        case Atomic::compare_and_swap: after = before == expected ? operand : before; break;
        case Atomic::min_u32: after = operand < before ? operand : before; break;
        case Atomic::max_u32: after = operand > before ? operand : before; break;
    }
    memcpy(address, &after, sizeof after);
    return before;
}

uint32_t count_arrival(uint64_t* cell, uint64_t mark) {
    check(cell, sizeof *cell, Access::atomic, GPTQ_CALL_SITE);
    const Moment now = present();
    for (const Arrival& arrival : machine->arrivals) {
        if (arrival.counter == cell) machine->acquired.push_back({arrival, now});
    }
    machine->arrivals.push_back({cell, machine->block_serial, now});
    const uint64_t before = *cell - mark < 256 ? *cell : mark;
    *cell = before + 1;
    return static_cast<uint32_t>(before - mark);
}

void copy_async(void* to, const void* from, size_t bytes, size_t source_bytes) {
    const void* site = GPTQ_CALL_SITE;
    if (source_bytes > 0) check(from, source_bytes, Access::read, site);
    check_shared(to, bytes, Access::write, site);
    Copy copy{static_cast<char*>(to), bytes, {}};
    memcpy(copy.value, from, source_bytes);
    machine->current->uncommitted.push_back(copy);
    set_pending(to, bytes, true);
}

void commit_copies() {
    Fiber& me = *machine->current;
    me.groups.push_back(std::move(me.uncommitted));
    me.uncommitted.clear();
}

void wait_copies(uint32_t most_pending_groups) {
    const void* site = GPTQ_CALL_SITE;
    Fiber& me = *machine->current;
    while (me.groups.size() > most_pending_groups) {
        for (const Copy& copy : me.groups.front()) {
            set_pending(copy.to, copy.bytes, false);
            // The write takes place now: other threads need a barrier after this wait.
            check_shared(copy.to, copy.bytes, Access::write, site);
            memcpy(copy.to, copy.value, copy.bytes);
        }
        me.groups.pop_front();
    }
}

}  // namespace emulator
