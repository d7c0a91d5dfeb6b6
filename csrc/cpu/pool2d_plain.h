// Pooling for every layout and option, one output (or one plane) at a time: the definition in code.
//
// One thread takes a whole [H, W] plane of one image and channel; strides make both layouts the same loop. The
// fast kernels in pool2d_*_nchw.h and pool2d_*_nhwc.h are tested against this one, and it runs what they leave.
#pragma once

#include <cmath>
#include <limits>

#include "kernels.h"
#include "simd.h"

namespace cisdl {
namespace {

// The taps [begin, end) of a window along one dimension that lie inside the image.
struct Taps {
  int64_t begin, end;
};

CISDL_INLINE Taps taps_inside(int64_t out, int64_t stride, int64_t pad, int64_t dilation, int64_t kernel,
                              int64_t in) {
  const int64_t start = out * stride - pad;
  if (start >= 0 && start + (kernel - 1) * dilation < in) return {0, kernel};
  const int64_t begin = start < 0 ? (-start + dilation - 1) / dilation : 0;
  const int64_t fit = start < in ? (in - 1 - start) / dilation + 1 : 0;
  const int64_t end = fit < kernel ? fit : kernel;
  return {begin, end > begin ? end : begin};
}

CISDL_INLINE Taps taps_h(const Pool2dProblem& p, int64_t oh) {
  return taps_inside(oh, p.stride_h, p.pad_h, p.dilation_h, p.kernel_h, p.in_h);
}

CISDL_INLINE Taps taps_w(const Pool2dProblem& p, int64_t ow) {
  return taps_inside(ow, p.stride_w, p.pad_w, p.dilation_w, p.kernel_w, p.in_w);
}

// How many cells the window `out` has along one dimension for the divisor of an average: those inside the image,
// or, with count_include_pad, those inside the padded image.
CISDL_INLINE int64_t window_cells(int64_t out, int64_t stride, int64_t pad, int64_t kernel, int64_t in,
                                  bool count_include_pad) {
  const Taps taps = taps_inside(out, stride, pad, 1, kernel, in);
  if (!count_include_pad) return taps.end - taps.begin;
  const int64_t start = out * stride - pad;
  return start + kernel < in + pad ? kernel : in + pad - start;
}

template <class T>
CISDL_INLINE T inverse_divisor(int64_t cells_h, int64_t cells_w, int64_t divisor_override) {
  const int64_t divisor = divisor_override ? divisor_override : cells_h * cells_w;
  return divisor == 0 ? T(0) : T(1) / static_cast<T>(divisor);
}

// Where plane `i` (of batch * channels) starts and how far apart its rows and cells are.
struct PlaneStrides {
  int64_t offset, row, cell;
};

CISDL_INLINE PlaneStrides plane_strides(Layout layout, int64_t i, int64_t channels, int64_t h, int64_t w) {
  if (layout == Layout::nchw) return {i * h * w, w, 1};
  return {(i / channels) * h * w * channels + i % channels, w * channels, channels};
}

// Kernels that keep a row of windows in scratch memory leave windows far larger than the image to others.
CISDL_INLINE bool rows_of_windows_fit(const Pool2dProblem& p) {
  const int64_t limit = 4 * p.in_w + 1024;
  return p.kernel_w * p.dilation_w <= limit && p.stride_w <= limit;
}

// At most so many cells has a window inside the image, however large it is said to be.
CISDL_INLINE int64_t window_cells_inside(const Pool2dProblem& p) {
  return (p.kernel_h < p.in_h ? p.kernel_h : p.in_h) * (p.kernel_w < p.in_w ? p.kernel_w : p.in_w);
}

CISDL_INLINE int64_t planes_grain(int64_t cells) { return 16384 / (cells + 1) + 1; }

template <class A>
bool always(const A&) {
  return true;
}

template <class T>
void max_forward_plain(const MaxPool2dForward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  parallel_for(par, p.batch * p.channels, planes_grain(p.in_h * p.in_w), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const PlaneStrides in = plane_strides(a.layout, plane, p.channels, p.in_h, p.in_w);
      const PlaneStrides out = plane_strides(a.layout, plane, p.channels, p.out_h, p.out_w);
      const T* x = a.input + in.offset;
      for (int64_t oh = 0; oh < p.out_h; ++oh) {
        const Taps rows = taps_h(p, oh);
        for (int64_t ow = 0; ow < p.out_w; ++ow) {
          const Taps cols = taps_w(p, ow);
          const int64_t h0 = oh * p.stride_h - p.pad_h, w0 = ow * p.stride_w - p.pad_w;
          T best = -std::numeric_limits<T>::infinity();
          int64_t best_r = rows.begin, best_s = cols.begin;
          for (int64_t r = rows.begin; r < rows.end; ++r) {
            for (int64_t s = cols.begin; s < cols.end; ++s) {
              const T v = x[(h0 + r * p.dilation_h) * in.row + (w0 + s * p.dilation_w) * in.cell];
              if (v > best || v != v) best = v, best_r = r, best_s = s;
            }
          }
          bool empty = rows.begin == rows.end || cols.begin == cols.end;
          if (a.relu && best <= T(0)) best = T(0), empty = true;
          const int64_t at = out.offset + oh * out.row + ow * out.cell;
          a.output[at] = best;
          if (a.index == PoolIndex::window) {
            static_cast<uint8_t*>(a.indices)[at] =
                empty ? uint8_t{255} : static_cast<uint8_t>(best_r * p.kernel_w + best_s);
          } else if (a.index == PoolIndex::flat) {
            static_cast<int64_t*>(a.indices)[at] =
                empty ? -1 : (h0 + best_r * p.dilation_h) * p.in_w + w0 + best_s * p.dilation_w;
          }
        }
      }
    }
  });
}

