// cisdl::lstm_cell and its gradient. Training keeps the activated gates; inference never stores them.
#include <ATen/ops/mul.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>

#include "cells_on_gpu.h"
#include "formula.h"
#include "reduced_precision.h"

namespace cisdl::ops {
namespace {

using InferenceSignature = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                                      const Tensor&, const optional<Tensor>&,
                                                      const optional<Tensor>&);
using TrainingSignature = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&,
                                                             const Tensor&, const Tensor&, const optional<Tensor>&,
                                                             const optional<Tensor>&);
using Grads = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using BackwardSignature = Grads(const optional<Tensor>&, const optional<Tensor>&, const Tensor&, const Tensor&,
                                const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                std::array<bool, 7>);

const auto& inference_op() {
  static const auto op = find_op<InferenceSignature>("cisdl::lstm_cell");
  return op;
}

const auto& training_op() {
  static const auto op = find_op<TrainingSignature>("cisdl::lstm_cell_training");
  return op;
}

const auto& backward_op() {
  static const auto op = find_op<BackwardSignature>("cisdl::lstm_cell_backward");
  return op;
}

struct Inputs {
  const Tensor &input, &hx, &cx, &w_ih, &w_hh;
};

// Checks everything; gives batch and hidden_size.
template <class I>
std::pair<I, I> check_inputs(const char* op, const Inputs& in) {
  check_dtype(op, "input", in.input);
  check_like(op, "hx", in.hx, "input", in.input);
  check_like(op, "cx", in.cx, "input", in.input);
  check_like(op, "w_ih", in.w_ih, "input", in.input);
  check_like(op, "w_hh", in.w_hh, "input", in.input);
  const auto x = sizes_of<I>(in.input);
  const auto h = sizes_of<I>(in.hx);
  TORCH_CHECK(x.size() == 2, op, ": input: expected shape [batch, input_size], got ", x);
  TORCH_CHECK(h.size() == 2 && h[0] == x[0], op, ": hx: expected shape [", x[0], ", hidden_size], got ", h);
  check_shape<I>(op, "cx", in.cx, h);
  check_shape<I>(op, "w_ih", in.w_ih, {h[1] * 4, x[1]});
  check_shape<I>(op, "w_hh", in.w_hh, {h[1] * 4, h[1]});
  return {x[0], h[1]};
}

template <class I>
void check_bias(const char* name, const Tensor& bias, const I& hidden, const Tensor& input) {
  if (!bias.defined()) return;
  check_like("lstm_cell", name, bias, "input", input);
  check_shape<I>("lstm_cell", name, bias, {hidden * 4});
}

Tensor contiguous_or_undefined(const Tensor& t) { return t.defined() ? t.contiguous() : t; }

// h, c and, if `training`, the gates.
template <class I>
std::tuple<Tensor, Tensor, Tensor> check_forward(const Inputs& in, const Tensor& b_ih, const Tensor& b_hh,
                                                 bool training) {
  const auto [batch, hidden] = check_inputs<I>("lstm_cell", in);
  check_bias<I>("b_ih", b_ih, hidden, in.input);
  check_bias<I>("b_hh", b_hh, hidden, in.input);
  return {empty_of<I>({batch, hidden}, in.input), empty_of<I>({batch, hidden}, in.input),
          training ? empty_of<I>({batch, hidden * 4}, in.input) : Tensor()};
}

// On a GPU's tensor cores in bfloat16 or float16, or nothing.
enum class On { any, tensor_cores };

optional<std::tuple<Tensor, Tensor, Tensor>> run_forward(On where, const Inputs& in,
                                                         const optional<Tensor>& b_ih_arg,
                                                         const optional<Tensor>& b_hh_arg, bool training) {
  if (where == On::tensor_cores && !is_reduced_precision(in.input.scalar_type())) return std::nullopt;
  const Tensor b_ih = contiguous_or_undefined(or_undefined(b_ih_arg));
  const Tensor b_hh = contiguous_or_undefined(or_undefined(b_hh_arg));
  auto outputs = check_forward<int64_t>(in, b_ih, b_hh, training);
  auto& [h, c, gates] = outputs;
  if (h.numel() == 0) return outputs;
  const Tensor x = in.input.contiguous(), hx = in.hx.contiguous(), cx = in.cx.contiguous();
  const Tensor w_ih = in.w_ih.contiguous(), w_hh = in.w_hh.contiguous();
  const auto problem = [&](auto t) {
    using T = decltype(t);
    return LstmCellForward<T>{{x.size(0), x.size(1), hx.size(1)},
                              numbers_or_null<T>(x),
                              numbers_or_null<T>(hx),
                              numbers_or_null<T>(cx),
                              numbers_or_null<T>(w_ih),
                              numbers_or_null<T>(w_hh),
                              numbers_or_null<T>(b_ih),
                              numbers_or_null<T>(b_hh),
                              mutable_numbers_or_null<T>(h),
                              mutable_numbers_or_null<T>(c),
                              mutable_numbers_or_null<T>(gates)};
  };
  if (where == On::tensor_cores) {
    if (!cell_on_tensor_cores(Op::lstm_cell, x, problem)) return std::nullopt;
    return outputs;
  }
  with_dtype(x.scalar_type(), [&](auto t) {
    run(Op::lstm_cell, x, of_type<decltype(t)>(lstm_cell_kernels()).forward, problem(t));
  });
  return outputs;
}

