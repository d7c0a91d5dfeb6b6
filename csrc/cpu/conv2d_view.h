// A convolution with free strides for weight and output: what the packed and the direct kernel compute. Forward
// convolution and the gradient to the input both come down to it; NCHW.
//
// The gradient to the input of a stride-1 convolution is a convolution of grad_output with the kernel turned
// around, channels swapped and padding dilation*(R-1) - padding. With a stride, input rows h fall into stride_h
// classes by (h + pad) mod stride_h, columns likewise; only some kernel rows, evenly spaced, reach the rows of a
// class, so that each pair of classes is a stride-1 convolution of its own, with a part of the kernel, whose
// results land stride apart in grad_input. No multiplication by an inserted zero is ever made.
#pragma once

#include "gemm.h"

namespace cisdl {
namespace {

CISDL_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Groups, channels and sizes are those of `p`; its padding may be negative, which crops.
template <class T>
struct Conv2dView {
  Conv2dProblem p;
  const T* input;   // [batch, in_channels, in_h, in_w], dense
  const T* weight;  // tap (0, 0) of the first input and output channel
  int64_t weight_group, weight_row, weight_channel, weight_r, weight_s;  // strides; row: output channel
  const T* bias;                                                         // [out_channels], or null
  T* output;                                     // pixel (0, 0) of the first image and channel
  int64_t out_image, out_channel, out_y, out_x;  // strides
  T least = kNoLeast;                            // no output becomes less

