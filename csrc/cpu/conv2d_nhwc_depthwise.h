// Depthwise convolution in channels_last (groups = channels in and out): lanes along the channels.
//
//   forward, gradient to the input   output[pixel][c] = bias[c] + sum over taps of input[pixel + tap][c] *
//   w[tap][c],
//                                    the same views and taps as conv2d_nhwc_view.h
//   gradient to the weight           dw[tap][c] = sum over pixels of dy[pixel][c] * input[pixel + tap][c]
//
// No channel meets another, so each loaded vector enters one FMA: loads bound this, not arithmetic. Forward keeps
// kDepthwisePixels neighbouring pixels in registers while the taps pass; pixels with a tap outside the image go
// alone and skip it. The weight gradient sums three neighbouring taps together, so that a gradient is loaded once
// for three inputs, over bands of about kMaxChain pixels, which are then added up. Threads share output rows, and
// vectors of channels for the weight.
#pragma once

#include "conv2d_nhwc_backward_input.h"
#include "conv2d_nhwc_backward_weight.h"
#include "conv2d_nhwc_forward.h"

namespace cisdl {
namespace {

constexpr int kDepthwisePixels = 8;

// Weight [C][taps] -> [taps][C]
template <class T>
NhwcWeight<T> pack_depthwise_weight(const T* weight, int64_t channels, int64_t taps) {
  T* to = static_cast<T*>(scratch(Scratch::shared, taps * channels * int64_t{sizeof(T)}));
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t t = 0; t < taps; ++t) to[t * channels + c] = weight[c * taps + t];
  return {to, taps, 1, 1};
}

// Pixels [0, N) from `x` on, `step` apart, all of whose taps may be read; `offset` and `weight`: of each tap.
template <class T, int N>
CISDL_INLINE void depthwise_pixels(const NhwcView<T>& v, const int64_t* offset, const T* const* weight,
                                   int64_t num_taps, const T* x, int64_t step, T* out) {
  constexpr int W = kWidth<T>;
  for (int64_t c = 0; c < v.groups; c += W) {
    const int64_t n = v.groups - c;
    auto block = [&](auto&& read, auto&& write) __attribute__((always_inline)) {
      const Vec<T> bias = v.bias ? read(v.bias + c) : zero<T>();
      Vec<T> sum[N];
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) sum[i] = bias;
      for (int64_t t = 0; t < num_taps; ++t) {
        const Vec<T> w = read(weight[t] + c);
        const T* from = x + offset[t] + c;
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) sum[i] += read(from + i * step) * w;
      }
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) write(out + i * v.out_col + c, sum[i]);
    };
    if (n >= W)
      block([](const T* p) __attribute__((always_inline)) { return load(p); },
            [](T* p, Vec<T> y) __attribute__((always_inline)) { store<T>(p, y); });
    else
      block([n](const T* p) __attribute__((always_inline)) { return load_partial(p, n); },
            [n](T* p, Vec<T> y) __attribute__((always_inline)) { store_partial<T>(p, y, n); });
  }
}

