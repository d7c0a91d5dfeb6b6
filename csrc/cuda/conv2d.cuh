// Operands and epilogues that turn the three products of a convolution into tiled matrix products (gemm.cuh), with
// Cg = in_channels / groups and Kg = out_channels / groups, one product per group:
//
//                     rows (m)              columns (n)        depth (k)
//   forward           output pixel (n,p,q)  out channel (Kg)   tap (c, r, s)           patches x weights
//   backward input    input pixel (n,h,w)   in channel (Cg)    (out channel, r, s)     gathered gradient x weights
//   backward weight   out channel (Kg)      tap (c, r, s)      output pixel (n,p,q)    gradient x patches
//
// This is implicit GEMM (Chetlur et al. 2014, cuDNN): the unfolded image exists only as 64 x 16 tiles in shared
// memory. Backward input gathers instead of scattering: an input cell asks, for every tap, which output pixel read
// it through that tap, if any; so nothing is added twice and no atomics are needed. With a stride of s it
// multiplies s^2 times as many terms as necessary, all but one in s^2 of them zero.
//
// Layout: a tap is ordered (c, r, s) in nchw and (r, s, c) in nhwc, so that the weight's taps are dense in both,
// and neighbouring threads read neighbouring pixels (nchw) or channels (nhwc) of an image.
//
// Index arithmetic: what depends on a row or column is worked out once per tile, what depends on the depth once
// per step; a load adds the two and tests the image's borders.
#pragma once

#include "gemm.cuh"

namespace cisdl::cuda {

// What every operand of a convolution knows.
struct Conv2dShape {
  Conv2dProblem p;
  ImageStrides in, out;  // of input and output, and their gradients
  int64_t group_in_channels, group_out_channels;
};

inline Conv2dShape conv2d_shape(const Conv2dProblem& p, Layout layout) {
  return {p, image_strides(layout, p.in_channels, p.in_h, p.in_w),
          image_strides(layout, p.out_channels, p.out_h, p.out_w), p.in_channels / p.groups,
          p.out_channels / p.groups};
}

// Whether every coordinate of the padded image, in both directions from any cell of it, fits in 30 bits.
inline bool coordinates_are_short(const Conv2dProblem& p) {
  const auto fits = [](int64_t out, int64_t stride, int64_t kernel, int64_t dilation, int64_t pad, int64_t in) {
    constexpr int64_t kMost = int64_t{1} << 15, kTotal = int64_t{1} << 28;
    return stride < kMost && kernel < kMost && dilation < kMost && out < kTotal / stride && pad < kTotal &&
           in < kTotal && kernel * dilation < kTotal;
  };
  return fits(p.out_h, p.stride_h, p.kernel_h, p.dilation_h, p.pad_top, p.in_h) &&
         fits(p.out_w, p.stride_w, p.kernel_w, p.dilation_w, p.pad_left, p.in_w);
}

struct Pixel {
  int64_t n, h, w;
};

// The pixel at `index` of [batch][height][width].
__device__ inline Pixel split_pixel(int64_t index, int64_t height, int64_t width) {
  Pixel pixel;
  pixel.w = index;
  pixel.h = divide_off(pixel.w, width);
  pixel.n = divide_off(pixel.h, height);
  return pixel;
}

struct Tap {
  int64_t c, r, s;
};

// The tap at `index` of [channels][kernel_h][kernel_w] (nchw) or [kernel_h][kernel_w][channels] (nhwc).
template <Layout layout>
__device__ Tap split_tap(int64_t index, int64_t channels, const Conv2dProblem& p) {
  Tap tap;
  if constexpr (layout == Layout::nchw) {
    tap.s = index;
    tap.r = divide_off(tap.s, p.kernel_w);
    tap.c = divide_off(tap.r, p.kernel_h);
  } else {
    tap.c = index;
    tap.s = divide_off(tap.c, channels);
    tap.r = divide_off(tap.s, p.kernel_w);
  }
  return tap;
}

// Where in the input a window begins (outside the image where there is padding), or how far a tap lies from that.
template <class Index>
struct InputPlace {
  int64_t offset;  // in elements
  Index h, w;
};

template <class Index>
__device__ InputPlace<Index> window_place(const Conv2dShape& shape, int64_t index) {
  const Conv2dProblem& p = shape.p;
  const Pixel pixel = split_pixel(index, p.out_h, p.out_w);
  const int64_t h = pixel.h * p.stride_h - p.pad_top;
  const int64_t w = pixel.w * p.stride_w - p.pad_left;
  return {pixel.n * shape.in.n + h * shape.in.h + w * shape.in.w, static_cast<Index>(h), static_cast<Index>(w)};
}

template <Layout layout, class Index>
__device__ InputPlace<Index> tap_place(const Conv2dShape& shape, int64_t index) {
  const Tap tap = split_tap<layout>(index, shape.group_in_channels, shape.p);
  const int64_t h = tap.r * shape.p.dilation_h;
  const int64_t w = tap.s * shape.p.dilation_w;
  return {tap.c * shape.in.c + h * shape.in.h + w * shape.in.w, static_cast<Index>(h), static_cast<Index>(w)};
}

// The input under a tap of a window; null outside the image.
template <class T, class Index>
__device__ const T* input_at(const Conv2dShape& shape, const T* input, const InputPlace<Index>& window,
                             const InputPlace<Index>& tap) {
  const Index h = window.h + tap.h;
  const Index w = window.w + tap.w;
  if (!CISDL_INSIDE(h >= 0 && h < shape.p.in_h)) return nullptr;
  if (!CISDL_INSIDE(w >= 0 && w < shape.p.in_w)) return nullptr;
  return input + window.offset + tap.offset;
}

// ------------------------------------------------------------------------------------------------- forward

// A of forward: line = output pixel, depth = tap.
template <class T, Layout layout, class Index = int64_t>
struct PatchByPixel {
  using Scalar = T;
  using Line = InputPlace<Index>;
  using Step = InputPlace<Index>;
  static constexpr bool along_depth = layout == Layout::nhwc;

