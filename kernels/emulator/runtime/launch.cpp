// Runs the blocks of a launch one after another, each as fibers in a random order.

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#include "memory.h"
#include "state.h"

namespace emulator {

__thread Machine* machine = nullptr;

namespace {

const Kernel* first_kernel = nullptr;

/// Stacks of a host thread's fibers, kept from launch to launch. Below each lies a page that nothing may touch: a
/// kernel that needs more stack ends the process there, and does not write over its neighbour's.
class Stacks {
public:
    char* at(size_t index) {
        while (stacks_.size() <= index) {
            const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
            void* memory = mmap(nullptr, page + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (memory == MAP_FAILED) throw std::bad_alloc();
            mprotect(memory, page, PROT_NONE);
            stacks_.push_back({static_cast<char*>(memory), page});
        }
        return stacks_[index].memory + stacks_[index].page;
    }

    ~Stacks() {
        for (const Stack& stack : stacks_) munmap(stack.memory, stack.page + kStack);
    }

private:
    struct Stack {
        char* memory;
        size_t page;
    };
    std::vector<Stack> stacks_;
};

thread_local Stacks stacks;
thread_local Machine machine_of_thread;

void finish() {
    Fiber& me = *machine->current;
    me.state = State::done;
    machine->done++;
    if (machine->at_barrier > 0) {
        // Those that wait would wait for a thread that never comes.
        for (const Fiber& fiber : machine->fibers) {
            if (fiber.state != State::at_barrier) continue;
            Fault fault = fault_here(What::divergent_barrier, fiber.site);
            fault.thread = fiber.index;
            fault.other_thread = me.thread;
            fail(fault);
            return;
        }
    }
    leave_warp(me);
}

void fiber_main() {
    machine->launch->call(machine->launch->params);
    finish();
    for (;;) wait();
}

/// Nobody can go on: says who waits for what.
void fail_stuck() {
    const Fiber* waiting = nullptr;
    const Fiber* elsewhere = nullptr;
    for (const Fiber& fiber : machine->fibers) {
        if (fiber.state == State::at_warp_operation && waiting == nullptr) waiting = &fiber;
        if (fiber.state == State::at_barrier) elsewhere = &fiber;
    }
    const bool in_warp = waiting != nullptr;
    if (!in_warp) waiting = elsewhere;
    if (waiting == nullptr) return;
    Fault fault = fault_here(in_warp ? What::divergent_warp : What::divergent_barrier, waiting->site);
    fault.thread = waiting->index;
    for (const Fiber& fiber : machine->fibers) {
        const bool same = fiber.state == waiting->state && fiber.site == waiting->site;
        if (same || (in_warp && fiber.warp != waiting->warp)) continue;
        fault.other_thread = fiber.thread;
        fault.other_site = fiber.state == State::done ? nullptr : fiber.site;
    }
    fail(fault);
}

void begin_block(const Launch& launch, void (*entry)()) {
    const Index size = launch.block;
    const uint32_t count = size.x * size.y * size.z;
    machine->warps.assign((count + kWarp - 1) / kWarp, Warp{});
    machine->ready.clear();
    machine->at_barrier = machine->done = 0;
    machine->block_serial++;
    machine->barrier_epoch = 0;
    machine->acquired.clear();
    for (const auto& memory : machine->shared) memory->forget();
    for (uint32_t thread = 0; thread < count; thread++) {
        Fiber& fiber = machine->fibers[thread];
        fiber.stack = stacks.at(thread);
        fiber.thread = thread;
        fiber.lane = thread % kWarp;
        fiber.warp = thread / kWarp;
        fiber.index = {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
        fiber.uncommitted.clear();
        fiber.groups.clear();
        Warp& warp = machine->warps[fiber.warp];
        if (fiber.lane == 0) warp.first = thread;
        warp.count++;
        warp.live |= 1u << fiber.lane;
        prepare(fiber.context, fiber.stack, kStack, entry);
        make_ready(fiber);
    }
}

/// Takes a fiber off the ready list: in order where the seed is 0, otherwise any.
Fiber& next_ready() {
    std::vector<uint32_t>& ready = machine->ready;
    size_t at = 0;
    if (machine->launch->seed != 0) {
        at = machine->random() % ready.size();
        std::swap(ready[at], ready.back());
        at = ready.size() - 1;
    }
    const uint32_t thread = ready[at];
    ready.erase(ready.begin() + static_cast<ptrdiff_t>(at));
    return machine->fibers[thread];
}

void run_block(const Launch& launch) {
    begin_block(launch, fiber_main);
    const size_t count = machine->fibers.size();
    while (machine->done < count && !machine->failed) {
        if (machine->ready.empty()) {
            fail_stuck();
            return;
        }
        machine->current = &next_ready();
        switch_context(machine->scheduler, machine->current->context);
        machine->current = nullptr;
    }
}

std::vector<Index> order_of_blocks(const Launch& launch) {
    std::vector<Index> blocks;
    for (uint32_t z = 0; z < launch.grid.z; z++) {
        for (uint32_t y = 0; y < launch.grid.y; y++) {
            for (uint32_t x = 0; x < launch.grid.x; x++) blocks.push_back({x, y, z});
        }
    }
    if (launch.seed != 0) std::shuffle(blocks.begin(), blocks.end(), machine->random);
    return blocks;
}

}  // namespace

Kernel::Kernel(const char* name, Call call, size_t params_bytes, uint32_t most_threads)
    : name(name), call(call), params_bytes(params_bytes), most_threads(most_threads), next(first_kernel) {
    first_kernel = this;
}

Fault fault_here(What what, const void* site) {
    Fault fault{};
    fault.what = what;
    fault.block = machine->block;
    if (machine->current != nullptr) fault.thread = machine->current->index;
    fault.site = site;
    return fault;
}

void fail(const Fault& fault) {
    if (!machine->failed) *machine->fault = fault;
    machine->failed = true;
    // A fiber that failed never runs again; its stack is given to the next launch.
    if (machine->current != nullptr) switch_context(machine->current->context, machine->scheduler);
}

void wait() { switch_context(machine->current->context, machine->scheduler); }

void make_ready(Fiber& fiber) {
    fiber.state = State::ready;
    machine->ready.push_back(fiber.thread);
}

Moment present() {
    const Fiber& me = *machine->current;
    return {machine->barrier_epoch, machine->warps[me.warp].epoch, static_cast<uint16_t>(me.warp),
            static_cast<uint16_t>(me.thread)};
}

Index thread_index() { return machine->current->index; }
Index block_index() { return machine->block; }
Index block_size() { return machine->launch->block; }
Index grid_size() { return machine->launch->grid; }

void* dynamic_shared() { return machine->shared.front()->start(); }

void* static_shared(const void* key, size_t bytes) {
    for (const auto& known : machine->shared) {
        if (known->key() == key) return known->start();
    }
    machine->shared.push_back(std::make_unique<SharedMemory>(bytes, "static shared memory", key));
    return machine->shared.back()->start();
}

void block_barrier() {
    Fiber& me = *machine->current;
    me.site = GPTQ_CALL_SITE;
    me.state = State::at_barrier;
    machine->at_barrier++;
    if (machine->done > 0) {
        Fault fault = fault_here(What::divergent_barrier, me.site);
        for (const Fiber& fiber : machine->fibers) {
            if (fiber.state == State::done) fault.other_thread = fiber.thread;
        }
        fail(fault);
        return;
    }
    if (machine->at_barrier == machine->fibers.size()) {
        machine->at_barrier = 0;
        machine->barrier_epoch++;
        for (Fiber& fiber : machine->fibers) make_ready(fiber);
    }
    wait();
}

}  // namespace emulator

extern "C" const emulator::Kernel* gptq_emulator_kernels() { return emulator::first_kernel; }

extern "C" int gptq_emulator_run(const emulator::Launch* launch, emulator::Fault* fault) {
    using namespace emulator;
    machine = &machine_of_thread;
    Launch local = *launch;
    // A copy, so that a launch parameter that a kernel writes to is not the caller's.
    std::vector<max_align_t> params(launch->params_bytes / sizeof(max_align_t) + 1);
    memcpy(params.data(), launch->params, launch->params_bytes);
    add_region(params.data(), launch->params_bytes, false, true, false, "the launch parameters");
    local.params = params.data();
    machine->shared.push_back(std::make_unique<SharedMemory>(launch->shared_bytes, "dynamic shared memory", nullptr));
    machine->launch = &local;
    machine->fault = fault;
    machine->failed = false;
    machine->random.seed(static_cast<uint32_t>(launch->seed));
    machine->first_serial = machine->block_serial + 1;
    machine->arrivals.clear();
    machine->fibers.resize(size_t(launch->block.x) * launch->block.y * launch->block.z);
    for (const Index& block : order_of_blocks(local)) {
        machine->block = block;
        run_block(local);
        if (machine->failed) break;
    }
    machine->current = nullptr;
    machine->launch = nullptr;
    machine->shared.clear();
    remove_region(params.data());
    const bool failed = machine->failed;
    machine = nullptr;
    return failed ? 1 : 0;
}
