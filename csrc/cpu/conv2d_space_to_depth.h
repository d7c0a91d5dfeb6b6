// Strided first layers as convolutions of stride 1: the images are cut into blocks of stride x stride pixels, and the
// pixels of a block become channels of one pixel.
//
//   x'[(c,i,j), h, w] = x[c, h*S + i - pad, w*S + j - pad],   w'[k, (c,i,j), r, s] = w[k, c, r*S + i, s*S + j]
//
// is a convolution without padding whose kernel is S times smaller in each direction, rounded up, and zero where w
// has no such tap. AlexNet's 11x11 of stride 4 on 3 channels becomes 3x3 on 48: 432 products an output instead of
// 363, of which Winograd's method (winograd.cpp) makes 108. In channels_last the new channels are in the order
// (i, j, c), so that a row of a block is one run.
//
// Images are rewritten and convolved a few at a time, which bounds the memory; the gradients of the weight that each
// such part gives are added in order.
#pragma once

#include "conv2d_bias_gradient.h"
#include "column_sums.h"
#include "conv2d_window.h"

namespace cisdl {
namespace {

extern "C" const WinogradKernels* CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)();

constexpr int64_t kDepthBytes = 4 << 20;  // of images rewritten at a time

struct SpaceToDepth {
  Conv2dProblem p;   // as given
  Layout layout;
  Conv2dProblem q;   // of stride 1, for `images` images
  int64_t images;    // at a time
  int64_t image;     // elements of an image rewritten
  int64_t weights;   // elements of a weight rewritten

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

  // Memory for some images, a weight, and a vector that copies may spill.
  float* memory() const {
    return static_cast<float*>(
        scratch(Scratch::outer, (images * image + weights + kWidth<float>) * int64_t{sizeof(float)}));
  }

  // Rows h of one image, for all channels; `end` is that of the tensor.
  void rewrite_nchw(const float* x, const float* end, float* to) const {
    const int64_t plane = p.in_h * p.in_w;
    for (int64_t c = 0; c < p.in_channels; ++c)
      for (int64_t i = 0; i < p.stride_h; ++i)
        for (int64_t j = 0; j < p.stride_w; ++j)
          for (int64_t h = 0; h < q.in_h; ++h, to += q.in_w) {
            const int64_t row = h * p.stride_h + i - p.pad_top, first = j - p.pad_left;
            // Columns [left, right) are inside the image.
            const int64_t left = smaller(q.in_w, first < 0 ? ceil_div(-first, p.stride_w) : 0);
            const int64_t right =
                larger(left, smaller(q.in_w, ceil_div(larger(0, p.in_w - first), p.stride_w)));
            if (row < 0 || row >= p.in_h) {
              zero_spill(to, q.in_w);
              continue;
            }
            const float* from = x + c * plane + row * p.in_w + first + left * p.stride_w;
            zero_spill(to, left);
            if (p.stride_w == 4)
              copy_every<float, 4>(to + left, from, right - left, end);
            else if (p.stride_w == 2)
              copy_every<float, 2>(to + left, from, right - left, end);
            else
              for (int64_t w = left; w < right; ++w) to[w] = from[(w - left) * p.stride_w];
            zero_spill(to + right, q.in_w - right);
          }
  }

  void rewrite_nhwc(const float* x, const float* end, float* to) const {
    const int64_t run = p.stride_w * p.in_channels;  // a row of a block
    for (int64_t h = 0; h < q.in_h; ++h)
      for (int64_t w = 0; w < q.in_w; ++w)
        for (int64_t i = 0; i < p.stride_h; ++i, to += run) {
          const int64_t row = h * p.stride_h + i - p.pad_top, column = w * p.stride_w - p.pad_left;
          const float* from = x + (row * p.in_w + column) * p.in_channels;
          if (row < 0 || row >= p.in_h)
            zero_spill(to, run);
          else if (column >= 0 && column + p.stride_w <= p.in_w)
            copy_spill(to, from, run, end);
          else
            for (int64_t j = 0; j < run; ++j) {
              const int64_t at = column + j / p.in_channels;
              to[j] = at >= 0 && at < p.in_w ? from[j] : 0;
            }
        }
  }

