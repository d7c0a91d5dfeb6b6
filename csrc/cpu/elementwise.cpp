// Activations and optimiser steps on the CPU: one pass over memory each (formulas: ../common/elementwise.h).
//
// The activation of a layer is applied in place, right after the layer's kernel, while the output is in the cache:
// it costs no allocation and no call through torch. Its backward turns the incoming gradient into that of the
// layer's plain output, and adds up the gradient of the bias on the way: lanes along the columns, each lane
// summing the rows in chains of kMaxChain, so that the result depends neither on the number of threads nor on the
// instruction set's width.
//
// Adam reads four arrays and writes three: its square root and division hide behind that traffic (measured: no
// faster without them), so they are exact. The loops are plain, the compiler vectorises them.
#include "../common/elementwise.h"
#include "cross_entropy.h"
#include "elementwise_kernels.h"
#include "gemm_tile.h"
#include "simd_math.h"

namespace cisdl {
namespace {

// Elements worth a thread.
constexpr int64_t kGrain = 1 << 14;

// ------------------------------------------------------------------------------------------ activations

template <class T>
CISDL_INLINE Vec<T> activate(Activation activation, Vec<T> x, Vec<T> slope) {
  switch (activation) {
    case Activation::relu:
      return x < zero<T>() ? zero<T>() : x;  // a NaN stays
    case Activation::leaky_relu:
      return x > zero<T>() ? x : x * slope;
    case Activation::sigmoid:
      return sigmoid<T>(x);
    default:
      return tanh<T>(x);
  }
}

template <class T, Activation kActivation>
void activate_range(T* x, int64_t n, T slope) {
  constexpr int W = kWidth<T>;
  const Vec<T> slopes = set1(slope);
  int64_t i = 0;
  for (; i + W <= n; i += W) store(x + i, activate<T>(kActivation, load(x + i), slopes));
  if (i < n) store_partial(x + i, activate<T>(kActivation, load_partial(x + i, n - i), slopes), n - i);
}

template <class T>
void activation_forward(const ActivationForward<T>& f, const Parallel& par) {
  parallel_for(par, f.size, kGrain, [&](int64_t begin, int64_t end) {
    T* x = f.values + begin;
    const int64_t n = end - begin;
    switch (f.activation) {
      case Activation::relu:
        return activate_range<T, Activation::relu>(x, n, f.slope);
      case Activation::leaky_relu:
        return activate_range<T, Activation::leaky_relu>(x, n, f.slope);
      case Activation::sigmoid:
        return activate_range<T, Activation::sigmoid>(x, n, f.slope);
      case Activation::tanh:
        return activate_range<T, Activation::tanh>(x, n, f.slope);
    }
  });
}

template <class T>
CISDL_INLINE Vec<T> through(Activation activation, Vec<T> g, Vec<T> y, Vec<T> slope) {
  const Vec<T> one = set1(T(1));
  switch (activation) {
    case Activation::relu:
      return y <= zero<T>() ? zero<T>() : g;
    case Activation::leaky_relu:
      return y > zero<T>() ? g : g * slope;
    case Activation::sigmoid:
      return g * (one - y) * y;
    default:
      return g * (one - y * y);
  }
}

// Columns j to j + n (at most W) of all rows.
template <class T, Activation kActivation>
void through_columns(const ActivationBackward<T>& b, int64_t j, int64_t n) {
  const Vec<T> slope = set1(b.slope);
  Vec<T> total = zero<T>();
  for (int64_t i0 = 0; i0 < b.rows; i0 += kMaxChain) {
    const int64_t i1 = i0 + kMaxChain < b.rows ? i0 + kMaxChain : b.rows;
    Vec<T> part = zero<T>();
    for (int64_t at = i0 * b.cols + j; at < i1 * b.cols + j; at += b.cols) {
      const Vec<T> g =
          through<T>(kActivation, load_up_to(b.grad_output + at, n), load_up_to(b.output + at, n), slope);
      store_up_to(b.grad_input + at, g, n);
      part += g;
    }
    total += part;
  }
  store_up_to(b.grad_bias + j, total, n);
}

// Elements [begin, end), where rows do not matter.
template <class T, Activation kActivation>
void through_range(const ActivationBackward<T>& b, int64_t begin, int64_t end) {
  constexpr int W = kWidth<T>;
  const Vec<T> slope = set1(b.slope);
  int64_t i = begin;
  for (; i + W <= end; i += W)
    store(b.grad_input + i, through<T>(kActivation, load(b.grad_output + i), load(b.output + i), slope));
  if (i < end) {
    const int64_t n = end - i;
    store_partial(
        b.grad_input + i,
        through<T>(kActivation, load_partial(b.grad_output + i, n), load_partial(b.output + i, n), slope), n);
  }
}

template <class T>
void activation_backward(const ActivationBackward<T>& b, const Parallel& par) {
  if (!b.grad_bias)
    return parallel_for(par, b.rows * b.cols, kGrain, [&](int64_t begin, int64_t end) {
      switch (b.activation) {
        case Activation::relu:
          return through_range<T, Activation::relu>(b, begin, end);
        case Activation::leaky_relu:
          return through_range<T, Activation::leaky_relu>(b, begin, end);
        case Activation::sigmoid:
          return through_range<T, Activation::sigmoid>(b, begin, end);
        case Activation::tanh:
          return through_range<T, Activation::tanh>(b, begin, end);
      }
    });
  constexpr int64_t W = kWidth<T>;
  const int64_t groups = (b.cols + W - 1) / W;
  parallel_for(par, groups, 1 + kGrain / (b.rows * W + 1), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin * W; j < end * W && j < b.cols; j += W) {
      switch (b.activation) {
        case Activation::relu:
          through_columns<T, Activation::relu>(b, j, b.cols - j);
          break;
        case Activation::leaky_relu:
          through_columns<T, Activation::leaky_relu>(b, j, b.cols - j);
          break;
        case Activation::sigmoid:
          through_columns<T, Activation::sigmoid>(b, j, b.cols - j);
          break;
        case Activation::tanh:
          through_columns<T, Activation::tanh>(b, j, b.cols - j);
          break;
      }
    }
  });
}

