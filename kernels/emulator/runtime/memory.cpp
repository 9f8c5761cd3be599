// Regions, and a shadow of each that remembers who read and wrote what.
//
// Two accesses race when threads differ, one of them writes, not both are atomic, and nothing orders them. Within a
// block __syncthreads orders everything; within a warp __syncwarp does too; shuffles, votes and mma do not, and
// between the blocks of a launch nothing does but count_arrival. So a stamp of (block, barriers passed, warp barriers passed, thread)
// decides, whatever order the fibers happened to run in.

#include "memory.h"

#include <stdlib.h>

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "state.h"

namespace emulator {

namespace {

/// Bytes that share a stamp: no kernel here has elements of one byte that neighbours write.
constexpr size_t kGranule = 2;
constexpr uint16_t kSeveral = 0xffff;

enum class Value : uint8_t { none, pending, present };

struct Stamp {
    uint32_t block = 0;  // 0: nobody
    uint32_t barrier = 0;
    uint32_t warp_epoch = 0;
    uint16_t warp = 0;    // kSeveral: readers of several warps
    uint16_t thread = 0;  // kSeveral: several readers
    bool atomic = false;
    bool several_blocks = false;
    const void* site = nullptr;
};

struct Granule {
    Stamp writer, readers;
};

}  // namespace

struct Region {
    char* start;
    size_t bytes;
    bool writable;
    bool shared;
    const char* name;
    std::vector<Value> values;
    std::vector<Granule> granules;