  Conv2dShape shape;
  const T* input;

  __device__ Line line(int64_t group, int64_t index) const {
    Line window = window_place<Index>(shape, index);
    window.offset += group * shape.group_in_channels * shape.in.c;
    return window;
  }
  __device__ Step step(int64_t depth) const { return tap_place<layout, Index>(shape, depth); }
  __device__ const T* at(const Line& window, const Step& tap) const { return input_at(shape, input, window, tap); }
  __device__ const T* data() const { return input; }
};

// C of forward and of backward input: row = pixel, column = channel of the group.
template <class T, Layout layout>
struct ImageEpilogue {
  static constexpr bool along_rows = layout == Layout::nchw;

  T* output;
  const T* bias;  // [groups * columns], or null
  ImageStrides strides;
  int64_t height, width;
  Sum<T> least = kNoLeast;  // no output becomes less

  template <int n>
  __device__ void store(int64_t group, int64_t row, int64_t column, int64_t columns,
                        const Sum<T> (&values)[n]) const {
    const Pixel pixel = split_pixel(row, height, width);
    const int64_t channel = group * columns + column;
    T* out = output + pixel.n * strides.n + pixel.h * strides.h + pixel.w * strides.w + channel * strides.c;
    Sum<T> results[n];
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const Sum<T> value =
          bias && CISDL_INSIDE(column + j < columns) ? values[j] + Sum<T>(bias[channel + j]) : values[j];
      results[j] = value < least ? least : value;
    }
    if constexpr (layout == Layout::nhwc) {
      store_values(out, columns - column, results);
    } else {
#pragma unroll
      for (int j = 0; j < n; ++j)
        if (CISDL_INSIDE(column + j < columns)) out[j * strides.c] = T(results[j]);
    }
  }
};

// ------------------------------------------------------------------------------------------ backward input

// A of backward input: line = input pixel, depth = (out channel, r, s), ordered like a tap.
template <class T, Layout layout, class Index = int64_t>
struct GradientByPixel {
  using Scalar = T;
  struct Line {
    int64_t offset;  // of the image and group
    Index h, w;      // of the pixel in the padded image
  };
  using Step = InputPlace<Index>;
  static constexpr bool along_depth = layout == Layout::nhwc;

  Conv2dShape shape;
  const T* grad_output;

