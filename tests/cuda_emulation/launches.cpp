// Grids: block after block, or all of them side by side.
#include <setjmp.h>

#include "emulator.h"

namespace cisdl::emulation {

extern sigjmp_buf fault_return;

namespace {

const char* failed(const char* kernel, const std::string& what, bool in_thread) {
  machine.error = "block " + std::to_string(blockIdx.x);
  if (in_thread) machine.error += ", thread " + std::to_string(threadIdx.x);
  machine.error += ": " + what + " in " + kernel;
  forget_threads();
  return machine.error.c_str();
}

}  // namespace

const char* run_grid(const char* kernel, int64_t blocks, unsigned threads, void (*body)(const void*),
                     const void* closure, bool cooperative) {
  machine.threads = threads;
  machine.body = body;
  machine.closure = closure;
  machine.trouble.clear();
  blockDim = {threads};
  gridDim = {static_cast<unsigned>(cooperative ? blocks : std::min(blocks, machine.max_blocks))};
  std::vector<unsigned> order(gridDim.x);
  for (unsigned b = 0; b < gridDim.x; ++b) order[b] = b;
  arrange(order);

  const FaultHandlers handlers;
  if (sigsetjmp(fault_return, 1)) return failed(kernel, describe_fault(), true);
  if (cooperative) {
    if (blocks > kResidentBlocks)
      return failed(kernel, "a cooperative launch of " + std::to_string(blocks) + " blocks, more than fit", false);
    const std::string wrong = run_blocks(order);
    return wrong.empty() ? nullptr : failed(kernel, wrong, !machine.trouble.empty());
  }
  for (unsigned b : order) {
    const std::string wrong = run_blocks({b});
    if (!wrong.empty()) return failed(kernel, wrong, !machine.trouble.empty());
  }
  return nullptr;
}

}  // namespace cisdl::emulation