std::tuple<Tensor, Tensor> inference(const Tensor& input, const Tensor& hx, const Tensor& cx, const Tensor& w_ih,
                                     const Tensor& w_hh, const optional<Tensor>& b_ih,
                                     const optional<Tensor>& b_hh) {
  const auto [h, c, gates] = *run_forward(On::any, {input, hx, cx, w_ih, w_hh}, b_ih, b_hh, false);
  return {h, c};
}

optional<std::tuple<Tensor, Tensor>> inference_on_gpu(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                                      const Tensor& w_ih, const Tensor& w_hh,
                                                      const optional<Tensor>& b_ih, const optional<Tensor>& b_hh) {
  const auto result = run_forward(On::tensor_cores, {input, hx, cx, w_ih, w_hh}, b_ih, b_hh, false);
  if (!result) return std::nullopt;
  return std::tuple(std::get<0>(*result), std::get<1>(*result));
}

std::tuple<Tensor, Tensor> inference_meta(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                          const Tensor& w_ih, const Tensor& w_hh, const optional<Tensor>& b_ih,
                                          const optional<Tensor>& b_hh) {
  const auto [h, c, gates] =
      check_forward<c10::SymInt>({input, hx, cx, w_ih, w_hh}, or_undefined(b_ih), or_undefined(b_hh), false);
  return {h, c};
}

std::tuple<Tensor, Tensor, Tensor> training(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                            const Tensor& w_ih, const Tensor& w_hh, const optional<Tensor>& b_ih,
                                            const optional<Tensor>& b_hh) {
  return *run_forward(On::any, {input, hx, cx, w_ih, w_hh}, b_ih, b_hh, true);
}

optional<std::tuple<Tensor, Tensor, Tensor>> training_on_gpu(const Tensor& input, const Tensor& hx,
                                                             const Tensor& cx, const Tensor& w_ih,
                                                             const Tensor& w_hh, const optional<Tensor>& b_ih,
                                                             const optional<Tensor>& b_hh) {
  return run_forward(On::tensor_cores, {input, hx, cx, w_ih, w_hh}, b_ih, b_hh, true);
}

std::tuple<Tensor, Tensor, Tensor> training_meta(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                                 const Tensor& w_ih, const Tensor& w_hh,
                                                 const optional<Tensor>& b_ih, const optional<Tensor>& b_hh) {
  return check_forward<c10::SymInt>({input, hx, cx, w_ih, w_hh}, or_undefined(b_ih), or_undefined(b_hh), true);
}

template <class I>
Grads check_backward(const optional<Tensor>& grad_h, const optional<Tensor>& grad_c, const Tensor& input,
                     const Tensor& hx, const Tensor& cx, const Tensor& w_ih, const Tensor& w_hh, const Tensor& c,
                     const Tensor& gates, std::array<bool, 7> mask) {
  const char* op = "lstm_cell_backward";
  const auto [batch, hidden] = check_inputs<I>(op, {input, hx, cx, w_ih, w_hh});
  const auto check = [&](const char* name, const Tensor& t, c10::ArrayRef<I> shape) {
    if (!t.defined()) return;
    check_like(op, name, t, "input", input);
    check_shape<I>(op, name, t, shape);
  };
  check("grad_h", or_undefined(grad_h), sizes_of<I>(hx));
  check("grad_c", or_undefined(grad_c), sizes_of<I>(hx));
  check("c", c, sizes_of<I>(hx));
  check("gates", gates, {batch, hidden * 4});
  const auto grad_of = [&](int i, const Tensor& t) { return mask[i] ? empty_of<I>(sizes_of<I>(t), t) : Tensor(); };
  const auto bias_grad = [&](int i) { return mask[i] ? empty_of<I>({hidden * 4}, input) : Tensor(); };
  return {grad_of(0, input), grad_of(1, hx), grad_of(2, cx), grad_of(3, w_ih),
          grad_of(4, w_hh),  bias_grad(5),   bias_grad(6)};
}