  __device__ Line line(int64_t group, int64_t index) const {
    const Pixel pixel = split_pixel(index, shape.p.in_h, shape.p.in_w);
    return {pixel.n * shape.out.n + group * shape.group_out_channels * shape.out.c,
            static_cast<Index>(pixel.h + shape.p.pad_top), static_cast<Index>(pixel.w + shape.p.pad_left)};
  }
  __device__ Step step(int64_t depth) const {
    const Tap tap = split_tap<layout>(depth, shape.group_out_channels, shape.p);
    return {tap.c * shape.out.c, static_cast<Index>(tap.r * shape.p.dilation_h),
            static_cast<Index>(tap.s * shape.p.dilation_w)};
  }
  __device__ const T* at(const Line& pixel, const Step& tap) const {
    // The window that sees this pixel through this tap begins here, if one does.
    Index h = pixel.h - tap.h;
    Index w = pixel.w - tap.w;
    if (!CISDL_INSIDE(h >= 0 && w >= 0)) return nullptr;
    const Index p = divide_off(h, static_cast<Index>(shape.p.stride_h));
    const Index q = divide_off(w, static_cast<Index>(shape.p.stride_w));
    if (h != 0 || w != 0) return nullptr;
    if (!CISDL_INSIDE(p < shape.p.out_h)) return nullptr;
    if (!CISDL_INSIDE(q < shape.p.out_w)) return nullptr;
    return grad_output + pixel.offset + tap.offset + p * shape.out.h + q * shape.out.w;
  }
  __device__ const T* data() const { return grad_output; }
};

// B of backward input: line = in channel of the group, depth = (out channel, r, s), ordered like a tap.
template <class T, Layout layout>
struct WeightByInChannel {
  using Scalar = T;
  using Line = int64_t;
  using Step = int64_t;
  static constexpr bool along_depth = layout == Layout::nchw;

  Conv2dShape shape;
  const T* weight;

  __device__ int64_t taps() const { return shape.p.kernel_h * shape.p.kernel_w; }

  __device__ Line line(int64_t group, int64_t index) const {
    const int64_t filter = shape.group_in_channels * taps();
    return group * shape.group_out_channels * filter + (layout == Layout::nchw ? index * taps() : index);
  }
  __device__ Step step(int64_t depth) const {
    const Tap tap = split_tap<layout>(depth, shape.group_out_channels, shape.p);
    const int64_t place = tap.r * shape.p.kernel_w + tap.s;
    return tap.c * shape.group_in_channels * taps() +
           (layout == Layout::nchw ? place : place * shape.group_in_channels);
  }
  __device__ const T* at(Line line, Step step) const { return weight + line + step; }
  __device__ const T* data() const { return weight; }
};

// ----------------------------------------------------------------------------------------- backward weight

// A of backward weight: line = out channel of the group, depth = output pixel.
template <class T, Layout layout>
struct GradientByChannel {
  using Scalar = T;
  using Line = int64_t;
  using Step = int64_t;
  static constexpr bool along_depth = layout == Layout::nchw;

  Conv2dShape shape;
  const T* grad_output;

  __device__ Line line(int64_t group, int64_t index) const {
    return (group * shape.group_out_channels + index) * shape.out.c;
  }
  __device__ Step step(int64_t depth) const {
    const Pixel pixel = split_pixel(depth, shape.p.out_h, shape.p.out_w);
    return pixel.n * shape.out.n + pixel.h * shape.out.h + pixel.w * shape.out.w;
  }
  __device__ const T* at(Line line, Step step) const { return grad_output + line + step; }
  __device__ const T* data() const { return grad_output; }
};

// B of backward weight: line = tap, depth = output pixel.
template <class T, Layout layout, class Index = int64_t>
struct PatchByTap {
  using Scalar = T;
  using Line = InputPlace<Index>;
  using Step = InputPlace<Index>;
  static constexpr bool along_depth = layout == Layout::nchw;

  Conv2dShape shape;
  const T* input;

  __device__ Line line(int64_t group, int64_t index) const {
    Line tap = tap_place<layout, Index>(shape, index);
    tap.offset += group * shape.group_in_channels * shape.in.c;
    return tap;
  }
  __device__ Step step(int64_t depth) const { return window_place<Index>(shape, depth); }
  __device__ const T* at(const Line& tap, const Step& window) const { return input_at(shape, input, window, tap); }
  __device__ const T* data() const { return input; }
};

}  // namespace cisdl::cuda
