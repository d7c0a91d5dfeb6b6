// cisdl::linear_activation and its gradient: y = f(x W^T + b), f an activation whose derivative follows from y.
//
// On the CPU the activation is one pass over the output while it is in the cache, on a GPU it is in the product's
// epilogue. The backward forms g f'(y) and the bias's
// gradient in one pass, and hands it to linear's. Where a derivative of the backward itself, a tangent or a batch
// of calls is wanted, cisdl::linear and torch's pointwise ops are composed, which have all of them.
#include "activation.h"
#include "autograd.h"
#include "formula.h"
#include "linear.h"
#include "reduced_precision.h"
#include "tensor_cores.h"

namespace cisdl::ops {
namespace {

constexpr const char* kName = "linear_activation";

using ForwardSignature = Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, std::string_view, double);
using BackwardSignature = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&,
                                                             const Tensor&, std::string_view, double,
                                                             std::array<bool, 3>);
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

Gradients linear_backward_of(const Tensor& g, const Tensor& x, const Tensor& w, std::array<bool, 3> mask) {
  static const auto op = find_op<Gradients(const Tensor&, const Tensor&, const Tensor&, std::array<bool, 3>)>(
      "cisdl::linear_backward");
  return op.call(g, x, w, mask);
}

// In one kernel where there is one: on tensor cores what they take, and float32 and float64. Other 16-bit tensors
// as two ops, of which cisdl::linear goes by way of float32 copies.
optional<Tensor> forward_on_gpu(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias_arg,
                                std::string_view activation, double slope) {
  const ActivationOptions f = activation_options(kName, activation, slope);
  const Tensor bias = or_undefined(bias_arg);
  [[maybe_unused]] const auto shape = check_linear<int64_t>(input, weight, bias);
#ifdef CISDL_WITH_CUDA
  const Tensor x = input.contiguous(), w = weight.contiguous(), b = bias.defined() ? bias.contiguous() : bias;
  const Tensor output = empty_of<int64_t>(shape, input);
  if (output.numel() == 0) return output;
  const auto problem = [&](auto t) {
    using T = decltype(t);
    return LinearActivationForward<T>{{linear_problem(input, weight), numbers_or_null<T>(x), numbers_or_null<T>(w),
                                       numbers_or_null<T>(b), mutable_numbers_or_null<T>(output)},
                                      f.kind,
                                      f.slope};
  };
  const bool tf32 = tf32_in_products();
  if (may_be_on_tensor_cores(input, tf32, weight.size(1)) && on_tensor_cores(Op::linear, input, tf32, problem))
    return output;
  if (!is_reduced_precision(input.scalar_type())) {
    with_dtype(input.scalar_type(), [&](auto t) { run_on_gpu(Op::linear, input, problem(t)); });
    return output;
  }
#endif
  return activated(linear_of(input, weight, bias), f);
}

Tensor forward(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias,
               std::string_view activation, double slope) {
  if (input.device().is_cuda()) return *forward_on_gpu(input, weight, bias, activation, slope);
  const ActivationOptions f = activation_options(kName, activation, slope);
  return activate(linear_of(input, weight, or_undefined(bias)), f);
}

Tensor forward_meta(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias,
                    std::string_view activation, double slope) {
  activation_options(kName, activation, slope);
  return linear_of(input, weight, or_undefined(bias));
}

void check_output(const Tensor& grad_output, const Tensor& output) {
  check_like("linear_activation_backward", "output", output, "grad_output", grad_output);
  check_shape<c10::SymInt>("linear_activation_backward", "output", output, grad_output.sym_sizes());
}

