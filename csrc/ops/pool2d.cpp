// cisdl::max_pool2d, cisdl::avg_pool2d and their gradients.
//
// max_pool2d comes in three forms: plain; _with_indices (torch's int64 places in the plane); _window, what
// training uses: the place in the window in one byte, an eighth of the traffic.
#include <algorithm>

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>

#include "autograd.h"
namespace cisdl::ops {
inline c10::SmallVector<int64_t, 4> saved_ints(torch::autograd::AutogradContext* ctx, const char* name) {
  const auto list = ctx->saved_data[name].toIntVector();
  return {list.begin(), list.end()};
}
}  // namespace cisdl::ops

namespace cisdl::ops {
namespace {

using Ints = at::IntArrayRef;
using SymInts = c10::SymIntArrayRef;
using MaxSignature = Tensor(const Tensor&, Ints, Ints, Ints, Ints, bool);
using MaxIndexSignature = std::tuple<Tensor, Tensor>(const Tensor&, Ints, Ints, Ints, Ints, bool);
using MaxBackwardSignature = Tensor(const Tensor&, const Tensor&, SymInts, Ints, Ints, Ints, Ints, bool);
using AvgSignature = Tensor(const Tensor&, Ints, Ints, Ints, bool, bool, optional<int64_t>);
using AvgBackwardSignature = Tensor(const Tensor&, SymInts, Ints, Ints, Ints, bool, optional<int64_t>);

const auto& max_op() {
  static const auto op = find_op<MaxSignature>("cisdl::max_pool2d");
  return op;
}

const auto& max_indices_op() {
  static const auto op = find_op<MaxIndexSignature>("cisdl::max_pool2d_with_indices");
  return op;
}

const auto& max_window_op() {
  static const auto op = find_op<MaxIndexSignature>("cisdl::max_pool2d_window");
  return op;
}

const auto& max_backward_op() {
  static const auto op = find_op<MaxBackwardSignature>("cisdl::max_pool2d_backward");
  return op;
}

const auto& avg_op() {
  static const auto op = find_op<AvgSignature>("cisdl::avg_pool2d");
  return op;
}

const auto& avg_backward_op() {
  static const auto op = find_op<AvgBackwardSignature>("cisdl::avg_pool2d_backward");
  return op;
}

struct Options {
  const char* op;
  Ints kernel_size, stride, padding, dilation;
  bool ceil_mode;
};

constexpr int64_t kNoDilation[] = {1, 1};

template <class I>
I out_size(const Options& o, int dim, const I& in) {
  const int64_t kernel = o.kernel_size[dim], stride = o.stride[dim], pad = o.padding[dim];
  const int64_t reach = (kernel - 1) * o.dilation[dim] + 1;
  const I padded = in + 2 * pad;
  TORCH_CHECK(padded >= reach, o.op, ": input: expected a padded ", dim == 0 ? "height" : "width", " of at least ",
              reach, " (kernel_size of ", kernel, " with dilation ", o.dilation[dim], "), got ", padded);
  if (!o.ceil_mode) return (padded - reach) / stride + 1;
  const I out = (padded - reach + (stride - 1)) / stride + 1;
  // The last window must start inside the image or its left padding, or it would see nothing.
  if ((out - 1) * stride >= in + pad) return out - 1;
  return out;
}

// The shape of the output, after every check.
template <class I>
c10::SmallVector<I, 4> check_forward(c10::ArrayRef<I> input, const Options& o) {
  check_pair(o.op, "kernel_size", o.kernel_size, 1);
  check_pair(o.op, "stride", o.stride, 1);
  check_pair(o.op, "padding", o.padding, 0);
  check_pair(o.op, "dilation", o.dilation, 1);
  for (int d = 0; d < 2; ++d)
    TORCH_CHECK(o.padding[d] <= o.kernel_size[d] / 2, o.op,
                ": padding: expected at most half of kernel_size = ", o.kernel_size, ", got ", o.padding);
  const auto x = image_sizes<I>(o.op, "input", input);
  return x.with(x.c, out_size<I>(o, 0, x.h), out_size<I>(o, 1, x.w));
}

Pool2dProblem problem_of(Ints input, Ints output, const Options& o) {
  const auto x = image_sizes<int64_t>(o.op, "input", input);
  const auto y = image_sizes<int64_t>(o.op, "output", output);
  return {x.n,
          x.c,
          x.h,
          x.w,
          y.h,
          y.w,
          o.kernel_size[0],
          o.kernel_size[1],
          o.stride[0],
          o.stride[1],
          o.padding[0],
          o.padding[1],
          o.dilation[0],
          o.dilation[1]};
}

// Windows of at most 255 cells have their place in one byte.
at::ScalarType window_dtype(Ints kernel_size) {
  return kernel_size[0] * kernel_size[1] <= 255 ? at::kByte : at::kLong;
}

template <class I>
Tensor empty_indices(c10::ArrayRef<I> shape, const Tensor& input, at::ScalarType dtype, at::MemoryFormat format) {
  if constexpr (std::is_same_v<I, c10::SymInt>) {
    return at::empty_symint(shape, input.options().dtype(dtype), format);
  } else {
    return at::empty(shape, input.options().dtype(dtype), format);
  }
}

// ------------------------------------------------------------------------------------------ max pooling

Tensor run_max(const Tensor& input, const Options& o, PoolIndex index, const c10::SmallVector<int64_t, 4>& shape,
               const Tensor& indices) {
  const bool last = is_channels_last(input);
  const auto format = memory_format(last);
  Tensor output = empty_of<int64_t>(shape, input, format);
  if (output.numel() == 0) return output;
  const Tensor x = input.contiguous(format);
  with_dtype(input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    run(Op::max_pool2d, input, of_type<T>(pool2d_kernels()).max_forward,
        MaxPool2dForward<T>{problem_of(input.sizes(), shape, o), layout_of(last), index, x.const_data_ptr<T>(),
                            output.mutable_data_ptr<T>(),
                            indices.defined() ? indices.mutable_data_ptr() : nullptr});
  });
  return output;
}

Tensor max_forward(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation,
                   bool ceil_mode) {
  const Options o{"max_pool2d", kernel_size, stride, padding, dilation, ceil_mode};
  check_dtype(o.op, "input", input);
  return run_max(input, o, PoolIndex::none, check_forward<int64_t>(input.sizes(), o), Tensor());
}

Tensor max_forward_meta(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation,
                        bool ceil_mode) {
  const Options o{"max_pool2d", kernel_size, stride, padding, dilation, ceil_mode};
  check_dtype(o.op, "input", input);
  return empty_of<c10::SymInt>(check_forward<c10::SymInt>(input.sym_sizes(), o), input,
                               memory_format(is_channels_last(input)));
}

// With the place in the plane (flat) or in the window.
template <bool kFlat>
std::tuple<Tensor, Tensor> max_index_forward(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                             Ints dilation, bool ceil_mode) {
  const Options o{"max_pool2d", kernel_size, stride, padding, dilation, ceil_mode};
  check_dtype(o.op, "input", input);
  const auto shape = check_forward<int64_t>(input.sizes(), o);
  const auto dtype = kFlat ? at::kLong : window_dtype(kernel_size);
  const Tensor indices = empty_indices<int64_t>(shape, input, dtype, memory_format(is_channels_last(input)));
  const PoolIndex index = dtype == at::kLong ? PoolIndex::flat : PoolIndex::window;
  return {run_max(input, o, index, shape, indices), indices};
}

template <bool kFlat>
std::tuple<Tensor, Tensor> max_index_meta(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                          Ints dilation, bool ceil_mode) {
  const Options o{"max_pool2d", kernel_size, stride, padding, dilation, ceil_mode};
  check_dtype(o.op, "input", input);
  const auto shape = check_forward<c10::SymInt>(input.sym_sizes(), o);
  const auto format = memory_format(is_channels_last(input));
  return {empty_of<c10::SymInt>(shape, input, format),
          empty_indices<c10::SymInt>(shape, input, kFlat ? at::kLong : window_dtype(kernel_size), format)};
}

template <class I>
void check_max_backward(const Tensor& grad_output, const Tensor& indices, c10::ArrayRef<I> input_size,
                        const Options& base, bool flat) {
  check_dtype(base.op, "grad_output", grad_output);
  TORCH_CHECK(indices.device() == grad_output.device(), base.op, ": indices: expected device ",
              grad_output.device(), " as grad_output, got ", indices.device());
  const auto dtype = flat ? at::kLong : window_dtype(base.kernel_size);
  TORCH_CHECK(indices.scalar_type() == dtype, base.op, ": indices: expected dtype ", dtype_name(dtype), ", got ",
              dtype_name(indices.scalar_type()));
  check_shape<I>(base.op, "indices", indices, sizes_of<I>(grad_output));
  // grad_output may come from either rounding; what it was is not kept.
  Options o = base;
  auto floor_shape = check_forward<I>(input_size, o);
  o.ceil_mode = true;
  const auto ceil_shape = check_forward<I>(input_size, o);
  const auto got = sizes_of<I>(grad_output);
  const auto is = [&](const c10::SmallVector<I, 4>& s) { return got.equals(c10::ArrayRef<I>(s)); };
  TORCH_CHECK(is(floor_shape) || is(ceil_shape), base.op, ": grad_output: expected shape ",
              c10::ArrayRef<I>(floor_shape), ", got ", got);
}

Tensor max_backward(const Tensor& grad_output, const Tensor& indices, Ints input_size, Ints kernel_size,
                    Ints stride, Ints padding, Ints dilation, bool flat) {
  const Options o{"max_pool2d_backward", kernel_size, stride, padding, dilation, false};
  check_max_backward<int64_t>(grad_output, indices, input_size, o, flat);
  // The layout is the one that forward chose: its indices carry it.
  const bool last = is_channels_last(indices);
  const auto format = memory_format(last);
  Tensor grad_input = empty_of<int64_t>(input_size, grad_output, format);
  if (grad_input.numel() == 0) return grad_input;
  const Tensor g = grad_output.contiguous(format), i = indices.contiguous(format);
  with_dtype(grad_output.scalar_type(), [&](auto t) {
    using T = decltype(t);
    run(Op::max_pool2d_backward, grad_output, of_type<T>(pool2d_kernels()).max_backward,
        MaxPool2dBackward<T>{problem_of(input_size, grad_output.sizes(), o), layout_of(last),
                             indices.scalar_type() == at::kLong ? PoolIndex::flat : PoolIndex::window,
                             g.const_data_ptr<T>(), i.const_data_ptr(), grad_input.mutable_data_ptr<T>()});
  });
  return grad_input;
}

Tensor max_backward_meta(const Tensor& grad_output, const Tensor& indices, SymInts input_size, Ints kernel_size,
                         Ints stride, Ints padding, Ints dilation, bool flat) {
  const Options o{"max_pool2d_backward", kernel_size, stride, padding, dilation, false};
  check_max_backward<c10::SymInt>(grad_output, indices, input_size, o, flat);
  return empty_of<c10::SymInt>(input_size, grad_output, memory_format(is_channels_last(indices)));
}

// -------------------------------------------------------------------------------------- average pooling

int64_t check_divisor(const char* op, optional<int64_t> divisor_override) {
  TORCH_CHECK(!divisor_override || *divisor_override != 0, op,
              ": divisor_override: expected None or an integer other than 0, got 0");
  return divisor_override.value_or(0);
}

Tensor avg_forward(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                   bool count_include_pad, optional<int64_t> divisor_override) {
  const Options o{"avg_pool2d", kernel_size, stride, padding, kNoDilation, ceil_mode};
  check_dtype(o.op, "input", input);
  const int64_t divisor = check_divisor(o.op, divisor_override);
  const auto shape = check_forward<int64_t>(input.sizes(), o);
  const bool last = is_channels_last(input);
  const auto format = memory_format(last);
  Tensor output = empty_of<int64_t>(shape, input, format);
  if (output.numel() == 0) return output;
  const Tensor x = input.contiguous(format);
  with_dtype(input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    run(Op::avg_pool2d, input, of_type<T>(pool2d_kernels()).avg_forward,
        AvgPool2dForward<T>{problem_of(input.sizes(), shape, o), layout_of(last), count_include_pad, divisor,
                            x.const_data_ptr<T>(), output.mutable_data_ptr<T>()});
  });
  return output;
}

