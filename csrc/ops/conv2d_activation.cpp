// cisdl::conv2d_activation and its gradient: y = f(conv2d(x, w) + b), f an activation whose derivative follows
// from y.
//
// A ReLU is the epilogue of every convolution kernel: it costs nothing there, where torch writes the sums and
// reads them again. Any other activation is one pass over the output, in place. The backward forms g f'(y) in one
// pass and hands it to conv2d's. Where a derivative of the backward itself, a tangent or a batch of calls is
// wanted, cisdl::conv2d and torch's pointwise ops are composed, which have all of them.
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>

#include "activation.h"
#include "autograd.h"
#include "conv2d.h"
#include "reduced_precision.h"

namespace cisdl::ops {
namespace {

constexpr const char* kName = "conv2d_activation";

using Ints = at::IntArrayRef;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;
using Mask = std::array<bool, 3>;
using ForwardSignature = Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, Ints, Ints, Ints, int64_t,
                                std::string_view, double);
using BackwardSignature = Gradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Ints, Ints, Ints,
                                    int64_t, std::string_view, double, Mask);

Tensor conv2d_of(const Tensor& x, const Tensor& w, const optional<Tensor>& b, Ints stride, Ints padding,
                 Ints dilation, int64_t groups) {
  using Signature = Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, Ints, Ints, Ints, int64_t);
  static const auto op = find_op<Signature>("cisdl::conv2d");
  return op.call(x, w, b, stride, padding, dilation, groups);
}

Gradients conv2d_backward_of(const Tensor& g, const Tensor& x, const Tensor& w, Ints stride, Ints padding,
                             Ints dilation, int64_t groups, const Mask& mask) {
  using Signature = Gradients(const Tensor&, const Tensor&, const Tensor&, Ints, Ints, Ints, int64_t, Mask);
  static const auto op = find_op<Signature>("cisdl::conv2d_backward");
  return op.call(g, x, w, stride, padding, dilation, groups, mask);
}

Tensor forward(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, Ints stride, Ints padding,
               Ints dilation, int64_t groups, std::string_view activation, double slope) {
  const ActivationOptions f = activation_options(kName, activation, slope);
  const bool relu = f.kind == Activation::relu;
  const Tensor y = conv2d_at_least(input, weight, or_undefined(bias), stride, padding, dilation, groups,
                                   relu ? 0.0f : kNoLeast);
  return relu ? y : activate(y, f);
}

// A ReLU in the epilogue where tensor cores take the convolution, else two ops.
optional<Tensor> forward_on_gpu(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias,
                                Ints stride, Ints padding, Ints dilation, int64_t groups,
                                std::string_view activation, double slope) {
  const ActivationOptions f = activation_options(kName, activation, slope);
  if (f.kind == Activation::relu)
    return conv2d_on_tensor_cores(input, weight, or_undefined(bias), stride, padding, dilation, groups, 0.0f);
  if (input.scalar_type() == at::kFloat) return std::nullopt;
  return activated(conv2d_of(input, weight, bias, stride, padding, dilation, groups), f);
}

Tensor forward_meta(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, Ints stride,
                    Ints padding, Ints dilation, int64_t groups, std::string_view activation, double slope) {
  activation_options(kName, activation, slope);
  return conv2d_of(input, weight, bias, stride, padding, dilation, groups);
}

void check_output(const Tensor& grad_output, const Tensor& output) {
  check_like("conv2d_activation_backward", "output", output, "grad_output", grad_output);
  check_shape<c10::SymInt>("conv2d_activation_backward", "output", output, grad_output.sym_sizes());
}

