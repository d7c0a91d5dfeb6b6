// Adaptive max and average pooling, forward and backward, one thread per element of the result.
//
// As pool2d.cuh, with other windows: window i of `out` along `in` cells is [floor(i in / out), ceil((i + 1) in /
// out)), and by the same formula with the roles exchanged come the windows that contain a cell.
#pragma once

#include "pool2d.cuh"

namespace cisdl::cuda {

// The cells of window i of `out` along `in` cells; called with (i, in, out), the windows that contain cell i.
__device__ inline Range adaptive_window(int64_t i, int64_t out, int64_t in) {
  return {quotient(i * in, out), quotient((i + 1) * in + out - 1, out)};
}

__device__ inline int64_t cells_of(const Range& rows, const Range& columns) {
  return (rows.end - rows.begin) * (columns.end - columns.begin);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adaptive_max_pool2d_kernel(const __grid_constant__ AdaptiveMaxPool2dForward<T> args,
                               const __grid_constant__ ImageStrides in) {
  const AdaptivePool2dProblem& p = args.p;
  for_each_element(p.batch * p.channels * p.out_h * p.out_w, [&](int64_t i) {
    const Place out = split_place(i, args.layout, p.channels, p.out_h, p.out_w);
    const Range rows = adaptive_window(out.h, p.out_h, p.in_h);
    const Range columns = adaptive_window(out.w, p.out_w, p.in_w);
    const T* input = args.input + out.n * in.n + out.c * in.c;
    T best = -INFINITY;
    int64_t place = rows.begin * p.in_w + columns.begin;
    for (int64_t h = rows.begin; h < rows.end; ++h) {
      for (int64_t w = columns.begin; w < columns.end; ++w) {
        const T value = input[h * in.h + w * in.w];
        if (value > best || value != value) {  // a greater one, a NaN
          best = value;
          place = h * p.in_w + w;
        }
      }
    }
    args.output[i] = best;
    if (args.indices) args.indices[i] = place;
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adaptive_max_pool2d_backward_kernel(const __grid_constant__ AdaptiveMaxPool2dBackward<T> args,
                                        const __grid_constant__ ImageStrides out) {
  const AdaptivePool2dProblem& p = args.p;
  for_each_element(p.batch * p.channels * p.in_h * p.in_w, [&](int64_t i) {
    const Place in = split_place(i, args.layout, p.channels, p.in_h, p.in_w);
    const Range rows = adaptive_window(in.h, p.in_h, p.out_h);
    const Range columns = adaptive_window(in.w, p.in_w, p.out_w);
    const int64_t image = in.n * out.n + in.c * out.c;
    const int64_t place = in.h * p.in_w + in.w;
    T sum = 0;
    for (int64_t h = rows.begin; h < rows.end; ++h) {
      for (int64_t w = columns.begin; w < columns.end; ++w) {
        const int64_t o = image + h * out.h + w * out.w;
        if (args.indices[o] == place) sum += args.grad_output[o];
      }
    }
    args.grad_input[i] = sum;
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adaptive_avg_pool2d_kernel(const __grid_constant__ AdaptiveAvgPool2dForward<T> args,
                               const __grid_constant__ ImageStrides in) {
  const AdaptivePool2dProblem& p = args.p;
  for_each_element(p.batch * p.channels * p.out_h * p.out_w, [&](int64_t i) {
    const Place out = split_place(i, args.layout, p.channels, p.out_h, p.out_w);
    const Range rows = adaptive_window(out.h, p.out_h, p.in_h);
    const Range columns = adaptive_window(out.w, p.out_w, p.in_w);
    const T* input = args.input + out.n * in.n + out.c * in.c;
    T sum = 0;
    for (int64_t h = rows.begin; h < rows.end; ++h)
      for (int64_t w = columns.begin; w < columns.end; ++w) sum += input[h * in.h + w * in.w];
    args.output[i] = sum / static_cast<T>(cells_of(rows, columns));
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adaptive_avg_pool2d_backward_kernel(const __grid_constant__ AdaptiveAvgPool2dBackward<T> args,
                                        const __grid_constant__ ImageStrides out) {
  const AdaptivePool2dProblem& p = args.p;
  for_each_element(p.batch * p.channels * p.in_h * p.in_w, [&](int64_t i) {
    const Place in = split_place(i, args.layout, p.channels, p.in_h, p.in_w);
    const Range over_row = adaptive_window(in.h, p.in_h, p.out_h);
    const Range over_column = adaptive_window(in.w, p.in_w, p.out_w);
    const T* grad_output = args.grad_output + in.n * out.n + in.c * out.c;
    T sum = 0;
    for (int64_t h = over_row.begin; h < over_row.end; ++h) {
      const Range rows = adaptive_window(h, p.out_h, p.in_h);
      for (int64_t w = over_column.begin; w < over_column.end; ++w) {
        const Range columns = adaptive_window(w, p.out_w, p.in_w);
        sum += grad_output[h * out.h + w * out.w] / static_cast<T>(cells_of(rows, columns));
      }
    }
    args.grad_input[i] = sum;
  });
}

}  // namespace cisdl::cuda