  // Images [n, n + count).
  void rewrite(const float* x, int64_t n, int64_t count, float* to, const Parallel& par) const {
    const int64_t size = p.in_channels * p.in_h * p.in_w;
    // An image may spill a vector into the next, which some other thread may have written: each ends in its own.
    parallel_for(par, count, grain_for(8 * image), [&](int64_t begin, int64_t end) {
      float* own = static_cast<float*>(scratch(Scratch::local, (image + kWidth<float>) * int64_t{sizeof(float)}));
      for (int64_t i = begin; i < end; ++i) {
        const float *from = x + (n + i) * size, *last = x + p.batch * size;
        float* dst = i + 1 == end ? own : to + i * image;
        layout == Layout::nchw ? rewrite_nchw(from, last, dst) : rewrite_nhwc(from, last, dst);
        if (i + 1 == end) std::memcpy(to + i * image, own, static_cast<size_t>(image) * sizeof(float));
      }
    });
  }

  // Calls body(tap of w', tap of w or -1), both in `layout`.
  template <class Body>
  void for_each_weight(const Body& body) const {
    const bool last = layout == Layout::nhwc;
    for (int64_t k = 0, to = 0; k < p.out_channels; ++k)
      for (int64_t rest = 0; rest < weights / p.out_channels; ++rest, ++to) {
        int64_t c, i, j, r, s;
        if (last) {  // r, s, i, j, c
          c = rest % p.in_channels;
          j = rest / p.in_channels % p.stride_w;
          i = rest / p.in_channels / p.stride_w % p.stride_h;
          s = rest / q.in_channels % q.kernel_w;
          r = rest / q.in_channels / q.kernel_w;
        } else {  // c, i, j, r, s
          s = rest % q.kernel_w;
          r = rest / q.kernel_w % q.kernel_h;
          const int64_t channel = rest / (q.kernel_w * q.kernel_h);
          j = channel % p.stride_w;
          i = channel / p.stride_w % p.stride_h;
          c = channel / p.stride_w / p.stride_h;
        }
        r = r * p.stride_h + i;
        s = s * p.stride_w + j;
        const bool inside = r < p.kernel_h && s < p.kernel_w;
        const int64_t from = last ? ((k * p.kernel_h + r) * p.kernel_w + s) * p.in_channels + c
                                  : ((k * p.in_channels + c) * p.kernel_h + r) * p.kernel_w + s;
        body(to, inside ? from : -1);
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
    ()->forward({d.q, a.layout, x, weight, a.bias, a.output + n * a.p.out_channels * a.p.out_h * a.p.out_w}, par);
  }
}

void space_to_depth_backward_weight(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  if (a.grad_bias && a.layout == Layout::nchw) conv2d_bias_gradient(p, a.grad_output, a.grad_bias, par);
  if (a.grad_bias && a.layout == Layout::nhwc)
    column_sums<float>(a.grad_output, p.batch * p.out_h * p.out_w, p.out_channels, a.grad_bias, par);
  if (!a.grad_weight) return;
  SpaceToDepth d(p, a.layout);
  float* weight = d.memory();
  float* x = weight + d.weights;
  for (int64_t n = 0; n < p.batch; n += d.images) {
    d.q.batch = smaller(d.images, p.batch - n);
    d.rewrite(a.input, n, d.q.batch, x, par);
    CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)
    ()->backward_weight(
        {d.q, a.layout, a.grad_output + n * p.out_channels * p.out_h * p.out_w, x, weight, nullptr}, par);
    d.for_each_weight([&](int64_t from, int64_t to) {
      if (to >= 0) a.grad_weight[to] = weight[from] + (n > 0 ? a.grad_weight[to] : 0);
    });
  }
}

}  // namespace
}  // namespace cisdl
