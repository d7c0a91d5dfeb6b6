// cisdl::adaptive_avg_pool2d and cisdl::adaptive_max_pool2d, their gradients and the adjoints of those.
//
// The caller says how many windows there are; window i of `out` along `in` cells is
// [floor(i * in / out), ceil((i + 1) * in / out)), so windows may differ in size, and overlap. The two kinds have
// the derivatives of avg_pool2d and max_pool2d (linear_map.h). Maxima always keep their place in the plane: there
// are few of them.
#include "linear_map.h"
#include "pool2d.h"
#include "reduced_precision.h"

namespace cisdl::ops {
namespace {

using AvgSignature = Tensor(const Tensor&, SymInts);
using MaxSignature = Tensor(const Tensor&, SymInts);
using IndexSignature = std::tuple<Tensor, Tensor>(const Tensor&, SymInts);
using MaxBackwardSignature = Tensor(const Tensor&, const Tensor&, SymInts);
using GatherSignature = Tensor(const Tensor&, const Tensor&);

const auto& avg_op() {
  static const auto op = find_op<AvgSignature>("cisdl::adaptive_avg_pool2d");
  return op;
}

const auto& avg_backward_op() {
  static const auto op = find_op<AvgSignature>("cisdl::adaptive_avg_pool2d_backward");
  return op;
}

const auto& max_op() {
  static const auto op = find_op<MaxSignature>("cisdl::adaptive_max_pool2d");
  return op;
}

const auto& index_op() {
  static const auto op = find_op<IndexSignature>("cisdl::adaptive_max_pool2d_with_indices");
  return op;
}

const auto& max_backward_op() {
  static const auto op = find_op<MaxBackwardSignature>("cisdl::adaptive_max_pool2d_backward");
  return op;
}

const auto& gather_op() {
  static const auto op = find_op<GatherSignature>("cisdl::adaptive_max_pool2d_gather");
  return op;
}

// --------------------------------------------------------------------------------------------- checks

// As torch: an average may have no channels, a maximum may not.
template <class I>
ImageSizes<I> check_image(const char* op, const char* name, c10::ArrayRef<I> sizes, bool needs_channels) {
  if (needs_channels) return pooled_image<I>(op, name, sizes);
  const auto x = image_sizes<I>(op, name, sizes);
  TORCH_CHECK(x.h > 0 && x.w > 0, op, ": ", name, ": expected at least one row and column, got shape ", sizes);
  return x;
}

// The shape of the output, after every check.
template <class I>
Shape<I> check_forward(const char* op, const Tensor& input, c10::ArrayRef<I> output_size, bool needs_channels) {
  check_dtype(op, "input", input);
  TORCH_CHECK(output_size.size() == 2 && output_size[0] >= 0 && output_size[1] >= 0, op,
              ": output_size: expected two integers of at least 0, got ", output_size);
  const auto x = check_image<I>(op, "input", sizes_of<I>(input), needs_channels);
  return x.with(x.c, output_size[0], output_size[1]);
}

// `pooled` must be what an input of input_size may become.
template <class I>
void check_pooled(const char* op, const char* name, const Tensor& pooled, c10::ArrayRef<I> input_size,
                  bool needs_channels) {
  const auto x = check_image<I>(op, "input", input_size, needs_channels);
  const auto got = sizes_of<I>(pooled);
  TORCH_CHECK(got.size() == input_size.size(), op, ": ", name, ": expected ", input_size.size(),
              " dimensions as the input of shape ", input_size, ", got shape ", got);
  check_shape<I>(op, name, pooled, x.with(x.c, got[got.size() - 2], got[got.size() - 1]));
}

AdaptivePool2dProblem problem_of(Ints input, Ints output) {
  const auto x = image_sizes<int64_t>("adaptive pooling", "input", input);
  const auto y = image_sizes<int64_t>("adaptive pooling", "output", output);
  return {x.n, x.c, x.h, x.w, y.h, y.w};
}

// -------------------------------------------------------------------------------------------- average

constexpr const char* kAvg = "adaptive_avg_pool2d";
constexpr const char* kAvgBackward = "adaptive_avg_pool2d_backward";

Tensor avg_forward(const Tensor& input, Ints output_size) {
  const auto shape = check_forward<int64_t>(kAvg, input, output_size, false);
  const bool last = is_channels_last(input);
  const auto format = memory_format(last);
  Tensor output = empty_of<int64_t>(shape, input, format);
  if (output.numel() == 0) return output;
  const Tensor x = input.contiguous(format);
  const auto list = [](const auto& kernels) -> const auto& { return kernels.adaptive_avg_forward; };
  run_native(Op::adaptive_avg_pool2d, input, pool2d_kernels(), list, [&](auto t) {
    using T = decltype(t);
    return AdaptiveAvgPool2dForward<T>{problem_of(input.sizes(), shape), layout_of(last), numbers_or_null<T>(x),
                                       mutable_numbers_or_null<T>(output)};
  });
  return output;
}

Tensor avg_forward_meta(const Tensor& input, SymInts output_size) {
  return empty_of<c10::SymInt>(check_forward<c10::SymInt>(kAvg, input, output_size, false), input,
                               memory_format(is_channels_last(input)));
}

Tensor avg_backward(const Tensor& grad_output, Ints input_size) {
  check_dtype(kAvgBackward, "grad_output", grad_output);
  check_pooled<int64_t>(kAvgBackward, "grad_output", grad_output, input_size, false);
  const bool last = is_channels_last(grad_output);
  const auto format = memory_format(last);
  Tensor grad_input = empty_of<int64_t>(input_size, grad_output, format);
  if (grad_input.numel() == 0) return grad_input;
  const Tensor g = grad_output.contiguous(format);
  const auto list = [](const auto& kernels) -> const auto& { return kernels.adaptive_avg_backward; };
  run_native(Op::adaptive_avg_pool2d_backward, grad_output, pool2d_kernels(), list, [&](auto t) {
    using T = decltype(t);
    return AdaptiveAvgPool2dBackward<T>{problem_of(input_size, grad_output.sizes()), layout_of(last),
                                        numbers_or_null<T>(g), mutable_numbers_or_null<T>(grad_input)};
  });
  return grad_input;
}

Tensor avg_backward_meta(const Tensor& grad_output, SymInts input_size) {
  check_dtype(kAvgBackward, "grad_output", grad_output);
  check_pooled<c10::SymInt>(kAvgBackward, "grad_output", grad_output, input_size, false);
  return empty_of<c10::SymInt>(input_size, grad_output, memory_format(is_channels_last(grad_output)));
}

// -------------------------------------------------------------------------------------------- maximum

constexpr const char* kMax = "adaptive_max_pool2d";
constexpr const char* kMaxBackward = "adaptive_max_pool2d_backward";
constexpr const char* kGather = "adaptive_max_pool2d_gather";

Tensor run_max_forward(const Tensor& input, const Shape<int64_t>& shape, const Tensor& places) {
  const bool last = is_channels_last(input);
  const auto format = memory_format(last);
  Tensor output = empty_of<int64_t>(shape, input, format);
  if (output.numel() == 0) return output;
  const Tensor x = input.contiguous(format);
  const auto list = [](const auto& kernels) -> const auto& { return kernels.adaptive_max_forward; };
  run_native(Op::adaptive_max_pool2d, input, pool2d_kernels(), list, [&](auto t) {
    using T = decltype(t);
    return AdaptiveMaxPool2dForward<T>{problem_of(input.sizes(), shape), layout_of(last), numbers_or_null<T>(x),
                                       mutable_numbers_or_null<T>(output), mutable_or_null<int64_t>(places)};
  });
  return output;
}

Tensor max_forward(const Tensor& input, Ints output_size) {
  return run_max_forward(input, check_forward<int64_t>(kMax, input, output_size, true), Tensor());
}

Tensor max_forward_meta(const Tensor& input, SymInts output_size) {
  return empty_of<c10::SymInt>(check_forward<c10::SymInt>(kMax, input, output_size, true), input,
                               memory_format(is_channels_last(input)));
}

std::tuple<Tensor, Tensor> index_forward(const Tensor& input, Ints output_size) {
  const auto shape = check_forward<int64_t>(kMax, input, output_size, true);
  const Tensor places = empty_places<int64_t>(shape, input, at::kLong, memory_format(is_channels_last(input)));
  return {run_max_forward(input, shape, places), places};
}

std::tuple<Tensor, Tensor> index_forward_meta(const Tensor& input, SymInts output_size) {
  const auto shape = check_forward<c10::SymInt>(kMax, input, output_size, true);
  const auto format = memory_format(is_channels_last(input));
  return {empty_of<c10::SymInt>(shape, input, format), empty_places<c10::SymInt>(shape, input, at::kLong, format)};
}

template <class I>
void check_max_backward(const Tensor& grad_output, const Tensor& indices, c10::ArrayRef<I> input_size) {
  check_dtype(kMaxBackward, "grad_output", grad_output);
  check_pooled<I>(kMaxBackward, "grad_output", grad_output, input_size, true);
  check_places(kMaxBackward, indices, at::kLong, "grad_output", grad_output);
  check_shape<I>(kMaxBackward, "indices", indices, sizes_of<I>(grad_output));
}

Tensor max_backward(const Tensor& grad_output, const Tensor& indices, Ints input_size) {
  check_max_backward<int64_t>(grad_output, indices, input_size);
  const bool last = is_channels_last(indices);  // the layout that forward chose
  const auto format = memory_format(last);
  Tensor grad_input = empty_of<int64_t>(input_size, grad_output, format);
  if (grad_input.numel() == 0) return grad_input;
  const Tensor g = grad_output.contiguous(format), places = indices.contiguous(format);
  const auto list = [](const auto& kernels) -> const auto& { return kernels.adaptive_max_backward; };
  run_native(Op::adaptive_max_pool2d_backward, grad_output, pool2d_kernels(), list, [&](auto t) {
    using T = decltype(t);
    return AdaptiveMaxPool2dBackward<T>{problem_of(input_size, grad_output.sizes()), layout_of(last),
                                        numbers_or_null<T>(g), places.const_data_ptr<int64_t>(),
                                        mutable_numbers_or_null<T>(grad_input)};
  });
  return grad_input;
}

Tensor max_backward_meta(const Tensor& grad_output, const Tensor& indices, SymInts input_size) {
  check_max_backward<c10::SymInt>(grad_output, indices, input_size);
  return empty_of<c10::SymInt>(input_size, grad_output, memory_format(is_channels_last(indices)));
}

template <class I>
void check_gather(const Tensor& input, const Tensor& indices) {
  check_dtype(kGather, "input", input);
  check_pooled<I>(kGather, "indices", indices, sizes_of<I>(input), true);
  check_places(kGather, indices, at::kLong, "input", input);
}

// By max_pool2d_gather's kernels: a place in the plane needs no windows.
Tensor gather(const Tensor& input, const Tensor& indices) {
  check_gather<int64_t>(input, indices);
  const AdaptivePool2dProblem p = problem_of(input.sizes(), indices.sizes());
  return run_max_gather(input, indices,
                        {p.batch, p.channels, p.in_h, p.in_w, p.out_h, p.out_w, 1, 1, 1, 1, 0, 0, 1, 1});
}

Tensor gather_meta(const Tensor& input, const Tensor& indices) {
  check_gather<c10::SymInt>(input, indices);
  return empty_of<c10::SymInt>(indices.sym_sizes(), input, memory_format(is_channels_last(indices)));
}

// ------------------------------------------------------------------------------------------- autograd

// Maps between tensors of two sizes; `size` is that of the result.
struct Spread;

struct Average {
  using Adjoint = Spread;
  static constexpr const char* backward_name = "AdaptiveAvgPool2dDoubleBackward";
  Shape<c10::SymInt> size;  // height and width

