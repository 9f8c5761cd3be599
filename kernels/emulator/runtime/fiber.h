// Switching between stacks.
#pragma once

#include <stddef.h>

#if defined(__x86_64__) && !defined(GPTQ_EMULATOR_UCONTEXT)
#define GPTQ_EMULATOR_OWN_SWITCH 1
#else
#include <ucontext.h>
#endif

namespace emulator {

/// A place where execution can go on: the scheduler's, or that of a fiber on a stack of its own.
struct Context {
#if GPTQ_EMULATOR_OWN_SWITCH
    void* stack_pointer = nullptr;
#else
    ucontext_t saved;
#endif
};

/// Lets `context` begin at `entry`, which must not return, on the stack below `stack + bytes`.
void prepare(Context& context, char* stack, size_t bytes, void (*entry)());

/// Leaves the present execution in `from` and goes on in `to`.
void switch_context(Context& from, Context& to);

}  // namespace emulator
