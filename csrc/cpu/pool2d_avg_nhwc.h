// Average pooling in channels_last: lanes along the channels, as in pool2d_max_nhwc.h.
//
// Forward sums the taps of one output pixel in registers and multiplies by the window's 1/divisor, read from a
// table [out_h][out_w] made once per call. Backward gathers for each input pixel over the windows that cover it,
// so it is written once and the order of the sum is fixed.
#pragma once

#include "pool2d_max_nhwc.h"

namespace cisdl {
namespace {

// 1/divisor of each window, as a table [out_h][out_w]. Most rows are copies of the one before.
template <class T, class A>
T* fill_inverse_divisors(const A& a, T* table) {
  const Pool2dProblem& p = a.p;
  int64_t cells_before = -1;
  for (int64_t oh = 0; oh < p.out_h; ++oh) {
    T* row = table + oh * p.out_w;
    const int64_t cells_h = window_cells(oh, p.stride_h, p.pad_h, p.kernel_h, p.in_h, a.count_include_pad);
    if (cells_h == cells_before) {
      std::memcpy(row, row - p.out_w, static_cast<size_t>(p.out_w) * sizeof(T));
      continue;
    }
    cells_before = cells_h;
    for (int64_t ow = 0; ow < p.out_w; ++ow) {
      const int64_t cells_w = window_cells(ow, p.stride_w, p.pad_w, p.kernel_w, p.in_w, a.count_include_pad);
      row[ow] = inverse_divisor<T>(cells_h, cells_w, a.divisor_override);
    }
  }
  return table;
}

template <class Problem>
CISDL_INLINE int64_t divisors_bytes(const Problem& p, int64_t size) {
  return (p.out_h * p.out_w * size + 63) / 64 * 64;
}

// One output pixel, [C]: `scale` times the sum of rows x cols pixels, the first of them at x.
template <class T>
CISDL_INLINE void avg_pixel_nhwc(const T* x, int64_t rows, int64_t cols, int64_t row_step, int64_t C, T scale,
                                 T* out) {
  constexpr int W = kWidth<T>;
  for_channel_blocks<T>(C, [&]<int NV>(int64_t c, int64_t n) __attribute__((always_inline)) {
    Vec<T> sum[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sum[v] = zero<T>();
    for (int64_t r = 0; r < rows; ++r) {
      const T* pixel = x + r * row_step + c;
      for (int64_t s = 0; s < cols; ++s, pixel += C) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sum[v] += load_lanes(pixel + v * W, n);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store_lanes<T>(out + c + v * W, sum[v] * set1(scale), n);
  });
}

// Row oh of the output of one image, [out_w][C], from the image [in_h][in_w][C].
template <class T>
CISDL_INLINE void avg_row_nhwc(const Pool2dProblem& p, int64_t C, const T* inverse, const T* image, int64_t oh,
                               T* out) {
  const Taps rows = taps_h(p, oh);
  const int64_t h0 = oh * p.stride_h - p.pad_h;
  for (int64_t ow = 0; ow < p.out_w; ++ow, out += C) {
    const Taps cols = taps_w(p, ow);
    const int64_t h = h0 + rows.begin, w = ow * p.stride_w - p.pad_w + cols.begin;
    avg_pixel_nhwc(image + (h * p.in_w + w) * C, rows.end - rows.begin, cols.end - cols.begin, p.in_w * C, C,
                   inverse[oh * p.out_w + ow], out);
  }
}

template <class T>
void avg_forward_nhwc(const AvgPool2dForward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  const int64_t C = p.channels;
  const T* inverse =
      fill_inverse_divisors(a, static_cast<T*>(scratch(Scratch::shared, divisors_bytes(p, sizeof(T)))));
  const int64_t row_cells = p.out_w * C * window_cells_inside(p);
  parallel_for(par, p.batch * p.out_h, planes_grain(row_cells), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      avg_row_nhwc<T>(p, C, inverse, a.input + (i / p.out_h) * p.in_h * p.in_w * C, i % p.out_h,
                      a.output + i * p.out_w * C);
  });
}

// What average pooling's backward makes once per call: 1/divisor of each window, and who covers what.
template <class T>
struct AvgCovers {
  const T* inverse;
  Covers rows, cols;
};

template <class T>
inline AvgCovers<T> list_avg_covers(const AvgPool2dBackward<T>& a) {
  const Pool2dProblem& p = a.p;
  const int64_t table_bytes = divisors_bytes(p, sizeof(T));
  const int64_t rows_bytes = covers_bytes(p.in_h, covers_entries(p.in_h, p.out_h, p.kernel_h));
  const int64_t cols_bytes = covers_bytes(p.in_w, covers_entries(p.in_w, p.out_w, p.kernel_w));
  char* memory = static_cast<char*>(scratch(Scratch::shared, table_bytes + rows_bytes + cols_bytes));
  AvgCovers<T> covers;
  covers.inverse = fill_inverse_divisors(a, reinterpret_cast<T*>(memory));
  memory += table_bytes;
  covers.rows = list_covers(memory, p.in_h, p.out_h, p.kernel_h, p.stride_h, p.pad_h, 1);
  covers.cols = list_covers(memory + rows_bytes, p.in_w, p.out_w, p.kernel_w, p.stride_w, p.pad_w, 1);
  return covers;
}

// Row h of one image of grad_input, [in_w][C], from the image's grad_output, [out_h][out_w][C]. Problem: either of
// the problems of average pooling; only its sizes count here.
template <class T, class Problem>
CISDL_INLINE void avg_gather_row_nhwc(const Problem& p, int64_t C, const AvgCovers<T>& covers, const T* grad,
                                      int64_t h, T* out) {
  constexpr int W = kWidth<T>;
  const Covers &rows = covers.rows, &cols = covers.cols;
  for (int64_t w = 0; w < p.in_w; ++w, out += C) {
    for_channel_blocks<T>(C, [&]<int NV>(int64_t c, int64_t n) __attribute__((always_inline)) {
      Vec<T> sum[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[v] = zero<T>();
      for (int32_t j = rows.first[h]; j < rows.first[h + 1]; ++j) {
        for (int32_t k = cols.first[w]; k < cols.first[w + 1]; ++k) {
          const int64_t at = rows.entries[j].out * p.out_w + cols.entries[k].out;
          const Vec<T> scale = set1(covers.inverse[at]);
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) sum[v] += scale * load_lanes(grad + at * C + c + v * W, n);
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) store_lanes<T>(out + c + v * W, sum[v], n);
    });
  }
}

template <class T>
void avg_backward_nhwc(const AvgPool2dBackward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  const int64_t C = p.channels;
  const AvgCovers<T> covers = list_avg_covers(a);
  parallel_for(par, p.batch * p.in_h, planes_grain(p.in_w * C), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      avg_gather_row_nhwc<T>(p, C, covers, a.grad_output + (i / p.in_h) * p.out_h * p.out_w * C, i % p.in_h,
                             a.grad_input + i * p.in_w * C);
  });
}

template <class A>
bool is_nhwc(const A& a) {
  return a.layout == Layout::nhwc;
}

}  // namespace
}  // namespace cisdl
