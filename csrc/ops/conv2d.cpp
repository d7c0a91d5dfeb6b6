// cisdl::conv2d and its gradient.
//
// Padding is four numbers, top, bottom, left, right: padding='same' is asymmetric for even kernels. A tensor in
// channels_last keeps that layout through the kernel and into the result, as in torch.
#include "conv2d.h"

#include "bilinear.h"
#include "reduced_precision.h"
#include "tensor_cores.h"

namespace cisdl::ops {
namespace {

using Ints = at::IntArrayRef;
using ForwardSignature = Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, Ints, Ints, Ints, int64_t);
using BackwardSignature = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, Ints,
                                                             Ints, Ints, int64_t, std::array<bool, 3>);

const auto& forward_op() {
  static const auto op = find_op<ForwardSignature>("cisdl::conv2d");
  return op;
}

const auto& backward_op() {
  static const auto op = find_op<BackwardSignature>("cisdl::conv2d_backward");
  return op;
}

struct Options {
  Ints stride, padding, dilation;
  int64_t groups;
};

template <class I>
I out_size(const char* dim, const I& in, int64_t before, int64_t after, const I& kernel, int64_t stride,
           int64_t dilation) {
  const I reach = (kernel - 1) * dilation + 1;
  const I padded = in + (before + after);
  TORCH_CHECK(padded >= reach, "conv2d: input: expected a padded ", dim, " of at least ", reach, " (kernel of ",
              kernel, " with dilation ", dilation, "), got ", padded);
  return (padded - reach) / stride + 1;
}

// The shape of the output, after every check.
template <class I>
c10::SmallVector<I, 4> check_forward(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                     const Options& o) {
  const char* op = "conv2d";
  check_dtype(op, "input", input);
  check_like(op, "weight", weight, "input", input);
  check_pair(op, "stride", o.stride, 1);
  check_pair(op, "dilation", o.dilation, 1);
  TORCH_CHECK(o.padding.size() == 4, op, ": padding: expected four integers (top, bottom, left, right), got ",
              o.padding);
  check_pair(op, "padding", o.padding.slice(0, 2), 0);
  check_pair(op, "padding", o.padding.slice(2, 2), 0);
  const auto x = image_sizes<I>(op, "input", sizes_of<I>(input));
  const auto w = sizes_of<I>(weight);
  TORCH_CHECK(w.size() == 4 && w[2] >= 1 && w[3] >= 1, op,
              ": weight: expected shape [out_channels, in_channels/groups, kernel_h, kernel_w], got ", w);
  check_groups(op, o.groups);
  TORCH_CHECK(w[0] % o.groups == 0, op, ": weight: expected out_channels divisible by groups = ", o.groups,
              ", got ", w[0]);
  TORCH_CHECK(x.c == w[1] * o.groups, op, ": input: expected ", w[1] * o.groups, " channels (weight ", w,
              " with groups = ", o.groups, "), got ", x.c, " in shape ", sizes_of<I>(input));
  if (bias.defined()) {
    check_like(op, "bias", bias, "input", input);
    check_shape<I>(op, "bias", bias, {w[0]});
  }
  return x.with(w[0], out_size<I>("height", x.h, o.padding[0], o.padding[1], w[2], o.stride[0], o.dilation[0]),
                out_size<I>("width", x.w, o.padding[2], o.padding[3], w[3], o.stride[1], o.dilation[1]));
}

bool use_channels_last(const Tensor& input, const Tensor& weight) {
  return input.dim() == 4 && (is_channels_last(input) || is_channels_last(weight));
}

Conv2dProblem problem_of(const Tensor& input, const Tensor& weight, Ints output, const Options& o) {
  const auto x = image_sizes<int64_t>("conv2d", "input", input.sizes());
  const auto y = image_sizes<int64_t>("conv2d", "output", output);
  return {x.n, x.c,         x.h,         x.w,          weight.size(0), weight.size(2), weight.size(3), y.h,
          y.w, o.stride[0], o.stride[1], o.padding[0], o.padding[2],   o.dilation[0],  o.dilation[1],  o.groups};
}

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

}  // namespace

Tensor conv2d_at_least(const Tensor& input, const Tensor& weight, const Tensor& bias, Ints stride, Ints padding,
                       Ints dilation, int64_t groups, float least) {
  const Options o{stride, padding, dilation, groups};
  const auto shape = check_forward<int64_t>(input, weight, bias, o);
  const bool last = use_channels_last(input, weight);
  const auto format = memory_format(last);
  Tensor output = empty_of<int64_t>(shape, input, format);
  if (output.numel() == 0) return output;
  const Tensor x = input.contiguous(format), w = weight.contiguous(format);
  const Tensor b = bias.defined() ? bias.contiguous() : bias;
  with_dtype(input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    run(Op::conv2d, input, of_type<T>(conv2d_kernels()).forward,
        Conv2dForward<T>{problem_of(input, weight, shape, o), layout_of(last), x.const_data_ptr<T>(),
                         w.const_data_ptr<T>(), data_or_null<T>(b), output.mutable_data_ptr<T>(), least});
  });
  return output;
}

