// One block of threads while it runs, and the fibers that run it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "fiber.h"
#include "interface.h"
#include "memory.h"

namespace emulator {

constexpr uint32_t kWarp = 32;

enum class State { ready, at_barrier, at_warp_operation, done };

/// A copy from global to shared memory that was issued and not waited for.
struct Copy {
    char* to;
    size_t bytes;
    uint8_t value[16];
};

/// What the lanes of a warp do together. Lanes meet when they name the same operation and the same mask.
struct WarpOperation {
    enum class Kind : uint32_t { none, barrier, shuffle, ballot, load_matrix, multiply };
    Kind kind = Kind::none;
    uint32_t mask = 0;
    /// What must agree between lanes besides: mode of a shuffle, shape and type of a product.
    uint32_t variant = 0;
    uint32_t in[6] = {};
    uint32_t out[4] = {};
    const char* row = nullptr;
    float* accumulators = nullptr;
};

struct Fiber {
    Context context;
    char* stack = nullptr;
    State state = State::ready;
    Index index{};
    uint32_t thread = 0;
    uint32_t lane = 0;
    uint32_t warp = 0;
    /// Where in the kernel it waits.
    const void* site = nullptr;
    WarpOperation operation;
    std::vector<Copy> uncommitted;
    std::deque<std::vector<Copy>> groups;
};

struct Warp {
    uint32_t first = 0;
    uint32_t count = 0;
    /// Lanes that have not ended, and those that wait at a warp operation.
    uint32_t live = 0;
    uint32_t waiting = 0;
    /// Counts full-warp barriers: what lies before one is ordered before what follows it, in this warp.
    uint32_t epoch = 0;
};

/// When a thread did something: how many barriers its block and its warp had passed.
struct Moment {
    uint32_t barrier;
    uint32_t warp_epoch;
    uint16_t warp;
    uint16_t thread;
};

/// A thread counted itself in: what it did so far, and what its block and warp did before their last barriers, is released
/// to whoever counts at the same place later.
struct Arrival {
    const void* counter;
    uint32_t block;
    Moment moment;
};

/// What the present block knows to be done: the thread that counted at once, others after their next barrier.
struct Acquired {
    Arrival arrival;
    Moment moment;
};

/// All state of one host thread. Fibers stay on the thread that made them.
struct Machine {
    const Launch* launch = nullptr;
    Fault* fault = nullptr;
    bool failed = false;
    std::minstd_rand random;

    Context scheduler;
    Fiber* current = nullptr;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<uint32_t> ready;
    uint32_t at_barrier = 0;
    uint32_t done = 0;

    Index block{};
    /// Counts blocks of all launches of this thread, and the first of this launch: stamps of earlier ones are stale.
    uint32_t block_serial = 0;
    uint32_t first_serial = 0;
    uint32_t barrier_epoch = 0;
    /// Those of this launch, and what the present block has of them.
    std::vector<Arrival> arrivals;
    std::vector<Acquired> acquired;

    /// Dynamic shared memory first, then each array that the kernel declares.
    std::vector<std::unique_ptr<SharedMemory>> shared;
};

/// That of this host thread, while it runs a launch. Not thread_local: a call would guard every use.
extern __thread Machine* machine;

constexpr size_t kStack = 128 * 1024;

/// Stops the launch: leaves the fiber, or returns where the scheduler runs.
void fail(const Fault& fault);
/// A fault of the current fiber, with its thread and block filled in.
Fault fault_here(What what, const void* site);
/// Lets another fiber run. Returns when this one is ready again.
void wait();
void make_ready(Fiber& fiber);
/// Where the current fiber is in time.
Moment present();

/// Ends a lane, and lets what waited only for it take place.
void leave_warp(const Fiber& fiber);

}  // namespace emulator

/// The address in the kernel from which a function of the runtime was called.
#define GPTQ_CALL_SITE __builtin_extract_return_addr(__builtin_return_address(0))
