// Adaptive pooling with windows of several sizes. (Windows of one size are pooling with stride = kernel, which has
// its own kernels; pool2d.cpp sends them there.)
//
// lanes_nhwc takes channels as lanes, pixel by pixel; planes_nchw transposes groups of small planes to that layout
// (pool2d_planes_nchw.h). Both use the pixel functions of pool2d_*_nhwc.h, for only the windows differ. The
// gradient of an average gathers over the windows that contain a cell, again with the functions of pooling; that
// of a maximum is scattered to the places. What is left, large planes in [N, C, H, W], runs plain: one window at a
// time.
#pragma once

#include "pool2d_avg_nhwc.h"
#include "pool2d_max_nhwc.h"
#include "pool2d_max_places.h"
#include "pool2d_planes_nchw.h"

namespace cisdl {
namespace {

// The cells of window i of `out` along `in` cells; or, called with (i, in, out), the windows that contain cell i.
CISDL_INLINE Taps adaptive_window(int64_t i, int64_t out, int64_t in) {
  return {i * in / out, ((i + 1) * in + out - 1) / out};
}

// ---------------------------------------------------------------------------------------------- average

template <class T>
void adaptive_avg_forward_plain(const AdaptiveAvgPool2dForward<T>& a, const Parallel& par) {
  const AdaptivePool2dProblem& p = a.p;
  parallel_for(par, p.batch * p.channels, planes_grain(p.in_h * p.in_w), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const PlaneStrides in = plane_strides(a.layout, plane, p.channels, p.in_h, p.in_w);
      const PlaneStrides out = plane_strides(a.layout, plane, p.channels, p.out_h, p.out_w);
      for (int64_t oh = 0; oh < p.out_h; ++oh) {
        const Taps rows = adaptive_window(oh, p.out_h, p.in_h);
        for (int64_t ow = 0; ow < p.out_w; ++ow) {
          const Taps cols = adaptive_window(ow, p.out_w, p.in_w);
          T sum = T(0);
          for (int64_t h = rows.begin; h < rows.end; ++h)
            for (int64_t w = cols.begin; w < cols.end; ++w) sum += a.input[in.offset + h * in.row + w * in.cell];
          const int64_t cells = (rows.end - rows.begin) * (cols.end - cols.begin);
          a.output[out.offset + oh * out.row + ow * out.cell] = sum / static_cast<T>(cells);
        }
      }
    }
  });
}

template <class T>
void adaptive_avg_backward_plain(const AdaptiveAvgPool2dBackward<T>& a, const Parallel& par) {
  const AdaptivePool2dProblem& p = a.p;
  parallel_for(par, p.batch * p.channels, planes_grain(p.in_h * p.in_w), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const PlaneStrides in = plane_strides(a.layout, plane, p.channels, p.in_h, p.in_w);
      const PlaneStrides out = plane_strides(a.layout, plane, p.channels, p.out_h, p.out_w);
      T* grad = a.grad_input + in.offset;
      for (int64_t i = 0; i < p.in_h * p.in_w; ++i) grad[i * in.cell] = T(0);
      for (int64_t oh = 0; oh < p.out_h; ++oh) {
        const Taps rows = adaptive_window(oh, p.out_h, p.in_h);
        for (int64_t ow = 0; ow < p.out_w; ++ow) {
          const Taps cols = adaptive_window(ow, p.out_w, p.in_w);
          const int64_t cells = (rows.end - rows.begin) * (cols.end - cols.begin);
          const T share = a.grad_output[out.offset + oh * out.row + ow * out.cell] / static_cast<T>(cells);
          for (int64_t h = rows.begin; h < rows.end; ++h)
            for (int64_t w = cols.begin; w < cols.end; ++w) grad[h * in.row + w * in.cell] += share;
        }
      }
    }
  });
}

// Row oh of the output of one image, [out_w][C], from the image [in_h][in_w][C].
template <class T>
CISDL_INLINE void adaptive_avg_row_nhwc(const AdaptivePool2dProblem& p, int64_t C, const T* image, int64_t oh,
                                        T* out) {
  const Taps rows = adaptive_window(oh, p.out_h, p.in_h);
  const int64_t height = rows.end - rows.begin;
  for (int64_t ow = 0; ow < p.out_w; ++ow, out += C) {
    const Taps cols = adaptive_window(ow, p.out_w, p.in_w);
    const int64_t width = cols.end - cols.begin;
    avg_pixel_nhwc(image + (rows.begin * p.in_w + cols.begin) * C, height, width, p.in_w * C, C,
                   T(1) / static_cast<T>(height * width), out);
  }
}