  bool plane_is_run() const { return out_x == 1 && out_y == p.out_w; }
  bool weight_is_dense() const {
    return weight_s == 1 && weight_r == p.kernel_w && weight_channel == p.kernel_h * p.kernel_w;
  }
};

// Packs taps [first_tap, first_tap + num_taps) of `rows` output channels as [tap][rows]; `weight` is tap 0 of the
// first of them. May write kPackSlack elements past the end.
template <class T>
void pack_weight_tile(const Conv2dView<T>& view, const T* weight, int64_t rows, int64_t first_tap,
                      int64_t num_taps, T* dst) {
  const int64_t kernel_w = view.p.kernel_w, cells = view.p.kernel_h * kernel_w;
  if (view.weight_is_dense()) {
    pack_a<T>({weight + first_tap, view.weight_row, 1}, rows, num_taps, dst);
    return;
  }
  for (int64_t tap = first_tap; tap < first_tap + num_taps; ++tap) {
    const T* src = weight + tap / cells * view.weight_channel + tap % cells / kernel_w * view.weight_r +
                   tap % kernel_w * view.weight_s;
    for (int64_t i = 0; i < rows; ++i) *dst++ = src[i * view.weight_row];
  }
}

// Lanes first, first+1, ... each followed by a lane of b.
template <class T, bool High>
struct SpreadLanes {
  static constexpr int at(int lane) { return lane % 2 ? kWidth<T> + lane : lane / 2 + (High ? kWidth<T> / 2 : 0); }
};

// dst[0], dst[2], ... = the even lanes of v, n of them (0 < n <= W/2), plus what is there if `accumulate`. What
// lies between them is written back as it was.
template <class T>
CISDL_INLINE void store_even(T* dst, Vec<T> v, Mask<T> even, int64_t n, bool accumulate) {
  const Vec<T> old = load_partial(dst, 2 * n - 1);
  store_partial(dst, select<T>(even, accumulate ? v + old : v, old), 2 * n - 1);
}

// dst[i * step] = src[i] + bias, or + what is there if `accumulate`, for i < n; with a step of 1, which forward
// convolutions have, it is `least` at the least. Reads whole vectors of src.
template <class T>
CISDL_INLINE void store_strided(T* dst, int64_t step, const T* src, int64_t n, T bias, bool accumulate,
                                T least = kNoLeast) {
  constexpr int W = kWidth<T>;
  if (step == 1) {
    const Vec<T> bound = set1(least);
    for (int64_t i = 0; i < n; i += W) {
      const Vec<T> v = load(src + i);
      if (i + W <= n)
        store(dst + i, at_least<T>(v + (accumulate ? load(dst + i) : set1(bias)), bound));
      else
        store_partial(dst + i, at_least<T>(v + (accumulate ? load_partial(dst + i, n - i) : set1(bias)), bound),
                      n - i);
    }
  } else if (step == 2) {
    const Vec<T> zeros = zero<T>(), ones = set1(T(1));
    const Mask<T> even = shuffle<T, SpreadLanes<T, false>>(ones, zeros) != zeros;
    const Vec<T> add = accumulate ? zeros : set1(bias);
    for (int64_t i = 0; i < n; i += W) {
      const Vec<T> v = load(src + i) + add;
      const Vec<T> low = shuffle<T, SpreadLanes<T, false>>(v, v), high = shuffle<T, SpreadLanes<T, true>>(v, v);
      if (i + W <= n) {
        store_even(dst + 2 * i, low, even, W / 2, accumulate);
        store_even(dst + 2 * i + W, high, even, W / 2, accumulate);
      } else {
        store_even(dst + 2 * i, low, even, smaller(n - i, W / 2), accumulate);
        if (n - i > W / 2) store_even(dst + 2 * i + W, high, even, n - i - W / 2, accumulate);
      }
    }
  } else {
    for (int64_t i = 0; i < n; ++i) dst[i * step] = src[i] + (accumulate ? dst[i * step] : bias);
  }
}

template <class Args>
bool conv2d_is_nchw(const Args& args) {
  return args.layout == Layout::nchw;
}

// A 1x1 convolution without stride or padding does not care for rows: its plane may be taken as one.
CISDL_INLINE bool is_pointwise(const Conv2dProblem& p) {
  return p.kernel_h * p.kernel_w == 1 && p.stride_h * p.stride_w == 1 && p.pad_top == 0 && p.pad_left == 0 &&
         p.out_h == p.in_h && p.out_w == p.in_w;
}
CISDL_INLINE void take_plane_as_row(Conv2dProblem& p) {
  p.in_w = p.out_w *= p.out_h;
  p.in_h = p.out_h = 1;
}
// Or cut into rows of one vector, where it comes out even: rows one below the other then follow on each other in
// memory. (Four rows of each of 64 channels, as a tile reads them, are more streams than the hardware prefetches.)
// Returns whether it was.
template <class T>
CISDL_INLINE bool take_vectors_as_rows(Conv2dProblem& p) {
  constexpr int W = kWidth<T>;
  const int64_t plane = p.in_h * p.in_w;
  if (!is_pointwise(p) || plane % W != 0) return false;
  p.in_h = p.out_h = plane / W;
  p.in_w = p.out_w = W;
  return true;
}

template <class T>
Conv2dView<T> forward_view(const Conv2dForward<T>& args) {
  const Conv2dProblem& p = args.p;
  const int64_t cells = p.kernel_h * p.kernel_w, taps = p.in_channels / p.groups * cells;
  const int64_t plane = p.out_h * p.out_w;
  return {.p = p,
          .input = args.input,
          .weight = args.weight,
          .weight_group = p.out_channels / p.groups * taps,
          .weight_row = taps,
          .weight_channel = cells,
          .weight_r = p.kernel_w,
          .weight_s = 1,
          .bias = args.bias,
          .output = args.output,
          .out_image = p.out_channels * plane,
          .out_channel = plane,
          .out_y = p.out_w,
          .out_x = 1,
          .least = args.least};
}

// One class of input rows (or columns): those h = first + i*stride, 0 <= i < count, that kernel rows
// tap = first_tap + j*tap_step, 0 <= j < taps, read; input row i of the class and tap j meet at output row
// i + offset - j*dilation.
struct StrideClass {
  int64_t first, count;
  int64_t first_tap, taps, tap_step;
  int64_t offset, dilation;

