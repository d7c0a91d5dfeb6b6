// The gradient of pooling whose windows do not overlap (stride = kernel, or one window), in either layout.
//
// Each cell lies in at most one window, so each output is read once and all cells of its window are written: of a
// maximum its gradient where its index names the cell, else zero; of an average its share. In [N, H, W, C] lanes
// are channels; in [N, C, H, W] they are neighbouring windows two columns wide, of which the even and the odd
// columns are interleaved. Nothing is set to zero before and nothing is added up: this runs as fast as memory is
// written. Threads share rows of windows.
#pragma once

#include "pool2d_avg_nhwc.h"
#include "pool2d_max_nhwc.h"
#include "pool2d_rows_nchw.h"

namespace cisdl {
namespace {

// The rows (columns) of window o, and of the last one also those after it, which are in no window.
CISDL_INLINE Taps cells_of_window(int64_t o, int64_t out, int64_t stride, int64_t in) {
  const int64_t begin = o * stride;
  return {begin, o + 1 == out || begin + stride > in ? in : begin + stride};
}

template <class T, class IndexT>
void max_expand_nchw_as(const MaxPool2dBackward<T>& a, const Parallel& par) {
  constexpr int W = kWidth<T>;
  constexpr bool kFlat = sizeof(IndexT) == 8;
  const int64_t all = a.p.batch * a.p.channels * a.p.out_h;
  parallel_for(par, all, planes_grain(2 * a.p.in_w), [&](int64_t begin, int64_t end) {
    const Pool2dProblem p = a.p;
    const int64_t windows = all * p.out_w;
    int64_t plane = begin / p.out_h, oh = begin % p.out_h;
    for (int64_t i = begin; i < end; ++i, ++oh) {
      if (oh == p.out_h) ++plane, oh = 0;
      const Taps rows = cells_of_window(oh, p.out_h, p.stride_h, p.in_h);
      const T* grad = a.grad_output + i * p.out_w;
      const IndexT* index = static_cast<const IndexT*>(a.indices) + i * p.out_w;
      T* out = a.grad_input + plane * p.in_h * p.in_w;
      for (int64_t w = 0; w < p.in_w; w += 2 * W) {
        const int64_t ow = w / 2, n = ow < p.out_w ? p.out_w - ow : 0;
        const int64_t readable =
            windows - i * p.out_w - ow;  // lanes past n have gradient zero, whatever the index
        const Vec<T> v = load_up_to(grad + ow, n);
        const Mask<T> at = readable >= W ? load_index<T>(index + ow, W) : load_index<T>(index + ow, n);
        for (int64_t h = rows.begin; h < rows.end; ++h) {
          const int64_t r = h - rows.begin < p.kernel_h ? h - rows.begin : 128;  // 128: in no window
          const Mask<T> code = kFlat ? set1_code<T>(h * p.in_w + w) + iota<T>() * 2 : set1_code<T>(2 * r);
          Vec<T> columns[2] = {add_where<T>(zero<T>(), at, code, v), add_where<T>(zero<T>(), at, code + 1, v)};
          store_columns<T, 2>(out + h * p.in_w + w, columns, false, p.in_w - w);
        }
      }
    }
  });
}

// One row of windows in [N, H, W, C]. Cell by cell, so that what is written lies together; the window's gradients
// and indices stay in L1, int64 ones as codes made once.
template <class T, class IndexT>
void max_expand_nhwc_as(const MaxPool2dBackward<T>& a, const Parallel& par) {
  constexpr int W = kWidth<T>;
  constexpr bool kFlat = sizeof(IndexT) == 8;
  const int64_t row_cells = a.p.in_w * a.p.channels * a.p.stride_h;
  parallel_for(par, a.p.batch * a.p.out_h, planes_grain(row_cells), [&](int64_t begin, int64_t end) {
    const Pool2dProblem p = a.p;
    const int64_t C = p.channels;
    Code<T>* codes = static_cast<Code<T>*>(scratch(Scratch::local, (C + W) * int64_t{sizeof(Code<T>)}));
    for (int64_t i = begin; i < end; ++i) {
      const Taps rows = cells_of_window(i % p.out_h, p.out_h, p.stride_h, p.in_h);
      T* image = a.grad_input + i / p.out_h * p.in_h * p.in_w * C;
      for (int64_t ow = 0; ow < p.out_w; ++ow) {
        const Taps cols = cells_of_window(ow, p.out_w, p.stride_w, p.in_w);
        const T* grad = a.grad_output + (i * p.out_w + ow) * C;
        const IndexT* index = static_cast<const IndexT*>(a.indices) + (i * p.out_w + ow) * C;
        for (int64_t c = 0; c < C; c += W)
          store_code<T>(codes + c, load_index<T>(index + c, C - c < W ? C - c : W));
        for (int64_t h = rows.begin; h < rows.end; ++h) {
          T* out = image + (h * p.in_w + cols.begin) * C;
          for (int64_t w = cols.begin; w < cols.end; ++w, out += C) {
            const int64_t r = h - rows.begin, s = w - cols.begin;
            const bool inside = r < p.kernel_h && s < p.kernel_w;  // else in no window
            const Mask<T> code = set1_code<T>(!inside ? -2 : kFlat ? h * p.in_w + w : r * p.kernel_w + s);
            for_channel_blocks<T>(C, [&]<int NV>(int64_t c, int64_t n) __attribute__((always_inline)) {
#pragma GCC unroll 4
              for (int v = 0; v < NV; ++v) {
                const int64_t at = c + v * W;
                store_lanes(out + at,
                            add_where<T>(zero<T>(), load_code<T>(codes + at), code, load_lanes(grad + at, n)), n);
              }
            });
          }
        }
      }
    }
  });
}

template <class T>
void max_expand(const MaxPool2dBackward<T>& a, const Parallel& par) {
  const bool compact = a.index == PoolIndex::window;
  if (a.layout == Layout::nhwc)
    compact ? max_expand_nhwc_as<T, uint8_t>(a, par) : max_expand_nhwc_as<T, int64_t>(a, par);
  else
    compact ? max_expand_nchw_as<T, uint8_t>(a, par) : max_expand_nchw_as<T, int64_t>(a, par);
}

// Windows side by side, or only one, from the image's first cell on.
CISDL_INLINE bool windows_are_apart(int64_t out, int64_t stride, int64_t kernel, int64_t pad) {
  return pad == 0 && (out == 1 || stride == kernel);
}

CISDL_INLINE bool windows_are_apart(const Pool2dProblem& p) {
  return p.dilation_h == 1 && p.dilation_w == 1 && p.out_h > 0 && p.out_w > 0 &&
         windows_are_apart(p.out_h, p.stride_h, p.kernel_h, p.pad_h) &&
         windows_are_apart(p.out_w, p.stride_w, p.kernel_w, p.pad_w);
}

template <class T>
bool max_expand_applies(const MaxPool2dBackward<T>& a) {
  const Pool2dProblem& p = a.p;
  if (!windows_are_apart(p) || !plane_fits_lanes(p)) return false;
  if (a.layout == Layout::nhwc) return 2 * p.channels >= kWidth<T>;
  return p.kernel_w == 2 && p.stride_w == 2 && 4 * p.out_w >= kWidth<T>;
}

// ---------------------------------------------------------------------------------------------- average

template <class T>
void avg_expand_nchw(const AvgPool2dBackward<T>& a, const T* inverse, const Parallel& par) {
  constexpr int W = kWidth<T>;
  parallel_for(par, a.p.batch * a.p.channels * a.p.out_h, planes_grain(2 * a.p.in_w),
               [&](int64_t begin, int64_t end) {
                 const Pool2dProblem p = a.p;
                 const T* divisors = inverse;
                 int64_t plane = begin / p.out_h, oh = begin % p.out_h;
                 for (int64_t i = begin; i < end; ++i, ++oh) {
                   if (oh == p.out_h) ++plane, oh = 0;
                   const Taps rows = cells_of_window(oh, p.out_h, p.stride_h, p.in_h);
                   const T* grad = a.grad_output + i * p.out_w;
                   T* out = a.grad_input + plane * p.in_h * p.in_w;
                   for (int64_t w = 0; w < p.in_w; w += 2 * W) {
                     const int64_t ow = w / 2, n = ow < p.out_w ? p.out_w - ow : 0;
                     const Vec<T> v = load_up_to(grad + ow, n) * load_up_to(divisors + oh * p.out_w + ow, n);
                     for (int64_t h = rows.begin; h < rows.end; ++h) {
                       const Vec<T> share = h - rows.begin < p.kernel_h ? v : zero<T>();
                       Vec<T> columns[2] = {share, share};
                       store_columns<T, 2>(out + h * p.in_w + w, columns, false, p.in_w - w);
                     }
                   }
                 }
               });
}

template <class T>
void avg_expand_nhwc(const AvgPool2dBackward<T>& a, const T* inverse, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const int64_t row_cells = a.p.in_w * a.p.channels * a.p.stride_h;
  parallel_for(par, a.p.batch * a.p.out_h, planes_grain(row_cells), [&](int64_t begin, int64_t end) {
    const Pool2dProblem p = a.p;
    const int64_t C = p.channels;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t oh = i % p.out_h;
      const Taps rows = cells_of_window(oh, p.out_h, p.stride_h, p.in_h);
      T* image = a.grad_input + i / p.out_h * p.in_h * p.in_w * C;
      for (int64_t ow = 0; ow < p.out_w; ++ow) {
        const Taps cols = cells_of_window(ow, p.out_w, p.stride_w, p.in_w);
        const T* grad = a.grad_output + (i * p.out_w + ow) * C;
        const T scale = inverse[oh * p.out_w + ow];
        for (int64_t h = rows.begin; h < rows.end; ++h) {
          T* out = image + (h * p.in_w + cols.begin) * C;
          for (int64_t w = cols.begin; w < cols.end; ++w, out += C) {
            const bool inside = h - rows.begin < p.kernel_h && w - cols.begin < p.kernel_w;
            const Vec<T> share = set1(scale);
            for_channel_blocks<T>(C, [&]<int NV>(int64_t c, int64_t n) __attribute__((always_inline)) {
#pragma GCC unroll 4
              for (int v = 0; v < NV; ++v)
                store_lanes(out + c + v * W, inside ? load_lanes(grad + c + v * W, n) * share : zero<T>(), n);
            });
          }
        }
      }
    }
  });
}

template <class T>
void avg_expand(const AvgPool2dBackward<T>& a, const Parallel& par) {
  const T* inverse =
      fill_inverse_divisors(a, static_cast<T*>(scratch(Scratch::shared, divisors_bytes(a.p, sizeof(T)))));
  if (a.layout == Layout::nhwc)
    avg_expand_nhwc(a, inverse, par);
  else
    avg_expand_nchw(a, inverse, par);
}

template <class T>
bool avg_expand_applies(const AvgPool2dBackward<T>& a) {
  const Pool2dProblem& p = a.p;
  return windows_are_apart(p) && (a.layout == Layout::nhwc || (p.kernel_w == 2 && p.stride_w == 2));
}

}  // namespace
}  // namespace cisdl