struct Cell {
  int64_t h, w;
};

// The cell of the image that the index of output (oh, ow), the element `at`, names. Of a window without any cell
// inside the image it lies outside.
template <class A>
CISDL_INLINE Cell place_of(const A& a, int64_t oh, int64_t ow, int64_t at) {
  const Pool2dProblem& p = a.p;
  if (a.index == PoolIndex::flat) {
    const int64_t flat = static_cast<const int64_t*>(a.indices)[at];
    return {flat < 0 ? -1 : flat / p.in_w, flat % p.in_w};
  }
  const int64_t tap = static_cast<const uint8_t*>(a.indices)[at];
  if (tap >= p.kernel_h * p.kernel_w) return {-1, -1};
  return {oh * p.stride_h - p.pad_h + tap / p.kernel_w * p.dilation_h,
          ow * p.stride_w - p.pad_w + tap % p.kernel_w * p.dilation_w};
}

CISDL_INLINE bool is_inside(const Pool2dProblem& p, const Cell& cell) {
  return cell.h >= 0 && cell.h < p.in_h && cell.w >= 0 && cell.w < p.in_w;
}

template <class T>
void max_backward_plain(const MaxPool2dBackward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  parallel_for(par, p.batch * p.channels, planes_grain(p.in_h * p.in_w), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const PlaneStrides in = plane_strides(a.layout, plane, p.channels, p.in_h, p.in_w);
      const PlaneStrides out = plane_strides(a.layout, plane, p.channels, p.out_h, p.out_w);
      T* grad = a.grad_input + in.offset;
      for (int64_t i = 0; i < p.in_h * p.in_w; ++i) grad[i * in.cell] = T(0);
      for (int64_t oh = 0; oh < p.out_h; ++oh) {
        for (int64_t ow = 0; ow < p.out_w; ++ow) {
          const int64_t at = out.offset + oh * out.row + ow * out.cell;
          const Cell cell = place_of(a, oh, ow, at);
          if (is_inside(p, cell)) grad[(cell.h * p.in_w + cell.w) * in.cell] += a.grad_output[at];
        }
      }
    }
  });
}

