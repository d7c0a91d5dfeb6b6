// Strided first layers as convolutions of stride 1: the images are cut into blocks of stride x stride pixels, and
// the pixels of a block become channels of one pixel.
//
//   x'[(c,i,j), h, w] = x[c, h*S + i - pad, w*S + j - pad],   w'[k, (c,i,j), r, s] = w[k, c, r*S + i, s*S + j]
//
// is a convolution without padding whose kernel is S times smaller in each direction, rounded up, and zero where w
// has no such tap. AlexNet's 11x11 of stride 4 on 3 channels becomes 3x3 on 48: 432 products an output instead of
// 363, of which Winograd's method (winograd.cpp) makes 108. In channels_last the new channels are in the order
// (i, j, c), so that a row of a block is one run.
//
// Images are rewritten and convolved a few at a time, which bounds the memory; the gradients of the weight that
// each such part gives are added in order.
#pragma once

#include "column_sums.h"
#include "conv2d_bias_gradient.h"
#include "conv2d_window.h"

namespace cisdl {
namespace {

extern "C" const WinogradKernels* CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)();

constexpr int64_t kDepthBytes = 4 << 20;  // of images rewritten at a time

struct SpaceToDepth {
  Conv2dProblem p;  // as given
  Layout layout;
  Conv2dProblem q;  // of stride 1, for `images` images
  int64_t images;   // at a time
  int64_t image;    // elements of an image rewritten
  int64_t weights;  // elements of a weight rewritten

  SpaceToDepth(const Conv2dProblem& p, Layout layout) : p(p), layout(layout), q(p) {
    q.in_channels = p.in_channels * p.stride_h * p.stride_w;
    q.kernel_h = ceil_div(p.kernel_h, p.stride_h);
    q.kernel_w = ceil_div(p.kernel_w, p.stride_w);
    q.in_h = p.out_h + q.kernel_h - 1;
    q.in_w = p.out_w + q.kernel_w - 1;
    q.stride_h = q.stride_w = 1;
    q.pad_top = q.pad_left = 0;
    image = q.in_channels * q.in_h * q.in_w;
    weights = q.out_channels * q.in_channels * q.kernel_h * q.kernel_w;
    images = larger(1, smaller(p.batch, kDepthBytes / (image * int64_t{sizeof(float)})));
  }

  // Memory for two weights and some images.
  float* memory() const {
    return static_cast<float*>(scratch(Scratch::outer, (images * image + 2 * weights) * int64_t{sizeof(float)}));
  }

  // One image; `end` is that of the tensor.
  void rewrite_nchw(const float* x, const float* end, float* to) const {
    const int64_t plane = p.in_h * p.in_w;
    for (int64_t c = 0; c < p.in_channels; ++c)
      for (int64_t i = 0; i < p.stride_h; ++i)
        for (int64_t j = 0; j < p.stride_w; ++j) {
          // Columns [left, right) are inside the image.
          const int64_t first = j - p.pad_left;
          const int64_t left = smaller(q.in_w, first < 0 ? ceil_div(-first, p.stride_w) : 0);
          const int64_t right = larger(left, smaller(q.in_w, ceil_div(larger(0, p.in_w - first), p.stride_w)));
          for (int64_t h = 0; h < q.in_h; ++h, to += q.in_w) {
            const int64_t row = h * p.stride_h + i - p.pad_top;
            if (row < 0 || row >= p.in_h) {
              zeros(to, q.in_w);
              continue;
            }
            const float* from = x + c * plane + row * p.in_w + first + left * p.stride_w;
            zeros(to, left);
            if (p.stride_w == 4)
              take_every<4>(to + left, from, right - left, end);
            else if (p.stride_w == 2)
              take_every<2>(to + left, from, right - left, end);
            else
              for (int64_t w = left; w < right; ++w) to[w] = from[(w - left) * p.stride_w];
            zeros(to + right, q.in_w - right);
          }
        }
  }

  static void zeros(float* to, int64_t n) { std::memset(to, 0, static_cast<size_t>(n) * sizeof(float)); }

  // to[i] = from[i * S] for i < n, and nothing past that.
  template <int S>
  static void take_every(float* to, const float* from, int64_t n, const float* end) {
    constexpr int64_t W = kWidth<float>;
    int64_t i = 0;
    for (; i < n && end - from >= (i + W) * S; i += W)
      store_up_to(to + i, load_every<float, S>(from + i * S), n - i);
    for (; i < n; ++i) to[i] = from[i * S];
  }

