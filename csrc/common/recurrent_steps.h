// The elementwise part of one step of each recurrent layer, forward and backward, written once.
//
// take_step does this for one place of a step (problems.h): a row, hidden units [unit, unit + count). M says what
// a value is and how it is read, written and put through sigmoid and tanh: one number in CUDA and in the plain
// CPU kernels (count = 1), a vector of lanes in the fast ones (count <= its width). M has
//   using Value;   static Value load(const T*, int64_t count);   static void store(T*, Value, int64_t count);
//   static Value sigmoid(Value), tanh(Value);
//
// Gradients, with d the gradient of what follows it:
//   LSTM  dc' = grad_c + dh' o (1 - tanh(c')^2);   da_i = dc' g i(1-i),  da_f = dc' c f(1-f),  da_g = dc' i
//   (1-g^2),
//         da_o = dh' tanh(c') o(1-o);   dc = dc' f
//   GRU   da_n = dh' (1-z) (1-n^2),  da_z = dh' (h-n) z(1-z),  da_r = da_n h_part_n r(1-r);
//         of h_part_n: da_n r;   of h, besides the product: dh' z
//   RNN   da = dh' (1 - h'^2), or dh' where h' > 0
#pragma once

#include "problems.h"

#ifdef __CUDACC__
#define CISDL_STEP __device__ __forceinline__
#else
#define CISDL_STEP inline __attribute__((always_inline))
#endif

