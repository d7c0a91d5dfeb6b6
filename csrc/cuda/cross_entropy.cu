// Launches of softmax cross-entropy; the kernels are in cross_entropy.cuh.
#include "cross_entropy.cuh"

#include "kernels.h"

namespace cisdl::cuda {

template <class T>
const char* run(const CrossEntropyForward<T>& args, void* stream) {
  constexpr int kScores = 8;  // of a thread, where there are enough threads
  int threads = 1;
  while (threads < kThreads && threads * kScores < args.p.classes) threads *= 2;
  return launch(cross_entropy_kernel<T>, divide_up(args.p.rows, kThreads / threads), stream, args, threads);
}

template <class T>
const char* run(const CrossEntropyReduction<T>& args, void* stream) {
  return launch(cross_entropy_reduction_kernel<T>, 1, stream, args);
}

template <class T>
const char* run(const CrossEntropyBackward<T>& args, void* stream) {
  constexpr int kLanes = 16 / sizeof(T);
  const auto aligned = [](const T* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  const int64_t scores = args.p.rows * args.p.classes;
  if (args.p.classes % kLanes == 0 && aligned(args.scores) && aligned(args.grad_scores))
    return launch_elements(cross_entropy_backward_kernel<T, kLanes>, scores / kLanes, stream, args);
  return launch_elements(cross_entropy_backward_kernel<T, 1>, scores, stream, args);
}

#define CISDL_CROSS_ENTROPY(T)                                      \
  template const char* run(const CrossEntropyForward<T>&, void*);   \
  template const char* run(const CrossEntropyReduction<T>&, void*); \
  template const char* run(const CrossEntropyBackward<T>&, void*);

CISDL_CROSS_ENTROPY(float)
CISDL_CROSS_ENTROPY(double)

}  // namespace cisdl::cuda
