// cisdl::max_pool2d, its gradient, and the gather that is the gradient's adjoint.
//
// max_pool2d comes in three forms: plain; _with_indices (torch's int64 places in the plane); _window, what
// training uses: the place in the window in one byte, an eighth of the traffic. The first and the last may take
// max(0, y), which is the same as pooling max(0, x) but reads and writes less; a place without gradient names no
// cell, and so the derivatives are the same. With the places fixed, pooling is
// the linear map max_pool2d_gather, y[o] = x[place of o], and max_pool2d_backward is its adjoint (linear_map.h).
#include "linear_map.h"
#include "pool2d.h"
#include "reduced_precision.h"

namespace cisdl::ops {
namespace {

using MaxSignature = Tensor(const Tensor&, Ints, Ints, Ints, Ints, bool, bool);
using WindowSignature = std::tuple<Tensor, Tensor>(const Tensor&, Ints, Ints, Ints, Ints, bool, bool);
using IndexSignature = std::tuple<Tensor, Tensor>(const Tensor&, Ints, Ints, Ints, Ints, bool);
using BackwardSignature = Tensor(const Tensor&, const Tensor&, SymInts, Ints, Ints, Ints, Ints, bool);
using GatherSignature = Tensor(const Tensor&, const Tensor&, Ints, Ints, Ints, Ints, bool);

const auto& max_op() {
  static const auto op = find_op<MaxSignature>("cisdl::max_pool2d");
  return op;
}

const auto& index_op() {
  static const auto op = find_op<IndexSignature>("cisdl::max_pool2d_with_indices");
  return op;
}

const auto& window_op() {
  static const auto op = find_op<WindowSignature>("cisdl::max_pool2d_window");
  return op;
}

const auto& backward_op() {
  static const auto op = find_op<BackwardSignature>("cisdl::max_pool2d_backward");
  return op;
}

const auto& gather_op() {
  static const auto op = find_op<GatherSignature>("cisdl::max_pool2d_gather");
  return op;
}

// Windows of at most 255 cells have their place in one byte.
at::ScalarType places_dtype(Ints kernel_size, bool flat) {
  return flat || kernel_size[0] * kernel_size[1] > 255 ? at::kLong : at::kByte;
}

// -------------------------------------------------------------------------------------------- forward

Tensor run_forward(const Tensor& input, const PoolOptions& o, const Shape<int64_t>& shape, bool relu,
                   const Tensor& places) {
  const bool last = is_channels_last(input);
  const auto format = memory_format(last);
  Tensor output = empty_of<int64_t>(shape, input, format);
  if (output.numel() == 0) return output;
  const Tensor x = input.contiguous(format);
  const auto list = [](const auto& kernels) -> const auto& { return kernels.max_forward; };
  run_native(Op::max_pool2d, input, pool2d_kernels(), list, [&](auto t) {
    using T = decltype(t);
    return MaxPool2dForward<T>{pool_problem(input.sizes(), shape, o),
                               layout_of(last),
                               places.defined() ? kind_of(places) : PoolIndex::none,
                               relu,
                               numbers_or_null<T>(x),
                               mutable_numbers_or_null<T>(output),
                               places.defined() ? places.mutable_data_ptr() : nullptr};
  });
  return output;
}

template <class I>
Shape<I> check_forward(const Tensor& input, const PoolOptions& o, bool ceil_mode) {
  check_dtype(o.op, "input", input);
  return pooled_shape<I>(sizes_of<I>(input), o, ceil_mode);
}

Tensor forward(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation, bool ceil_mode,
               bool relu) {
  const PoolOptions o{"max_pool2d", kernel_size, stride, padding, dilation};
  return run_forward(input, o, check_forward<int64_t>(input, o, ceil_mode), relu, Tensor());
}

Tensor forward_meta(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation,
                    bool ceil_mode, bool /*relu*/) {
  const PoolOptions o{"max_pool2d", kernel_size, stride, padding, dilation};
  return empty_of<c10::SymInt>(check_forward<c10::SymInt>(input, o, ceil_mode), input,
                               memory_format(is_channels_last(input)));
}

// With the place in the plane (flat) or in the window.
template <bool kFlat>
std::tuple<Tensor, Tensor> places_forward(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                          Ints dilation, bool ceil_mode, bool relu) {
  const PoolOptions o{"max_pool2d", kernel_size, stride, padding, dilation};
  const auto shape = check_forward<int64_t>(input, o, ceil_mode);
  const Tensor places = empty_places<int64_t>(shape, input, places_dtype(kernel_size, kFlat),
                                              memory_format(is_channels_last(input)));
  return {run_forward(input, o, shape, relu, places), places};
}

std::tuple<Tensor, Tensor> index_forward(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                         Ints dilation, bool ceil_mode) {
  return places_forward<true>(input, kernel_size, stride, padding, dilation, ceil_mode, false);
}

template <bool kFlat>
std::tuple<Tensor, Tensor> places_forward_meta(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                               Ints dilation, bool ceil_mode, bool /*relu*/) {
  const PoolOptions o{"max_pool2d", kernel_size, stride, padding, dilation};
  const auto shape = check_forward<c10::SymInt>(input, o, ceil_mode);
  const auto format = memory_format(is_channels_last(input));
  return {empty_of<c10::SymInt>(shape, input, format),
          empty_places<c10::SymInt>(shape, input, places_dtype(kernel_size, kFlat), format)};
}

std::tuple<Tensor, Tensor> index_forward_meta(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                              Ints dilation, bool ceil_mode) {
  return places_forward_meta<true>(input, kernel_size, stride, padding, dilation, ceil_mode, false);
}

// ---------------------------------------------------------------------------------- backward and gather

template <class I>
void check_backward(const Tensor& grad_output, const Tensor& indices, c10::ArrayRef<I> input_size,
                    const PoolOptions& o, bool flat) {
  check_dtype(o.op, "grad_output", grad_output);
  is_ceil_mode<I>("grad_output", grad_output, input_size, o);
  check_places(o.op, indices, places_dtype(o.kernel_size, flat), "grad_output", grad_output);
  check_shape<I>(o.op, "indices", indices, sizes_of<I>(grad_output));
}

Tensor backward(const Tensor& grad_output, const Tensor& indices, Ints input_size, Ints kernel_size, Ints stride,
                Ints padding, Ints dilation, bool flat) {
  const PoolOptions o{"max_pool2d_backward", kernel_size, stride, padding, dilation};
  check_backward<int64_t>(grad_output, indices, input_size, o, flat);
  // The layout is the one that forward chose: its indices carry it.
  const bool last = is_channels_last(indices);
  const auto format = memory_format(last);
  Tensor grad_input = empty_of<int64_t>(input_size, grad_output, format);
  if (grad_input.numel() == 0) return grad_input;
  const Tensor g = grad_output.contiguous(format), places = indices.contiguous(format);
  const auto list = [](const auto& kernels) -> const auto& { return kernels.max_backward; };
  run_native(Op::max_pool2d_backward, grad_output, pool2d_kernels(), list, [&](auto t) {
    using T = decltype(t);
    return MaxPool2dBackward<T>{pool_problem(input_size, grad_output.sizes(), o),
                                layout_of(last),
                                kind_of(places),
                                numbers_or_null<T>(g),
                                places.const_data_ptr(),
                                mutable_numbers_or_null<T>(grad_input)};
  });
  return grad_input;
}

Tensor backward_meta(const Tensor& grad_output, const Tensor& indices, SymInts input_size, Ints kernel_size,
                     Ints stride, Ints padding, Ints dilation, bool flat) {
  const PoolOptions o{"max_pool2d_backward", kernel_size, stride, padding, dilation};
  check_backward<c10::SymInt>(grad_output, indices, input_size, o, flat);
  return empty_of<c10::SymInt>(input_size, grad_output, memory_format(is_channels_last(indices)));
}

template <class I>
void check_gather(const Tensor& input, const Tensor& indices, const PoolOptions& o, bool flat) {
  check_dtype(o.op, "input", input);
  is_ceil_mode<I>("indices", indices, sizes_of<I>(input), o);
  check_places(o.op, indices, places_dtype(o.kernel_size, flat), "input", input);
}

Tensor gather(const Tensor& input, const Tensor& indices, Ints kernel_size, Ints stride, Ints padding,
              Ints dilation, bool flat) {
  const PoolOptions o{"max_pool2d_gather", kernel_size, stride, padding, dilation};
  check_gather<int64_t>(input, indices, o, flat);
  return run_max_gather(input, indices, pool_problem(input.sizes(), indices.sizes(), o));
}

Tensor gather_meta(const Tensor& input, const Tensor& indices, Ints kernel_size, Ints stride, Ints padding,
                   Ints dilation, bool flat) {
  const PoolOptions o{"max_pool2d_gather", kernel_size, stride, padding, dilation};
  check_gather<c10::SymInt>(input, indices, o, flat);
  return empty_of<c10::SymInt>(indices.sym_sizes(), input, memory_format(is_channels_last(indices)));
}

// ------------------------------------------------------------------------------------------- autograd

struct Windows {
  IntVector kernel_size, stride, padding, dilation;
  bool flat = false;
};

struct Scatter;

struct Gather {
  using Adjoint = Scatter;
  static constexpr const char* backward_name = "MaxPool2dDoubleBackward";
  Windows windows;

