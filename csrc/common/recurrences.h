// What is left of a recurrent layer in one direction when the products over all steps are done by others: the
// steps themselves, as one problem, for kernels that keep W_hh from the first step to the last
// (cuda/recurrence.cuh). What a step computes is in problems.h; here it is for three kinds of cells at once.
//
// Rows lie as a PackedSequence has them: time after time, at each time the first `rows` sequences of the batch.
#pragma once

#include "problems.h"

namespace cisdl {

enum class RecurrentCell { lstm, gru, rnn };

constexpr int gates_of(RecurrentCell cell) {
  return cell == RecurrentCell::lstm ? 4 : cell == RecurrentCell::gru ? 3 : 1;
}

// How many packed sequences a problem can tell apart: their lengths travel with it, as no memory of a GPU's does.
constexpr int64_t kMaxPackedSequences = 512;

struct Sequences {
  int64_t batch, hidden_size, steps;
  int64_t rows;                          // of all steps
  bool reverse;                          // the last time comes first
  bool packed;                           // else every sequence has all steps
  int32_t lengths[kMaxPackedSequences];  // of packed: never growing, the first is `steps`, none is 0
};

template <class T>
struct RecurrenceForward {
  RecurrentCell cell;
  Nonlinearity nonlinearity;  // of an RNN
  bool tf32;                  // of float: factors may be rounded to TF32
  Sequences s;
  const T* x_part;  // [rows, gates*hidden_size]: x W_ih^T + b_ih
  const T* hx;      // [batch, hidden_size]
  const T* cx;      // [batch, hidden_size] of an LSTM
  const T* w_hh;    // [gates*hidden_size, hidden_size]
  const T* b_hh;    // [gates*hidden_size], or null
  T* output;        // [rows, hidden_size]
  T* h_n;           // [batch, hidden_size]
  T* c_n;           // [batch, hidden_size] of an LSTM
  T* gates;         // [rows, gates*hidden_size], after their activations; null in inference, and of an RNN
  T* kept;          // [rows, hidden_size]: c before the step of an LSTM, h_part_n of a GRU; null where gates are
};

// With da the gradient of the pre-activations' part that comes from h, which is that of x_part but for a GRU.
template <class T>
struct RecurrenceBackward {
  RecurrentCell cell;
  Nonlinearity nonlinearity;
  bool tf32;
  Sequences s;
  const T* grad_output;  // [rows, hidden_size], or null
  const T* grad_h_n;     // [batch, hidden_size], or null
  const T* grad_c_n;     // [batch, hidden_size] of an LSTM, or null
  const T* w_hh;         // as forward
  const T* hx;           // as forward
  const T* output;       // as forward left it
  const T* gates;        // as forward left it
  const T* kept;         // as forward left it
  T* grad_h_part;        // [rows, gates*hidden_size]: da
  T* grad_x_part;        // [rows, 3*hidden_size] of a GRU: the gradient of x_part
  T* h_before;           // [rows, hidden_size]: the state that each step began with, or null
  T* grad_hx;            // [batch, hidden_size], or null
  T* grad_cx;            // [batch, hidden_size] of an LSTM, or null
};

}  // namespace cisdl
