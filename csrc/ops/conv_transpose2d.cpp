// cisdl::conv_transpose2d and its gradient: a conv2d turned around.
//
// With the conv2d problem that leads from this op's output back to its input, forward is that problem's gradient
// of the input, the gradient of the input is its forward, and the gradient of the weight is its gradient of the
// weight with input and grad_output exchanged. So there are no kernels of its own; a channels_last tensor keeps
// its layout, as in conv2d.
#include "bilinear.h"
#include "reduced_precision.h"
#include "tensor_cores.h"

namespace cisdl::ops {
namespace {

using Ints = at::IntArrayRef;
using ForwardSignature = Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, Ints, Ints, Ints, int64_t,
                                Ints);
using BackwardSignature = Gradients(const Tensor&, const Tensor&, const Tensor&, Ints, Ints, Ints, int64_t, Ints,
                                    Mask);

const auto& forward_op() {
  static const auto op = find_op<ForwardSignature>("cisdl::conv_transpose2d");
  return op;
}

const auto& backward_op() {
  static const auto op = find_op<BackwardSignature>("cisdl::conv_transpose2d_backward");
  return op;
}

struct Options {
  Ints stride, padding, output_padding;
  int64_t groups;
  Ints dilation;
};

template <class I>
I out_size(const Options& o, int dim, const I& in, const I& kernel) {
  const I size =
      (in - 1) * o.stride[dim] - 2 * o.padding[dim] + (kernel - 1) * o.dilation[dim] + o.output_padding[dim] + 1;
  TORCH_CHECK(size >= 1, "conv_transpose2d: input: expected an output ", dim == 0 ? "height" : "width",
              " of at least 1, got ", size, " from an input of ", in);
  return size;
}

// The shape of the output, after every check.
template <class I>
c10::SmallVector<I, 4> check_forward(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                     const Options& o) {
  const char* op = "conv_transpose2d";
  check_dtype(op, "input", input);
  check_like(op, "weight", weight, "input", input);
  check_pair(op, "stride", o.stride, 1);
  check_pair(op, "padding", o.padding, 0);
  check_pair(op, "output_padding", o.output_padding, 0);
  check_pair(op, "dilation", o.dilation, 1);
  for (int d = 0; d < 2; ++d)
    TORCH_CHECK(o.output_padding[d] < std::max(o.stride[d], o.dilation[d]), op,
                ": output_padding: expected less than stride = ", o.stride, " or dilation = ", o.dilation,
                ", got ", o.output_padding);
  const auto x = image_sizes<I>(op, "input", sizes_of<I>(input));
  TORCH_CHECK(x.h >= 1 && x.w >= 1, op, ": input: expected a height and width of at least 1, got shape ",
              sizes_of<I>(input));
  const auto w = sizes_of<I>(weight);
  TORCH_CHECK(w.size() == 4 && w[2] >= 1 && w[3] >= 1, op,
              ": weight: expected shape [in_channels, out_channels/groups, kernel_h, kernel_w], got ", w);
  check_groups(op, o.groups);
  TORCH_CHECK(w[0] % o.groups == 0, op, ": weight: expected in_channels divisible by groups = ", o.groups,
              ", got ", w[0]);
  TORCH_CHECK(x.c == w[0], op, ": input: expected ", w[0], " channels as weight ", w, " has, got ", x.c,
              " in shape ", sizes_of<I>(input));
  const I out_channels = w[1] * o.groups;
  if (bias.defined()) {
    check_like(op, "bias", bias, "input", input);
    check_shape<I>(op, "bias", bias, {out_channels});
  }
  return x.with(out_channels, out_size<I>(o, 0, x.h, w[2]), out_size<I>(o, 1, x.w, w[3]));
}

bool use_channels_last(const Tensor& input, const Tensor& weight) {
  return input.dim() == 4 && (is_channels_last(input) || is_channels_last(weight));
}

// The conv2d problem from our output (of shape `output`) to our input.
Conv2dProblem problem_of(const Tensor& input, const Tensor& weight, Ints output, const Options& o) {
  const auto x = image_sizes<int64_t>("conv_transpose2d", "input", input.sizes());
  const auto y = image_sizes<int64_t>("conv_transpose2d", "output", output);
  return {x.n, y.c,         y.h,         y.w,          x.c,          weight.size(2), weight.size(3), x.h,
          x.w, o.stride[0], o.stride[1], o.padding[0], o.padding[1], o.dilation[0],  o.dilation[1],  o.groups};
}

Tensor forward(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, Ints stride, Ints padding,
               Ints output_padding, int64_t groups, Ints dilation) {
  const Options o{stride, padding, output_padding, groups, dilation};
  const auto shape = check_forward<int64_t>(input, weight, or_undefined(bias), o);
  const bool last = use_channels_last(input, weight);
  const auto format = memory_format(last);
  Tensor output = empty_of<int64_t>(shape, input, format);
  if (output.numel() == 0) return output;
  const Tensor x = input.contiguous(format), w = weight.contiguous(format);
  with_dtype(input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    run(Op::conv_transpose2d, input, of_type<T>(conv2d_kernels()).backward_input,
        Conv2dBackwardInput<T>{problem_of(input, weight, shape, o), layout_of(last), x.const_data_ptr<T>(),
                               w.const_data_ptr<T>(), output.mutable_data_ptr<T>()});
  });
  if (bias) output.add_(spread_channels(*bias, output));
  return output;
}

