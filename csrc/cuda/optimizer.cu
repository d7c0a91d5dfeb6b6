// Launches of optimisers' steps: as many tensors at once as a table has room for; the kernel is in optimizer.cuh.
#include "optimizer.cuh"

#include "kernels.h"

namespace cisdl::cuda {
namespace {

template <class T, template <class> class Step>
const char* launch_steps(const Step<T>* steps, int64_t count, void* stream) {
  const char* error = nullptr;
  for (int64_t first = 0; first < count && !error; first += kTensors) {
    StepTable<Step<T>> table = {};
    for (int64_t i = first; i < count && i < first + kTensors; ++i) {
      table.step[table.tensors] = steps[i];
      table.first_piece[table.tensors++] = table.pieces;
      table.pieces += divide_up(steps[i].size, kPiece);
    }
    static_assert(sizeof table <= 4096, "a kernel's parameters");
    error = launch(optimizer_kernel<T, Step>, table.pieces, stream, table);
  }
  return error;
}

}  // namespace

template <class T>
const char* run(const AdamStep<T>* steps, int64_t count, void* stream) {
  return launch_steps<T, AdamStep>(steps, count, stream);
}

template <class T>
const char* run(const SgdStep<T>* steps, int64_t count, void* stream) {
  return launch_steps<T, SgdStep>(steps, count, stream);
}

template const char* run(const AdamStep<float>*, int64_t, void*);
template const char* run(const AdamStep<double>*, int64_t, void*);
template const char* run(const SgdStep<float>*, int64_t, void*);
template const char* run(const SgdStep<double>*, int64_t, void*);

}  // namespace cisdl::cuda