// Tensor cores want channels_last; an image in another layout is copied, and the result copied back.
optional<Tensor> conv2d_on_tensor_cores(const Tensor& input, const Tensor& weight, const Tensor& bias, Ints stride,
                                        Ints padding, Ints dilation, int64_t groups, float least) {
  const Options o{stride, padding, dilation, groups};
  const auto shape = check_forward<int64_t>(input, weight, bias, o);
  const int64_t channels = whole_chunks(input, weight.size(1), groups);
  if (!may_be_on_tensor_cores(input, tf32_in_convolutions(), channels)) return std::nullopt;
  Conv2dProblem p = problem_of(input, weight, shape, o);
  p.in_channels = channels * groups;
  const Tensor x = padded(in_channels_last(input), 1, p.in_channels);
  const Tensor w = padded(in_channels_last(weight), 1, channels);
  const Tensor b = bias.defined() ? bias.contiguous() : bias;
  const Tensor output = empty_of<int64_t>({p.batch, p.out_channels, p.out_h, p.out_w}, input, kChannelsLast);
  const bool done = on_tensor_cores(Op::conv2d, input, tf32_in_convolutions(), [&](auto t) {
    using T = decltype(t);
    return Conv2dForward<T>{p,
                            Layout::nhwc,
                            numbers_or_null<T>(x),
                            numbers_or_null<T>(w),
                            numbers_or_null<T>(b),
                            mutable_numbers_or_null<T>(output),
                            T(least)};
  });
  if (!done) return std::nullopt;
  return out_of_channels_last(output, input.dim() == 4, memory_format(use_channels_last(input, weight)));
}

namespace {

Tensor forward(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, Ints stride, Ints padding,
               Ints dilation, int64_t groups) {
  return conv2d_at_least(input, weight, or_undefined(bias), stride, padding, dilation, groups, kNoLeast);
}

Tensor forward_meta(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, Ints stride,
                    Ints padding, Ints dilation, int64_t groups) {
  const auto shape =
      check_forward<c10::SymInt>(input, weight, or_undefined(bias), {stride, padding, dilation, groups});
  return empty_of<c10::SymInt>(shape, input, memory_format(use_channels_last(input, weight)));
}

template <class I>
std::tuple<Tensor, Tensor, Tensor> check_backward(const Tensor& grad_output, const Tensor& input,
                                                  const Tensor& weight, Ints stride, Ints padding, Ints dilation,
                                                  int64_t groups, std::array<bool, 3> mask) {
  const auto shape = check_forward<I>(input, weight, Tensor(), {stride, padding, dilation, groups});
  check_like("conv2d_backward", "grad_output", grad_output, "input", input);
  check_shape<I>("conv2d_backward", "grad_output", grad_output, shape);
  const auto format = memory_format(use_channels_last(input, weight));
  return {mask[0] ? empty_of<I>(sizes_of<I>(input), input, format) : Tensor(),
          mask[1] ? empty_of<I>(sizes_of<I>(weight), weight, format) : Tensor(),
          mask[2] ? empty_of<I>({sizes_of<I>(weight)[0]}, weight) : Tensor()};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                            Ints stride, Ints padding, Ints dilation, int64_t groups,
                                            std::array<bool, 3> mask) {
  auto grads = check_backward<int64_t>(grad_output, input, weight, stride, padding, dilation, groups, mask);
  auto& [grad_input, grad_weight, grad_bias] = grads;
  const Options o{stride, padding, dilation, groups};
  const Conv2dProblem p = problem_of(input, weight, grad_output.sizes(), o);
  const bool last = use_channels_last(input, weight);
  const auto format = memory_format(last);
  const Tensor g = grad_output.contiguous(format);
  with_dtype(input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const auto& kernels = of_type<T>(conv2d_kernels());
    if (mask[0] && grad_input.numel() > 0) {
      const Tensor w = weight.contiguous(format);
      run(Op::conv2d_backward_input, input, kernels.backward_input,
          Conv2dBackwardInput<T>{p, layout_of(last), g.const_data_ptr<T>(), w.const_data_ptr<T>(),
                                 grad_input.mutable_data_ptr<T>()});
    }
    if ((mask[1] || mask[2]) && p.out_channels > 0) {
      const Tensor x = mask[1] ? input.contiguous(format) : Tensor();
      run(Op::conv2d_backward_weight, input, kernels.backward_weight,
          Conv2dBackwardWeight<T>{p, layout_of(last), g.const_data_ptr<T>(), data_or_null<T>(x),
                                  mutable_or_null<T>(grad_weight), mutable_or_null<T>(grad_bias)});
    }
  });
  return grads;
}

optional<Tensor> forward_on_gpu(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias,
                                Ints stride, Ints padding, Ints dilation, int64_t groups) {
  return conv2d_on_tensor_cores(input, weight, or_undefined(bias), stride, padding, dilation, groups, kNoLeast);
}