optional<Grads> run_backward(On where, const optional<Tensor>& grad_h_arg, const optional<Tensor>& grad_c_arg,
                             const Tensor& input, const Tensor& hx_arg, const Tensor& cx_arg,
                             const Tensor& w_ih_arg, const Tensor& w_hh_arg, const Tensor& c_arg,
                             const Tensor& gates_arg, std::array<bool, 7> mask) {
  if (where == On::tensor_cores && !is_reduced_precision(input.scalar_type())) return std::nullopt;
  auto grads = check_backward<int64_t>(grad_h_arg, grad_c_arg, input, hx_arg, cx_arg, w_ih_arg, w_hh_arg, c_arg,
                                       gates_arg, mask);
  auto& [grad_input, grad_hx, grad_cx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh] = grads;
  const Tensor grad_h = contiguous_or_undefined(or_undefined(grad_h_arg));
  const Tensor grad_c = contiguous_or_undefined(or_undefined(grad_c_arg));
  const Tensor x = input.contiguous(), hx = hx_arg.contiguous(), cx = cx_arg.contiguous();
  const Tensor w_ih = w_ih_arg.contiguous(), w_hh = w_hh_arg.contiguous();
  const Tensor c = c_arg.contiguous(), gates = gates_arg.contiguous();
  const Tensor grad_gates = at::empty(gates.sizes(), gates.options());
  const Tensor& grad_bias = grad_b_ih.defined() ? grad_b_ih : grad_b_hh;
  const auto problem = [&](auto t) {
    using T = decltype(t);
    return LstmCellBackward<T>{{x.size(0), x.size(1), hx.size(1)},
                               numbers_or_null<T>(grad_h),
                               numbers_or_null<T>(grad_c),
                               numbers_or_null<T>(x),
                               numbers_or_null<T>(hx),
                               numbers_or_null<T>(cx),
                               numbers_or_null<T>(w_ih),
                               numbers_or_null<T>(w_hh),
                               numbers_or_null<T>(c),
                               numbers_or_null<T>(gates),
                               mutable_numbers_or_null<T>(grad_gates),
                               mutable_numbers_or_null<T>(grad_input),
                               mutable_numbers_or_null<T>(grad_hx),
                               mutable_numbers_or_null<T>(grad_cx),
                               mutable_numbers_or_null<T>(grad_w_ih),
                               mutable_numbers_or_null<T>(grad_w_hh),
                               mutable_numbers_or_null<T>(grad_bias)};
  };
  if (where == On::tensor_cores) {
    if (!cell_on_tensor_cores(Op::lstm_cell_backward, x, problem)) return std::nullopt;
  } else {
    with_dtype(x.scalar_type(), [&](auto t) {
      run(Op::lstm_cell_backward, x, of_type<decltype(t)>(lstm_cell_kernels()).backward, problem(t));
    });
  }
  if (grad_b_ih.defined() && grad_b_hh.defined()) grad_b_hh.copy_(grad_b_ih);
  return grads;
}

Grads backward(const optional<Tensor>& grad_h, const optional<Tensor>& grad_c, const Tensor& input,
               const Tensor& hx, const Tensor& cx, const Tensor& w_ih, const Tensor& w_hh, const Tensor& c,
               const Tensor& gates, std::array<bool, 7> mask) {
  return *run_backward(On::any, grad_h, grad_c, input, hx, cx, w_ih, w_hh, c, gates, mask);
}

optional<Grads> backward_on_gpu(const optional<Tensor>& grad_h, const optional<Tensor>& grad_c,
                                const Tensor& input, const Tensor& hx, const Tensor& cx, const Tensor& w_ih,
                                const Tensor& w_hh, const Tensor& c, const Tensor& gates,
                                std::array<bool, 7> mask) {
  return run_backward(On::tensor_cores, grad_h, grad_c, input, hx, cx, w_ih, w_hh, c, gates, mask);
}

// h, c and the activated gates from ops that have every derivative.
Variables formula(const Variables& in) {
  const auto [x, hx, cx, w_ih, w_hh, b_ih, b_hh] = std::tie(in[0], in[1], in[2], in[3], in[4], in[5], in[6]);
  const Tensor a = at::add(linear_of(x, w_ih, b_ih), linear_of(hx, w_hh, b_hh));
  const std::vector<Tensor> parts = a.chunk(4, -1);
  const Tensor i = at::sigmoid(parts[0]), f = at::sigmoid(parts[1]), g = at::tanh(parts[2]);
  const Tensor o = at::sigmoid(parts[3]);
  const Tensor c = at::add(at::mul(f, cx), at::mul(i, g));
  return {at::mul(o, at::tanh(c)), c, at::cat({i, f, g, o}, -1)};
}