template <class T>
void run_depthwise_view(const NhwcView<T>& v, void*, const Parallel& par) {
  const int64_t C = v.groups, step = v.step_w * C;
  int64_t min_w = 0, max_w = 0;
  for (int64_t t = 0; t < v.num_taps; ++t) {
    if (t == 0 || v.taps[t].w < min_w) min_w = v.taps[t].w;
    if (t == 0 || v.taps[t].w > max_w) max_w = v.taps[t].w;
  }
  // columns whose taps are all inside
  int64_t inner_begin = 0, inner_end = v.out_w, last_begin = 0, last_end = v.out_w;
  clip_outputs(v.step_w, min_w, v.in_w, inner_begin, inner_end);
  clip_outputs(v.step_w, max_w, v.in_w, last_begin, last_end);
  if (inner_end > last_end) inner_end = last_end;
  const int64_t grain = 16384 / (v.out_w * C * (v.num_taps + 1) + 1) + 1;
  parallel_for(par, v.batch * v.out_h, grain, [&](int64_t begin, int64_t end) {
    char* memory = static_cast<char*>(scratch(Scratch::local, (v.num_taps + 1) * 4 * int64_t{sizeof(int64_t)}));
    // the taps inside the image of this row, and of one pixel
    int64_t* offset = reinterpret_cast<int64_t*>(memory);
    const T** weight = reinterpret_cast<const T**>(offset + v.num_taps);
    int64_t* pixel_offset = reinterpret_cast<int64_t*>(weight + v.num_taps);
    const T** pixel_weight = reinterpret_cast<const T**>(pixel_offset + v.num_taps);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / v.out_h, y = i % v.out_h;
      const T* image = v.input + n * v.in_h * v.in_w * C;
      T* out = v.output + n * v.out_image + y * v.out_row;
      int64_t num_taps = 0;
      for (int64_t t = 0; t < v.num_taps; ++t) {
        const int64_t h = y * v.step_h + v.taps[t].h;
        if (h < 0 || h >= v.in_h) continue;
        offset[num_taps] = (h * v.in_w + v.taps[t].w) * C;
        weight[num_taps++] = v.weight.data + v.taps[t].index * C;
      }
      for (int64_t x = 0; x < v.out_w;) {
        if (x >= inner_begin && x + kDepthwisePixels <= inner_end) {
          depthwise_pixels<T, kDepthwisePixels>(v, offset, weight, num_taps, image + x * step, step,
                                                out + x * v.out_col);
          x += kDepthwisePixels;
          continue;
        }
        int64_t pixel_taps = 0;
        for (int64_t t = 0; t < v.num_taps; ++t) {
          const int64_t h = y * v.step_h + v.taps[t].h, w = x * v.step_w + v.taps[t].w;
          if (h < 0 || h >= v.in_h || w < 0 || w >= v.in_w) continue;
          pixel_offset[pixel_taps] = (h * v.in_w + w) * C;
          pixel_weight[pixel_taps++] = v.weight.data + v.taps[t].index * C;
        }
        depthwise_pixels<T, 1>(v, pixel_offset, pixel_weight, pixel_taps, image, step, out + x * v.out_col);
        ++x;
      }
    }
  });
}

template <class T>
void conv2d_depthwise_forward(const Conv2dForward<T>& a, const Parallel& par) {
  const NhwcWeight<T> weight = pack_depthwise_weight(a.weight, a.p.in_channels, a.p.kernel_h * a.p.kernel_w);
  conv2d_nhwc_forward_with(a, weight, run_depthwise_view<T>, par);
}

template <class T>
void conv2d_depthwise_backward_input(const Conv2dBackwardInput<T>& a, const Parallel& par) {
  const NhwcWeight<T> weight = pack_depthwise_weight(a.weight, a.p.in_channels, a.p.kernel_h * a.p.kernel_w);
  conv2d_nhwc_backward_input_with(a, weight, run_depthwise_view<T>, par);
}