template <class T>
void max_gather_plain(const MaxPool2dGather<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  parallel_for(par, p.batch * p.channels, planes_grain(p.out_h * p.out_w), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const PlaneStrides in = plane_strides(a.layout, plane, p.channels, p.in_h, p.in_w);
      const PlaneStrides out = plane_strides(a.layout, plane, p.channels, p.out_h, p.out_w);
      for (int64_t oh = 0; oh < p.out_h; ++oh) {
        for (int64_t ow = 0; ow < p.out_w; ++ow) {
          const int64_t at = out.offset + oh * out.row + ow * out.cell;
          const Cell cell = place_of(a, oh, ow, at);
          a.output[at] = is_inside(p, cell) ? a.input[in.offset + (cell.h * p.in_w + cell.w) * in.cell] : T(0);
        }
      }
    }
  });
}

template <class T>
void avg_forward_plain(const AvgPool2dForward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  parallel_for(par, p.batch * p.channels, planes_grain(p.in_h * p.in_w), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const PlaneStrides in = plane_strides(a.layout, plane, p.channels, p.in_h, p.in_w);
      const PlaneStrides out = plane_strides(a.layout, plane, p.channels, p.out_h, p.out_w);
      const T* x = a.input + in.offset;
      for (int64_t oh = 0; oh < p.out_h; ++oh) {
        const Taps rows = taps_h(p, oh);
        const int64_t cells_h = window_cells(oh, p.stride_h, p.pad_h, p.kernel_h, p.in_h, a.count_include_pad);
        for (int64_t ow = 0; ow < p.out_w; ++ow) {
          const Taps cols = taps_w(p, ow);
          const int64_t cells_w = window_cells(ow, p.stride_w, p.pad_w, p.kernel_w, p.in_w, a.count_include_pad);
          const int64_t h0 = oh * p.stride_h - p.pad_h, w0 = ow * p.stride_w - p.pad_w;
          T sum = T(0);
          for (int64_t r = rows.begin; r < rows.end; ++r)
            for (int64_t s = cols.begin; s < cols.end; ++s) sum += x[(h0 + r) * in.row + (w0 + s) * in.cell];
          a.output[out.offset + oh * out.row + ow * out.cell] =
              sum * inverse_divisor<T>(cells_h, cells_w, a.divisor_override);
        }
      }
    }
  });
}

template <class T>
void avg_backward_plain(const AvgPool2dBackward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  parallel_for(par, p.batch * p.channels, planes_grain(p.in_h * p.in_w), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const PlaneStrides in = plane_strides(a.layout, plane, p.channels, p.in_h, p.in_w);
      const PlaneStrides out = plane_strides(a.layout, plane, p.channels, p.out_h, p.out_w);
      T* grad = a.grad_input + in.offset;
      for (int64_t i = 0; i < p.in_h * p.in_w; ++i) grad[i * in.cell] = T(0);
      for (int64_t oh = 0; oh < p.out_h; ++oh) {
        const Taps rows = taps_h(p, oh);
        const int64_t cells_h = window_cells(oh, p.stride_h, p.pad_h, p.kernel_h, p.in_h, a.count_include_pad);
        for (int64_t ow = 0; ow < p.out_w; ++ow) {
          const Taps cols = taps_w(p, ow);
          const int64_t cells_w = window_cells(ow, p.stride_w, p.pad_w, p.kernel_w, p.in_w, a.count_include_pad);
          const int64_t h0 = oh * p.stride_h - p.pad_h, w0 = ow * p.stride_w - p.pad_w;
          const T share = a.grad_output[out.offset + oh * out.row + ow * out.cell] *
                          inverse_divisor<T>(cells_h, cells_w, a.divisor_override);
          for (int64_t r = rows.begin; r < rows.end; ++r)
            for (int64_t s = cols.begin; s < cols.end; ++s) grad[(h0 + r) * in.row + (w0 + s) * in.cell] += share;
        }
      }
    }
  });
}

}  // namespace
}  // namespace cisdl