Tensor avg_forward_meta(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                        bool /*count_include_pad*/, optional<int64_t> divisor_override) {
  const Options o{"avg_pool2d", kernel_size, stride, padding, kNoDilation, ceil_mode};
  check_dtype(o.op, "input", input);
  check_divisor(o.op, divisor_override);
  return empty_of<c10::SymInt>(check_forward<c10::SymInt>(input.sym_sizes(), o), input,
                               memory_format(is_channels_last(input)));
}

template <class I>
void check_avg_backward(const Tensor& grad_output, c10::ArrayRef<I> input_size, Options o) {
  check_dtype(o.op, "grad_output", grad_output);
  const auto floor_shape = check_forward<I>(input_size, o);
  o.ceil_mode = true;
  const auto ceil_shape = check_forward<I>(input_size, o);
  const auto got = sizes_of<I>(grad_output);
  TORCH_CHECK(got.equals(c10::ArrayRef<I>(floor_shape)) || got.equals(c10::ArrayRef<I>(ceil_shape)), o.op,
              ": grad_output: expected shape ", c10::ArrayRef<I>(floor_shape), ", got ", got);
}

Tensor avg_backward(const Tensor& grad_output, Ints input_size, Ints kernel_size, Ints stride, Ints padding,
                    bool count_include_pad, optional<int64_t> divisor_override) {
  const Options o{"avg_pool2d_backward", kernel_size, stride, padding, kNoDilation, false};
  check_avg_backward<int64_t>(grad_output, input_size, o);
  const int64_t divisor = check_divisor(o.op, divisor_override);
  const bool last = is_channels_last(grad_output);
  const auto format = memory_format(last);
  Tensor grad_input = empty_of<int64_t>(input_size, grad_output, format);
  if (grad_input.numel() == 0) return grad_input;
  const Tensor g = grad_output.contiguous(format);
  with_dtype(grad_output.scalar_type(), [&](auto t) {
    using T = decltype(t);
    run(Op::avg_pool2d_backward, grad_output, of_type<T>(pool2d_kernels()).avg_backward,
        AvgPool2dBackward<T>{problem_of(input_size, grad_output.sizes(), o), layout_of(last), count_include_pad,
                             divisor, g.const_data_ptr<T>(), grad_input.mutable_data_ptr<T>()});
  });
  return grad_input;
}

