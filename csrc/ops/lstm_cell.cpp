// cisdl::lstm_cell and its gradient. Training keeps the activated gates; inference never stores them.
#include "common.h"

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

std::tuple<Tensor, Tensor, Tensor> run_forward(const Inputs& in, const optional<Tensor>& b_ih_arg,
                                               const optional<Tensor>& b_hh_arg, bool training) {
  const Tensor b_ih = contiguous_or_undefined(or_undefined(b_ih_arg));
  const Tensor b_hh = contiguous_or_undefined(or_undefined(b_hh_arg));
  auto outputs = check_forward<int64_t>(in, b_ih, b_hh, training);
  auto& [h, c, gates] = outputs;
  if (h.numel() == 0) return outputs;
  const Tensor x = in.input.contiguous(), hx = in.hx.contiguous(), cx = in.cx.contiguous();
  const Tensor w_ih = in.w_ih.contiguous(), w_hh = in.w_hh.contiguous();
  with_dtype(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    run(Op::lstm_cell, x, of_type<T>(lstm_cell_kernels()).forward,
        LstmCellForward<T>{{x.size(0), x.size(1), hx.size(1)},
                           x.const_data_ptr<T>(),
                           hx.const_data_ptr<T>(),
                           cx.const_data_ptr<T>(),
                           w_ih.const_data_ptr<T>(),
                           w_hh.const_data_ptr<T>(),
                           data_or_null<T>(b_ih),
                           data_or_null<T>(b_hh),
                           h.mutable_data_ptr<T>(),
                           c.mutable_data_ptr<T>(),
                           mutable_or_null<T>(gates)});
  });
  return outputs;
}

std::tuple<Tensor, Tensor> inference(const Tensor& input, const Tensor& hx, const Tensor& cx, const Tensor& w_ih,
                                     const Tensor& w_hh, const optional<Tensor>& b_ih,
                                     const optional<Tensor>& b_hh) {
  const auto [h, c, gates] = run_forward({input, hx, cx, w_ih, w_hh}, b_ih, b_hh, false);
  return {h, c};
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
  return run_forward({input, hx, cx, w_ih, w_hh}, b_ih, b_hh, true);
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

Grads backward(const optional<Tensor>& grad_h_arg, const optional<Tensor>& grad_c_arg, const Tensor& input,
               const Tensor& hx_arg, const Tensor& cx_arg, const Tensor& w_ih_arg, const Tensor& w_hh_arg,
               const Tensor& c_arg, const Tensor& gates_arg, std::array<bool, 7> mask) {
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
  with_dtype(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    run(Op::lstm_cell_backward, x, of_type<T>(lstm_cell_kernels()).backward,
        LstmCellBackward<T>{{x.size(0), x.size(1), hx.size(1)},
                            data_or_null<T>(grad_h),
                            data_or_null<T>(grad_c),
                            x.const_data_ptr<T>(),
                            hx.const_data_ptr<T>(),
                            cx.const_data_ptr<T>(),
                            w_ih.const_data_ptr<T>(),
                            w_hh.const_data_ptr<T>(),
                            c.const_data_ptr<T>(),
                            gates.const_data_ptr<T>(),
                            grad_gates.mutable_data_ptr<T>(),
                            mutable_or_null<T>(grad_input),
                            mutable_or_null<T>(grad_hx),
                            mutable_or_null<T>(grad_cx),
                            mutable_or_null<T>(grad_w_ih),
                            mutable_or_null<T>(grad_w_hh),
                            mutable_or_null<T>(grad_bias)});
  });
  if (grad_b_ih.defined() && grad_b_hh.defined()) grad_b_hh.copy_(grad_b_ih);
  return grads;
}

class LstmCellFunction : public torch::autograd::Function<LstmCellFunction> {
 public:
  using Variables = torch::autograd::variable_list;

  static Variables forward(torch::autograd::AutogradContext* ctx, const Tensor& input, const Tensor& hx,
                           const Tensor& cx, const Tensor& w_ih, const Tensor& w_hh, const optional<Tensor>& b_ih,
                           const optional<Tensor>& b_hh) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto [h, c, gates] = training_op().call(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
    ctx->saved_data["has_b_ih"] = b_ih.has_value();
    ctx->saved_data["has_b_hh"] = b_hh.has_value();
    ctx->save_for_backward({input, hx, cx, w_ih, w_hh, c, gates});
    ctx->mark_non_differentiable({gates});
    ctx->set_materialize_grads(false);
    return {h, c, gates};
  }

  static Variables backward(torch::autograd::AutogradContext* ctx, const Variables& grads) {
    if (!grads[0].defined() && !grads[1].defined()) return Variables(7);
    const auto s = ctx->get_saved_variables();
    std::array<bool, 7> mask;
    for (size_t i = 0; i < 5; ++i) mask[i] = ctx->needs_input_grad(i);
    mask[5] = needs_grad_if(ctx, "has_b_ih", 5);
    mask[6] = needs_grad_if(ctx, "has_b_hh", ctx->saved_data["has_b_ih"].toBool() ? 6 : 5);
    const auto [x, hx, cx, w_ih, w_hh, b_ih, b_hh] =
        backward_op().call(or_none(grads[0]), or_none(grads[1]), s[0], s[1], s[2], s[3], s[4], s[5], s[6], mask);
    return {x, hx, cx, w_ih, w_hh, b_ih, b_hh};
  }
};

std::tuple<Tensor, Tensor, Tensor> training_autograd(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                                     const Tensor& w_ih, const Tensor& w_hh,
                                                     const optional<Tensor>& b_ih, const optional<Tensor>& b_hh) {
  if (needs_autograd(input, hx, cx, w_ih, w_hh, or_undefined(b_ih), or_undefined(b_hh))) {
    const auto outputs = LstmCellFunction::apply(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
    return {outputs[0], outputs[1], outputs[2]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return training_op().call(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
}

std::tuple<Tensor, Tensor> inference_autograd(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                              const Tensor& w_ih, const Tensor& w_hh, const optional<Tensor>& b_ih,
                                              const optional<Tensor>& b_hh) {
  if (needs_autograd(input, hx, cx, w_ih, w_hh, or_undefined(b_ih), or_undefined(b_hh))) {
    const auto outputs = LstmCellFunction::apply(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
    return {outputs[0], outputs[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return inference_op().call(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
}

void register_kernels(torch::Library& m) {
  m.impl("lstm_cell", inference);
  m.impl("lstm_cell_training", training);
  m.impl("lstm_cell_backward", backward);
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

}  // namespace cisdl::ops