template <class T>
void adaptive_avg_forward_nhwc(const AdaptiveAvgPool2dForward<T>& a, const Parallel& par) {
  const AdaptivePool2dProblem& p = a.p;
  const int64_t C = p.channels, row_cells = p.in_w * C * (p.in_h / (p.out_h + 1) + 1);
  parallel_for(par, p.batch * p.out_h, planes_grain(row_cells), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      adaptive_avg_row_nhwc<T>(p, C, a.input + (i / p.out_h) * p.in_h * p.in_w * C, i % p.out_h,
                               a.output + i * p.out_w * C);
  });
}

template <class T>
void adaptive_avg_forward_planes(const AdaptiveAvgPool2dForward<T>& a, const Parallel& par) {
  avg_by_plane_groups<T>(a, par, [&](const T* image, int64_t oh, T* out) {
    adaptive_avg_row_nhwc<T>(a.p, kWidth<T>, image, oh, out);
  });
}

// Windows cover at most so many cells, counted with repetition.
CISDL_INLINE int64_t adaptive_entries(int64_t in, int64_t out) { return in + 2 * out; }

inline Covers list_adaptive_covers(void* memory, int64_t in, int64_t out) {
  Covers covers;
  covers.entries = static_cast<Covers::Entry*>(memory);
  covers.first = reinterpret_cast<int32_t*>(covers.entries + adaptive_entries(in, out));
  int32_t count = 0;
  for (int64_t x = 0; x < in; ++x) {
    covers.first[x] = count;
    const Taps windows = adaptive_window(x, in, out);
    for (int64_t o = windows.begin; o < windows.end; ++o) covers.entries[count++] = {static_cast<int32_t>(o), 0};
  }
  covers.first[in] = count;
  return covers;
}

template <class T>
inline AvgCovers<T> list_avg_covers(const AdaptiveAvgPool2dBackward<T>& a) {
  const AdaptivePool2dProblem& p = a.p;
  const int64_t table_bytes = divisors_bytes(p, sizeof(T));
  const int64_t rows_bytes = covers_bytes(p.in_h, adaptive_entries(p.in_h, p.out_h));
  const int64_t cols_bytes = covers_bytes(p.in_w, adaptive_entries(p.in_w, p.out_w));
  char* memory = static_cast<char*>(scratch(Scratch::shared, table_bytes + rows_bytes + cols_bytes));
  T* inverse = reinterpret_cast<T*>(memory);
  for (int64_t oh = 0; oh < p.out_h; ++oh) {
    const Taps rows = adaptive_window(oh, p.out_h, p.in_h);
    for (int64_t ow = 0; ow < p.out_w; ++ow) {
      const Taps cols = adaptive_window(ow, p.out_w, p.in_w);
      inverse[oh * p.out_w + ow] = T(1) / static_cast<T>((rows.end - rows.begin) * (cols.end - cols.begin));
    }
  }
  memory += table_bytes;
  return {inverse, list_adaptive_covers(memory, p.in_h, p.out_h),
          list_adaptive_covers(memory + rows_bytes, p.in_w, p.out_w)};
}

template <class T>
void adaptive_avg_backward_nhwc(const AdaptiveAvgPool2dBackward<T>& a, const Parallel& par) {
  const AdaptivePool2dProblem& p = a.p;
  const int64_t C = p.channels;
  const AvgCovers<T> covers = list_avg_covers(a);
  parallel_for(par, p.batch * p.in_h, planes_grain(p.in_w * C), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      avg_gather_row_nhwc<T>(p, C, covers, a.grad_output + (i / p.in_h) * p.out_h * p.out_w * C, i % p.in_h,
                             a.grad_input + i * p.in_w * C);
  });
}

template <class T>
void adaptive_avg_backward_planes(const AdaptiveAvgPool2dBackward<T>& a, const Parallel& par) {
  const AvgCovers<T> covers = list_avg_covers(a);
  avg_backward_by_plane_groups<T>(a, par, [&](const T* grad, int64_t h, T* out) {
    avg_gather_row_nhwc<T>(a.p, kWidth<T>, covers, grad, h, out);
  });
}

// ---------------------------------------------------------------------------------------------- maximum

template <class T>
void adaptive_max_forward_plain(const AdaptiveMaxPool2dForward<T>& a, const Parallel& par) {
  const AdaptivePool2dProblem& p = a.p;
  parallel_for(par, p.batch * p.channels, planes_grain(p.in_h * p.in_w), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const PlaneStrides in = plane_strides(a.layout, plane, p.channels, p.in_h, p.in_w);
      const PlaneStrides out = plane_strides(a.layout, plane, p.channels, p.out_h, p.out_w);
      for (int64_t oh = 0; oh < p.out_h; ++oh) {
        const Taps rows = adaptive_window(oh, p.out_h, p.in_h);
        for (int64_t ow = 0; ow < p.out_w; ++ow) {
          const Taps cols = adaptive_window(ow, p.out_w, p.in_w);
          T best = -std::numeric_limits<T>::infinity();
          int64_t place = rows.begin * p.in_w + cols.begin;
          for (int64_t h = rows.begin; h < rows.end; ++h) {
            for (int64_t w = cols.begin; w < cols.end; ++w) {
              const T v = a.input[in.offset + h * in.row + w * in.cell];
              if (v > best || v != v) best = v, place = h * p.in_w + w;
            }
          }
          const int64_t at = out.offset + oh * out.row + ow * out.cell;
          a.output[at] = best;
          if (a.indices) a.indices[at] = place;
        }
      }
    }
  });
}