Gradients backward(const Tensor& grad_output, const Tensor& output, const Tensor& input, const Tensor& weight,
                   std::string_view activation, double slope, std::array<bool, 3> mask) {
  const ActivationOptions f = activation_options(kName, activation, slope);
  check_output(grad_output, output);
  if (!output.device().is_cpu() || output.numel() == 0)
    return linear_backward_of(through_activation(grad_output, output, f), input, weight, mask);
  const Tensor g = grad_output.contiguous(), y = output.contiguous();
  const Tensor through = empty_of<int64_t>(y.sizes(), y);
  const int64_t cols = y.size(-1);
  const Tensor grad_bias = mask[2] ? empty_of<int64_t>({cols}, y) : Tensor();
  with_dtype(y.scalar_type(), [&](auto t) {
    using T = decltype(t);
    of_type<T>(elementwise_kernels())
        .activation_backward({f.kind, static_cast<T>(f.slope), y.numel() / cols, cols, g.const_data_ptr<T>(),
                              y.const_data_ptr<T>(), through.mutable_data_ptr<T>(), mutable_or_null<T>(grad_bias)},
                             torch_threads());
  });
  const auto [grad_input, grad_weight, unused] =
      linear_backward_of(through, input, weight, {mask[0], mask[1], false});
  return {grad_input, grad_weight, grad_bias};
}

optional<Gradients> backward_on_gpu(const Tensor& grad_output, const Tensor& output, const Tensor& input,
                                    const Tensor& weight, std::string_view activation, double slope,
                                    std::array<bool, 3> mask) {
  check_output(grad_output, output);
  const ActivationOptions f = activation_options(kName, activation, slope);
  return linear_backward_of(through_activation(grad_output, output, f), input, weight, mask);
}

Gradients backward_meta(const Tensor& grad_output, const Tensor& output, const Tensor& input, const Tensor& weight,
                        std::string_view activation, double slope, std::array<bool, 3> mask) {
  activation_options(kName, activation, slope);
  check_output(grad_output, output);
  return linear_backward_of(grad_output, input, weight, mask);
}

class LinearActivationBackward : public BackwardNode<3> {
 public:
  std::string activation;
  double slope = 0;

  std::string name() const override { return "CisdlLinearActivationBackward"; }

 protected:
  Variables gradients(const Variables& grads) override {
    static const auto op = find_op<BackwardSignature>("cisdl::linear_activation_backward");
    const Tensor x = saved(0), w = saved(1), y = saved_output(2);
    const std::array<bool, 3> mask = {wanted(0), wanted(1), wanted(2)};
    const auto [gx, gw, gb] =
        at::GradMode::is_enabled()
            ? linear_backward_of(through_activation(grads[0], y, activation_options(kName, activation, slope)), x,
                                 w, mask)
            : op.call(grads[0], y, x, w, activation, slope, mask);
    return {gx, gw, gb};
  }
};

Tensor forward_autograd(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias_arg,
                        std::string_view activation, double slope) {
  static const auto op = find_op<ForwardSignature>("cisdl::linear_activation");
  const Tensor bias = or_undefined(bias_arg);
  if (has_tangent(input) || has_tangent(weight) || has_tangent(bias))
    return activated(linear_of(input, weight, bias), activation_options(kName, activation, slope));
  const auto node = record<LinearActivationBackward>(input, weight, bias);
  const Tensor y = [&] {
    const Guard guard;
    return op.call(input, weight, bias_arg, activation, slope);
  }();
  if (node) {
    node->activation = activation;
    node->slope = slope;
    node->save(0, input);
    node->save(1, weight);
    set_history(y, node);
    node->save_output(2, y);
  }
  return y;
}

void register_kernels(torch::Library& m) {
  m.impl("linear_activation", InFloat32<forward, forward_on_gpu>::call);
  m.impl("linear_activation_backward", InFloat32<backward, backward_on_gpu>::call);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def(
      "linear_activation(Tensor input, Tensor weight, Tensor? bias, str activation, float negative_slope) -> "
      "Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "linear_activation_backward(Tensor grad_output, Tensor output, Tensor input, Tensor weight, str activation, "
      "float negative_slope, bool[3] output_mask) -> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("linear_activation", forward_meta);
  m.impl("linear_activation_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("linear_activation", forward_autograd);
  m.impl("linear_activation_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace cisdl::ops
