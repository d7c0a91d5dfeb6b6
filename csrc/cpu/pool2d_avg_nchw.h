// Average pooling in [N, C, H, W]: lanes along a row; vertical sums first, then horizontal ones.
//
// Forward: the rows of a window are added, contiguous, into one row with zeros around it; the taps along that row
// are summed W windows at a time (contiguous at stride 1, even and odd values of two loads at stride 2) and
// multiplied by 1/divisor from a table [out_h][out_w] made once per call. Threads share output rows.
// Backward: the scaled gradient rows that cover an input row are added into a row with zeros around it, and each
// vector of input cells sums the windows that cover it (strides 1 and 2) or each window adds its share to its
// cells (other strides). Input rows covered by the same windows are copies of each other. Threads share planes.
#pragma once

#include "pool2d_avg_nhwc.h"
#include "pool2d_lanes.h"
#include "pool2d_plain.h"

namespace cisdl {
namespace {

// The sum of rows of x, each multiplied by the row of `scale` if there is one; to: n values.
template <class T>
inline void add_rows(const T* x, const T* scale, int64_t rows, int64_t step, int64_t n, T* to) {
  constexpr int W = kWidth<T>;
  int64_t i = 0;
  auto lanes = [&](auto&& read) __attribute__((always_inline)) {
    Vec<T> sum = zero<T>();
    for (int64_t r = 0; r < rows; ++r)
      sum += scale ? read(x + r * step + i) * read(scale + r * step + i) : read(x + r * step + i);
    return sum;
  };
  for (; i + W <= n; i += W)
    store(to + i, lanes([](const T* p) __attribute__((always_inline)) { return load(p); }));
  if (i < n) {
    const int64_t rest = n - i;
    store_partial(to + i, lanes([&](const T* p) __attribute__((always_inline)) { return load_partial(p, rest); }),
                  rest);
  }
}

template <class T, int Stride>
CISDL_INLINE Vec<T> sum_taps(const T* x, int64_t taps, int64_t stride) {
  Vec<T> sum = zero<T>();
  int64_t s = 0;
  if constexpr (Stride == 2) {
    for (; s + 2 <= taps; s += 2) {
      const Vec<T> a = load(x + s), b = load(x + s + kWidth<T>);
      sum += even_lanes<T>(a, b) + odd_lanes<T>(a, b);
    }
  }
  for (; s < taps; ++s) sum += load_strided<T, Stride>(x + s, stride);
  return sum;
}

template <class T, int Stride>
void avg_forward_nchw_as(const AvgPool2dForward<T>& a, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const Pool2dProblem& p = a.p;
  const T* inverse =
      fill_inverse_divisors(a, static_cast<T*>(scratch(Scratch::shared, divisors_bytes(p, sizeof(T)))));
  // a row of sums: pad_w zeros, in_w sums, zeros as far as the last vector of windows reads
  int64_t width = (p.out_w + W) * p.stride_w + p.kernel_w + W;
  if (width < p.pad_w + p.in_w) width = p.pad_w + p.in_w;
  parallel_for(
      par, p.batch * p.channels * p.out_h, planes_grain(p.in_w * p.kernel_h), [&](int64_t begin, int64_t end) {
        T* sums = static_cast<T*>(scratch(Scratch::local, width * int64_t{sizeof(T)}));
        std::memset(sums, 0, static_cast<size_t>(width) * sizeof(T));
        for (int64_t i = begin; i < end; ++i) {
          const int64_t plane = i / p.out_h, oh = i % p.out_h;
          const Taps rows = taps_h(p, oh);
          const int64_t h = plane * p.in_h + oh * p.stride_h - p.pad_h + rows.begin;
          add_rows<T>(a.input + h * p.in_w, nullptr, rows.end - rows.begin, p.in_w, p.in_w, sums + p.pad_w);
          const T* scale = inverse + oh * p.out_w;
          T* out = a.output + i * p.out_w;
          for (int64_t ow = 0; ow < p.out_w; ow += W) {
            const Vec<T> sum = sum_taps<T, Stride>(sums + ow * p.stride_w, p.kernel_w, p.stride_w);
            const int64_t n = p.out_w - ow;
            if (n >= W)
              store<T>(out + ow, sum * load(scale + ow));
            else
              store_partial<T>(out + ow, sum * load_partial(scale + ow, n), n);
          }
        }
      });
}

template <class T>
void avg_forward_nchw(const AvgPool2dForward<T>& a, const Parallel& par) {
  if (a.p.stride_w == 1)
    avg_forward_nchw_as<T, 1>(a, par);
  else if (a.p.stride_w == 2)
    avg_forward_nchw_as<T, 2>(a, par);
  else
    avg_forward_nchw_as<T, 0>(a, par);
}

// One row of grad_input from one row of gradients already summed over the windows' rows; sums[0] is window 0.
template <class T, int Stride>
inline void spread_row(const Pool2dProblem& p, const T* sums, T* out) {
  constexpr int W = kWidth<T>;
  if constexpr (Stride == 0) {
    for (int64_t w = 0; w < p.in_w; ++w) out[w] = T(0);
    for (int64_t ow = 0; ow < p.out_w; ++ow) {
      const Taps cols = taps_w(p, ow);
      for (int64_t s = cols.begin; s < cols.end; ++s) out[ow * p.stride_w - p.pad_w + s] += sums[ow];
    }
  } else {
    for (int64_t w = 0; w < p.in_w; w += Stride * W) {
      Vec<T> acc[Stride];
      for (int i = 0; i < Stride; ++i) {
        // the windows that cover cell w + i: every tap at stride 1, taps of one parity at stride 2
        const int64_t from = w + i + p.pad_w, odd = Stride == 2 ? from & 1 : 0;
        acc[i] = zero<T>();
        for (int64_t s = odd; s < p.kernel_w; s += Stride) acc[i] += load(sums + (from - s) / Stride);
      }
      if constexpr (Stride == 2) {
        const Pair<T> both = interleave<T>(acc[0], acc[1]);
        acc[0] = both.first;
        acc[1] = both.second;
      }
      for (int i = 0; i < Stride; ++i) {
        const int64_t n = p.in_w - w - i * W;
        if (n >= W)
          store(out + w + i * W, acc[i]);
        else if (n > 0)
          store_partial(out + w + i * W, acc[i], n);
      }
    }
  }
}

template <class T, int Stride>
void avg_backward_nchw_as(const AvgPool2dBackward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  const T* inverse =
      fill_inverse_divisors(a, static_cast<T*>(scratch(Scratch::shared, divisors_bytes(p, sizeof(T)))));
  const int64_t left = p.kernel_w;
  int64_t width = left + p.in_w + p.pad_w + 2 * kWidth<T>;
  if (width < left + p.out_w) width = left + p.out_w;
  parallel_for(par, p.batch * p.channels, planes_grain(p.in_h * p.in_w), [&](int64_t begin, int64_t end) {
    T* sums = static_cast<T*>(scratch(Scratch::local, width * int64_t{sizeof(T)}));
    std::memset(sums, 0, static_cast<size_t>(width) * sizeof(T));
    sums += left;
    for (int64_t plane = begin; plane < end; ++plane) {
      const T* grad = a.grad_output + plane * p.out_h * p.out_w;
      T* out = a.grad_input + plane * p.in_h * p.in_w;
      int64_t last_first = -1, last_end = -1;
      for (int64_t h = 0; h < p.in_h; ++h, out += p.in_w) {
        // the windows first <= oh < last cover row h
        const int64_t above = h + p.pad_h - p.kernel_h;
        const int64_t first = above < 0 ? 0 : above / p.stride_h + 1;
        int64_t last = (h + p.pad_h) / p.stride_h + 1;
        if (last > p.out_h) last = p.out_h;
        if (first == last_first && last == last_end) {
          std::memcpy(out, out - p.in_w, static_cast<size_t>(p.in_w) * sizeof(T));
          continue;
        }
        add_rows<T>(grad + first * p.out_w, inverse + first * p.out_w, last - first, p.out_w, p.out_w, sums);
        spread_row<T, Stride>(p, sums, out);
        last_first = first;
        last_end = last;
      }
    }
  });
}

template <class T>
void avg_backward_nchw(const AvgPool2dBackward<T>& a, const Parallel& par) {
  if (a.p.stride_w == 1)
    avg_backward_nchw_as<T, 1>(a, par);
  else if (a.p.stride_w == 2)
    avg_backward_nchw_as<T, 2>(a, par);
  else
    avg_backward_nchw_as<T, 0>(a, par);
}

template <class A>
bool avg_nchw_applies(const A& a) {
  return a.layout == Layout::nchw && rows_of_windows_fit(a.p);
}

}  // namespace
}  // namespace cisdl
