// cisdl::avg_pool2d and its gradient, which are each other's adjoint (linear_map.h).
#include "linear_map.h"
#include "pool2d.h"
#include "reduced_precision.h"

namespace cisdl::ops {
namespace {

using ForwardSignature = Tensor(const Tensor&, Ints, Ints, Ints, bool, bool, optional<int64_t>);
using BackwardSignature = Tensor(const Tensor&, SymInts, Ints, Ints, Ints, bool, optional<int64_t>);

const auto& forward_op() {
  static const auto op = find_op<ForwardSignature>("cisdl::avg_pool2d");
  return op;
}

const auto& backward_op() {
  static const auto op = find_op<BackwardSignature>("cisdl::avg_pool2d_backward");
  return op;
}

void check_divisor(const char* op, optional<int64_t> divisor_override) {
  TORCH_CHECK(!divisor_override || *divisor_override != 0, op,
              ": divisor_override: expected None or an integer other than 0, got 0");
}

template <class I>
Shape<I> check_forward(const Tensor& input, const PoolOptions& o, bool ceil_mode,
                       optional<int64_t> divisor_override) {
  check_dtype(o.op, "input", input);
  check_divisor(o.op, divisor_override);
  return pooled_shape<I>(sizes_of<I>(input), o, ceil_mode);
}

Tensor forward(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
               bool count_include_pad, optional<int64_t> divisor_override) {
  const PoolOptions o{"avg_pool2d", kernel_size, stride, padding, kNoDilation};
  const auto shape = check_forward<int64_t>(input, o, ceil_mode, divisor_override);
  const bool last = is_channels_last(input);
  const auto format = memory_format(last);
  Tensor output = empty_of<int64_t>(shape, input, format);
  if (output.numel() == 0) return output;
  const Tensor x = input.contiguous(format);
  const auto list = [](const auto& kernels) -> const auto& { return kernels.avg_forward; };
  run_native(Op::avg_pool2d, input, pool2d_kernels(), list, [&](auto t) {
    using T = decltype(t);
    return AvgPool2dForward<T>{
        pool_problem(input.sizes(), shape, o), layout_of(last),       count_include_pad,
        divisor_override.value_or(0),          numbers_or_null<T>(x), mutable_numbers_or_null<T>(output)};
  });
  return output;
}

Tensor forward_meta(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                    bool /*count_include_pad*/, optional<int64_t> divisor_override) {
  const PoolOptions o{"avg_pool2d", kernel_size, stride, padding, kNoDilation};
  return empty_of<c10::SymInt>(check_forward<c10::SymInt>(input, o, ceil_mode, divisor_override), input,
                               memory_format(is_channels_last(input)));
}

// Says whether grad_output is that of ceil mode.
template <class I>
bool check_backward(const Tensor& grad_output, c10::ArrayRef<I> input_size, const PoolOptions& o,
                    optional<int64_t> divisor_override) {
  check_dtype(o.op, "grad_output", grad_output);
  check_divisor(o.op, divisor_override);
  return is_ceil_mode<I>("grad_output", grad_output, input_size, o);
}

Tensor backward(const Tensor& grad_output, Ints input_size, Ints kernel_size, Ints stride, Ints padding,
                bool count_include_pad, optional<int64_t> divisor_override) {
  const PoolOptions o{"avg_pool2d_backward", kernel_size, stride, padding, kNoDilation};
  check_backward<int64_t>(grad_output, input_size, o, divisor_override);
  const bool last = is_channels_last(grad_output);
  const auto format = memory_format(last);
  Tensor grad_input = empty_of<int64_t>(input_size, grad_output, format);
  if (grad_input.numel() == 0) return grad_input;
  const Tensor g = grad_output.contiguous(format);
  const auto list = [](const auto& kernels) -> const auto& { return kernels.avg_backward; };
  run_native(Op::avg_pool2d_backward, grad_output, pool2d_kernels(), list, [&](auto t) {
    using T = decltype(t);
    return AvgPool2dBackward<T>{pool_problem(input_size, grad_output.sizes(), o),
                                layout_of(last),
                                count_include_pad,
                                divisor_override.value_or(0),
                                numbers_or_null<T>(g),
                                mutable_numbers_or_null<T>(grad_input)};
  });
  return grad_input;
}

Tensor backward_meta(const Tensor& grad_output, SymInts input_size, Ints kernel_size, Ints stride, Ints padding,
                     bool /*count_include_pad*/, optional<int64_t> divisor_override) {
  const PoolOptions o{"avg_pool2d_backward", kernel_size, stride, padding, kNoDilation};
  check_backward<c10::SymInt>(grad_output, input_size, o, divisor_override);
  return empty_of<c10::SymInt>(input_size, grad_output, memory_format(is_channels_last(grad_output)));
}

struct Windows {
  IntVector kernel_size, stride, padding;
  bool ceil_mode = false, count_include_pad = true;
  optional<int64_t> divisor_override;
};

struct Spread;

struct Average {
  using Adjoint = Spread;
  static constexpr const char* backward_name = "AvgPool2dDoubleBackward";
  Windows windows;

  Tensor operator()(const Tensor& x, const Tensor& = {}) const {
    const auto& [kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override] = windows;
    return forward_op().call(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override);
  }
  Spread adjoint(const Tensor& x) const;
};

struct Spread {
  using Adjoint = Average;
  static constexpr const char* backward_name = "AvgPool2dBackward";
  Windows windows;
  Shape<c10::SymInt> input_size;

  Tensor operator()(const Tensor& g, const Tensor& = {}) const {
    const auto& [kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override] = windows;
    return backward_op().call(g, input_size, kernel_size, stride, padding, count_include_pad, divisor_override);
  }
  Average adjoint(const Tensor&) const { return {windows}; }
};

Spread Average::adjoint(const Tensor& x) const { return {windows, owned(x.sym_sizes())}; }

Tensor forward_autograd(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                        bool count_include_pad, optional<int64_t> divisor_override) {
  return map_autograd(input, Tensor(),
                      Average{{owned(kernel_size), owned(stride), owned(padding), ceil_mode, count_include_pad,
                               divisor_override}});
}

Tensor backward_autograd(const Tensor& grad_output, SymInts input_size, Ints kernel_size, Ints stride,
                         Ints padding, bool count_include_pad, optional<int64_t> divisor_override) {
  const PoolOptions o{"avg_pool2d_backward", kernel_size, stride, padding, kNoDilation};
  const bool ceil_mode =
      needs_derivative(grad_output) && check_backward<c10::SymInt>(grad_output, input_size, o, divisor_override);
  return map_autograd(
      grad_output, Tensor(),
      Spread{{owned(kernel_size), owned(stride), owned(padding), ceil_mode, count_include_pad, divisor_override},
             owned(input_size)});
}

void register_kernels(torch::Library& m) {
  m.impl("avg_pool2d", NativeOnGpu<forward>::call);
  m.impl("avg_pool2d_backward", NativeOnGpu<backward>::call);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def(
      "avg_pool2d(Tensor input, int[2] kernel_size, int[2] stride, int[2] padding, bool ceil_mode, bool "
      "count_include_pad, int? divisor_override) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "avg_pool2d_backward(Tensor grad_output, SymInt[] input_size, int[2] kernel_size, int[2] stride, int[2] "
      "padding, bool count_include_pad, int? divisor_override) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("avg_pool2d", forward_meta);
  m.impl("avg_pool2d_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("avg_pool2d", forward_autograd);
  m.impl("avg_pool2d_backward", backward_autograd);
}

}  // namespace cisdl::ops
