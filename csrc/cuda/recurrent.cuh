// The elementwise part of one step of an LSTM, GRU or plain recurrent layer: one thread for each hidden unit of
// each row, neighbouring threads on neighbouring units, so that every part of the gates is read and written in
// order. The formulas are in common/recurrent_steps.h.
#pragma once

#include "../common/recurrent_steps.h"
#include "lstm_cell.cuh"

namespace cisdl::cuda {

template <class T>
struct OneUnit {
  using Value = T;
  static __device__ T load(const T* p, int64_t) { return *p; }
  static __device__ void store(T* p, T value, int64_t) { *p = value; }
  static __device__ T sigmoid(T x) { return cuda::sigmoid(x); }
  static __device__ T tanh(T x) { return std::tanh(x); }
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
