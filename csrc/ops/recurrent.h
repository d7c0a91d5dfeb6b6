// What recurrent cells and layers share: checks, steps and products. Their derivatives: recurrent_autograd.h.
//
// How a layer runs, on every device. The part of the pre-activations that comes from the input is one product over
// all steps. Then each step multiplies W_hh by the state of the rows that take it and finishes elementwise
// (common/recurrent_steps.h). The state lives in h_n (and c_n): a row that has ended leaves its last state there,
// and a row that has not begun still finds hx there, so packed sequences, in either direction, need no other code.
// Backward takes the steps in the opposite order, the gradient of the state living in grad_hx (and grad_cx) in the
// same way; the gradients of the pre-activations of all steps are kept, and what follows from them is one product
// for the input and one for each weight. A cell is a layer of one step without an output of its own.
// Kernels that take all steps at once do the same faster, where they apply (cpu/recurrent_layer.cpp; on a GPU
// recurrence.h and cuda/recurrence.cuh).
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "common.h"

namespace cisdl::ops {

using Optional = optional<Tensor>;

enum class Form { cell, layer };

struct RecurrentInputs {
  Tensor input, hx, w_ih, w_hh, b_ih, b_hh;  // the biases may be undefined

  RecurrentInputs contiguous() const {
    const auto dense = [](const Tensor& t) { return t.defined() ? t.contiguous() : t; };
    return {dense(input), dense(hx), dense(w_ih), dense(w_hh), dense(b_ih), dense(b_hh)};
  }
};

inline RecurrentInputs inputs_of(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                                 const Optional& b_ih = {}, const Optional& b_hh = {}) {
  return {input, hx, w_ih, w_hh, or_undefined(b_ih), or_undefined(b_hh)};
}

// How a call runs, besides its tensors.
struct RecurrentOptions {
  Form form;
  Tensor batch_sizes = {};  // of a packed layer
  bool reverse = false;
  Nonlinearity nonlinearity = Nonlinearity::tanh;  // of an RNN
};

// ----------------------------------------------------------------------------------------------- checks

template <class I>
struct RecurrentSizes {
  I batch, input_size, state_size;
  c10::SmallVector<I, 2> rows;  // [batch] of a cell, [steps, batch] or, packed, [all rows] of a layer

