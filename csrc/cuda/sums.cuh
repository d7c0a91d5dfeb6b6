// Sums over all but one dimension: the gradients of biases.
//
// Each sum belongs to one block, which adds in a fixed order: every thread takes each 256th (or 8th) term, then
// the partial sums meet in shared memory, lower half plus upper half. So results repeat exactly, and the longest
// chain of additions is short.
#pragma once

#include "launch.cuh"
#include "scalars.h"

namespace cisdl::cuda {

constexpr int kSumColumns = 32;  // neighbouring columns that a block sums: a warp reads one row of them
constexpr int kSumRows = kThreads / kSumColumns;

template <class T>
struct PartialSums {
  T value[kThreads];
};

// sums[c] = sum_r data[r][c].
template <class T>
__global__ void __launch_bounds__(kThreads)
    column_sums_kernel(const T* data, int64_t rows, int64_t columns, T* sums) {
  CISDL_SHARED(PartialSums<Sum<T>>, partial);
  const int thread = threadIdx.x;
  const int lane = thread % kSumColumns;
  const int first_row = thread / kSumColumns;
  for (int64_t begin = int64_t{blockIdx.x} * kSumColumns; begin < columns;
       begin += int64_t{gridDim.x} * kSumColumns) {
    const int64_t column = begin + lane;
    Sum<T> sum = 0;
    if (CISDL_INSIDE(column < columns))
      for (int64_t row = first_row; row < rows; row += kSumRows) sum += Sum<T>(data[row * columns + column]);
    partial.value[thread] = sum;
    for (int half = kSumRows / 2; half > 0; half /= 2) {
      __syncthreads();
      if (first_row < half) partial.value[thread] += partial.value[thread + half * kSumColumns];
    }
    if (first_row == 0 && CISDL_INSIDE(column < columns)) sums[column] = T(partial.value[lane]);
    __syncthreads();  // the next columns may overwrite the sums
  }
}

// sums[c] = sum over n and i of data[n][c][i].
template <class T>
__global__ void __launch_bounds__(kThreads)
    channel_sums_kernel(const T* data, int64_t batch, int64_t channels, int64_t inner, T* sums) {
  CISDL_SHARED(PartialSums<Sum<T>>, partial);
  const int thread = threadIdx.x;
  for (int64_t channel = blockIdx.x; channel < channels; channel += gridDim.x) {
    Sum<T> sum = 0;
    for (int64_t index = thread; index < batch * inner; index += kThreads) {
      int64_t i = index;
      const int64_t n = divide_off(i, inner);
      sum += Sum<T>(data[(n * channels + channel) * inner + i]);
    }
    partial.value[thread] = sum;
    for (int half = kThreads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (thread < half) partial.value[thread] += partial.value[thread + half];
    }
    if (thread == 0) sums[channel] = T(partial.value[0]);
    __syncthreads();  // the next channel may overwrite the sums
  }
}

template <class T>
const char* launch_column_sums(const T* data, int64_t rows, int64_t columns, T* sums, void* stream) {
  return launch(column_sums_kernel<T>, divide_up(columns, kSumColumns), stream, data, rows, columns, sums);
}

template <class T>
const char* launch_channel_sums(const T* data, int64_t batch, int64_t channels, int64_t inner, T* sums,
                                void* stream) {
  return launch(channel_sums_kernel<T>, channels, stream, data, batch, channels, inner, sums);
}

}  // namespace cisdl::cuda