Tensor forward_meta(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, Ints stride,
                    Ints padding, Ints output_padding, int64_t groups, Ints dilation) {
  const auto shape = check_forward<c10::SymInt>(input, weight, or_undefined(bias),
                                                {stride, padding, output_padding, groups, dilation});
  return empty_of<c10::SymInt>(shape, input, memory_format(use_channels_last(input, weight)));
}

template <class I>
Gradients check_backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight, Ints stride,
                         Ints padding, Ints output_padding, int64_t groups, Ints dilation, Mask mask) {
  const auto shape =
      check_forward<I>(input, weight, Tensor(), {stride, padding, output_padding, groups, dilation});
  check_like("conv_transpose2d_backward", "grad_output", grad_output, "input", input);
  check_shape<I>("conv_transpose2d_backward", "grad_output", grad_output, shape);
  const auto format = memory_format(use_channels_last(input, weight));
  return {mask[0] ? empty_of<I>(sizes_of<I>(input), input, format) : Tensor(),
          mask[1] ? empty_of<I>(sizes_of<I>(weight), weight, format) : Tensor(),
          mask[2] ? empty_of<I>({sizes_of<I>(weight)[1] * groups}, weight) : Tensor()};
}

Gradients backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight, Ints stride, Ints padding,
                   Ints output_padding, int64_t groups, Ints dilation, Mask mask) {
  auto grads =
      check_backward<int64_t>(grad_output, input, weight, stride, padding, output_padding, groups, dilation, mask);
  auto& [grad_input, grad_weight, grad_bias] = grads;
  const Conv2dProblem p =
      problem_of(input, weight, grad_output.sizes(), {stride, padding, output_padding, groups, dilation});
  const bool last = use_channels_last(input, weight);
  const auto format = memory_format(last);
  const Layout layout = layout_of(last);
  const Tensor g = grad_output.contiguous(format);
  with_dtype(input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const auto& kernels = of_type<T>(conv2d_kernels());
    if (mask[0] && grad_input.numel() > 0) {
      const Tensor w = weight.contiguous(format);
      run(Op::conv_transpose2d_backward_input, input, kernels.forward,
          Conv2dForward<T>{p, layout, g.const_data_ptr<T>(), w.const_data_ptr<T>(), nullptr,
                           grad_input.mutable_data_ptr<T>()});
    }
    if (mask[1] && grad_weight.numel() > 0) {
      const Tensor x = input.contiguous(format);
      run(Op::conv_transpose2d_backward_weight, input, kernels.backward_weight,
          Conv2dBackwardWeight<T>{p, layout, x.const_data_ptr<T>(), g.const_data_ptr<T>(),
                                  grad_weight.mutable_data_ptr<T>(), nullptr});
    }
    if (mask[2] && grad_bias.numel() > 0) {
      // The bias gradient of a 1x1 conv2d that has g as its grad_output; depthwise where the whole op is.
      const int64_t groups = p.groups == p.in_channels ? p.groups : 1;
      const Conv2dProblem sums{p.batch, groups, p.in_h, p.in_w, p.in_channels, 1, 1, p.in_h, p.in_w, 1, 1,
                               0,       0,      1,      1,      groups};
      run(Op::conv_transpose2d_backward_weight, input, kernels.backward_weight,
          Conv2dBackwardWeight<T>{sums, layout, g.const_data_ptr<T>(), nullptr, nullptr,
                                  grad_bias.mutable_data_ptr<T>()});
    }
  });
  return grads;
}

// ----------------------------------------------------------------------------------- on tensor cores

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

// Both channels of the convolution from our output to our input are dense dimensions.
bool may_be_on_tensor_cores(const Tensor& input, const Tensor& weight, int64_t groups) {
  return ops::may_be_on_tensor_cores(input, tf32_in_convolutions(), weight.size(1)) &&
         ops::may_be_on_tensor_cores(input, tf32_in_convolutions(), weight.size(0) / groups);
}

optional<Tensor> forward_on_gpu(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias,
                                Ints stride, Ints padding, Ints output_padding, int64_t groups, Ints dilation) {
  const Options o{stride, padding, output_padding, groups, dilation};
  const auto shape = check_forward<int64_t>(input, weight, or_undefined(bias), o);
  if (!may_be_on_tensor_cores(input, weight, groups)) return std::nullopt;
  const Conv2dProblem p = problem_of(input, weight, shape, o);
  const Tensor x = in_channels_last(input), w = in_channels_last(weight);
  const Tensor output = empty_of<int64_t>({p.batch, p.in_channels, p.in_h, p.in_w}, input, kChannelsLast);
  const bool done = on_tensor_cores(Op::conv_transpose2d, input, tf32_in_convolutions(), [&](auto t) {
    using T = decltype(t);
    return Conv2dBackwardInput<T>{p, Layout::nhwc, numbers_or_null<T>(x), numbers_or_null<T>(w),
                                  mutable_numbers_or_null<T>(output)};
  });
  if (!done) return std::nullopt;
  if (bias) output.add_(spread_channels(*bias, output));
  return out_of_channels_last(output, input.dim() == 4, memory_format(use_channels_last(input, weight)));
}

