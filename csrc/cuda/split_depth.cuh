// Products whose depth is cut: where C has few tiles and the depth is long, as in the gradients of weights,
// several blocks share a tile, each over a slice of the depth. Their sums go to scratch memory,
// [slices][groups][rows][columns], and sum_slices_kernel adds them in order. Results depend on the number of
// multiprocessors, never on chance.
#pragma once

#include <algorithm>

#include "gemm.cuh"

namespace cisdl::cuda {

// sums[i] = sum over slices of partial[slice][i], in order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_slices_kernel(const Sum<T>* partial, int64_t slices, int64_t size, T* sums) {
  for_each_element(size, [&](int64_t i) {
    Sum<T> sum = 0;
    for (int64_t s = 0; s < slices; ++s) sum += partial[s * size + i];
    sums[i] = T(sum);
  });
}

struct Slices {
  int64_t count;
  int64_t depth;  // of each but the last; 0 where there is one
};

// As many slices of `tiles` tiles as fill the GPU twice, none shorter than 16 steps of `step`, and no more scratch
// memory than 64 MiB; `bytes`: of one slice's sums.
inline Slices cut_depth(int64_t tiles, int64_t bytes, int64_t depth, int64_t step) {
  constexpr int64_t kMostScratch = 64 << 20, kLeastSteps = 16;
  if (tiles == 0) return {1, 0};
  const int64_t count =
      std::min({2 * multiprocessors() / tiles, depth / (kLeastSteps * step), kMostScratch / bytes});
  if (count <= 1) return {1, 0};
  const int64_t each = divide_up(divide_up(depth, count), step) * step;
  return {divide_up(depth, each), each};
}

// Bytes of scratch memory that launch_sliced wants: none where sums go to their place at once.
template <class T>
int64_t slices_scratch(const Slices& slices, int64_t size) {
  const bool at_once = std::is_same_v<T, Sum<T>> && slices.count == 1;
  return at_once ? 0 : slices.count * size * static_cast<int64_t>(sizeof(Sum<T>));
}

// A product whose C is `output`, [groups][rows][columns], started by launch(gemm, stream).
template <class A, class B, class T, class Launch>
const char* launch_sliced(const Gemm<A, B, MatrixEpilogue<Sum<T>>>& gemm, const Slices& slices, T* output,
                          void* scratch, void* stream, const Launch& launch) {
  auto sliced = gemm;
  const int64_t size = gemm.groups * gemm.rows * gemm.columns;
  const bool at_once = slices_scratch<T>(slices, size) == 0;
  auto* partial = static_cast<Sum<T>*>(at_once ? static_cast<void*>(output) : scratch);
  sliced.epilogue = {partial, nullptr, gemm.rows * gemm.columns};
  sliced.slice_depth = slices.depth;
  const char* error = launch(sliced, stream);
  if (error || at_once) return error;
  return launch_elements(sum_slices_kernel<T>, size, stream, static_cast<const Sum<T>*>(partial), slices.count,
                         size, output);
}

}  // namespace cisdl::cuda
