// What the cells of recurrence.cuh do at one place of a step: one row, one hidden unit. The formulas are those of
// common/recurrent_steps.h, in float, on numbers that are in registers.
// `x` is what the thread has read of x_part, `sum` W_hh h + b_hh, `state` what runs on, `kept` what backward
// needs.
#pragma once

#include "../common/recurrences.h"
#include "lstm_cell.cuh"

namespace cisdl::cuda {

template <class T>
struct Lstm {
  using Scalar = T;
  static constexpr RecurrentCell kCell = RecurrentCell::lstm;
  static constexpr int kGates = 4, kStates = 2;  // h, c
  static constexpr int kKept = 5;                // gates, and c before

  static __device__ float forward(const RecurrenceForward<T>&, const float (&x)[kGates],
                                  const float (&sum)[kGates], float (&state)[kStates], float (&kept)[kKept]) {
    const float i = sigmoid(x[0] + sum[0]), f = sigmoid(x[1] + sum[1]);
    const float g = std::tanh(x[2] + sum[2]), o = sigmoid(x[3] + sum[3]);
    const float keeps[kKept] = {i, f, g, o, state[1]};
#pragma unroll
    for (int k = 0; k < kKept; ++k) kept[k] = keeps[k];
    state[1] = f * state[1] + i * g;
    return o * std::tanh(state[1]);
  }

  // Leaves in `state` what goes to the step before besides da W_hh: nothing of h, and the gradient of c.
  static __device__ void backward(const RecurrenceBackward<T>&, const float (&kept)[kKept], float /*h_before*/,
                                  float dh, float (&state)[kStates], float (&da)[kGates], float&) {
    const auto& [i, f, g, o, c] = kept;
    const float tanh_c = std::tanh(f * c + i * g);
    const float dc = state[1] + dh * o * (1 - tanh_c * tanh_c);
    da[0] = dc * g * i * (1 - i);
    da[1] = dc * c * f * (1 - f);
    da[2] = dc * i * (1 - g * g);
    da[3] = dh * tanh_c * o * (1 - o);
    state[0] = 0;
    state[1] = dc * f;
  }
};

template <class T>
struct Gru {
  using Scalar = T;
  static constexpr RecurrentCell kCell = RecurrentCell::gru;
  static constexpr int kGates = 3, kStates = 1;
  static constexpr int kKept = 4;  // gates, and h_part_n

  static __device__ float forward(const RecurrenceForward<T>&, const float (&x)[kGates],
                                  const float (&sum)[kGates], float (&state)[kStates], float (&kept)[kKept]) {
    const float r = sigmoid(x[0] + sum[0]), z = sigmoid(x[1] + sum[1]);
    const float n = std::tanh(x[2] + r * sum[2]);
    const float keeps[kKept] = {r, z, n, sum[2]};
#pragma unroll
    for (int k = 0; k < kKept; ++k) kept[k] = keeps[k];
    return (1 - z) * n + z * state[0];
  }

  static __device__ void backward(const RecurrenceBackward<T>&, const float (&kept)[kKept], float h_before,
                                  float dh, float (&state)[kStates], float (&da)[kGates], float& dx_n) {
    const auto& [r, z, n, h_part_n] = kept;
    dx_n = dh * (1 - z) * (1 - n * n);
    da[0] = dx_n * h_part_n * r * (1 - r);
    da[1] = dh * (h_before - n) * z * (1 - z);
    da[2] = dx_n * r;
    state[0] = dh * z;
  }
};

template <class T>
struct Rnn {
  using Scalar = T;
  static constexpr RecurrentCell kCell = RecurrentCell::rnn;
  static constexpr int kGates = 1, kStates = 1;
  static constexpr int kKept = 1;  // the output

  static __device__ float forward(const RecurrenceForward<T>& f, const float (&x)[kGates],
                                  const float (&sum)[kGates], float (&)[kStates], float (&)[kKept]) {
    const float a = x[0] + sum[0];
    // A NaN is not below zero: it stays, as in torch.
    return f.nonlinearity == Nonlinearity::tanh ? std::tanh(a) : a < 0 ? 0.0f : a;
  }

  static __device__ void backward(const RecurrenceBackward<T>& b, const float (&kept)[kKept], float /*h_before*/,
                                  float dh, float (&state)[kStates], float (&da)[kGates], float&) {
    const float h = kept[0];
    da[0] = b.nonlinearity == Nonlinearity::tanh ? dh * (1 - h * h) : h <= 0 ? 0.0f : dh;
    state[0] = 0;
  }
};

}  // namespace cisdl::cuda