// ------------------------------------------------------------------------------------------- optimisers

CISDL_INLINE float root(float x) { return __builtin_sqrtf(x); }
CISDL_INLINE double root(double x) { return __builtin_sqrt(x); }

template <class T, bool kLargest>
void adam_range(const AdamStep<T>& s, int64_t begin, int64_t end) {
  T* __restrict w = s.weight;
  const T* __restrict grad = s.grad;
  T* __restrict m = s.m;
  T* __restrict v = s.v;
  T* __restrict largest = s.largest_v;
  const T sign = s.maximize ? T(-1) : T(1), rest1 = s.rest1, rest2 = s.rest2;
  const T scale = T(1) / s.sqrt_correction2;
  const T beta1 = s.beta1, beta2 = s.beta2, eps = s.eps, decay = s.decay, shrink = s.shrink, step = s.step_size;
  for (int64_t i = begin; i < end; ++i) {
    const T weight = w[i] * shrink;
    const T g = sign * grad[i] + decay * w[i];
    const T mean = beta1 * m[i] + rest1 * g;
    const T square = beta2 * v[i] + rest2 * g * g;
    m[i] = mean;
    v[i] = square;
    T used = square;
    if constexpr (kLargest) {
      used = largest[i] > square ? largest[i] : square;
      largest[i] = used;
    }
    w[i] = weight - step * mean / (root(used) * scale + eps);
  }
}

template <class T>
void adam(const AdamStep<T>& s, const Parallel& par) {
  parallel_for(par, s.size, kGrain, [&](int64_t begin, int64_t end) {
    if (s.largest_v)
      adam_range<T, true>(s, begin, end);
    else
      adam_range<T, false>(s, begin, end);
  });
}

template <class T>
void sgd(const SgdStep<T>& s, const Parallel& par) {
  parallel_for(par, s.size, kGrain, [&](int64_t begin, int64_t end) {
    T* __restrict w = s.weight;
    const T* __restrict grad = s.grad;
    T* __restrict buffer = s.buffer;
    const T sign = s.maximize ? T(-1) : T(1), fresh = T(1) - s.dampening;
    const T lr = s.lr, decay = s.decay, momentum = s.momentum;
    if (!buffer) {
      for (int64_t i = begin; i < end; ++i) w[i] -= lr * (sign * grad[i] + decay * w[i]);
    } else if (s.first) {
      for (int64_t i = begin; i < end; ++i) buffer[i] = sign * grad[i] + decay * w[i];
      for (int64_t i = begin; i < end; ++i)
        w[i] -= lr * (s.nesterov ? buffer[i] + momentum * buffer[i] : buffer[i]);
    } else {
      for (int64_t i = begin; i < end; ++i) {
        const T g = sign * grad[i] + decay * w[i];
        const T b = momentum * buffer[i] + fresh * g;
        buffer[i] = b;
        w[i] -= lr * (s.nesterov ? g + momentum * b : b);
      }
    }
  });
}

template <class T>
constexpr ElementwiseKernels<T> kernels() {
  return {activation_forward<T>,
          activation_backward<T>,
          cross_entropy_forward<T>,
          cross_entropy_backward<T>,
          adam<T>,
          sgd<T>};
}

constexpr ElementwiseFamily kFamily = {kernels<float>(), kernels<double>()};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(elementwise, ElementwiseFamily) { return &cisdl::kFamily; }