class LstmCellBackward : public BackwardNode<9> {
 public:
  std::string name() const override { return "CisdlLstmCellBackward"; }

 protected:
  // Saved are the seven inputs, c and the gates.
  Variables gradients(const Variables& grads) override {
    Variables in(7);
    for (size_t i = 0; i < 7; ++i) in[i] = saved(i);
    std::array<bool, 7> mask;
    for (size_t i = 0; i < 7; ++i) mask[i] = wanted(i) && in[i].defined();
    if (const auto recorded = gradients_by_formula(formula, in, grads, mask)) return *recorded;
    const auto [x, hx, cx, w_ih, w_hh, b_ih, b_hh] = backward_op().call(
        or_none(grads[0]), or_none(grads[1]), in[0], in[1], in[2], in[3], in[4], saved_output(7), saved(8), mask);
    return {x, hx, cx, w_ih, w_hh, b_ih, b_hh};
  }
};

std::tuple<Tensor, Tensor, Tensor> training_autograd(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                                     const Tensor& w_ih, const Tensor& w_hh,
                                                     const optional<Tensor>& b_ih, const optional<Tensor>& b_hh) {
  const Variables in{input, hx, cx, w_ih, w_hh, or_undefined(b_ih), or_undefined(b_hh)};
  if (std::any_of(in.begin(), in.end(), has_tangent)) {
    const Variables out = formula(in);
    return {out[0], out[1], out[2]};
  }
  const auto node = record<LstmCellBackward>(in[0], in[1], in[2], in[3], in[4], in[5], in[6]);
  const auto result = [&] {
    const Guard guard;
    return training_op().call(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
  }();
  if (node) {
    const auto& [h, c, gates] = result;
    set_history({h, c}, node);
    for (size_t i = 0; i < 7; ++i) node->save(i, in[i]);
    node->save_output(7, c);
    node->save(8, gates);
  }
  return result;
}

std::tuple<Tensor, Tensor> inference_autograd(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                              const Tensor& w_ih, const Tensor& w_hh, const optional<Tensor>& b_ih,
                                              const optional<Tensor>& b_hh) {
  if (needs_autograd(input, hx, cx, w_ih, w_hh, or_undefined(b_ih), or_undefined(b_hh))) {
    const auto [h, c, gates] = training_autograd(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
    return {h, c};
  }
  const Guard guard;
  return inference_op().call(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
}

std::tuple<Tensor, Tensor, Tensor> training_batched(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                                    const Tensor& w_ih, const Tensor& w_hh,
                                                    const optional<Tensor>& b_ih, const optional<Tensor>& b_hh) {
  const Variables out = formula({input, hx, cx, w_ih, w_hh, or_undefined(b_ih), or_undefined(b_hh)});
  return {out[0], out[1], out[2]};
}

std::tuple<Tensor, Tensor> inference_batched(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                             const Tensor& w_ih, const Tensor& w_hh, const optional<Tensor>& b_ih,
                                             const optional<Tensor>& b_hh) {
  const auto [h, c, gates] = training_batched(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
  return {h, c};
}

void register_kernels(torch::Library& m) {
  m.impl("lstm_cell", InFloat32<inference, inference_on_gpu>::call);
  m.impl("lstm_cell_training", InFloat32<training, training_on_gpu>::call);
  m.impl("lstm_cell_backward", InFloat32<backward, backward_on_gpu>::call);
}

}  // namespace

#define CISDL_INPUTS "Tensor input, Tensor hx, Tensor cx, Tensor w_ih, Tensor w_hh, "
#define CISDL_BIASES "Tensor? b_ih=None, Tensor? b_hh=None"

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def("lstm_cell(" CISDL_INPUTS CISDL_BIASES ") -> (Tensor, Tensor)", {at::Tag::pt2_compliant_tag});
  m.def("lstm_cell_training(" CISDL_INPUTS CISDL_BIASES ") -> (Tensor, Tensor, Tensor)",
        {at::Tag::pt2_compliant_tag});
  m.def("lstm_cell_backward(Tensor? grad_h, Tensor? grad_c, " CISDL_INPUTS
        "Tensor c, Tensor gates, bool[7] output_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("lstm_cell", inference_meta);
  m.impl("lstm_cell_training", training_meta);
  m.impl("lstm_cell_backward", check_backward<c10::SymInt>);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("lstm_cell", inference_autograd);
  m.impl("lstm_cell_training", training_autograd);
  m.impl("lstm_cell_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(cisdl, FuncTorchBatched, m) {
  m.impl("lstm_cell", inference_batched);
  m.impl("lstm_cell_training", training_batched);
}

}  // namespace cisdl::ops
