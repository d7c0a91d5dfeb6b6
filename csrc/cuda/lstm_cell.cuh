// One step of an LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).
//
// Forward is one kernel: the tiled matrix product of gemm.cuh over x and h laid end to end,
//   a[batch][4H] = [x, h] [W_ih, W_hh]^T,    depth = input_size + hidden_size,
// whose columns are interleaved: column 4u + gate is the row gate * H + u of the weights. So the four adjacent
// columns of a thread are the gates i, f, g, o of one hidden unit, and the epilogue can apply the activations and
// write c' and h' at once: the pre-activations never go to memory. The gates go there only if backward will need
// them.
//
// On tensor cores (mma_gemm.cuh: bfloat16, float16) a thread has columns c, c + 1, c + 8 and c + 9 of 16, c = 0,
// 2, 4,
// 6. There columns are interleaved so that these are i, f, g, o of unit c / 2 of four. Products, sums, activations
// and the state on its way from c to h are float; what is stored is rounded once. It wants input_size and
// hidden_size in whole chunks of 16 bytes.
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
  __device__ const T* data() const { return second; }
};

// Which gate of which unit a column is: gate and unit interleaved so that a thread has all gates of a unit.
template <bool tensor_cores>
struct GateColumn {
  int64_t gate, unit;

  explicit __device__ GateColumn(int64_t column)
      : gate(tensor_cores ? column / 8 % 2 * 2 + column % 2 : column % 4),
        unit(tensor_cores ? column / 16 * 4 + column % 8 / 2 : column / 4) {}
};

// B of forward: [W_ih, W_hh] with rows interleaved.
template <class T, bool tensor_cores = false>
struct InterleavedGates : ConcatenatedRows<T> {
  using Line = typename ConcatenatedRows<T>::Line;
  int64_t hidden_size;

  __device__ Line line(int64_t group, int64_t index) const {
    const GateColumn<tensor_cores> column(index);
    return ConcatenatedRows<T>::line(group, column.gate * hidden_size + column.unit);
  }
};

template <class T, bool tensor_cores = false>
struct LstmCellEpilogue {
  using S = Sum<T>;
  static constexpr bool along_rows = false;
  static constexpr int mma_values = 4;

  LstmCellForward<T> args;

  __device__ S bias(int64_t gate) const {
    return (args.b_ih ? S(args.b_ih[gate]) : S(0)) + (args.b_hh ? S(args.b_hh[gate]) : S(0));
  }

  __device__ void store(int64_t, int64_t row, int64_t column, int64_t, const S (&values)[4]) const {
    const int64_t hidden = args.p.hidden_size;
    const int64_t unit = GateColumn<tensor_cores>(column).unit;
    const S i = sigmoid(values[0] + bias(unit));
    const S f = sigmoid(values[1] + bias(hidden + unit));
    const S g = std::tanh(values[2] + bias(2 * hidden + unit));
    const S o = sigmoid(values[3] + bias(3 * hidden + unit));
    const int64_t at = row * hidden + unit;
    const S c = f * S(args.cx[at]) + i * g;
    args.c[at] = T(c);
    args.h[at] = T(o * std::tanh(c));
    if (args.gates) {
      T* gates = args.gates + row * 4 * hidden + unit;
      gates[0] = T(i);
      gates[hidden] = T(f);
      gates[2 * hidden] = T(g);
      gates[3 * hidden] = T(o);
    }
  }
};

// grad_gates and grad_cx from grad_h and grad_c.
template <class T>
__global__ void __launch_bounds__(kThreads)
    lstm_cell_backward_kernel(const __grid_constant__ LstmCellBackward<T> args) {
  using S = Sum<T>;
  const int64_t hidden = args.p.hidden_size;
  for_each_element(args.p.batch * hidden, [&](int64_t at) {
    int64_t unit = at;
    const int64_t row = divide_off(unit, hidden);
    const T* gates = args.gates + row * 4 * hidden + unit;
    const S i = gates[0];
    const S f = gates[hidden];
    const S g = gates[2 * hidden];
    const S o = gates[3 * hidden];
    const S tanh_c = std::tanh(S(args.c[at]));
    const S grad_h = args.grad_h ? S(args.grad_h[at]) : S(0);
    const S grad_c = (args.grad_c ? S(args.grad_c[at]) : S(0)) + grad_h * o * (S(1) - tanh_c * tanh_c);
    T* grad_gates = args.grad_gates + row * 4 * hidden + unit;
    grad_gates[0] = T(grad_c * g * i * (S(1) - i));
    grad_gates[hidden] = T(grad_c * S(args.cx[at]) * f * (S(1) - f));
    grad_gates[2 * hidden] = T(grad_c * i * (S(1) - g * g));
    grad_gates[3 * hidden] = T(grad_h * tanh_c * o * (S(1) - o));
    if (args.grad_cx) args.grad_cx[at] = T(grad_c * f);
  });
}

}  // namespace cisdl::cuda
