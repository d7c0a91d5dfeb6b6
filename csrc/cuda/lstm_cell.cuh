// One step of an LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).
//
// Forward is one kernel: the tiled matrix product of gemm.cuh over x and h laid end to end,
//   a[batch][4H] = [x, h] [W_ih, W_hh]^T,    depth = input_size + hidden_size,
// whose columns are interleaved: column 4u + gate is the row gate * H + u of the weights. So the four adjacent
// columns of a thread are the gates i, f, g, o of one hidden unit, and the epilogue can apply the activations and
// write c' and h' at once: the pre-activations never go to memory. The gates go there only if backward will need
// them.
//
// Backward: one thread per hidden unit and sample turns grad_h and grad_c into the gradient of the pre-activations
// and of the old cell state; the rest is products and sums of linear layers.
#pragma once

#include <cmath>

#include "gemm.cuh"

namespace cisdl::cuda {

template <class T>
__device__ T sigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

// Two matrices side by side: depths below `first_size` belong to the first. A of forward: [x, h], line = sample.
template <class T>
struct ConcatenatedRows {
  using Scalar = T;
  struct Line {
    const T* first;
    const T* second;
  };
  using Step = int64_t;
  static constexpr bool along_depth = true;

  const T* first;   // [lines, first_size]
  const T* second;  // [lines, second_size]
  int64_t first_size, second_size;

  // `second` begins where depth first_size is.
  __device__ Line line(int64_t, int64_t index) const {
    return {first + index * first_size, second + index * second_size};
  }
  __device__ Step step(int64_t depth) const { return depth; }
  __device__ const T* at(const Line& line, Step depth) const {
    return depth < first_size ? line.first + depth : line.second + (depth - first_size);
  }
};

// B of forward: [W_ih, W_hh] with rows interleaved, line = 4 * unit + gate.
template <class T>
struct InterleavedGates : ConcatenatedRows<T> {
  using Line = typename ConcatenatedRows<T>::Line;
  int64_t hidden_size;

  __device__ Line line(int64_t group, int64_t index) const {
    return ConcatenatedRows<T>::line(group, index % 4 * hidden_size + index / 4);
  }
};

template <class T>
struct LstmCellEpilogue {
  static constexpr bool along_rows = false;

  LstmCellForward<T> args;

  __device__ T bias(int64_t gate) const {
    return (args.b_ih ? args.b_ih[gate] : T(0)) + (args.b_hh ? args.b_hh[gate] : T(0));
  }

  __device__ void store(int64_t, int64_t row, int64_t column, int64_t, const T (&values)[kFragment]) const {
    const int64_t hidden = args.p.hidden_size;
    const int64_t unit = column / 4;
    const T i = sigmoid(values[0] + bias(unit));
    const T f = sigmoid(values[1] + bias(hidden + unit));
    const T g = std::tanh(values[2] + bias(2 * hidden + unit));
    const T o = sigmoid(values[3] + bias(3 * hidden + unit));
    const int64_t at = row * hidden + unit;
    const T c = f * args.cx[at] + i * g;
    args.c[at] = c;
    args.h[at] = o * std::tanh(c);
    if (args.gates) {
      T* gates = args.gates + row * 4 * hidden + unit;
      gates[0] = i;
      gates[hidden] = f;
      gates[2 * hidden] = g;
      gates[3 * hidden] = o;
    }
  }
};

// grad_gates and grad_cx from grad_h and grad_c.
template <class T>
__global__ void __launch_bounds__(kThreads)
    lstm_cell_backward_kernel(const __grid_constant__ LstmCellBackward<T> args) {
  const int64_t hidden = args.p.hidden_size;
  for_each_element(args.p.batch * hidden, [&](int64_t at) {
    int64_t unit = at;
    const int64_t row = divide_off(unit, hidden);
    const T* gates = args.gates + row * 4 * hidden + unit;
    const T i = gates[0];
    const T f = gates[hidden];
    const T g = gates[2 * hidden];
    const T o = gates[3 * hidden];
    const T tanh_c = std::tanh(args.c[at]);
    const T grad_h = args.grad_h ? args.grad_h[at] : T(0);
    const T grad_c = (args.grad_c ? args.grad_c[at] : T(0)) + grad_h * o * (T(1) - tanh_c * tanh_c);
    T* grad_gates = args.grad_gates + row * 4 * hidden + unit;
    grad_gates[0] = grad_c * g * i * (T(1) - i);
    grad_gates[hidden] = grad_c * args.cx[at] * f * (T(1) - f);
    grad_gates[2 * hidden] = grad_c * i * (T(1) - g * g);
    grad_gates[3 * hidden] = grad_h * tanh_c * o * (T(1) - o);
    if (args.grad_cx) args.grad_cx[at] = grad_c * f;
  });
}

}  // namespace cisdl::cuda