optional<Gradients> backward_on_gpu(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                    Ints stride, Ints padding, Ints dilation, int64_t groups,
                                    std::array<bool, 3> mask) {
  check_backward<int64_t>(grad_output, input, weight, stride, padding, dilation, groups, {});
  const int64_t in = whole_chunks(input, weight.size(1), groups),
                out = whole_chunks(input, weight.size(0) / groups, groups);
  for (const int64_t channels : {in, out})
    if (!may_be_on_tensor_cores(input, tf32_in_convolutions(), channels)) return std::nullopt;
  Conv2dProblem p = problem_of(input, weight, grad_output.sizes(), {stride, padding, dilation, groups});
  p.in_channels = in * groups;
  p.out_channels = out * groups;
  const bool batched = input.dim() == 4;
  const auto format = memory_format(use_channels_last(input, weight));
  const Tensor g = padded(in_channels_last(grad_output), 1, p.out_channels);
  Tensor grad_input, grad_weight, grad_bias;
  if (mask[1] || mask[2]) {
    const Tensor x = padded(in_channels_last(input), 1, p.in_channels);
    if (mask[1])
      grad_weight = empty_of<int64_t>({p.out_channels, in, p.kernel_h, p.kernel_w}, weight, kChannelsLast);
    if (mask[2]) grad_bias = empty_of<int64_t>({p.out_channels}, weight);
    const bool done = on_tensor_cores(Op::conv2d_backward_weight, input, tf32_in_convolutions(), [&](auto t) {
      using T = decltype(t);
      return Conv2dBackwardWeight<T>{p,
                                     Layout::nhwc,
                                     numbers_or_null<T>(g),
                                     numbers_or_null<T>(x),
                                     mutable_numbers_or_null<T>(grad_weight),
                                     mutable_numbers_or_null<T>(grad_bias)};
    });
    if (!done) return std::nullopt;
    if (mask[1])
      grad_weight = grad_weight.narrow(0, 0, weight.size(0)).narrow(1, 0, weight.size(1)).contiguous(format);
    if (mask[2]) grad_bias = grad_bias.narrow(0, 0, weight.size(0)).contiguous();
  }
  if (mask[0]) {
    const Tensor w = padded(padded(in_channels_last(weight), 1, in), 0, p.out_channels);
    grad_input = empty_of<int64_t>({p.batch, p.in_channels, p.in_h, p.in_w}, input, kChannelsLast);
    const bool done = on_tensor_cores(Op::conv2d_backward_input, input, tf32_in_convolutions(), [&](auto t) {
      using T = decltype(t);
      return Conv2dBackwardInput<T>{p, Layout::nhwc, numbers_or_null<T>(g), numbers_or_null<T>(w),
                                    mutable_numbers_or_null<T>(grad_input)};
    });
    if (!done) return std::nullopt;
    grad_input = out_of_channels_last(grad_input.narrow(1, 0, weight.size(1) * groups), batched, format);
  }
  return Gradients{grad_input, grad_weight, grad_bias};
}

struct Conv2d {
  struct Options {
    IntVector stride, padding, dilation;
    int64_t groups = 1;
  };
  static constexpr const char* name = "Conv2d";

  static Tensor forward(const Tensor& x, const Tensor& w, const Tensor& b, const Options& o) {
    return forward_op().call(x, w, or_none(b), o.stride, o.padding, o.dilation, o.groups);
  }
  static Gradients backward(const Tensor& g, const Tensor& x, const Tensor& w, const Options& o,
                            const Mask& mask) {
    return backward_op().call(g, x, w, o.stride, o.padding, o.dilation, o.groups, mask);
  }
  static Tensor spread(const Tensor& b, const Tensor& y) { return spread_channels(b, y); }
};

Tensor forward_autograd(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, Ints stride,
                        Ints padding, Ints dilation, int64_t groups) {
  return bilinear_autograd<Conv2d>(input, weight, or_undefined(bias),
                                   {owned(stride), owned(padding), owned(dilation), groups});
}

Gradients backward_autograd(const Tensor& grad_output, const Tensor& input, const Tensor& weight, Ints stride,
                            Ints padding, Ints dilation, int64_t groups, std::array<bool, 3> mask) {
  return bilinear_backward_autograd<Conv2d>(grad_output, input, weight,
                                            {owned(stride), owned(padding), owned(dilation), groups}, mask);
}

void register_kernels(torch::Library& m) {
  m.impl("conv2d", InFloat32<forward, forward_on_gpu>::call);
  m.impl("conv2d_backward", InFloat32<backward, backward_on_gpu>::call);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def(
      "conv2d(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[4] padding, int[2] dilation, int "
      "groups) "
      "-> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "conv2d_backward(Tensor grad_output, Tensor input, Tensor weight, int[2] stride, int[4] padding, int[2] "
      "dilation, int groups, bool[3] output_mask) -> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("conv2d", forward_meta);
  m.impl("conv2d_backward", check_backward<c10::SymInt>);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("conv2d", forward_autograd);
  m.impl("conv2d_backward", backward_autograd);
}

}  // namespace cisdl::ops