  // The shape of what has `features` values for each row.
  c10::SmallVector<I, 4> with(const I& features) const {
    c10::SmallVector<I, 4> shape(rows.begin(), rows.end());
    shape.push_back(features);
    return shape;
  }
};

// What a PackedSequence promises of its batch_sizes.
inline void check_batch_sizes(const char* op, const Tensor& batch_sizes, int64_t rows, int64_t batch) {
  TORCH_CHECK(batch_sizes.device().is_cpu(), op, ": batch_sizes: expected a tensor on the cpu, got ",
              batch_sizes.device());
  const auto sizes = batch_sizes.accessor<int64_t, 1>();
  TORCH_CHECK(sizes[0] == batch, op, ": hx: expected ", sizes[0], " rows as batch_sizes begins with, got ", batch);
  int64_t sum = 0;
  for (int64_t t = 0; t < sizes.size(0); ++t) {
    TORCH_CHECK(sizes[t] > 0 && (t == 0 || sizes[t] <= sizes[t - 1]), op,
                ": batch_sizes: expected positive integers that never grow, got ", sizes[t], " at ", t);
    sum += sizes[t];
  }
  TORCH_CHECK(sum == rows, op, ": input: expected ", sum, " rows, the sum of batch_sizes, got ", rows);
}

template <class I>
RecurrentSizes<I> check_rows(const char* op, Form form, const Tensor& input, const Tensor& hx,
                             const Tensor& batch_sizes) {
  check_dtype(op, "input", input);
  check_like(op, "hx", hx, "input", input);
  const auto x = sizes_of<I>(input), h = sizes_of<I>(hx);
  const bool packed = batch_sizes.defined();
  if (form == Form::cell) {
    TORCH_CHECK(x.size() == 2, op, ": input: expected shape [batch, input_size], got ", x);
  } else if (packed) {
    TORCH_CHECK(x.size() == 2, op, ": input: expected shape [sum of batch_sizes, input_size], got ", x);
  } else {
    TORCH_CHECK(x.size() == 3, op, ": input: expected shape [steps, batch, input_size], got ", x);
    TORCH_CHECK(x[0] > 0, op, ": input: expected at least one step, got ", x);
  }
  TORCH_CHECK(h.size() == 2, op, ": hx: expected shape [batch, hidden_size], got ", h);
  if (packed) {
    TORCH_CHECK(batch_sizes.dim() == 1 && batch_sizes.scalar_type() == at::kLong, op,
                ": batch_sizes: expected one dimension of int64, got ", batch_sizes.sym_sizes(), " of ",
                dtype_name(batch_sizes.scalar_type()));
    TORCH_CHECK(sizes_of<I>(batch_sizes)[0] > 0, op, ": batch_sizes: expected at least one step, got none");
    if constexpr (std::is_same_v<I, int64_t>) check_batch_sizes(op, batch_sizes, x[0], h[0]);
  } else {
    const I& batch = x[x.size() - 2];
    TORCH_CHECK(h[0] == batch, op, ": hx: expected shape [", batch, ", hidden_size], got ", h);
  }
  return {h[0], x.back(), h[1], {x.begin(), x.end() - 1}};
}

// The weights, `units` rows each: the number of gates times hidden_size.
template <class I>
void check_weights(const char* op, const RecurrentInputs& in, const RecurrentSizes<I>& sizes, const I& units) {
  const auto check = [&](const char* name, const Tensor& t, c10::ArrayRef<I> shape) {
    check_like(op, name, t, "input", in.input);
    check_shape<I>(op, name, t, shape);
  };
  check("w_ih", in.w_ih, {units, sizes.input_size});
  check("w_hh", in.w_hh, {units, sizes.state_size});
  if (in.b_ih.defined()) check("b_ih", in.b_ih, {units});
  if (in.b_hh.defined()) check("b_hh", in.b_hh, {units});
}

// A tensor of a backward op: shape and type.
template <class I>
void check_saved(const char* op, const char* name, const Tensor& t, const Tensor& input, c10::ArrayRef<I> shape) {
  if (!t.defined()) return;
  check_like(op, name, t, "input", input);
  check_shape<I>(op, name, t, shape);
}

// ------------------------------------------------------------------------------------------------ steps

// Rows [row, row + rows) of the input belong to the first `rows` rows of the state.
using Step = RecurrentRows;

// The values of batch_sizes. torch.func.grad and jvp wrap every tensor, and what is wrapped has no memory to look
// at.
inline std::vector<int64_t> values_of(const Tensor& batch_sizes) {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet kWrapped({DispatchKey::FuncTorchGradWrapper, DispatchKey::FuncTorchBatched});
  std::vector<int64_t> values(batch_sizes.size(0));
  const bool wrapped = batch_sizes.key_set().has_any(kWrapped);
  for (int64_t t = 0; t < batch_sizes.size(0); ++t)
    values[t] = wrapped ? batch_sizes.select(0, t).item<int64_t>() : batch_sizes.accessor<int64_t, 1>()[t];
  return values;
}

// The steps of a layer in the order in which forward takes them. `input`: [steps, batch, ...], [batch, ...] of a
// cell, or [all rows, ...] with batch_sizes.
inline std::vector<Step> steps_of(Form form, const Tensor& input, const Tensor& batch_sizes, bool reverse) {
  const auto size = [&](int64_t d) { return input.sym_size(d).guard_int(__FILE__, __LINE__); };
  std::vector<Step> steps;
  if (form == Form::cell) {
    steps = {{0, size(0)}};
  } else if (batch_sizes.defined()) {
    int64_t row = 0;
    for (const int64_t rows : values_of(batch_sizes)) {
      steps.push_back({row, rows});
      row += rows;
    }
  } else {
    const int64_t count = size(0), batch = size(1);
    for (int64_t t = 0; t < count; ++t) steps.push_back({t * batch, batch});
  }
  if (reverse) std::reverse(steps.begin(), steps.end());
  return steps;
}

inline int64_t all_rows(const std::vector<Step>& steps) {
  int64_t rows = 0;
  for (const Step& s : steps) rows += s.rows;
  return rows;
}

// For every row of every step the state that it began with, [all rows, state]: hx or the output of the step
// before.
inline Tensor states_before(Form form, const std::vector<Step>& steps, const Tensor& hx, const Tensor& output) {
  if (form == Form::cell) return hx;
  const int64_t state = hx.size(1);
  const Tensor after = output.contiguous().view({all_rows(steps), state});
  const Tensor before = empty_of<int64_t>(after.sizes(), after);
  const auto size = static_cast<int64_t>(after.element_size());
  const auto copy = [&](int64_t to, const Tensor& from, int64_t row, int64_t rows) {
    if (rows == 0) return;
    if (!from.device().is_cpu()) {
      before.narrow(0, to, rows).copy_(from.narrow(0, row, rows));
      return;
    }
    // Steps are many and short: torch takes longer to describe such a copy than to do it.
    std::memcpy(static_cast<char*>(before.mutable_data_ptr()) + to * state * size,
                static_cast<const char*>(from.const_data_ptr()) + row * state * size,
                static_cast<size_t>(rows * state * size));
  };
  Step last{0, 0};
  for (const Step& s : steps) {
    const int64_t known = std::min(last.rows, s.rows);
    copy(s.row, after, last.row, known);
    copy(s.row + known, hx, known, s.rows - known);
    last = s;
  }
  return before;
}

template <class T>
T* at_row(T* data, int64_t row, int64_t features) {
  return data ? data + row * features : nullptr;
}

// Where the gradient of a state lives: in `buffer` if there is one. It begins as that of the last state.
inline Tensor state_gradient(const Tensor& grad_last, const Tensor& state, const Tensor& buffer) {
  Tensor grad = buffer.defined() ? buffer : at::empty(state.sizes(), state.options());
  return grad_last.defined() ? grad.copy_(grad_last) : grad.zero_();
}

// ----------------------------------------------------------------------------------------- whole layers

inline RecurrentLayer layer_of(const std::vector<Step>& steps, const RecurrentInputs& in, int64_t hidden) {
  return {in.hx.size(0), in.input.size(-1), hidden, all_rows(steps), static_cast<int64_t>(steps.size()),
          steps.data()};
}

// The implementation that takes a whole layer, or null: then the caller goes step by step, as on a GPU.
template <class Args>
const Implementation<Args>* whole_layer(Op op, const Tensor& on, const ImplementationList<Args>& list,
                                        const Args& args) {
  if (!on.device().is_cpu()) return nullptr;
  const Implementation<Args>& found = choose(op, list, args);
  return found.run ? &found : nullptr;
}

// Scratch memory for one call; uninitialised.
inline Tensor scratch_like(const Tensor& t, at::IntArrayRef sizes) { return empty_of<int64_t>(sizes, t); }

// W_ih and W_hh packed for forward, W_hh for backward.
inline Tensor packed_weights(const RecurrentLayer& p, int64_t gates, const Tensor& like, bool forward) {
  const int64_t w_hh = packed_layer_size(1, p.hidden_size, gates * p.hidden_size);
  return scratch_like(like,
                      {forward ? packed_layer_size(gates, p.hidden_size, p.input_size + p.hidden_size) : w_hh});
}

template <class T>
void set_forward(LayerForward<T>& f, const RecurrentInputs& in, const Tensor& packed, const Tensor& gates,
                 const Tensor& output, const Tensor& h_n) {
  f.input = in.input.const_data_ptr<T>();
  f.hx = in.hx.const_data_ptr<T>();
  f.w_ih = in.w_ih.const_data_ptr<T>();
  f.w_hh = in.w_hh.const_data_ptr<T>();
  f.b_ih = data_or_null<T>(in.b_ih);
  f.b_hh = data_or_null<T>(in.b_hh);
  f.packed = packed.mutable_data_ptr<T>();
  f.gates = mutable_or_null<T>(gates);
  f.output = output.mutable_data_ptr<T>();
  f.h_n = h_n.mutable_data_ptr<T>();
}

struct LayerGradients {
  const Tensor &grad_input, &grad_w_ih, &grad_w_hh, &grad_bias;
};

template <class T>
void set_backward(LayerBackward<T>& b, const Tensor& grad_output, const RecurrentInputs& in,
                  const Tensor& h_before, const Tensor& packed, const Tensor& grad_gates, const Tensor& grad_h,
                  bool wants_hx, const LayerGradients& grads) {
  b.grad_output = data_or_null<T>(grad_output);
  b.input = in.input.const_data_ptr<T>();
  b.h_before = data_or_null<T>(h_before);
  b.w_ih = in.w_ih.const_data_ptr<T>();
  b.w_hh = in.w_hh.const_data_ptr<T>();
  b.packed = packed.mutable_data_ptr<T>();
  b.grad_gates = grad_gates.mutable_data_ptr<T>();
  b.grad_h = grad_h.mutable_data_ptr<T>();
  b.wants_hx = wants_hx;
  b.grad_input = mutable_or_null<T>(grads.grad_input);
  b.grad_w_ih = mutable_or_null<T>(grads.grad_w_ih);
  b.grad_w_hh = mutable_or_null<T>(grads.grad_w_hh);
  b.grad_bias = mutable_or_null<T>(grads.grad_bias);
}

// --------------------------------------------------------------------------------------------- products
// On rows that lie one after another; weights and biases are contiguous tensors.

// y = x W^T + b
template <class T>
void product(int64_t rows, const T* x, const Tensor& weight, const Tensor& bias, T* y) {
  const LinearProblem p{rows, weight.size(1), weight.size(0)};
  if (rows == 0 || p.out_features == 0) return;
  run(Op::linear, weight, of_type<T>(linear_kernels()).forward,
      LinearForward<T>{p, x, weight.const_data_ptr<T>(), data_or_null<T>(bias), y});
}

// grad_x = grad_y W
template <class T>
void product_backward(int64_t rows, const T* grad_y, const Tensor& weight, T* grad_x) {
  const LinearProblem p{rows, weight.size(1), weight.size(0)};
  if (rows == 0 || p.in_features == 0) return;
  run(Op::linear_backward_input, weight, of_type<T>(linear_kernels()).backward_input,
      LinearBackwardInput<T>{p, grad_y, weight.const_data_ptr<T>(), grad_x});
}

// grad_weight = grad_y^T x and grad_bias = column sums of grad_y, those that are defined.
template <class T>
void weight_gradients(const Tensor& grad_y, const Tensor& x, const Tensor& grad_weight, const Tensor& grad_bias) {
  const int64_t units = grad_y.size(-1);
  if (units == 0 || !(grad_weight.defined() || grad_bias.defined())) return;
  const int64_t in_features = grad_weight.defined() ? x.size(-1) : 0;
  run(Op::linear_backward_weight, grad_y, of_type<T>(linear_kernels()).backward_weight,
      LinearBackwardWeight<T>{{grad_y.numel() / units, in_features, units},
                              grad_y.const_data_ptr<T>(),
                              grad_weight.defined() ? x.const_data_ptr<T>() : nullptr,
                              mutable_or_null<T>(grad_weight),
                              mutable_or_null<T>(grad_bias)});
}

}  // namespace cisdl::ops