Tensor avg_backward_meta(const Tensor& grad_output, SymInts input_size, Ints kernel_size, Ints stride,
                         Ints padding, bool /*count_include_pad*/, optional<int64_t> divisor_override) {
  const Options o{"avg_pool2d_backward", kernel_size, stride, padding, kNoDilation, false};
  check_avg_backward<c10::SymInt>(grad_output, input_size, o);
  check_divisor(o.op, divisor_override);
  return empty_of<c10::SymInt>(input_size, grad_output, memory_format(is_channels_last(grad_output)));
}

// --------------------------------------------------------------------------------------------- autograd

using Context = torch::autograd::AutogradContext;

void save_options(Context* ctx, const Tensor& input, Ints kernel_size, Ints stride, Ints padding) {
  ctx->saved_data["input_size"] = input.sym_sizes();
  ctx->saved_data["kernel_size"] = kernel_size;
  ctx->saved_data["stride"] = stride;
  ctx->saved_data["padding"] = padding;
}

// kFlat: the caller wants torch's indices, so those are kept; else the compact ones.
template <bool kFlat>
class MaxPool2dFunction : public torch::autograd::Function<MaxPool2dFunction<kFlat>> {
 public:
  static Variables forward(Context* ctx, const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                           Ints dilation, bool ceil_mode) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto [output, indices] = (kFlat ? max_indices_op() : max_window_op())
                                       .call(input, kernel_size, stride, padding, dilation, ceil_mode);
    save_options(ctx, input, kernel_size, stride, padding);
    ctx->saved_data["dilation"] = dilation;
    ctx->save_for_backward({indices});
    ctx->mark_non_differentiable({indices});
    return {output, indices};
  }

  static Variables backward(Context* ctx, const Variables& grads) {
    const Tensor grad_input = max_backward_op().call(
        grads[0], ctx->get_saved_variables()[0], ctx->saved_data["input_size"].toSymIntVector(),
        saved_ints(ctx, "kernel_size"), saved_ints(ctx, "stride"), saved_ints(ctx, "padding"),
        saved_ints(ctx, "dilation"), kFlat);
    return {grad_input, {}, {}, {}, {}, {}};
  }
};