Gradients backward(const Tensor& grad_output, const Tensor& output, const Tensor& input, const Tensor& weight,
                   Ints stride, Ints padding, Ints dilation, int64_t groups, std::string_view activation,
                   double slope, Mask mask) {
  const ActivationOptions f = activation_options(kName, activation, slope);
  check_output(grad_output, output);
  if (!output.device().is_cpu() || output.numel() == 0)
    return conv2d_backward_of(through_activation(grad_output, output, f), input, weight, stride, padding, dilation,
                              groups, mask);
  const auto format = memory_format(output.dim() == 4 && is_channels_last(output));
  const Tensor g = grad_output.contiguous(format), y = output.contiguous(format);
  const Tensor through = empty_of<int64_t>(y.sizes(), y, format);
  with_dtype(y.scalar_type(), [&](auto t) {
    using T = decltype(t);
    of_type<T>(elementwise_kernels())
        .activation_backward({f.kind, static_cast<T>(f.slope), 1, y.numel(), g.const_data_ptr<T>(),
                              y.const_data_ptr<T>(), through.mutable_data_ptr<T>(), nullptr},
                             torch_threads());
  });
  return conv2d_backward_of(through, input, weight, stride, padding, dilation, groups, mask);
}

optional<Gradients> backward_on_gpu(const Tensor& grad_output, const Tensor& output, const Tensor& input,
                                    const Tensor& weight, Ints stride, Ints padding, Ints dilation, int64_t groups,
                                    std::string_view activation, double slope, Mask mask) {
  check_output(grad_output, output);
  const ActivationOptions f = activation_options(kName, activation, slope);
  return conv2d_backward_of(through_activation(grad_output, output, f), input, weight, stride, padding, dilation,
                            groups, mask);
}

Gradients backward_meta(const Tensor& grad_output, const Tensor& output, const Tensor& input, const Tensor& weight,
                        Ints stride, Ints padding, Ints dilation, int64_t groups, std::string_view activation,
                        double slope, Mask mask) {
  activation_options(kName, activation, slope);
  check_output(grad_output, output);
  return conv2d_backward_of(grad_output, input, weight, stride, padding, dilation, groups, mask);
}

class Conv2dActivationBackward : public BackwardNode<3> {
 public:
  IntVector stride, padding, dilation;
  int64_t groups = 1;
  std::string activation;
  double slope = 0;

  std::string name() const override { return "CisdlConv2dActivationBackward"; }

 protected:
  Variables gradients(const Variables& grads) override {
    static const auto op = find_op<BackwardSignature>("cisdl::conv2d_activation_backward");
    const Tensor x = saved(0), w = saved(1), y = saved_output(2);
    const Mask mask = {wanted(0), wanted(1), wanted(2)};
    const auto [gx, gw, gb] =
        at::GradMode::is_enabled()
            ? conv2d_backward_of(through_activation(grads[0], y, activation_options(kName, activation, slope)), x,
                                 w, stride, padding, dilation, groups, mask)
            : op.call(grads[0], y, x, w, stride, padding, dilation, groups, activation, slope, mask);
    return {gx, gw, gb};
  }
};

Tensor forward_autograd(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias_arg, Ints stride,
                        Ints padding, Ints dilation, int64_t groups, std::string_view activation, double slope) {
  static const auto op = find_op<ForwardSignature>("cisdl::conv2d_activation");
  const Tensor bias = or_undefined(bias_arg);
  if (has_tangent(input) || has_tangent(weight) || has_tangent(bias))
    return activated(conv2d_of(input, weight, bias_arg, stride, padding, dilation, groups),
                     activation_options(kName, activation, slope));
  const auto node = record<Conv2dActivationBackward>(input, weight, bias);
  const Tensor y = [&] {
    const Guard guard;
    return op.call(input, weight, bias_arg, stride, padding, dilation, groups, activation, slope);
  }();
  if (node) {
    node->stride = owned(stride);
    node->padding = owned(padding);
    node->dilation = owned(dilation);
    node->groups = groups;
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
  m.impl("conv2d_activation", InFloat32<forward, forward_on_gpu>::call);
  m.impl("conv2d_activation_backward", InFloat32<backward, backward_on_gpu>::call);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def(
      "conv2d_activation(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[4] padding, int[2] "
      "dilation, int groups, str activation, float negative_slope) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "conv2d_activation_backward(Tensor grad_output, Tensor output, Tensor input, Tensor weight, int[2] stride, "
      "int[4] padding, int[2] dilation, int groups, str activation, float negative_slope, bool[3] output_mask) -> "
      "(Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("conv2d_activation", forward_meta);
  m.impl("conv2d_activation_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("conv2d_activation", forward_autograd);
  m.impl("conv2d_activation_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace cisdl::ops
