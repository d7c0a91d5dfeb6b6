// A recurrent layer in one direction as one problem: all its steps, forward and backward, for kernels that keep
// W_hh packed from the first step to the last (cpu/recurrent_layer.cpp). What a step computes is in problems.h.
//
// `order` lists the steps as forward takes them. Rows [row, row + rows) of the input belong to the first `rows`
// rows of the state. So packed sequences and the opposite direction need no other code: from a step to the next,
// rows of the state end (they are the last ones) or begin, with hx.
#pragma once

#include "problems.h"

namespace cisdl {

struct RecurrentRows {
  int64_t row, rows;
};

struct RecurrentLayer {
  int64_t batch, input_size, hidden_size;
  int64_t rows;   // of all steps
  int64_t steps;  // at least 1
  const RecurrentRows* order;
};

// Elements of `packed` for a matrix of `gates` times [columns, k]: panels of at most 32 columns.
constexpr int64_t packed_layer_size(int64_t gates, int64_t columns, int64_t k) {
  return gates * ((columns + 31) / 32 * 32) * k;
}

// The distance of rows in `grad_gates`: not a power of two, else rows would share sets
// of the cache.
constexpr int64_t gate_stride(int64_t features) { return (features + 15) / 16 * 16 + 16; }

template <class T>
struct LayerForward {
  RecurrentLayer p;
  const T* input;  // [rows, input_size]
  const T* hx;     // [batch, hidden_size]
  const T* w_ih;   // [gates*hidden_size, input_size]
  const T* w_hh;   // [gates*hidden_size, hidden_size]
  const T* b_ih;   // [gates*hidden_size], or null
  const T* b_hh;   // [gates*hidden_size], or null
  T* packed;       // scratch of packed_layer_size for w_ih and w_hh
  T* gates;        // [rows, gates*hidden_size]: what backward needs; null in inference, and of an RNN
  T* output;       // [rows, hidden_size]
  T* h_n;          // [batch, hidden_size]: the last state of each row
};

template <class T>
struct LstmLayerForward : LayerForward<T> {
  bool projected;  // there is a w_hr: not for these kernels
  T* c;            // [batch, hidden_size]: read as cx, written as c_n
  T* c_before;     // [rows, hidden_size] (LstmStepForward), null in inference
};

template <class T>
struct GruLayerForward : LayerForward<T> {
  T* h_part_n;  // [rows, hidden_size] (GruStepForward), null in inference
};

template <class T>
struct RnnLayerForward : LayerForward<T> {
  Nonlinearity nonlinearity;
};

template <class T>
struct LayerBackward {
  RecurrentLayer p;
  const T* grad_output;  // [rows, hidden_size], or null
  const T* input;        // as forward
  const T* h_before;     // [rows, hidden_size]: the state that each row of each step began with
  const T* w_ih;         // as forward
  const T* w_hh;         // as forward
  T* packed;             // scratch of packed_layer_size for w_hh
  T* grad_gates;         // scratch [rows, gate_stride(.)]: LSTM 4*hidden_size, GRU 4*hidden_size, RNN hidden_size
  T* grad_h;             // [batch, hidden_size]: read as that of h_n; written as that of hx if that is wanted
  bool wants_hx;
  T* grad_input;  // [rows, input_size], or null
  T* grad_w_ih;   // [gates*hidden_size, input_size], or null
  T* grad_w_hh;   // [gates*hidden_size, hidden_size], or null
  T* grad_bias;   // [gates*hidden_size], or null: of b_ih, and but for a GRU also of b_hh
};

template <class T>
struct LstmLayerBackward : LayerBackward<T> {
  bool projected;
  const T* gates;     // [rows, 4*hidden_size] of forward
  const T* c_before;  // [rows, hidden_size] of forward
  T* grad_c;          // [batch, hidden_size]: read as that of c_n, written as that of cx
};

// grad_h is the gradient of hx but for what comes through W_hh, which is grad_product.
template <class T>
struct GruLayerBackward : LayerBackward<T> {
  const T* gates;     // [rows, 3*hidden_size] of forward
  const T* h_part_n;  // [rows, hidden_size] of forward
  T* grad_product;    // [batch, hidden_size]: zero before
  T* grad_b_hh;       // [3*hidden_size], or null
};

template <class T>
struct RnnLayerBackward : LayerBackward<T> {
  Nonlinearity nonlinearity;
  const T* output;  // [rows, hidden_size] of forward
};

}  // namespace cisdl