// Row oh of the output of one image, [out_w][C], and its places, from the image [in_h][in_w][C].
template <class T, bool WithCode, class IndexT>
CISDL_INLINE void adaptive_max_row_nhwc(const AdaptivePool2dProblem& p, int64_t C, const T* image, int64_t oh,
                                        T* out, IndexT* index) {
  const Taps rows = adaptive_window(oh, p.out_h, p.in_h);
  for (int64_t ow = 0; ow < p.out_w; ++ow, out += C) {
    const Taps cols = adaptive_window(ow, p.out_w, p.in_w);
    MaxWindow<T> window;
    window.code = rows.begin * p.in_w + cols.begin;
    window.x = image + window.code * C;
    window.rows = rows.end - rows.begin;
    window.cols = cols.end - cols.begin;
    window.row_step = p.in_w * C;
    window.col_step = C;
    window.code_row_step = p.in_w;
    window.code_col_step = 1;
    max_pixel_nhwc<T, WithCode>(window, C, out, WithCode ? index + ow * C : index);
  }
}

template <class T, bool WithCode>
void adaptive_max_forward_nhwc_as(const AdaptiveMaxPool2dForward<T>& a, const Parallel& par) {
  const AdaptivePool2dProblem& p = a.p;
  const int64_t C = p.channels, row_cells = p.in_w * C * (p.in_h / (p.out_h + 1) + 1);
  parallel_for(par, p.batch * p.out_h, planes_grain(row_cells), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      adaptive_max_row_nhwc<T, WithCode>(p, C, a.input + (i / p.out_h) * p.in_h * p.in_w * C, i % p.out_h,
                                         a.output + i * p.out_w * C,
                                         WithCode ? a.indices + i * p.out_w * C : a.indices);
  });
}

template <class T>
void adaptive_max_forward_nhwc(const AdaptiveMaxPool2dForward<T>& a, const Parallel& par) {
  if (a.indices)
    adaptive_max_forward_nhwc_as<T, true>(a, par);
  else
    adaptive_max_forward_nhwc_as<T, false>(a, par);
}

template <class T, PoolIndex Index>
void adaptive_max_forward_planes_as(const AdaptiveMaxPool2dForward<T>& a, const Parallel& par) {
  max_by_plane_groups<T, Index>(a, par, [&](const T* image, int64_t oh, T* out, auto* code) {
    adaptive_max_row_nhwc<T, Index != PoolIndex::none>(a.p, kWidth<T>, image, oh, out, code);
  });
}

template <class T>
void adaptive_max_forward_planes(const AdaptiveMaxPool2dForward<T>& a, const Parallel& par) {
  if (a.indices)
    adaptive_max_forward_planes_as<T, PoolIndex::flat>(a, par);
  else
    adaptive_max_forward_planes_as<T, PoolIndex::none>(a, par);
}

// Places in the plane need no windows: the kernels of max pooling that do not look at them serve.
template <class T>
MaxPool2dBackward<T> without_windows(const AdaptiveMaxPool2dBackward<T>& a) {
  const AdaptivePool2dProblem& p = a.p;
  return {{p.batch, p.channels, p.in_h, p.in_w, p.out_h, p.out_w, 1, 1, 1, 1, 0, 0, 1, 1},
          a.layout,
          PoolIndex::flat,
          a.grad_output,
          a.indices,
          a.grad_input};
}

template <class T>
void adaptive_max_scatter(const AdaptiveMaxPool2dBackward<T>& a, const Parallel& par) {
  max_scatter(without_windows(a), par);
}

template <class T>
void adaptive_max_backward_plain(const AdaptiveMaxPool2dBackward<T>& a, const Parallel& par) {
  max_backward_plain(without_windows(a), par);
}

// --------------------------------------------------------------------------------------------- applicable

// Lanes of float hold places in 32 bits.
template <class T>
bool adaptive_max_nhwc_applies(const AdaptiveMaxPool2dForward<T>& a) {
  return a.layout == Layout::nhwc && a.p.in_h * a.p.in_w < int64_t{1} << 30;
}

template <class T, class A>
bool adaptive_planes_applies(const A& a) {
  return a.layout == Layout::nchw && planes_are_small<T>(a.p) && a.p.out_h * a.p.out_w <= 4 * a.p.in_h * a.p.in_w;
}

}  // namespace
}  // namespace cisdl