  Tensor operator()(const Tensor& x, const Tensor& = {}) const { return avg_op().call(x, size); }
  Spread adjoint(const Tensor& x) const;
};

struct Spread {
  using Adjoint = Average;
  static constexpr const char* backward_name = "AdaptiveAvgPool2dBackward";
  Shape<c10::SymInt> size;

  Tensor operator()(const Tensor& g, const Tensor& = {}) const { return avg_backward_op().call(g, size); }
  Average adjoint(const Tensor& g) const { return {owned(g.sym_sizes().slice(g.dim() - 2))}; }
};

Spread Average::adjoint(const Tensor& x) const { return {owned(x.sym_sizes())}; }

struct Scatter;

struct Gather {
  using Adjoint = Scatter;
  static constexpr const char* backward_name = "AdaptiveMaxPool2dDoubleBackward";

  Tensor operator()(const Tensor& x, const Tensor& places) const { return gather_op().call(x, places); }
  Scatter adjoint(const Tensor& x) const;
};

struct Scatter {
  using Adjoint = Gather;
  static constexpr const char* backward_name = "AdaptiveMaxPool2dBackward";
  Shape<c10::SymInt> size;

  Tensor operator()(const Tensor& g, const Tensor& places) const {
    return max_backward_op().call(g, places, size);
  }
  Gather adjoint(const Tensor&) const { return {}; }
};

Scatter Gather::adjoint(const Tensor& x) const { return {owned(x.sym_sizes())}; }

Tensor avg_autograd(const Tensor& input, SymInts output_size) {
  return map_autograd(input, Tensor(), Average{owned(output_size)});
}

Tensor avg_backward_autograd(const Tensor& grad_output, SymInts input_size) {
  return map_autograd(grad_output, Tensor(), Spread{owned(input_size)});
}

std::tuple<Tensor, Tensor> index_autograd(const Tensor& input, SymInts output_size) {
  return selection_autograd(input, Gather{}, [&] { return index_op().call(input, output_size); });
}

Tensor max_autograd(const Tensor& input, SymInts output_size) {
  if (needs_derivative(input)) return std::get<0>(index_autograd(input, output_size));
  const Guard guard;
  return max_op().call(input, output_size);
}

Tensor max_backward_autograd(const Tensor& grad_output, const Tensor& indices, SymInts input_size) {
  return map_autograd(grad_output, indices, Scatter{owned(input_size)});
}

Tensor gather_autograd(const Tensor& input, const Tensor& indices) {
  return map_autograd(input, indices, Gather{});
}

void register_kernels(torch::Library& m) {
  m.impl("adaptive_avg_pool2d", NativeOnGpu<avg_forward>::call);
  m.impl("adaptive_avg_pool2d_backward", NativeOnGpu<avg_backward>::call);
  m.impl("adaptive_max_pool2d", NativeOnGpu<max_forward>::call);
  m.impl("adaptive_max_pool2d_with_indices", NativeOnGpu<index_forward>::call);
  m.impl("adaptive_max_pool2d_backward", NativeOnGpu<max_backward>::call);
  m.impl("adaptive_max_pool2d_gather", NativeOnGpu<gather>::call);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def("adaptive_avg_pool2d(Tensor input, SymInt[2] output_size) -> Tensor", tags);
  m.def("adaptive_avg_pool2d_backward(Tensor grad_output, SymInt[] input_size) -> Tensor", tags);
  m.def("adaptive_max_pool2d(Tensor input, SymInt[2] output_size) -> Tensor", tags);
  m.def("adaptive_max_pool2d_with_indices(Tensor input, SymInt[2] output_size) -> (Tensor, Tensor)", tags);
  m.def("adaptive_max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt[] input_size) -> Tensor", tags);
  m.def("adaptive_max_pool2d_gather(Tensor input, Tensor indices) -> Tensor", tags);
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("adaptive_avg_pool2d", avg_forward_meta);
  m.impl("adaptive_avg_pool2d_backward", avg_backward_meta);
  m.impl("adaptive_max_pool2d", max_forward_meta);
  m.impl("adaptive_max_pool2d_with_indices", index_forward_meta);
  m.impl("adaptive_max_pool2d_backward", max_backward_meta);
  m.impl("adaptive_max_pool2d_gather", gather_meta);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("adaptive_avg_pool2d", avg_autograd);
  m.impl("adaptive_avg_pool2d_backward", avg_backward_autograd);
  m.impl("adaptive_max_pool2d", max_autograd);
  m.impl("adaptive_max_pool2d_with_indices", index_autograd);
  m.impl("adaptive_max_pool2d_backward", max_backward_autograd);
  m.impl("adaptive_max_pool2d_gather", gather_autograd);
}

}  // namespace cisdl::ops