optional<Gradients> backward_on_gpu(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                    Ints stride, Ints padding, Ints output_padding, int64_t groups, Ints dilation,
                                    Mask mask) {
  check_backward<int64_t>(grad_output, input, weight, stride, padding, output_padding, groups, dilation, {});
  if (!may_be_on_tensor_cores(input, weight, groups)) return std::nullopt;
  const Conv2dProblem p =
      problem_of(input, weight, grad_output.sizes(), {stride, padding, output_padding, groups, dilation});
  const bool batched = input.dim() == 4;
  const auto format = memory_format(use_channels_last(input, weight));
  const Tensor g = in_channels_last(grad_output);
  Tensor grad_input, grad_weight;
  if (mask[0]) {
    const Tensor w = in_channels_last(weight);
    grad_input = empty_of<int64_t>({p.batch, p.out_channels, p.out_h, p.out_w}, input, kChannelsLast);
    const bool done =
        on_tensor_cores(Op::conv_transpose2d_backward_input, input, tf32_in_convolutions(), [&](auto t) {
          using T = decltype(t);
          return Conv2dForward<T>{p,
                                  Layout::nhwc,
                                  numbers_or_null<T>(g),
                                  numbers_or_null<T>(w),
                                  nullptr,
                                  mutable_numbers_or_null<T>(grad_input)};
        });
    if (!done) return std::nullopt;
    grad_input = out_of_channels_last(grad_input, batched, format);
  }
  if (mask[1]) {
    const Tensor x = in_channels_last(input);
    grad_weight = empty_of<int64_t>(weight.sizes(), weight, kChannelsLast);
    const bool done =
        on_tensor_cores(Op::conv_transpose2d_backward_weight, input, tf32_in_convolutions(), [&](auto t) {
          using T = decltype(t);
          return Conv2dBackwardWeight<T>{p,
                                         Layout::nhwc,
                                         numbers_or_null<T>(x),
                                         numbers_or_null<T>(g),
                                         mutable_numbers_or_null<T>(grad_weight),
                                         nullptr};
        });
    if (!done) return std::nullopt;
    grad_weight = grad_weight.contiguous(format);
  }
  return Gradients{grad_input, grad_weight, mask[2] ? at::sum(g, at::IntArrayRef{0, 2, 3}) : Tensor()};
}

struct ConvTranspose2d {
  struct Options {
    IntVector stride, padding, output_padding;
    int64_t groups = 1;
    IntVector dilation;
  };
  static constexpr const char* name = "ConvTranspose2d";

  static Tensor forward(const Tensor& x, const Tensor& w, const Tensor& b, const Options& o) {
    return forward_op().call(x, w, or_none(b), o.stride, o.padding, o.output_padding, o.groups, o.dilation);
  }
  static Gradients backward(const Tensor& g, const Tensor& x, const Tensor& w, const Options& o,
                            const Mask& mask) {
    return backward_op().call(g, x, w, o.stride, o.padding, o.output_padding, o.groups, o.dilation, mask);
  }
  static Tensor spread(const Tensor& b, const Tensor& y) { return spread_channels(b, y); }
};

Tensor forward_autograd(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, Ints stride,
                        Ints padding, Ints output_padding, int64_t groups, Ints dilation) {
  return bilinear_autograd<ConvTranspose2d>(
      input, weight, or_undefined(bias),
      {owned(stride), owned(padding), owned(output_padding), groups, owned(dilation)});
}

Gradients backward_autograd(const Tensor& grad_output, const Tensor& input, const Tensor& weight, Ints stride,
                            Ints padding, Ints output_padding, int64_t groups, Ints dilation, Mask mask) {
  return bilinear_backward_autograd<ConvTranspose2d>(
      grad_output, input, weight, {owned(stride), owned(padding), owned(output_padding), groups, owned(dilation)},
      mask);
}

void register_kernels(torch::Library& m) {
  m.impl("conv_transpose2d", InFloat32<forward, forward_on_gpu>::call);
  m.impl("conv_transpose2d_backward", InFloat32<backward, backward_on_gpu>::call);
}

}  // namespace

#define CISDL_OPTIONS "int[2] stride, int[2] padding, int[2] output_padding, int groups, int[2] dilation"

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def("conv_transpose2d(Tensor input, Tensor weight, Tensor? bias, " CISDL_OPTIONS ") -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("conv_transpose2d_backward(Tensor grad_output, Tensor input, Tensor weight, " CISDL_OPTIONS
        ", bool[3] output_mask) -> (Tensor, Tensor, Tensor)",
        {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("conv_transpose2d", forward_meta);
  m.impl("conv_transpose2d_backward", check_backward<c10::SymInt>);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("conv_transpose2d", forward_autograd);
  m.impl("conv_transpose2d_backward", backward_autograd);
}

}  // namespace cisdl::ops
