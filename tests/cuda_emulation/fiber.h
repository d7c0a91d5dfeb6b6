// Fibers: functions with a stack of their own that hand the processor to each other by hand.
//
// A switch on x86-64 saves the registers that a called function must keep, swaps the stack pointer and returns
// into the other fiber: a few nanoseconds. Elsewhere ucontext does the same with two system calls.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && !defined(CISDL_UCONTEXT_FIBERS)
#define CISDL_SWITCH_BY_HAND
#else
#include <ucontext.h>
#endif

namespace cisdl::emulation {

#ifdef CISDL_SWITCH_BY_HAND

using Context = void*;  // a stack pointer; what else belongs to the fiber lies on its stack

extern "C" void cisdl_switch_fiber(Context* save, Context load);

asm(R"(
.text
.p2align 4
.weak cisdl_switch_fiber
.hidden cisdl_switch_fiber
.type cisdl_switch_fiber, @function
cisdl_switch_fiber:
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
.size cisdl_switch_fiber, .-cisdl_switch_fiber
)");

inline void switch_fiber(Context& save, Context& load) { cisdl_switch_fiber(&save, load); }

// A context that begins in `entry`, which must never return.
inline void make_fiber(Context& context, void* stack, size_t size, void (*entry)()) {
  auto* top = reinterpret_cast<uintptr_t*>(reinterpret_cast<uintptr_t>(stack) + size);
  *--top = 0;                                   // what looks like entry's return address, and its alignment
  *--top = reinterpret_cast<uintptr_t>(entry);  // where the first switch returns to
  for (int i = 0; i < 6; ++i) *--top = 0;       // the saved registers
  context = top;
}

#else

using Context = ucontext_t;

inline void switch_fiber(Context& save, Context& load) { swapcontext(&save, &load); }

inline void make_fiber(Context& context, void* stack, size_t size, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = size;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

#endif

}  // namespace cisdl::emulation
