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
struct InputPlace {
  int64_t offset;  // in elements
  int64_t h, w;
};

__device__ inline InputPlace window_place(const Conv2dShape& shape, int64_t index) {
  const Conv2dProblem& p = shape.p;
  const Pixel pixel = split_pixel(index, p.out_h, p.out_w);
  const int64_t h = pixel.h * p.stride_h - p.pad_top;
  const int64_t w = pixel.w * p.stride_w - p.pad_left;
  return {pixel.n * shape.in.n + h * shape.in.h + w * shape.in.w, h, w};
}

template <Layout layout>
__device__ InputPlace tap_place(const Conv2dShape& shape, int64_t index) {
  const Tap tap = split_tap<layout>(index, shape.group_in_channels, shape.p);
  const int64_t h = tap.r * shape.p.dilation_h;
  const int64_t w = tap.s * shape.p.dilation_w;
  return {tap.c * shape.in.c + h * shape.in.h + w * shape.in.w, h, w};
}

// The input under a tap of a window; zero outside the image.
template <class T>
__device__ T input_at(const Conv2dShape& shape, const T* input, const InputPlace& window, const InputPlace& tap) {
  const int64_t h = window.h + tap.h;
  const int64_t w = window.w + tap.w;
  const bool inside = h >= 0 && h < shape.p.in_h && w >= 0 && w < shape.p.in_w;
  return inside ? input[window.offset + tap.offset] : T(0);
}

// ------------------------------------------------------------------------------------------------- forward

// A of forward: line = output pixel, depth = tap.
template <class T, Layout layout>
struct PatchByPixel {
  using Scalar = T;
  using Line = InputPlace;
  using Step = InputPlace;
  static constexpr bool along_depth = layout == Layout::nhwc;

  Conv2dShape shape;
  const T* input;

  __device__ Line line(int64_t group, int64_t index) const {
    Line window = window_place(shape, index);
    window.offset += group * shape.group_in_channels * shape.in.c;
    return window;
  }
  __device__ Step step(int64_t depth) const { return tap_place<layout>(shape, depth); }
  __device__ T load(const Line& window, const Step& tap) const { return input_at(shape, input, window, tap); }
};

// C of forward and of backward input: row = pixel, column = channel of the group.
template <class T, Layout layout>
struct ImageEpilogue {
  static constexpr bool along_rows = layout == Layout::nchw;

  T* output;
  const T* bias;  // [groups * columns], or null
  ImageStrides strides;
  int64_t height, width;
  T least = kNoLeast;  // no output becomes less

  __device__ void store(int64_t group, int64_t row, int64_t column, int64_t columns,
                        const T (&values)[kFragment]) const {
    const Pixel pixel = split_pixel(row, height, width);
    T* out = output + pixel.n * strides.n + pixel.h * strides.h + pixel.w * strides.w;
#pragma unroll
    for (int j = 0; j < kFragment; ++j) {
      if (column + j >= columns) break;
      const int64_t channel = group * columns + column + j;
      const T value = bias ? values[j] + bias[channel] : values[j];
      out[channel * strides.c] = value < least ? least : value;
    }
  }
};

// ------------------------------------------------------------------------------------------ backward input

// A of backward input: line = input pixel, depth = (out channel, r, s), ordered like a tap.
template <class T, Layout layout>
struct GradientByPixel {
  using Scalar = T;
  struct Line {
    int64_t offset;  // of the image and group
    int64_t h, w;    // of the pixel in the padded image
  };
  using Step = InputPlace;
  static constexpr bool along_depth = layout == Layout::nhwc;

  Conv2dShape shape;
  const T* grad_output;

  __device__ Line line(int64_t group, int64_t index) const {
    const Pixel pixel = split_pixel(index, shape.p.in_h, shape.p.in_w);
    return {pixel.n * shape.out.n + group * shape.group_out_channels * shape.out.c, pixel.h + shape.p.pad_top,
            pixel.w + shape.p.pad_left};
  }
  __device__ Step step(int64_t depth) const {
    const Tap tap = split_tap<layout>(depth, shape.group_out_channels, shape.p);
    return {tap.c * shape.out.c, tap.r * shape.p.dilation_h, tap.s * shape.p.dilation_w};
  }
  __device__ T load(const Line& pixel, const Step& tap) const {
    // The window that sees this pixel through this tap begins here, if one does.
    int64_t h = pixel.h - tap.h;
    int64_t w = pixel.w - tap.w;
    if (h < 0 || w < 0) return T(0);
    const int64_t p = divide_off(h, shape.p.stride_h);
    const int64_t q = divide_off(w, shape.p.stride_w);
    if (h != 0 || w != 0 || p >= shape.p.out_h || q >= shape.p.out_w) return T(0);
    return grad_output[pixel.offset + tap.offset + p * shape.out.h + q * shape.out.w];
  }
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
  __device__ T load(Line line, Step step) const { return weight[line + step]; }
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
  __device__ T load(Line line, Step step) const { return grad_output[line + step]; }
};

// B of backward weight: line = tap, depth = output pixel.
template <class T, Layout layout>
struct PatchByTap {
  using Scalar = T;
  using Line = InputPlace;
  using Step = InputPlace;
  static constexpr bool along_depth = layout == Layout::nchw;

  Conv2dShape shape;
  const T* input;

  __device__ Line line(int64_t group, int64_t index) const {
    Line tap = tap_place<layout>(shape, index);
    tap.offset += group * shape.group_in_channels * shape.in.c;
    return tap;
  }
  __device__ Step step(int64_t depth) const { return window_place(shape, depth); }
  __device__ T load(const Line& tap, const Step& window) const { return input_at(shape, input, window, tap); }
};

}  // namespace cisdl::cuda