Tensor max_autograd(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation,
                    bool ceil_mode) {
  if (needs_autograd(input))
    return MaxPool2dFunction<false>::apply(input, kernel_size, stride, padding, dilation, ceil_mode)[0];
  const at::AutoDispatchBelowADInplaceOrView guard;
  return max_op().call(input, kernel_size, stride, padding, dilation, ceil_mode);
}

template <bool kFlat>
std::tuple<Tensor, Tensor> max_index_autograd(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                              Ints dilation, bool ceil_mode) {
  if (needs_autograd(input)) {
    const auto outputs = MaxPool2dFunction<kFlat>::apply(input, kernel_size, stride, padding, dilation, ceil_mode);
    return {outputs[0], outputs[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return (kFlat ? max_indices_op() : max_window_op())
      .call(input, kernel_size, stride, padding, dilation, ceil_mode);
}

class AvgPool2dFunction : public torch::autograd::Function<AvgPool2dFunction> {
 public:
  static Tensor forward(Context* ctx, const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                        bool ceil_mode, bool count_include_pad, optional<int64_t> divisor_override) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    save_options(ctx, input, kernel_size, stride, padding);
    ctx->saved_data["count_include_pad"] = count_include_pad;
    ctx->saved_data["divisor_override"] = divisor_override;
    return avg_op().call(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override);
  }

  static Variables backward(Context* ctx, const Variables& grads) {
    const Tensor grad_input = avg_backward_op().call(
        grads[0], ctx->saved_data["input_size"].toSymIntVector(), saved_ints(ctx, "kernel_size"),
        saved_ints(ctx, "stride"), saved_ints(ctx, "padding"), ctx->saved_data["count_include_pad"].toBool(),
        ctx->saved_data["divisor_override"].toOptional<int64_t>());
    return {grad_input, {}, {}, {}, {}, {}, {}};
  }
};

Tensor avg_autograd(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                    bool count_include_pad, optional<int64_t> divisor_override) {
  if (needs_autograd(input))
    return AvgPool2dFunction::apply(input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                                    divisor_override);
  const at::AutoDispatchBelowADInplaceOrView guard;
  return avg_op().call(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override);
}

void register_kernels(torch::Library& m) {
  m.impl("max_pool2d", max_forward);
  m.impl("max_pool2d_with_indices", max_index_forward<true>);
  m.impl("max_pool2d_window", max_index_forward<false>);
  m.impl("max_pool2d_backward", max_backward);
  m.impl("avg_pool2d", avg_forward);
  m.impl("avg_pool2d_backward", avg_backward);
}

}  // namespace

#define CISDL_WINDOW "int[2] kernel_size, int[2] stride, int[2] padding, "
#define CISDL_MAX_ARGUMENTS "(Tensor input, " CISDL_WINDOW "int[2] dilation, bool ceil_mode)"

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def("max_pool2d" CISDL_MAX_ARGUMENTS " -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("max_pool2d_with_indices" CISDL_MAX_ARGUMENTS " -> (Tensor, Tensor)", {at::Tag::pt2_compliant_tag});
  m.def("max_pool2d_window" CISDL_MAX_ARGUMENTS " -> (Tensor, Tensor)", {at::Tag::pt2_compliant_tag});
  m.def("max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt[] input_size, " CISDL_WINDOW
        "int[2] dilation, bool flat) -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("avg_pool2d(Tensor input, " CISDL_WINDOW
        "bool ceil_mode, bool count_include_pad, int? divisor_override) -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("avg_pool2d_backward(Tensor grad_output, SymInt[] input_size, " CISDL_WINDOW
        "bool count_include_pad, int? divisor_override) -> Tensor",
        {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("max_pool2d", max_forward_meta);
  m.impl("max_pool2d_with_indices", max_index_meta<true>);
  m.impl("max_pool2d_window", max_index_meta<false>);
  m.impl("max_pool2d_backward", max_backward_meta);
  m.impl("avg_pool2d", avg_forward_meta);
  m.impl("avg_pool2d_backward", avg_backward_meta);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("max_pool2d", max_autograd);
  m.impl("max_pool2d_with_indices", max_index_autograd<true>);
  m.impl("max_pool2d_window", max_index_autograd<false>);
  m.impl("max_pool2d_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("avg_pool2d", avg_autograd);
  m.impl("avg_pool2d_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace cisdl::ops
