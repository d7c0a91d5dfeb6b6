// Softmax cross-entropy, forward and backward, in float and double (formulas: common/elementwise.h).
//
// Forward reads the scores once. `threads` of a block share a row, a power of two for about 8 scores each,
// neighbours reading neighbours; a block has 256 / threads rows. Each thread keeps the largest score it has met
// and the sum of exp(x - largest), which it scales when a larger one comes (online softmax; Milakov, Gimelshein
// 2018). Pairs meet in shared memory, halves upon halves, in an order that is always the same. With smoothing the
// row is read again, from the caches, for sum_c w[c] (largest - x[c]). Nothing of the size of the scores is
// written. The sums over all rows, of the losses and of the weights, are one block's, in double.
//
// Backward: one thread per score, or per 16 bytes of them where rows are whole ones; the exponentials are formed
// again from the two numbers that forward kept of a row.
//
// Floor for n rows of c classes of s bytes: forward n c s bytes, backward 2 n c s. Expected is the rate of a copy
// from some thousand threads on.
//
// Limits: to refuse a class that there is not, one would have to wait for the GPU. The loss and the gradient of
// such a row are NaN.
#pragma once

#include <cmath>

#include "../common/elementwise.h"
#include "pool2d.cuh"
#include "sums.cuh"

namespace cisdl::cuda {

// What the scores seen so far add up to.
template <class T>
struct Softmax {
  T largest = -INFINITY;
  T sum = 0;  // of exp(x - largest)

  __device__ void meet(T x) {
    if (x > largest) {
      sum *= std::exp(largest - x);
      largest = x;
    }
    if (x != -INFINITY) sum += std::exp(x - largest);  // an infinity gives NaN, as in torch; a NaN stays one
  }
  __device__ void join(const Softmax& other) {
    const T both = other.largest > largest ? other.largest : largest;
    if (both != -INFINITY) {
      sum = sum * std::exp(largest - both) + other.sum * std::exp(other.largest - both);
      largest = both;
    } else {
      sum += other.sum;
    }
  }
};

// The loss of a row, of the sums over it; `below` is sum_c w[c] (largest - x[c]), `all` the sum of all weights.
template <class T>
__device__ T loss_of_row(const CrossEntropyForward<T>& f, int64_t row, const Softmax<T>& softmax, T below, T all) {
  const CrossEntropyProblem& p = f.p;
  const int64_t y = f.target[row];
  if (y == p.ignored) return 0;
  if (!CISDL_INSIDE(y >= 0 && y < p.classes)) return NAN;
  const T smoothing = static_cast<T>(p.smoothing);
  const T log_sum = std::log(softmax.sum), of_target = (T(1) - smoothing) * (f.weight ? f.weight[y] : T(1));
  const T loss = of_target * ((softmax.largest - f.scores[row * p.classes + y]) + log_sum);
  return smoothing > 0 ? loss + smoothing / static_cast<T>(p.classes) * (below + all * log_sum) : loss;
}

// What the threads of a block found, [thread of the row][row].
template <class T>
struct RowSums {
  Softmax<T> softmax[kThreads];
  T below[kThreads];
  T all[kThreads];
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(const __grid_constant__ CrossEntropyForward<T> f, int threads) {
  CISDL_SHARED(RowSums<T>, found);
  const CrossEntropyProblem& p = f.p;
  const int across = kThreads / threads, first = threadIdx.x % threads, number = threadIdx.x / threads;
  const int mine = first * across + number;
  for (int64_t begin = int64_t{blockIdx.x} * across; begin < p.rows; begin += int64_t{gridDim.x} * across) {
    const int64_t row = begin + number;
    const bool exists = CISDL_INSIDE(row < p.rows);
    const T* x = f.scores + row * p.classes;
    Softmax<T> softmax;
    if (exists)
#pragma unroll 4
      for (int64_t c = first; c < p.classes; c += threads) softmax.meet(x[c]);
    found.softmax[mine] = softmax;
    for (int half = threads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (first < half) found.softmax[mine].join(found.softmax[mine + half * across]);
    }
    T below = 0, all = 0;
    if (p.smoothing > 0) {
      __syncthreads();  // the row's softmax is complete
      const T largest = found.softmax[number].largest;
      if (exists)
        for (int64_t c = first; c < p.classes; c += threads) {
          const T w = f.weight ? f.weight[c] : T(1);
          below += w * (largest - x[c]);
          all += w;
        }
      found.below[mine] = below;
      found.all[mine] = all;
      for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (first < half) {
          found.below[mine] += found.below[mine + half * across];
          found.all[mine] += found.all[mine + half * across];
        }
      }
    }
    if (first == 0 && exists) {
      softmax = found.softmax[mine];
      f.losses[row] = loss_of_row(f, row, softmax, found.below[mine], found.all[mine]);
      if (f.kept) {
        f.kept[row] = softmax.largest;
        f.kept[p.rows + row] = softmax.sum;
      }
    }
    __syncthreads();  // the next rows may overwrite what was found
  }
}

// The sum of term(i), i < n, in double, for a block's first thread.
template <class Term>
__device__ double sum_of(int64_t n, PartialSums<double>& partial, const Term& term) {
  const int thread = threadIdx.x;
  double sum = 0;
  for (int64_t i = thread; i < n; i += kThreads) sum += term(i);
  __syncthreads();  // everyone has finished with the sum before
  partial.value[thread] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) partial.value[thread] += partial.value[thread + half];
  }
  return partial.value[0];
}

