// The LSTM cell as its formulas read, one output at a time: the implementation that applies to everything.
#pragma once

#include "../common/parallel.h"
#include "../common/problems.h"
#include "simd.h"

namespace cisdl {
namespace {

CISDL_INLINE float plain_exp(float x) { return __builtin_expf(x); }
CISDL_INLINE double plain_exp(double x) { return __builtin_exp(x); }
CISDL_INLINE float plain_tanh(float x) { return __builtin_tanhf(x); }
CISDL_INLINE double plain_tanh(double x) { return __builtin_tanh(x); }
template <class T>
CISDL_INLINE T plain_sigmoid(T x) {
  return T(1) / (T(1) + plain_exp(-x));
}

template <class T>
void lstm_forward_plain(const LstmCellForward<T>& f, const Parallel& par) {
  const int64_t in = f.p.input_size, hidden = f.p.hidden_size;
  parallel_for(par, f.p.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t j = 0; j < hidden; ++j) {
        T a[4];  // i, f, g, o before their activations
        for (int64_t gate = 0; gate < 4; ++gate) {
          const int64_t row = gate * hidden + j;
          T sum = (f.b_ih ? f.b_ih[row] : T(0)) + (f.b_hh ? f.b_hh[row] : T(0));
          for (int64_t k = 0; k < in; ++k) sum += f.input[n * in + k] * f.w_ih[row * in + k];
          for (int64_t k = 0; k < hidden; ++k) sum += f.hx[n * hidden + k] * f.w_hh[row * hidden + k];
          a[gate] = gate == 2 ? plain_tanh(sum) : plain_sigmoid(sum);
        }
        const T c = a[1] * f.cx[n * hidden + j] + a[0] * a[2];
        f.c[n * hidden + j] = c;
        f.h[n * hidden + j] = a[3] * plain_tanh(c);
        for (int64_t gate = 0; f.gates && gate < 4; ++gate) f.gates[(n * 4 + gate) * hidden + j] = a[gate];
      }
  });
}

// out[row, col] = sum over s of da[...] x[...] for a gradient that may not be wanted.
template <class T, class Term>
void plain_sums(T* out, int64_t rows, int64_t cols, int64_t terms, const Parallel& par, const Term& term) {
  if (!out) return;
  parallel_for(par, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        T sum = T(0);
        for (int64_t s = 0; s < terms; ++s) sum += term(i, j, s);
        out[i * cols + j] = sum;
      }
  });
}

template <class T>
void lstm_backward_plain(const LstmCellBackward<T>& b, const Parallel& par) {
  const int64_t batch = b.p.batch, in = b.p.input_size, hidden = b.p.hidden_size, rows = 4 * hidden;
  const T* da = b.grad_gates;
  parallel_for(par, batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t j = 0; j < hidden; ++j) {
        const int64_t at = n * hidden + j;
        const T* gates = b.gates + n * rows + j;
        T* d = b.grad_gates + n * rows + j;
        const T i = gates[0], f = gates[hidden], g = gates[2 * hidden], o = gates[3 * hidden];
        const T tanh_c = plain_tanh(b.c[at]);
        const T dh = b.grad_h ? b.grad_h[at] : T(0);
        const T dc = (b.grad_c ? b.grad_c[at] : T(0)) + dh * o * (T(1) - tanh_c * tanh_c);
        d[0] = dc * g * i * (T(1) - i);
        d[hidden] = dc * b.cx[at] * f * (T(1) - f);
        d[2 * hidden] = dc * i * (T(1) - g * g);
        d[3 * hidden] = dh * tanh_c * o * (T(1) - o);
        if (b.grad_cx) b.grad_cx[at] = dc * f;
      }
  });
  plain_sums(b.grad_input, batch, in, rows, par,
             [&](int64_t n, int64_t k, int64_t s) { return da[n * rows + s] * b.w_ih[s * in + k]; });
  plain_sums(b.grad_hx, batch, hidden, rows, par,
             [&](int64_t n, int64_t k, int64_t s) { return da[n * rows + s] * b.w_hh[s * hidden + k]; });
  plain_sums(b.grad_w_ih, rows, in, batch, par,
             [&](int64_t row, int64_t k, int64_t n) { return da[n * rows + row] * b.input[n * in + k]; });
  plain_sums(b.grad_w_hh, rows, hidden, batch, par,
             [&](int64_t row, int64_t k, int64_t n) { return da[n * rows + row] * b.hx[n * hidden + k]; });
  plain_sums(b.grad_bias, int64_t{1}, rows, batch, par,
             [&](int64_t, int64_t row, int64_t n) { return da[n * rows + row]; });
}

}  // namespace
}  // namespace cisdl
