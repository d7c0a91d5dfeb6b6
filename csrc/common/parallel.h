// How a torch-free kernel asks for threads: it splits [0, n) into ranges and hands each to a callback.
//
// csrc/ops fills the struct with at::parallel_for, so our kernels share torch's thread pool and obey
// torch.set_num_threads. A kernel never sees how many ranges there will be, so its result cannot depend on it:
// each index writes its own outputs, and sums are split by index, never by thread.
#pragma once

#include <cstdint>

namespace cisdl {

struct Parallel {
  int num_threads;
  // Runs body(arg, begin, end) over disjoint ranges that cover [0, n), each at least `grain` long but the last.
  // Ends when all have ended.
  void (*run)(int64_t n, int64_t grain, void (*body)(void* arg, int64_t begin, int64_t end), void* arg);
};

// parallel_for(par, n, grain, [&](int64_t begin, int64_t end) { ... });
template <class F>
static inline void parallel_for(const Parallel& par, int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
#ifdef CISDL_STD_THREADS
  grain = 1;  // a build for the thread sanitizer shares out the smallest problem, too
#endif
  if (par.num_threads == 1 || n <= grain) {
    f(int64_t{0}, n);
    return;
  }
  par.run(
      n, grain, [](void* arg, int64_t begin, int64_t end) { (*static_cast<F*>(arg))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace cisdl
