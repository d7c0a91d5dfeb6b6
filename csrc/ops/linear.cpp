// cisdl::linear and its gradient: y = x W^T + b over the last dimension of x.
#include "linear.h"

#include "bilinear.h"
#include "reduced_precision.h"
#include "tensor_cores.h"

namespace cisdl::ops {
namespace {

using ForwardSignature = Tensor(const Tensor&, const Tensor&, const optional<Tensor>&);
using BackwardSignature = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&,
                                                             std::array<bool, 3>);

const auto& forward_op() {
  static const auto op = find_op<ForwardSignature>("cisdl::linear");
  return op;
}

const auto& backward_op() {
  static const auto op = find_op<BackwardSignature>("cisdl::linear_backward");
  return op;
}

Tensor forward(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias_arg) {
  const Tensor bias = or_undefined(bias_arg);
  const auto shape = check_linear<int64_t>(input, weight, bias);
  const Tensor x = input.contiguous(), w = weight.contiguous(), b = bias.defined() ? bias.contiguous() : bias;
  Tensor output = empty_of<int64_t>(shape, input);
  if (output.numel() == 0) return output;
  with_dtype(input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    run(Op::linear, input, of_type<T>(linear_kernels()).forward,
        LinearForward<T>{linear_problem(input, weight), x.const_data_ptr<T>(), w.const_data_ptr<T>(),
                         data_or_null<T>(b), output.mutable_data_ptr<T>()});
  });
  return output;
}

Tensor forward_meta(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias) {
  const auto shape = check_linear<c10::SymInt>(input, weight, or_undefined(bias));
  return empty_of<c10::SymInt>(shape, input);
}

template <class I>
std::tuple<Tensor, Tensor, Tensor> check_backward(const Tensor& grad_output, const Tensor& input,
                                                  const Tensor& weight, std::array<bool, 3> mask) {
  const auto shape = check_linear<I>(input, weight, Tensor());
  check_like("linear_backward", "grad_output", grad_output, "input", input);
  check_shape<I>("linear_backward", "grad_output", grad_output, shape);
  return {mask[0] ? empty_of<I>(sizes_of<I>(input), input) : Tensor(),
          mask[1] ? empty_of<I>(sizes_of<I>(weight), weight) : Tensor(),
          mask[2] ? empty_of<I>({sizes_of<I>(weight)[0]}, weight) : Tensor()};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                            std::array<bool, 3> mask) {
  auto grads = check_backward<int64_t>(grad_output, input, weight, mask);
  auto& [grad_input, grad_weight, grad_bias] = grads;
  const LinearProblem p = linear_problem(input, weight);
  const Tensor g = grad_output.contiguous();
  with_dtype(input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const auto& kernels = of_type<T>(linear_kernels());
    if (mask[0] && grad_input.numel() > 0) {
      const Tensor w = weight.contiguous();
      run(Op::linear_backward_input, input, kernels.backward_input,
          LinearBackwardInput<T>{p, g.const_data_ptr<T>(), w.const_data_ptr<T>(),
                                 grad_input.mutable_data_ptr<T>()});
    }
    if ((mask[1] || mask[2]) && p.out_features > 0) {
      const Tensor x = mask[1] ? input.contiguous() : Tensor();
      run(Op::linear_backward_weight, input, kernels.backward_weight,
          LinearBackwardWeight<T>{p, g.const_data_ptr<T>(), data_or_null<T>(x), mutable_or_null<T>(grad_weight),
                                  mutable_or_null<T>(grad_bias)});
    }
  });
  return grads;
}

// ----------------------------------------------------------------------------------- on tensor cores

optional<Tensor> forward_on_gpu(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias_arg) {
  const auto shape = check_linear<int64_t>(input, weight, or_undefined(bias_arg));
  if (!may_be_on_tensor_cores(input, tf32_in_products(), weight.size(1))) return std::nullopt;
  const Tensor x = input.contiguous(), w = weight.contiguous(), b = bias_arg ? bias_arg->contiguous() : Tensor();
  const Tensor output = empty_of<int64_t>(shape, input);
  const bool done = on_tensor_cores(Op::linear, input, tf32_in_products(), [&](auto t) {
    using T = decltype(t);
    return LinearForward<T>{linear_problem(input, weight), numbers_or_null<T>(x), numbers_or_null<T>(w),
                            numbers_or_null<T>(b), mutable_numbers_or_null<T>(output)};
  });
  return done ? optional<Tensor>(output) : std::nullopt;
}

using Gradients3 = std::tuple<Tensor, Tensor, Tensor>;

optional<Gradients3> backward_on_gpu(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                     std::array<bool, 3> mask) {
  const auto grads = check_backward<int64_t>(grad_output, input, weight, mask);
  for (const int64_t features : {weight.size(0), weight.size(1)})
    if (!may_be_on_tensor_cores(input, tf32_in_products(), features)) return std::nullopt;
  const auto& [grad_input, grad_weight, grad_bias] = grads;
  const LinearProblem p = linear_problem(input, weight);
  const Tensor g = grad_output.contiguous();
  bool done = true;
  if (mask[1] || mask[2]) {
    const Tensor x = input.contiguous();
    done = on_tensor_cores(Op::linear_backward_weight, input, tf32_in_products(), [&](auto t) {
      using T = decltype(t);
      return LinearBackwardWeight<T>{p, numbers_or_null<T>(g), numbers_or_null<T>(x),
                                     mutable_numbers_or_null<T>(grad_weight),
                                     mutable_numbers_or_null<T>(grad_bias)};
    });
  }
  if (done && mask[0]) {
    const Tensor w = weight.contiguous();
    done = on_tensor_cores(Op::linear_backward_input, input, tf32_in_products(), [&](auto t) {
      using T = decltype(t);
      return LinearBackwardInput<T>{p, numbers_or_null<T>(g), numbers_or_null<T>(w),
                                    mutable_numbers_or_null<T>(grad_input)};
    });
  }
  return done ? optional<Gradients3>(grads) : std::nullopt;
}

struct Linear {
  struct Options {};
  static constexpr const char* name = "Linear";

  static Tensor forward(const Tensor& x, const Tensor& w, const Tensor& b, const Options&) {
    return forward_op().call(x, w, or_none(b));
  }
  static Gradients backward(const Tensor& g, const Tensor& x, const Tensor& w, const Options&, const Mask& mask) {
    return backward_op().call(g, x, w, mask);
  }
  static Tensor spread(const Tensor& b, const Tensor& y) { return b.expand_as(y); }
};

Tensor forward_autograd(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias) {
  return bilinear_autograd<Linear>(input, weight, or_undefined(bias), {});
}

Gradients backward_autograd(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                            std::array<bool, 3> mask) {
  return bilinear_backward_autograd<Linear>(grad_output, input, weight, {}, mask);
}

void register_kernels(torch::Library& m) {
  m.impl("linear", InFloat32<forward, forward_on_gpu>::call);
  m.impl("linear_backward", InFloat32<backward, backward_on_gpu>::call);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def("linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def(
      "linear_backward(Tensor grad_output, Tensor input, Tensor weight, bool[3] output_mask) -> (Tensor, Tensor, "
      "Tensor)",
      {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("linear", forward_meta);
  m.impl("linear_backward", check_backward<c10::SymInt>);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("linear", forward_autograd);
  m.impl("linear_backward", backward_autograd);
}

}  // namespace cisdl::ops