  Tensor operator()(const Tensor& x, const Tensor& places) const {
    const auto& [kernel_size, stride, padding, dilation, flat] = windows;
    return gather_op().call(x, places, kernel_size, stride, padding, dilation, flat);
  }
  Scatter adjoint(const Tensor& x) const;
};

struct Scatter {
  using Adjoint = Gather;
  static constexpr const char* backward_name = "MaxPool2dBackward";
  Windows windows;
  Shape<c10::SymInt> input_size;

  Tensor operator()(const Tensor& g, const Tensor& places) const {
    const auto& [kernel_size, stride, padding, dilation, flat] = windows;
    return backward_op().call(g, places, input_size, kernel_size, stride, padding, dilation, flat);
  }
  Gather adjoint(const Tensor&) const { return {windows}; }
};

Scatter Gather::adjoint(const Tensor& x) const { return {windows, owned(x.sym_sizes())}; }

std::tuple<Tensor, Tensor> index_autograd(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                          Ints dilation, bool ceil_mode) {
  const Gather map{{owned(kernel_size), owned(stride), owned(padding), owned(dilation), true}};
  return selection_autograd(
      input, map, [&] { return index_op().call(input, kernel_size, stride, padding, dilation, ceil_mode); });
}

std::tuple<Tensor, Tensor> window_autograd(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                           Ints dilation, bool ceil_mode, bool relu) {
  const Gather map{{owned(kernel_size), owned(stride), owned(padding), owned(dilation), false}};
  return selection_autograd(input, map, [&] {
    return window_op().call(input, kernel_size, stride, padding, dilation, ceil_mode, relu);
  });
}

Tensor forward_autograd(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation,
                        bool ceil_mode, bool relu) {
  if (needs_derivative(input))
    return std::get<0>(window_autograd(input, kernel_size, stride, padding, dilation, ceil_mode, relu));
  const Guard guard;
  return max_op().call(input, kernel_size, stride, padding, dilation, ceil_mode, relu);
}

Tensor backward_autograd(const Tensor& grad_output, const Tensor& indices, SymInts input_size, Ints kernel_size,
                         Ints stride, Ints padding, Ints dilation, bool flat) {
  return map_autograd(
      grad_output, indices,
      Scatter{{owned(kernel_size), owned(stride), owned(padding), owned(dilation), flat}, owned(input_size)});
}

Tensor gather_autograd(const Tensor& input, const Tensor& indices, Ints kernel_size, Ints stride, Ints padding,
                       Ints dilation, bool flat) {
  return map_autograd(input, indices,
                      Gather{{owned(kernel_size), owned(stride), owned(padding), owned(dilation), flat}});
}

void register_kernels(torch::Library& m) {
  m.impl("max_pool2d", NativeOnGpu<forward>::call);
  m.impl("max_pool2d_with_indices", NativeOnGpu<index_forward>::call);
  m.impl("max_pool2d_window", NativeOnGpu<places_forward<false>>::call);
  m.impl("max_pool2d_backward", NativeOnGpu<backward>::call);
  m.impl("max_pool2d_gather", NativeOnGpu<gather>::call);
}

}  // namespace

#define CISDL_WINDOW "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, "
#define CISDL_FORWARD_ARGUMENTS "(Tensor input, " CISDL_WINDOW "bool ceil_mode"

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def("max_pool2d" CISDL_FORWARD_ARGUMENTS ", bool relu=False) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("max_pool2d_with_indices" CISDL_FORWARD_ARGUMENTS ") -> (Tensor, Tensor)", {at::Tag::pt2_compliant_tag});
  m.def("max_pool2d_window" CISDL_FORWARD_ARGUMENTS ", bool relu=False) -> (Tensor, Tensor)",
        {at::Tag::pt2_compliant_tag});
  m.def("max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt[] input_size, " CISDL_WINDOW
        "bool flat) -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("max_pool2d_gather(Tensor input, Tensor indices, " CISDL_WINDOW "bool flat) -> Tensor",
        {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("max_pool2d", forward_meta);
  m.impl("max_pool2d_with_indices", index_forward_meta);
  m.impl("max_pool2d_window", places_forward_meta<false>);
  m.impl("max_pool2d_backward", backward_meta);
  m.impl("max_pool2d_gather", gather_meta);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("max_pool2d", forward_autograd);
  m.impl("max_pool2d_with_indices", index_autograd);
  m.impl("max_pool2d_window", window_autograd);
  m.impl("max_pool2d_backward", backward_autograd);
  m.impl("max_pool2d_gather", gather_autograd);
}

}  // namespace cisdl::ops