  StrideClass(int64_t phase, int64_t in, int64_t pad, int64_t stride, int64_t kernel, int64_t dil) {
    // h + pad = phase (mod stride), h >= 0
    first = (phase - pad % stride + stride) % stride;
    count = first < in ? ceil_div(in - first, stride) : 0;
    // r * dil = phase (mod stride): r repeats every stride / gcd(stride, dil)
    int64_t a = stride, b = dil;
    while (b) {
      const int64_t rest = a % b;
      a = b;
      b = rest;
    }
    tap_step = stride / a;
    dilation = dil / a;
    for (first_tap = 0; first_tap < tap_step && first_tap * dil % stride != phase;) ++first_tap;
    taps = first_tap < tap_step && first_tap < kernel ? ceil_div(kernel - first_tap, tap_step) : 0;
    offset = taps ? (first + pad - first_tap * dil) / stride : 0;
  }
};

template <class T>
Conv2dView<T> backward_input_view(const Conv2dBackwardInput<T>& args, const StrideClass& h, const StrideClass& w) {
  const Conv2dProblem& p = args.p;
  const int64_t plane = p.in_h * p.in_w, cells = p.kernel_h * p.kernel_w;
  // Turned around: tap j here is tap taps-1-j of the class.
  const int64_t last_r = h.first_tap + (h.taps - 1) * h.tap_step, last_s = w.first_tap + (w.taps - 1) * w.tap_step;
  const int64_t group_in = p.in_channels / p.groups, group_out = p.out_channels / p.groups;
  return {.p = {.batch = p.batch,
                .in_channels = p.out_channels,
                .in_h = p.out_h,
                .in_w = p.out_w,
                .out_channels = p.in_channels,
                .kernel_h = h.taps,
                .kernel_w = w.taps,
                .out_h = h.count,
                .out_w = w.count,
                .stride_h = 1,
                .stride_w = 1,
                .pad_top = (h.taps - 1) * h.dilation - h.offset,
                .pad_left = (w.taps - 1) * w.dilation - w.offset,
                .dilation_h = h.dilation,
                .dilation_w = w.dilation,
                .groups = p.groups},
          .input = args.grad_output,
          .weight = args.weight + last_r * p.kernel_w + last_s,
          .weight_group = group_out * group_in * cells,
          .weight_row = cells,
          .weight_channel = group_in * cells,
          .weight_r = -h.tap_step * p.kernel_w,
          .weight_s = -w.tap_step,
          .bias = nullptr,
          .output = args.grad_input + h.first * p.in_w + w.first,
          .out_image = p.in_channels * plane,
          .out_channel = plane,
          .out_y = p.stride_h * p.in_w,
          .out_x = p.stride_w};
}

// Runs run(view) for every pair of classes; first writes zeros if there are pixels that no output pixel reads.
template <class T, class Run>
void for_each_stride_class(const Conv2dBackwardInput<T>& args, const Parallel& par, const Run& run) {
  const Conv2dProblem& p = args.p;
  const auto for_each = [&](auto&& body) {
    for (int64_t a = 0; a < p.stride_h; ++a)
      for (int64_t b = 0; b < p.stride_w; ++b) {
        const StrideClass h(a, p.in_h, p.pad_top, p.stride_h, p.kernel_h, p.dilation_h);
        const StrideClass w(b, p.in_w, p.pad_left, p.stride_w, p.kernel_w, p.dilation_w);
        if (h.count > 0 && w.count > 0) body(h, w);
      }
  };
  bool unread = false;
  for_each([&](const StrideClass& h, const StrideClass& w) { unread |= h.taps == 0 || w.taps == 0; });
  if (unread) {
    const int64_t plane = p.in_h * p.in_w;
    parallel_for(par, p.batch * p.in_channels, grain_for(plane), [&](int64_t begin, int64_t end) {
      std::memset(args.grad_input + begin * plane, 0, static_cast<size_t>((end - begin) * plane) * sizeof(T));
    });
  }
  for_each([&](const StrideClass& h, const StrideClass& w) {
    if (h.taps > 0 && w.taps > 0) run(backward_input_view(args, h, w));
  });
}

}  // namespace
}  // namespace cisdl
