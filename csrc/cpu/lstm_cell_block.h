// What every forward of the LSTM cell ends with: from the sums of the gates to the new state.
#pragma once

#include "gemm.h"
#include "kernels.h"
#include "simd_math.h"

namespace cisdl {
namespace {

// A block of sums: kWidth hidden units of one row, gate after gate.
template <class T>
constexpr int kGateBlock = 4 * kWidth<T>;

// Rows [row, row + rows) of hidden units [j, j + n), n <= W: from the sums in `block` to h, c and gates.
template <class T>
void finish_block(const LstmCellForward<T>& f, const T* block, int64_t row, int64_t rows, int64_t j, int64_t n) {
  constexpr int W = kWidth<T>;
  const int64_t hidden = f.p.hidden_size;
  Vec<T> bias[4];
#pragma GCC unroll 4
  for (int gate = 0; gate < 4; ++gate) {
    bias[gate] = f.b_ih ? load_up_to(f.b_ih + gate * hidden + j, n) : zero<T>();
    if (f.b_hh) bias[gate] += load_up_to(f.b_hh + gate * hidden + j, n);
  }
  for (int64_t r = 0; r < rows; ++r, block += kGateBlock<T>) {
    const int64_t at = (row + r) * hidden + j;
    const Vec<T> in = sigmoid<T>(load(block) + bias[0]);
    const Vec<T> forget = sigmoid<T>(load(block + W) + bias[1]);
    const Vec<T> cell = tanh<T>(load(block + 2 * W) + bias[2]);
    const Vec<T> out = sigmoid<T>(load(block + 3 * W) + bias[3]);
    const Vec<T> c = forget * load_up_to(f.cx + at, n) + in * cell;
    store_up_to(f.c + at, c, n);
    store_up_to(f.h + at, out * tanh<T>(c), n);
    if (f.gates) {
      T* gates = f.gates + (row + r) * 4 * hidden + j;
      store_up_to(gates, in, n);
      store_up_to(gates + hidden, forget, n);
      store_up_to(gates + 2 * hidden, cell, n);
      store_up_to(gates + 3 * hidden, out, n);
    }
  }
}

}  // namespace
}  // namespace cisdl