// One block.
template <class T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_reduction_kernel(const __grid_constant__ CrossEntropyReduction<T> args) {
  CISDL_SHARED(PartialSums<double>, partial);
  const CrossEntropyProblem& p = args.p;
  const double counting = sum_of(p.rows, partial, [&](int64_t row) -> double {
    const int64_t y = args.target[row];
    if (y == p.ignored) return 0;
    if (!CISDL_INSIDE(y >= 0 && y < p.classes)) return NAN;
    return args.weight ? args.weight[y] : T(1);
  });
  if (args.totals) {
    const double all =
        args.weight ? sum_of(p.classes, partial, [&](int64_t c) -> double { return args.weight[c]; }) : p.classes;
    if (threadIdx.x == 0) {
      args.totals[0] = static_cast<T>(args.mean ? 1 / counting : 1);
      args.totals[1] = static_cast<T>(all);
    }
  }
  if (args.loss) {
    const double sum = sum_of(p.rows, partial, [&](int64_t row) -> double { return args.losses[row]; });
    if (threadIdx.x == 0) *args.loss = static_cast<T>(args.mean ? sum / counting : sum);
  }
}

template <class T, int lanes>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_backward_kernel(const __grid_constant__ CrossEntropyBackward<T> b) {
  const CrossEntropyProblem& p = b.p;
  const T smoothing = static_cast<T>(p.smoothing), scale = b.totals[0];
  const T each = smoothing / static_cast<T>(p.classes);  // what smoothing gives each class, times its weight
  for_each_element(p.rows * p.classes / lanes, [&](int64_t index) {
    int64_t first = index * lanes;
    const int64_t row = divide_off(first, p.classes);
    const int64_t y = b.target[row];
    const bool counts = y != p.ignored, valid = CISDL_INSIDE(y >= 0 && y < p.classes);
    const T grad = b.grad_losses[row * b.grad_step] * scale;
    const T of_target = (T(1) - smoothing) * (b.weight && counts && valid ? b.weight[y] : T(1));
    const T whole = of_target + (smoothing > 0 ? each * b.totals[1] : T(0));
    const T largest = b.kept[row], sum = b.kept[p.rows + row];
    const auto x = load_lanes<lanes>(b.scores + index * lanes);
    Lanes<T, lanes> result;
#pragma unroll
    for (int l = 0; l < lanes; ++l) {
      const int64_t c = first + l;
      T difference = whole * (std::exp(x.value[l] - largest) / sum);
      if (c == y) difference -= of_target;
      if (smoothing > 0) difference -= each * (b.weight ? b.weight[c] : T(1));
      result.value[l] = !counts ? T(0) : valid ? grad * difference : T(NAN);
    }
    store_lanes(b.grad_scores + index * lanes, result);
  });
}

}  // namespace cisdl::cuda
