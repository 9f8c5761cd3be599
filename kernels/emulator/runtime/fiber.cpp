#include "fiber.h"

#include <stdint.h>

#if GPTQ_EMULATOR_OWN_SWITCH

// ucontext makes a system call for each switch, to save a signal mask that nobody changes here: eight times as slow.
// By the System V ABI a call preserves rbx, rbp, r12 to r15 and the stack pointer; the rest is the caller's to save,
// and nothing here changes the floating-point control words.
extern "C" void gptq_emulator_switch(void** from, void* to);
asm(R"(
    .text
    .p2align 4
    .globl gptq_emulator_switch
    .type gptq_emulator_switch, @function
gptq_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size gptq_emulator_switch, . - gptq_emulator_switch
)");

namespace emulator {

void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
    constexpr int kSavedRegisters = 6;
    // At the first instruction of a function the stack pointer is 8 below a multiple of 16: a return address lies
    // there, here one that ends the chain of frames.
    uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(15);
    void** slot = reinterpret_cast<void**>(top);
    *--slot = nullptr;
    *--slot = reinterpret_cast<void*>(entry);
    for (int i = 0; i < kSavedRegisters; i++) *--slot = nullptr;
    context.stack_pointer = slot;
}

void switch_context(Context& from, Context& to) { gptq_emulator_switch(&from.stack_pointer, to.stack_pointer); }

}  // namespace emulator

#else

namespace emulator {

void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context.saved);
    context.saved.uc_stack.ss_sp = stack;
    context.saved.uc_stack.ss_size = bytes;
    context.saved.uc_link = nullptr;
    makecontext(&context.saved, entry, 0);
}

void switch_context(Context& from, Context& to) { swapcontext(&from.saved, &to.saved); }

}  // namespace emulator

#endif
