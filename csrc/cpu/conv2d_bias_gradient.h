// The gradient to a convolution's bias, NCHW: the sum of grad_output over images and pixels, one channel at a
// time.
//
// Four vectors of partial sums along a plane; planes are added up one after another, so no chain is longer than a
// plane, and the order is the same for any number of threads.
#pragma once

#include "gemm.h"

namespace cisdl {
namespace {

template <class T>
T plane_sum(const T* plane, int64_t size) {
  constexpr int W = kWidth<T>, kChains = 4;
  Vec<T> sums[kChains] = {};
  int64_t i = 0;
  for (; i + kChains * W <= size; i += kChains * W)
#pragma GCC unroll 4
    for (int v = 0; v < kChains; ++v) sums[v] += load(plane + i + v * W);
  for (; i < size; i += W) sums[0] += i + W <= size ? load(plane + i) : load_partial(plane + i, size - i);
  return sum_lanes<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T>
void conv2d_bias_gradient(const Conv2dProblem& p, const T* grad_output, T* grad_bias, const Parallel& par) {
  const int64_t plane = p.out_h * p.out_w;
  parallel_for(par, p.out_channels, grain_for(p.batch * plane), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      T sum = 0;
      for (int64_t n = 0; n < p.batch; ++n)
        sum += plane_sum(grad_output + (n * p.out_channels + k) * plane, plane);
      grad_bias[k] = sum;
    }
  });
}

}  // namespace
}  // namespace cisdl