namespace cisdl {
namespace {

// The gradient of h' that arrives from above and from the step after.
template <class M, class T>
CISDL_STEP typename M::Value arriving(const T* grad_h, const T* grad_output, int64_t at, int64_t count) {
  const auto grad = M::load(grad_h + at, count);
  return grad_output ? grad + M::load(grad_output + at, count) : grad;
}

template <class M, class T>
CISDL_STEP void take_step(const LstmStepForward<T>& f, int64_t row, int64_t unit, int64_t count) {
  const int64_t hidden = f.p.hidden_size, at = row * hidden + unit;
  const T* sums = f.sums + row * f.sums_row + unit;
  const auto sum = [&](int64_t part) {
    const auto x_part = M::load(sums + part * f.sums_part, count);
    return f.h_part ? x_part + M::load(f.h_part + (row * 4 + part) * hidden + unit, count) : x_part;
  };
  const auto in = M::sigmoid(sum(0)), forget = M::sigmoid(sum(1)), cell = M::tanh(sum(2)),
             out = M::sigmoid(sum(3));
  const auto before = M::load(f.c + at, count);
  const auto c = forget * before + in * cell;
  const auto h = out * M::tanh(c);
  if (f.c_before) {
    T* gates = f.gates + row * 4 * hidden + unit;
    M::store(f.c_before + at, before, count);
    M::store(gates, in, count);
    M::store(gates + hidden, forget, count);
    M::store(gates + 2 * hidden, cell, count);
    M::store(gates + 3 * hidden, out, count);
  }
  M::store(f.c + at, c, count);
  M::store(f.h + at, h, count);
  if (f.output) M::store(f.output + at, h, count);
}

template <class M, class T>
CISDL_STEP void take_step(const LstmStepBackward<T>& b, int64_t row, int64_t unit, int64_t count) {
  const int64_t hidden = b.p.hidden_size, at = row * hidden + unit;
  const T* gates = b.gates + row * 4 * hidden + unit;
  T* da = b.grad_gates + row * b.grad_stride + unit;
  const auto in = M::load(gates, count), forget = M::load(gates + hidden, count);
  const auto cell = M::load(gates + 2 * hidden, count), out = M::load(gates + 3 * hidden, count);
  const auto before = M::load(b.c_before + at, count);
  const auto tanh_c = M::tanh(forget * before + in * cell);
  const auto dh = arriving<M>(b.grad_h, b.grad_output, at, count);
  const auto dc = M::load(b.grad_c + at, count) + dh * out * (T(1) - tanh_c * tanh_c);
  M::store(da, dc * cell * in * (T(1) - in), count);
  M::store(da + hidden, dc * before * forget * (T(1) - forget), count);
  M::store(da + 2 * hidden, dc * in * (T(1) - cell * cell), count);
  M::store(da + 3 * hidden, dh * tanh_c * out * (T(1) - out), count);
  M::store(b.grad_c + at, dc * forget, count);
  if (b.h) M::store(b.h + at, out * tanh_c, count);
}

template <class M, class T>
CISDL_STEP void take_step(const GruStepForward<T>& f, int64_t row, int64_t unit, int64_t count) {
  const int64_t hidden = f.p.hidden_size, at = row * hidden + unit;
  const T* sums = f.sums + row * f.sums_row + unit;
  const T* h_part = f.h_part ? f.h_part + row * 3 * hidden + unit : nullptr;
  const auto sum = [&](int64_t part) {
    const auto x_part = M::load(sums + part * f.sums_part, count);
    return h_part ? x_part + M::load(h_part + part * hidden, count) : x_part;
  };
  const auto reset = M::sigmoid(sum(0)), update = M::sigmoid(sum(1));
  const auto h_part_n = M::load(h_part ? h_part + 2 * hidden : sums + 3 * f.sums_part, count);
  const auto candidate = M::tanh(M::load(sums + 2 * f.sums_part, count) + reset * h_part_n);
  const auto h = (T(1) - update) * candidate + update * M::load(f.hx + at, count);
  if (f.h_part_n) {
    T* gates = f.gates + row * 3 * hidden + unit;
    M::store(gates, reset, count);
    M::store(gates + hidden, update, count);
    M::store(gates + 2 * hidden, candidate, count);
    M::store(f.h_part_n + at, h_part_n, count);
  }
  M::store(f.h + at, h, count);
  if (f.output) M::store(f.output + at, h, count);
}

template <class M, class T>
CISDL_STEP void take_step(const GruStepBackward<T>& b, int64_t row, int64_t unit, int64_t count) {
  const int64_t hidden = b.p.hidden_size, at = row * hidden + unit;
  const int64_t part = row * b.grad_stride + unit;
  const T* gates = b.gates + row * 3 * hidden + unit;
  const auto reset = M::load(gates, count), update = M::load(gates + hidden, count);
  const auto candidate = M::load(gates + 2 * hidden, count);
  const auto dh = arriving<M>(b.grad_h, b.grad_output, at, count) + M::load(b.grad_product + at, count);
  const auto da_n = dh * (T(1) - update) * (T(1) - candidate * candidate);
  const auto da_z = dh * (M::load(b.hx + at, count) - candidate) * update * (T(1) - update);
  const auto da_r = da_n * M::load(b.h_part_n + at, count) * reset * (T(1) - reset);
  if (b.grad_x_part) {
    M::store(b.grad_x_part + part, da_r, count);
    M::store(b.grad_x_part + part + hidden, da_z, count);
  }
  M::store(b.grad_x_part_n + part, da_n, count);
  M::store(b.grad_h_part + part, da_r, count);
  M::store(b.grad_h_part + part + hidden, da_z, count);
  M::store(b.grad_h_part + part + 2 * hidden, da_n * reset, count);
  M::store(b.grad_h + at, dh * update, count);
}

template <class M, class T>
CISDL_STEP void take_step(const RnnStepForward<T>& f, int64_t row, int64_t unit, int64_t count) {
  using Value = typename M::Value;
  const int64_t at = row * f.p.hidden_size + unit;
  const Value x_part = M::load(f.sums + row * f.sums_row + unit, count);
  const Value sum = f.h_part ? x_part + M::load(f.h_part + at, count) : x_part;
  // A NaN is not below zero: it stays, as in torch.
  const Value h = f.nonlinearity == Nonlinearity::tanh ? M::tanh(sum) : Value(sum < Value{} ? Value{} : sum);
  M::store(f.h + at, h, count);
  if (f.output) M::store(f.output + at, h, count);
}

template <class M, class T>
CISDL_STEP void take_step(const RnnStepBackward<T>& b, int64_t row, int64_t unit, int64_t count) {
  using Value = typename M::Value;
  const int64_t at = row * b.p.hidden_size + unit;
  const Value h = M::load(b.h + at, count), dh = arriving<M>(b.grad_h, b.grad_output, at, count);
  const Value da = b.nonlinearity == Nonlinearity::tanh ? dh * (T(1) - h * h) : Value(h <= Value{} ? Value{} : dh);
  M::store(b.grad_part + row * b.grad_stride + unit, da, count);
}

}  // namespace
}  // namespace cisdl