  void rewrite_nhwc(const float* x, float* to) const {
    constexpr int64_t kPiece = 4;
    const int64_t run = p.stride_w * p.in_channels;  // a row of a block
    const int64_t left = smaller(q.in_w, ceil_div(p.pad_left, p.stride_w));
    const int64_t right = larger(left, smaller(q.in_w, (p.in_w + p.pad_left) / p.stride_w));  // whole blocks
    for (int64_t h = 0; h < q.in_h; ++h, to += q.in_w * q.in_channels)
      for (int64_t i = 0; i < p.stride_h; ++i) {
        const int64_t row = h * p.stride_h + i - p.pad_top;
        float* dst = to + i * run;
        if (row < 0 || row >= p.in_h) {
          for (int64_t w = 0; w < q.in_w; ++w) zeros(dst + w * q.in_channels, run);
          continue;
        }
        const float* from = x + (row * p.in_w - p.pad_left) * p.in_channels;  // column 0 of block 0
        const auto at_edge = [&](int64_t w) {
          for (int64_t j = 0; j < run; ++j) {
            const int64_t column = w * p.stride_w - p.pad_left + j / p.in_channels;
            dst[w * q.in_channels + j] = column >= 0 && column < p.in_w ? from[w * run + j] : 0;
          }
        };
        for (int64_t w = 0; w < left; ++w) at_edge(w);
        for (int64_t w = left; w < right; ++w) {
          float* block = dst + w * q.in_channels;
          int64_t j = 0;
          for (; j + kPiece <= run; j += kPiece)
            std::memcpy(block + j, from + w * run + j, kPiece * sizeof(float));
          for (; j < run; ++j) block[j] = from[w * run + j];
        }
        for (int64_t w = right; w < q.in_w; ++w) at_edge(w);
      }
  }

  // Images [n, n + count).
  void rewrite(const float* x, int64_t n, int64_t count, float* to, const Parallel& par) const {
    const int64_t size = p.in_channels * p.in_h * p.in_w;
    parallel_for(par, count, grain_for(8 * image), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float* from = x + (n + i) * size;
        if (layout == Layout::nchw)
          rewrite_nchw(from, x + p.batch * size, to + i * image);
        else
          rewrite_nhwc(from, to + i * image);
      }
    });
  }

  // Calls body(place in w', place in w or -1), both in `layout`, for every tap of w'.
  template <class Body>
  void for_each_weight(const Body& body) const {
    const bool last = layout == Layout::nhwc;
    const int64_t C = p.in_channels, taps = p.kernel_h * p.kernel_w, q_taps = q.kernel_h * q.kernel_w;
    for (int64_t k = 0; k < p.out_channels; ++k)
      for (int64_t c = 0; c < C; ++c)
        for (int64_t h = 0; h < q.kernel_h * p.stride_h; ++h)
          for (int64_t w = 0; w < q.kernel_w * p.stride_w; ++w) {
            const int64_t r = h / p.stride_h, i = h % p.stride_h, s = w / p.stride_w, j = w % p.stride_w;
            const int64_t tap = r * q.kernel_w + s;
            const int64_t channel = last ? (i * p.stride_w + j) * C + c : (c * p.stride_h + i) * p.stride_w + j;
            const int64_t to =
                k * q_taps * q.in_channels + (last ? tap * q.in_channels + channel : channel * q_taps + tap);
            const int64_t place = h * p.kernel_w + w;
            const int64_t from = k * taps * C + (last ? place * C + c : c * taps + place);
            body(to, h < p.kernel_h && w < p.kernel_w ? from : -1);
          }
  }
};

void space_to_depth_forward(const Conv2dForward<float>& a, const Parallel& par) {
  SpaceToDepth d(a.p, a.layout);
  float* weight = d.memory();
  float* x = weight + d.weights;
  d.for_each_weight([&](int64_t to, int64_t from) { weight[to] = from < 0 ? 0 : a.weight[from]; });
  for (int64_t n = 0; n < a.p.batch; n += d.images) {
    d.q.batch = smaller(d.images, a.p.batch - n);
    d.rewrite(a.input, n, d.q.batch, x, par);
    CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)
    ()->forward(
        {d.q, a.layout, x, weight, a.bias, a.output + n * a.p.out_channels * a.p.out_h * a.p.out_w, a.least}, par);
  }
}

void space_to_depth_backward_weight(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  if (a.grad_bias && a.layout == Layout::nchw) conv2d_bias_gradient(p, a.grad_output, a.grad_bias, par);
  if (a.grad_bias && a.layout == Layout::nhwc)
    column_sums<float>(a.grad_output, p.batch * p.out_h * p.out_w, p.out_channels, a.grad_bias, par);
  if (!a.grad_weight) return;
  SpaceToDepth d(p, a.layout);
  float* sums = d.memory();
  float* weight = sums + d.weights;
  float* x = weight + d.weights;
  for (int64_t n = 0; n < p.batch; n += d.images) {
    d.q.batch = smaller(d.images, p.batch - n);
    d.rewrite(a.input, n, d.q.batch, x, par);
    CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)
    ()->backward_weight({d.q, a.layout, a.grad_output + n * p.out_channels * p.out_h * p.out_w, x,
                         n == 0 ? sums : weight, nullptr},
                        par);
    for (int64_t i = 0; n > 0 && i < d.weights; ++i) sums[i] += weight[i];
  }
  d.for_each_weight([&](int64_t from, int64_t to) {
    if (to >= 0) a.grad_weight[to] = sums[from];
  });
}

}  // namespace
}  // namespace cisdl