    bool holds(const void* address, size_t count) const {
        const size_t offset = static_cast<size_t>(static_cast<const char*>(address) - start);
        return offset <= bytes && count <= bytes - offset;
    }
};

namespace {

thread_local std::vector<std::unique_ptr<Region>> regions;
thread_local Region* last_hit = nullptr;

Region* find(const void* address, size_t bytes) {
    if (last_hit != nullptr && last_hit->holds(address, bytes)) return last_hit;
    for (const auto& region : regions) {
        if (region->holds(address, bytes)) return last_hit = region.get();
    }
    return nullptr;
}

/// How far an address may lie from a region to be told as an offset from it.
constexpr int64_t kNear = 1 << 20;

Fault memory_fault(What what, const void* address, size_t bytes, const void* site) {
    Fault fault = fault_here(what, site);
    fault.address = reinterpret_cast<uintptr_t>(address);
    fault.bytes = static_cast<uint32_t>(bytes);
    int64_t nearest = kNear;
    for (const auto& region : regions) {
        const int64_t offset = static_cast<const char*>(address) - region->start;
        const int64_t past = offset - static_cast<int64_t>(region->bytes);
        const int64_t distance = offset < 0 ? -offset : std::max<int64_t>(past, -1);
        if (distance >= nearest) continue;
        nearest = distance;
        fault.region = region->name;
        fault.offset = offset;
        fault.region_bytes = region->bytes;
    }
    return fault;
}

/// Whether what one thread of a block did comes before what another one of it did.
bool precedes(const Moment& earlier, const Moment& later) {
    if (earlier.thread == later.thread && earlier.thread != kSeveral) return true;
    if (earlier.barrier != later.barrier) return earlier.barrier < later.barrier;
    return earlier.warp == later.warp && earlier.warp != kSeveral && earlier.warp_epoch < later.warp_epoch;
}

/// Whether the current fiber knows, through a counter, that another block is done with the access behind `stamp`.
bool acquired(const Stamp& stamp) {
    const Moment then = {stamp.barrier, stamp.warp_epoch, stamp.warp, stamp.thread}, now = present();
    for (const Acquired& known : machine->acquired) {
        if (known.arrival.block == stamp.block && precedes(then, known.arrival.moment) && precedes(known.moment, now)) {
            return true;
        }
    }
    return false;
}

/// Whether nothing orders the access behind `stamp` before what the current fiber does now.
bool unordered(const Stamp& stamp, const Region& region) {
    const Fiber& me = *machine->current;
    if (stamp.block != machine->block_serial) {
        return !region.shared && stamp.block >= machine->first_serial && !acquired(stamp);
    }
    if (stamp.several_blocks && !region.shared) return true;
    if (stamp.thread == me.thread) return false;
    if (stamp.barrier != machine->barrier_epoch) return false;
    return stamp.warp != me.warp || stamp.warp_epoch == machine->warps[me.warp].epoch;
}

Stamp stamp_of_current(bool atomic, const void* site) {
    const Moment now = present();
    Stamp stamp;
    stamp.block = machine->block_serial;
    stamp.barrier = now.barrier;
    stamp.warp_epoch = now.warp_epoch;
    stamp.warp = now.warp;
    stamp.thread = now.thread;
    stamp.atomic = atomic;
    stamp.site = site;
    return stamp;
}

void add_reader(Stamp& readers, const Stamp& me, const Region& region) {
    if (readers.block != me.block) {
        const bool same_launch = !region.shared && readers.block >= machine->first_serial;
        readers = me;
        readers.several_blocks = same_launch;
    } else if (readers.barrier != me.barrier) {
        const bool several_blocks = readers.several_blocks;
        readers = me;
        readers.several_blocks = several_blocks;
    } else if (readers.warp != me.warp) {
        readers.warp = readers.thread = kSeveral;
    } else if (readers.warp_epoch != me.warp_epoch) {
        readers.warp_epoch = me.warp_epoch;
        readers.thread = me.thread;
        readers.site = me.site;
    } else if (readers.thread != me.thread) {
        readers.thread = kSeveral;
    }
}

void race(const Region& region, size_t offset, size_t bytes, const Stamp& other, const void* site) {
    Fault fault = memory_fault(What::race, region.start + offset, bytes, site);
    fault.other_thread = other.thread;
    fault.other_is_of_other_block = other.block != machine->block_serial || other.several_blocks;
    fault.other_site = other.site;
    fail(fault);
}

void check_race(Region& region, size_t offset, size_t bytes, Access access, const void* site) {
    const Stamp me = stamp_of_current(access == Access::atomic, site);
    for (size_t at = offset / kGranule; at <= (offset + bytes - 1) / kGranule; at++) {
        Granule& granule = region.granules[at];
        const bool both_atomic = access == Access::atomic && granule.writer.atomic;
        if (granule.writer.block != 0 && !both_atomic && unordered(granule.writer, region)) {
            return race(region, offset, bytes, granule.writer, site);
        }
        if (access == Access::read) {
            add_reader(granule.readers, me, region);
            continue;
        }
        if (granule.readers.block != 0 && unordered(granule.readers, region)) {
            return race(region, offset, bytes, granule.readers, site);
        }
        granule.writer = me;
    }
}

void check_values(Region& region, size_t offset, size_t bytes, Access access, const void* site) {
    for (size_t at = offset; at < offset + bytes; at++) {
        Value& value = region.values[at];
        if (value == Value::pending) {
            const What what = access == Access::read ? What::read_before_wait : What::write_before_wait;
            return fail(memory_fault(what, region.start + at, bytes, site));
        }
        if (value == Value::none && access != Access::write) {
            return fail(memory_fault(What::uninitialised_read, region.start + at, bytes, site));
        }
        value = Value::present;
    }
}

bool on_own_stack(const void* address) {
    const char* byte = static_cast<const char*>(address);
    return byte >= machine->current->stack && byte < machine->current->stack + kStack;
}

void check_in(Region* region, const void* address, size_t bytes, Access access, const void* site) {
    if (region == nullptr) {
        const What what = access == Access::read ? What::out_of_bounds_read : What::out_of_bounds_write;
        return fail(memory_fault(what, address, bytes, site));
    }
    const bool power_of_two = (bytes & (bytes - 1)) == 0;
    if (power_of_two && reinterpret_cast<uintptr_t>(address) % bytes != 0) {
        return fail(memory_fault(What::misaligned, address, bytes, site));
    }
    if (access != Access::read && !region->writable) {
        return fail(memory_fault(What::write_to_input, address, bytes, site));
    }
    const size_t offset = static_cast<size_t>(static_cast<const char*>(address) - region->start);
    check_values(*region, offset, bytes, access, site);
    check_race(*region, offset, bytes, access, site);
}

}  // namespace

void check(const void* address, size_t bytes, Access access, const void* site) {
    if (machine == nullptr || machine->current == nullptr || bytes == 0 || on_own_stack(address)) return;
    check_in(find(address, bytes), address, bytes, access, site);
}

void check_shared(const void* address, size_t bytes, Access access, const void* site) {
    Region* region = on_own_stack(address) ? nullptr : find(address, bytes);
    if (region != nullptr && !region->shared) {
        return fail(memory_fault(What::not_shared_memory, address, bytes, site));
    }
    check_in(region, address, bytes, access, site);
}

void set_pending(const void* address, size_t bytes, bool pending) {
    Region* region = find(address, bytes);
    if (region == nullptr) return;
    const auto first = region->values.begin() + (static_cast<const char*>(address) - region->start);
    std::fill(first, first + static_cast<ptrdiff_t>(bytes), pending ? Value::pending : Value::present);
}

Region* add_region(void* start, size_t bytes, bool writable, bool initialised, bool shared, const char* name) {
    auto region = std::make_unique<Region>();
    region->start = static_cast<char*>(start);
    region->bytes = bytes;
    region->writable = writable;
    region->shared = shared;
    region->name = name;
    region->values.assign(bytes, initialised ? Value::present : Value::none);
    region->granules.resize(bytes / kGranule + 1);
    regions.push_back(std::move(region));
    return regions.back().get();
}

void remove_region(const void* start) {
    last_hit = nullptr;
    const auto is_it = [&](const auto& region) { return region->start == start; };
    regions.erase(std::remove_if(regions.begin(), regions.end(), is_it), regions.end());
}

SharedMemory::SharedMemory(size_t bytes, const char* name, const void* key) : key_(key) {
    // No more than 16 bytes, as on a GPU, where static shared memory comes first and dynamic follows: arithmetic on the
    // bits of an address that rests on more is found.
    constexpr size_t kAlignment = 1024, kBehind = 16;
    allocation_ = aligned_alloc(kAlignment, (bytes / kAlignment + 2) * kAlignment);
    if (allocation_ == nullptr) throw std::bad_alloc();
    start_ = static_cast<char*>(allocation_) + kBehind;
    region_ = add_region(start_, bytes, true, false, true, name);
}

SharedMemory::~SharedMemory() {
    remove_region(start_);
    free(allocation_);
}

void SharedMemory::forget() { std::fill(region_->values.begin(), region_->values.end(), Value::none); }

}  // namespace emulator

extern "C" void gptq_emulator_register(void* start, size_t bytes, int writable, int initialised, const char* name) {
    emulator::add_region(start, bytes, writable != 0, initialised != 0, false, name);
}

extern "C" void gptq_emulator_unregister(void* start) { emulator::remove_region(start); }

extern "C" size_t gptq_emulator_initialised(const void* start) {
    using emulator::Value;
    for (const auto& region : emulator::regions) {
        if (region->start != start) continue;
        return static_cast<size_t>(std::count(region->values.begin(), region->values.end(), Value::present));
    }
    return 0;
}
