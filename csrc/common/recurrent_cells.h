// GRU and RNN cells at once, both products and the step, as the tensor cores of a GPU take them (an LSTM cell's is
// in problems.h). On every other way a cell is a layer of one step.
#pragma once

#include "problems.h"

namespace cisdl {

using CellProblem = LstmCellProblem;

template <class T>
struct GruCellForward {
  CellProblem p;
  const T* input;  // [batch, input_size]
  const T* hx;     // [batch, hidden_size]
  const T* w_ih;   // [3*hidden_size, input_size]
  const T* w_hh;   // [3*hidden_size, hidden_size]
  const T* b_ih;   // [3*hidden_size], or null
  const T* b_hh;   // [3*hidden_size], or null
  T* h;            // [batch, hidden_size]: h'
  T* gates;        // [batch, 3*hidden_size]: r, z, n; null in inference
  T* h_part_n;     // [batch, hidden_size]: the last part of h W_hh^T + b_hh; null in inference
};

template <class T>
struct RnnCellForward {
  CellProblem p;
  Nonlinearity nonlinearity;
  const T* input;  // [batch, input_size]
  const T* hx;     // [batch, hidden_size]
  const T* w_ih;   // [hidden_size, input_size]
  const T* w_hh;   // [hidden_size, hidden_size]
  const T* b_ih;   // [hidden_size], or null
  const T* b_hh;   // [hidden_size], or null
  T* h;            // [batch, hidden_size]: h'
};

}  // namespace cisdl