// Adds to sums[0], ..., sums[Taps - 1] (W channels each) the products of g and x for `Taps` neighbouring taps of a
// kernel row over rows x cols outputs, all of whose taps are inside.
template <class T, int Taps, class Read>
CISDL_INLINE void depthwise_product(const Conv2dProblem& p, const T* g, const T* x, int64_t rows, int64_t cols,
                                    Read&& read, T* sums) {
  constexpr int W = kWidth<T>, kPixels = Taps == 1 ? 4 : 2;
  if (rows <= 0 || cols <= 0) return;
  const int64_t C = p.in_channels, x_col = p.stride_w * C, tap = p.dilation_w * C;
  Vec<T> sum[Taps][kPixels] = {};
  for (int64_t y = 0; y < rows; ++y) {
    const T* pg = g + y * p.out_w * C;
    const T* px = x + y * p.stride_h * p.in_w * C;
    int64_t i = 0;
    for (; i + kPixels <= cols; i += kPixels, pg += kPixels * C, px += kPixels * x_col) {
#pragma GCC unroll 4
      for (int u = 0; u < kPixels; ++u) {
        const Vec<T> gv = read(pg + u * C);
#pragma GCC unroll 4
        for (int t = 0; t < Taps; ++t) sum[t][u] += gv * read(px + u * x_col + t * tap);
      }
    }
    for (; i < cols; ++i, pg += C, px += x_col) {
      const Vec<T> gv = read(pg);
#pragma GCC unroll 4
      for (int t = 0; t < Taps; ++t) sum[t][0] += gv * read(px + t * tap);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < Taps; ++t) {
    Vec<T> total = sum[t][0] + sum[t][1];
    if constexpr (kPixels == 4) total += sum[t][2] + sum[t][3];
    store<T>(sums + t * W, load(sums + t * W) + total);
  }
}

// One band of output rows of one image: adds to sums [taps][W] for the channels that g, x and `read` stand for.
template <class T, class Read>
CISDL_INLINE void depthwise_band(const Conv2dProblem& p, const T* g, const T* x, int64_t first, int64_t last,
                                 Read&& read, T* sums) {
  const int64_t C = p.in_channels;
  for (int64_t r = 0; r < p.kernel_h; ++r) {
    const int64_t dh = r * p.dilation_h - p.pad_top;
    int64_t y0 = first, y1 = last;
    clip_outputs(p.stride_h, dh, p.in_h, y0, y1);
    auto product = [&]<int Taps>(int64_t s, int64_t x0, int64_t x1) __attribute__((always_inline)) {
      const int64_t w = x0 * p.stride_w + s * p.dilation_w - p.pad_left;
      depthwise_product<T, Taps>(p, g + (y0 * p.out_w + x0) * C, x + ((y0 * p.stride_h + dh) * p.in_w + w) * C,
                                 y1 - y0, x1 - x0, read, sums + (r * p.kernel_w + s) * kWidth<T>);
    };
    for (int64_t s = 0; s < p.kernel_w;) {
      // the columns of the first tap, and those of it and the two after it
      int64_t x0 = 0, x1 = p.out_w;
      clip_outputs(p.stride_w, s * p.dilation_w - p.pad_left, p.in_w, x0, x1);
      if (s + 3 > p.kernel_w) {
        product.template operator()<1>(s, x0, x1);
        ++s;
        continue;
      }
      int64_t inner0 = x0, inner1 = x1;
      for (int64_t t = 1; t < 3; ++t)
        clip_outputs(p.stride_w, (s + t) * p.dilation_w - p.pad_left, p.in_w, inner0, inner1);
      product.template operator()<3>(s, inner0, inner1);
      for (int64_t t = 0; t < 3; ++t, ++s) {
        x0 = 0, x1 = p.out_w;
        clip_outputs(p.stride_w, s * p.dilation_w - p.pad_left, p.in_w, x0, x1);
        if (inner0 >= inner1) {
          product.template operator()<1>(s, x0, x1);
        } else {
          product.template operator()<1>(s, x0, inner0);
          product.template operator()<1>(s, inner1, x1);
        }
      }
    }
  }
}

template <class T>
void conv2d_depthwise_grad_weight(const Conv2dBackwardWeight<T>& a, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const Conv2dProblem& p = a.p;
  const int64_t C = p.in_channels, cells = p.kernel_h * p.kernel_w, vectors = (C + W - 1) / W;
  const int64_t band = kMaxChain / (p.out_w + 1) + 1;
  parallel_for(par, vectors, 1, [&](int64_t begin, int64_t end) {
    T* sums = static_cast<T*>(scratch(Scratch::local, (end - begin) * cells * W * int64_t{sizeof(T)}));
    for (int64_t i = 0; i < (end - begin) * cells * W; ++i) sums[i] = T(0);
    for (int64_t n = 0; n < p.batch; ++n) {
      for (int64_t first = 0; first < p.out_h; first += band) {
        const int64_t last = first + band < p.out_h ? first + band : p.out_h;
        for (int64_t v = begin; v < end; ++v) {
          const T* g = a.grad_output + n * p.out_h * p.out_w * C + v * W;
          const T* x = a.input + n * p.in_h * p.in_w * C + v * W;
          T* to = sums + (v - begin) * cells * W;
          const int64_t lanes = C - v * W;
          if (lanes >= W)
            depthwise_band(
                p, g, x, first, last, [](const T* q) __attribute__((always_inline)) { return load(q); }, to);
          else
            depthwise_band(
                p, g, x, first, last,
                [lanes](const T* q) __attribute__((always_inline)) { return load_partial(q, lanes); }, to);
        }
      }
    }
    for (int64_t c = begin * W; c < end * W && c < C; ++c)
      for (int64_t t = 0; t < cells; ++t)
        a.grad_weight[c * cells + t] = sums[((c / W - begin) * cells + t) * W + c % W];
  });
}

template <class T>
void conv2d_depthwise_backward_weight(const Conv2dBackwardWeight<T>& a, const Parallel& par) {
  if (a.grad_weight) conv2d_depthwise_grad_weight(a, par);
  if (a.grad_bias)
    column_sums(a.grad_output, a.p.batch * a.p.out_h * a.p.out_w, a.p.out_channels, a.grad_bias, par);
}

}  // namespace
}  // namespace cisdl
