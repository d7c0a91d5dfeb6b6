// Convolution by its definition: seven loops, any layout and option. The last entry of every conv2d list, and the
// judge of all others; sums are formed in double.
//
//   forward          y[n,k,p,q]  = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s],  h = p*stride - pad + r*dilation
//   backward_input   dx[n,c,h,w] = sum_{k,r,s} dy[n,k,p,q] w[k,c,r,s]         over the (p,q) that read (h,w)
//   backward_weight  dw[k,c,r,s] = sum_{n,p,q} dy[n,k,p,q] x[n,c,h,w],        db[k] = sum_{n,p,q} dy[n,k,p,q]
#pragma once

#include "kernels.h"

namespace cisdl {
namespace {

// Offset of element (n, c, h, w) of an image tensor, or of (k, c, r, s) of a weight.
struct Index4d {
  int64_t n, c, h, w;
  Index4d(Layout layout, int64_t channels, int64_t height, int64_t width) {
    n = channels * height * width;
    c = layout == Layout::nchw ? height * width : 1;
    w = layout == Layout::nchw ? 1 : channels;
    h = w * width;
  }
  int64_t operator()(int64_t in, int64_t ic, int64_t ih, int64_t iw) const {
    return in * n + ic * c + ih * h + iw * w;
  }
};

// The offsets of a problem's four tensors.
struct Conv2dIndex {
  Index4d input, weight, output;
  Conv2dIndex(const Conv2dProblem& p, Layout layout)
      : input(layout, p.in_channels, p.in_h, p.in_w),
        weight(layout, p.in_channels / p.groups, p.kernel_h, p.kernel_w),
        output(layout, p.out_channels, p.out_h, p.out_w) {}
};

template <class Args>
bool conv2d_always(const Args&) {
  return true;
}

template <class T>
void conv2d_plain_forward(const Conv2dForward<T>& args, const Parallel& par) {
  const Conv2dProblem& p = args.p;
  const Conv2dIndex at(p, args.layout);
  const int64_t group_in = p.in_channels / p.groups, group_out = p.out_channels / p.groups;
  parallel_for(par, p.batch * p.out_channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t nk = begin; nk < end; ++nk) {
      const int64_t n = nk / p.out_channels, k = nk % p.out_channels, c0 = k / group_out * group_in;
      for (int64_t y = 0; y < p.out_h; ++y)
        for (int64_t x = 0; x < p.out_w; ++x) {
          double sum = args.bias ? args.bias[k] : 0;
          for (int64_t c = 0; c < group_in; ++c)
            for (int64_t r = 0; r < p.kernel_h; ++r)
              for (int64_t s = 0; s < p.kernel_w; ++s) {
                const int64_t h = y * p.stride_h - p.pad_top + r * p.dilation_h;
                const int64_t w = x * p.stride_w - p.pad_left + s * p.dilation_w;
                if (h < 0 || h >= p.in_h || w < 0 || w >= p.in_w) continue;
                sum += double{args.input[at.input(n, c0 + c, h, w)]} * args.weight[at.weight(k, c, r, s)];
              }
          args.output[at.output(n, k, y, x)] = sum < args.least ? args.least : static_cast<T>(sum);
        }
    }
  });
}

template <class T>
void conv2d_plain_backward_input(const Conv2dBackwardInput<T>& args, const Parallel& par) {
  const Conv2dProblem& p = args.p;
  const Conv2dIndex at(p, args.layout);
  const int64_t group_in = p.in_channels / p.groups, group_out = p.out_channels / p.groups;
  parallel_for(par, p.batch * p.in_channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t nc = begin; nc < end; ++nc) {
      const int64_t n = nc / p.in_channels, c = nc % p.in_channels, k0 = c / group_in * group_out;
      for (int64_t h = 0; h < p.in_h; ++h)
        for (int64_t w = 0; w < p.in_w; ++w) {
          double sum = 0;
          for (int64_t r = 0; r < p.kernel_h; ++r)
            for (int64_t s = 0; s < p.kernel_w; ++s) {
              const int64_t ys = h + p.pad_top - r * p.dilation_h, xs = w + p.pad_left - s * p.dilation_w;
              if (ys < 0 || xs < 0 || ys % p.stride_h || xs % p.stride_w) continue;
              const int64_t y = ys / p.stride_h, x = xs / p.stride_w;
              if (y >= p.out_h || x >= p.out_w) continue;
              for (int64_t k = k0; k < k0 + group_out; ++k)
                sum += double{args.grad_output[at.output(n, k, y, x)]} *
                       args.weight[at.weight(k, c % group_in, r, s)];
            }
          args.grad_input[at.input(n, c, h, w)] = static_cast<T>(sum);
        }
    }
  });
}

template <class T>
void conv2d_plain_backward_weight(const Conv2dBackwardWeight<T>& args, const Parallel& par) {
  const Conv2dProblem& p = args.p;
  const Conv2dIndex at(p, args.layout);
  const int64_t group_in = p.in_channels / p.groups, group_out = p.out_channels / p.groups;

  // Sum over every output pixel (n, y, x) of grad_output[n, k, y, x] * factor(n, y, x).
  const auto sum_pixels = [&](int64_t k, auto&& factor) {
    double sum = 0;
    for (int64_t n = 0; n < p.batch; ++n)
      for (int64_t y = 0; y < p.out_h; ++y)
        for (int64_t x = 0; x < p.out_w; ++x)
          sum += double{args.grad_output[at.output(n, k, y, x)]} * factor(n, y, x);
    return static_cast<T>(sum);
  };

  parallel_for(par, p.out_channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      if (args.grad_bias) args.grad_bias[k] = sum_pixels(k, [](int64_t, int64_t, int64_t) { return T{1}; });
      if (!args.grad_weight) continue;
      for (int64_t c = 0; c < group_in; ++c)
        for (int64_t r = 0; r < p.kernel_h; ++r)
          for (int64_t s = 0; s < p.kernel_w; ++s)
            args.grad_weight[at.weight(k, c, r, s)] = sum_pixels(k, [&](int64_t n, int64_t y, int64_t x) {
              const int64_t h = y * p.stride_h - p.pad_top + r * p.dilation_h;
              const int64_t w = x * p.stride_w - p.pad_left + s * p.dilation_w;
              if (h < 0 || h >= p.in_h || w < 0 || w >= p.in_w) return T{0};
              return args.input[at.input(n, k / group_out * group_in + c, h, w)];
            });
    }
  });
}

}  // namespace
}  // namespace cisdl
