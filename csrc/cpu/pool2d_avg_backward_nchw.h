// The gradient of average pooling in [N, C, H, W]: lanes along a row.
//
// Three passes over a strip of rows, in scratch memory: the gradients of the windows over it times 1/divisor, with
// zeros around each row; each of these rows spread over the columns, where a vector of cells sums the windows that
// cover it (at stride 2 even and odd columns apart, then interleaved; other strides cell by cell); and each row of
// the image as the sum of the spread rows that cover it. A row is spread once, however many rows it covers.
#pragma once

#include "pool2d_avg_nhwc.h"
#include "pool2d_rows_nchw.h"

namespace cisdl {
namespace {

template <class T>
struct SpreadRows {
  T* scaled;
  T* spread;
  int64_t left, scaled_pitch, spread_pitch;
};

// A row of windows' scaled gradients as what it gives to each column of the image.
template <class T, int Stride, int Kernel>
CISDL_INLINE void spread_row(const Pool2dProblem& p, const T* scaled, T* out) {
  constexpr int W = kWidth<T>;
  if constexpr (Stride == 0) {
    for (int64_t w = 0; w < p.in_w; ++w) out[w] = T(0);
    for (int64_t ow = 0; ow < p.out_w; ++ow) {
      const Taps cols = taps_w(p, ow);
      for (int64_t s = cols.begin; s < cols.end; ++s) out[ow * p.stride_w - p.pad_w + s] += scaled[ow];
    }
  } else {
    const ColumnTaps<Stride> taps{p.pad_w};
    const int64_t kernel_w = Kernel ? Kernel : p.kernel_w;
    for (int64_t w = 0; w < p.in_w; w += Stride * W) {
      Vec<T> acc[Stride];
      for (int i = 0; i < Stride; ++i) acc[i] = zero<T>();
#pragma GCC unroll 3
      for (int64_t s = 0; s < kernel_w; ++s) {
        const Vec<T> v = load(scaled + w / Stride + taps.offset(s));
        if (Stride == 1 || s % 2 == 0)
          acc[0] += v;
        else
          acc[Stride - 1] += v;
      }
      store_columns<T, Stride>(out + w, acc, taps.swapped(), Stride * W);
    }
  }
}

// The sum of `count` rows, `step` apart.
template <class T>
CISDL_INLINE void add_rows(const T* rows, int64_t count, int64_t step, int64_t n, T* out) {
  constexpr int W = kWidth<T>;
  for (int64_t i = 0; i < n; i += W) {
    Vec<T> sum = count > 0 ? load(rows + i) : zero<T>();
    for (int64_t r = 1; r < count; ++r) sum += load(rows + r * step + i);
    store_up_to(out + i, sum, n - i);
  }
}

template <class T, int Stride, int Kernel>
void avg_backward_nchw_as(const AvgPool2dBackward<T>& a, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const Pool2dProblem& p = a.p;
  const int64_t over_bytes = windows_over_bytes(p);
  char* shared = static_cast<char*>(scratch(Scratch::shared, over_bytes + divisors_bytes(p, sizeof(T))));
  const Taps* over = list_windows_over(p, shared);
  const T* inverse = fill_inverse_divisors(a, reinterpret_cast<T*>(shared + over_bytes));
  const int64_t in_cells = p.in_h * p.in_w, out_cells = p.out_h * p.out_w;
  SpreadRows<T> layout;
  layout.left = p.kernel_w;
  int64_t border = Stride ? (p.in_w + p.pad_w) / Stride + 1 - p.out_w : 0;  // as in max_gather_nchw_as
  if (border < 0) border = 0;
  layout.scaled_pitch = layout.left + round_up_to_lanes<T>(p.out_w) + round_up_to_lanes<T>(border) + 2 * W;
  layout.spread_pitch = p.in_w + 2 * W;
  const int64_t overlap = (p.kernel_h - 1) / p.stride_h + 1;
  const int64_t row_bytes = (layout.scaled_pitch + layout.spread_pitch) * int64_t{sizeof(T)};
  int64_t height = (rows_of_strip(row_bytes) - overlap) * p.stride_h;
  height = height < 1 ? 1 : height < p.in_h ? height : p.in_h;
  const int64_t rows_of_windows = (height - 1) / p.stride_h + 1 + overlap;
  const auto make = [&] {
    SpreadRows<T> m = layout;
    m.scaled = static_cast<T*>(scratch(Scratch::local, rows_of_windows * row_bytes));
    m.spread = m.scaled + rows_of_windows * m.scaled_pitch;
    std::memset(m.scaled, 0, static_cast<size_t>(rows_of_windows * m.scaled_pitch) * sizeof(T));
    return m;
  };
  const auto strip = [=](const SpreadRows<T>& memory, int64_t plane, int64_t begin, int64_t end) {
    const Pool2dProblem q = p;
    const SpreadRows<T> m = memory;
    const Taps* rows_over = over;
    const T* divisors = inverse;
    const Taps rows{rows_over[begin].begin, rows_over[end - 1].end};
    for (int64_t oh = rows.begin; oh < rows.end; ++oh) {
      const T* grad = a.grad_output + plane * out_cells + oh * q.out_w;
      T* to = m.scaled + (oh - rows.begin) * m.scaled_pitch + m.left;
      for (int64_t ow = 0; ow < q.out_w; ow += W) {
        const int64_t n = q.out_w - ow;
        store(to + ow, load_up_to(grad + ow, n) * load_up_to(divisors + oh * q.out_w + ow, n));
      }
    }
    for (int64_t i = 0; i < rows.end - rows.begin; ++i)
      spread_row<T, Stride, Kernel>(q, m.scaled + i * m.scaled_pitch + m.left, m.spread + i * m.spread_pitch);
    for (int64_t h = begin; h < end; ++h) {
      const Taps by = rows_over[h];
      add_rows(m.spread + (by.begin - rows.begin) * m.spread_pitch, by.end - by.begin, m.spread_pitch, q.in_w,
               a.grad_input + plane * in_cells + h * q.in_w);
    }
  };
  for_each_strip(par, p.batch * p.channels, p.in_h, height, p.in_w, make, strip);
}

template <class T>
void avg_backward_nchw(const AvgPool2dBackward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  if (p.stride_w == 2 && p.kernel_w == 2)
    avg_backward_nchw_as<T, 2, 2>(a, par);
  else if (p.stride_w == 2 && p.kernel_w == 3)
    avg_backward_nchw_as<T, 2, 3>(a, par);
  else if (p.stride_w == 2)
    avg_backward_nchw_as<T, 2, 0>(a, par);
  else if (p.stride_w == 1 && p.kernel_w == 3)
    avg_backward_nchw_as<T, 1, 3>(a, par);
  else if (p.stride_w == 1)
    avg_backward_nchw_as<T, 1, 0>(a, par);
  else
    avg_backward_nchw_as<T, 0, 0>(a, par);
}

}  // namespace
}  // namespace cisdl
