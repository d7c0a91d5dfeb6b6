// What the pooling ops share: the options of a window, their checks, and the shape of what comes out.
#pragma once

#include "reduced_precision.h"
#include "tensor_cores.h"

namespace cisdl::ops {

using Ints = at::IntArrayRef;
using SymInts = c10::SymIntArrayRef;
template <class I>
using Shape = c10::SmallVector<I, 4>;

inline c10::SmallVector<c10::SymInt, 4> owned(SymInts v) { return {v.begin(), v.end()}; }

constexpr int64_t kNoDilation[] = {1, 1};

struct PoolOptions {
  const char* op;
  Ints kernel_size, stride, padding, dilation;
};

// An image with something in it; only the batch may be empty (torch's rule).
template <class I>
ImageSizes<I> pooled_image(const char* op, const char* name, c10::ArrayRef<I> s) {
  const auto x = image_sizes<I>(op, name, s);
  TORCH_CHECK(x.c > 0 && x.h > 0 && x.w > 0, op, ": ", name,
              ": expected at least one channel, row and column, got shape ", s);
  return x;
}

// How many cells a window reaches over along one dimension.
inline int64_t reach_of(const PoolOptions& o, int dim) { return (o.kernel_size[dim] - 1) * o.dilation[dim] + 1; }

// Everything but the image.
inline void check_windows(const PoolOptions& o) {
  check_pair(o.op, "kernel_size", o.kernel_size, 1);
  check_pair(o.op, "stride", o.stride, 1);
  check_pair(o.op, "padding", o.padding, 0);
  check_pair(o.op, "dilation", o.dilation, 1);
  for (int d = 0; d < 2; ++d)
    TORCH_CHECK(o.padding[d] <= o.kernel_size[d] / 2, o.op,
                ": padding: expected at most half of kernel_size = ", o.kernel_size, ", got ", o.padding);
}

template <class I>
I pooled_size(const PoolOptions& o, int dim, const I& in, bool ceil_mode) {
  const int64_t reach = reach_of(o, dim), stride = o.stride[dim], pad = o.padding[dim];
  // In ceil mode a window may begin in the image and reach up to a stride beyond the padding.
  const I room = in + 2 * pad + (ceil_mode ? stride - 1 : 0);
  TORCH_CHECK(room >= reach, o.op, ": input: expected a padded ", dim == 0 ? "height" : "width", " of at least ",
              reach - (ceil_mode ? stride - 1 : 0), " (kernel_size of ", o.kernel_size[dim], " with dilation ",
              o.dilation[dim], "), got ", in + 2 * pad);
  const I out = (room - reach) / stride + 1;
  if (!ceil_mode) return out;
  // The last window must start inside the image or its left padding, or it would see nothing.
  if ((out - 1) * stride >= in + pad) return out - 1;
  return out;
}

// The shape of the output, after every check.
template <class I>
Shape<I> pooled_shape(c10::ArrayRef<I> input, const PoolOptions& o, bool ceil_mode) {
  check_windows(o);
  const auto x = pooled_image<I>(o.op, "input", input);
  const I h = pooled_size<I>(o, 0, x.h, ceil_mode);
  return x.with(x.c, h, pooled_size<I>(o, 1, x.w, ceil_mode));
}

// Whether `pooled` has the shape that comes of an input of input_size in ceil mode; refused if it is neither that
// nor the one that comes without. (Which it was is not kept: the windows that both have are the same.)
template <class I>
bool is_ceil_mode(const char* name, const Tensor& pooled, c10::ArrayRef<I> input_size, const PoolOptions& o) {
  check_windows(o);
  const auto got = sizes_of<I>(pooled);
  const auto x = pooled_image<I>(o.op, "input", input_size);
  if (x.h + 2 * o.padding[0] >= reach_of(o, 0) && x.w + 2 * o.padding[1] >= reach_of(o, 1) &&
      got.equals(c10::ArrayRef<I>(pooled_shape<I>(input_size, o, false))))
    return false;
  check_shape<I>(o.op, name, pooled, pooled_shape<I>(input_size, o, true));
  return true;
}

// A stride that no second window uses, and a dilation that no second tap uses, may be huge: 1 does as well, and
// keeps the kernels' addresses small.
inline Pool2dProblem pool_problem(Ints input, Ints output, const PoolOptions& o) {
  const auto x = image_sizes<int64_t>(o.op, "input", input);
  const auto y = image_sizes<int64_t>(o.op, "output", output);
  const auto used = [](int64_t count, int64_t step) { return count > 1 ? step : 1; };
  return {x.n,
          x.c,
          x.h,
          x.w,
          y.h,
          y.w,
          o.kernel_size[0],
          o.kernel_size[1],
          used(y.h, o.stride[0]),
          used(y.w, o.stride[1]),
          o.padding[0],
          o.padding[1],
          used(o.kernel_size[0], o.dilation[0]),
          used(o.kernel_size[1], o.dilation[1])};
}

// A tensor for the places of maxima, beside an output of `shape`.
template <class I>
Tensor empty_places(c10::ArrayRef<I> shape, const Tensor& input, at::ScalarType dtype, at::MemoryFormat format) {
  const auto options = input.options().dtype(dtype);
  if constexpr (std::is_same_v<I, c10::SymInt>) {
    return at::empty_symint(shape, options, format);
  } else {
    return at::empty(shape, options, format);
  }
}

// An op's argument `indices`: such places, one for each element of a tensor whose shape has been checked.
inline void check_places(const char* op, const Tensor& indices, at::ScalarType dtype, const char* like_name,
                         const Tensor& like) {
  TORCH_CHECK(indices.device() == like.device(), op, ": indices: expected device ", like.device(), " as ",
              like_name, ", got ", indices.device());
  TORCH_CHECK(indices.scalar_type() == dtype, op, ": indices: expected dtype ", dtype_name(dtype), ", got ",
              dtype_name(indices.scalar_type()));
}

inline PoolIndex kind_of(const Tensor& places) {
  return places.scalar_type() == at::kLong ? PoolIndex::flat : PoolIndex::window;
}

// input at `places`, which lie in memory as the op that made them chose.
inline Tensor run_max_gather(const Tensor& input, const Tensor& places, const Pool2dProblem& p) {
  const bool last = is_channels_last(places);
  const auto format = memory_format(last);
  Tensor output = empty_of<int64_t>(places.sizes(), input, format);
  if (output.numel() == 0) return output;
  const Tensor x = input.contiguous(format), i = places.contiguous(format);
  const auto list = [](const auto& kernels) -> const auto& { return kernels.max_gather; };
  run_native(Op::max_pool2d_gather, input, pool2d_kernels(), list, [&](auto t) {
    using T = decltype(t);
    return MaxPool2dGather<T>{p,
                              layout_of(last),
                              kind_of(places),
                              numbers_or_null<T>(x),
                              i.const_data_ptr(),
                              mutable_numbers_or_null<T>(output)};
  });
  return output;
}

}  // namespace cisdl::ops
