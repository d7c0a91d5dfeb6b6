// The elementwise part of one step of an LSTM, GRU or plain recurrent layer: one thread for each hidden unit of
// each row, neighbouring threads on neighbouring units, so that every part of the gates is read and written in
// order. The formulas are in common/recurrent_steps.h.
#pragma once

#include "../common/recurrent_steps.h"
#include "lstm_cell.cuh"

namespace cisdl::cuda {

// Arithmetic of 16-bit numbers is that of float.
template <class T>
struct OneUnit {
  using Value = Sum<T>;
  static __device__ Value load(const T* p, int64_t) { return Value(*p); }
  static __device__ void store(T* p, Value value, int64_t) { *p = T(value); }
  static __device__ Value sigmoid(Value x) { return cuda::sigmoid(x); }
  static __device__ Value tanh(Value x) { return std::tanh(x); }
};

template <class T, template <class> class Args>
__global__ void __launch_bounds__(kThreads) recurrent_step_kernel(const __grid_constant__ Args<T> args) {
  const int64_t hidden = args.p.hidden_size;
  for_each_element(args.p.rows * hidden, [&](int64_t unit) {
    const int64_t row = divide_off(unit, hidden);
    take_step<OneUnit<T>>(args, row, unit, 1);
  });
}

}  // namespace cisdl::cuda
