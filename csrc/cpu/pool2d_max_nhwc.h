// Max pooling in channels_last: a pixel's channels lie together, so they are the vector lanes.
//
// Forward: for one output pixel up to four vectors of channels (and their indices) stay in registers while the
// taps of the window pass by; each tap is a contiguous read. Pixels are the outer loop and channels the inner:
// the rows of the window stay in L1. Threads share the output rows.
// Backward: each input pixel gathers from the windows that cover it the gradients whose index names it; it is
// written once, with no zeroing, and the order of the sum does not depend on threads. Threads share input rows.
//
// A last vector that would pass the end of the channels starts earlier and repeats some lanes; fewer channels
// than lanes leave lanes idle.
#pragma once

#include "pool2d_lanes.h"
#include "pool2d_plain.h"

namespace cisdl {
namespace {

// Calls body.template operator()<NV>(c, n) for blocks of NV vectors that cover the channels; n is W, or the
// number of channels if that is smaller.
template <class T, class Body>
CISDL_INLINE void for_channel_blocks(int64_t channels, Body&& body) {
  constexpr int W = kWidth<T>;
  int64_t c = 0;
  for (; c + 4 * W <= channels; c += 4 * W) body.template operator()<4>(c, int64_t{W});
  for (; c + 2 * W <= channels; c += 2 * W) body.template operator()<2>(c, int64_t{W});
  for (; c + W <= channels; c += W) body.template operator()<1>(c, int64_t{W});
  if (c < channels) {
    if (channels >= W)
      body.template operator()<1>(channels - W, int64_t{W});
    else
      body.template operator()<1>(int64_t{0}, channels);
  }
}

template <class T>
CISDL_INLINE Vec<T> load_lanes(const T* p, int64_t n) {
  return n == kWidth<T> ? load(p) : load_partial(p, n);
}

template <class T>
CISDL_INLINE void store_lanes(T* p, Vec<T> v, int64_t n) {
  if (n == kWidth<T>)
    store(p, v);
  else
    store_partial(p, v, n);
}

// The window of one output pixel: its first tap inside the image, and how far its taps are apart in memory and
// in their codes.
template <class T>
struct MaxWindow {
  const T* x;
  int64_t rows, cols;
  int64_t row_step, col_step;
  int64_t code, code_row_step, code_col_step;
  bool relu = false;
  int64_t no_code = -1;  // names no cell
};

template <class T, bool WithCode, int NV, class IndexT>
CISDL_INLINE void max_lanes_nhwc(const MaxWindow<T>& w, int64_t n, T* out, IndexT* index) {
  constexpr int W = kWidth<T>;
  RunningMax<T, WithCode> max[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) max[v].start(set1_code<T>(w.code));
  for (int64_t r = 0; r < w.rows; ++r) {
    const T* x = w.x + r * w.row_step;
    int64_t code = w.code + r * w.code_row_step;
    for (int64_t s = 0; s < w.cols; ++s, x += w.col_step, code += w.code_col_step) {
      const Mask<T> codes = set1_code<T>(code);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) max[v].update(load_lanes(x + v * W, n), codes);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    if (w.relu) max[v].rectify(w.no_code);
    store_lanes(out + v * W, max[v].best, n);
    if constexpr (WithCode) store_index<T>(index + v * W, max[v].code, n);
  }
}

// One output pixel, [C], and its indices.
template <class T, bool WithCode, class IndexT>
CISDL_INLINE void max_pixel_nhwc(const MaxWindow<T>& window, int64_t C, T* out, IndexT* index) {
  for_channel_blocks<T>(C, [&]<int NV>(int64_t c, int64_t n) __attribute__((always_inline)) {
    MaxWindow<T> block = window;
    block.x += c;
    max_lanes_nhwc<T, WithCode, NV>(block, n, out + c, index + c);
  });
}

// Row oh of the output of one image, [out_w][C], and its indices, from the image [in_h][in_w][C].
template <class T, PoolIndex Index, class IndexT>
CISDL_INLINE void max_row_nhwc(const Pool2dProblem& p, bool relu, int64_t C, const T* image, int64_t oh, T* out,
                               IndexT* index) {
  constexpr bool kFlat = Index == PoolIndex::flat;
  const int64_t h0 = oh * p.stride_h - p.pad_h;
  const Taps rows = taps_h(p, oh);
  for (int64_t ow = 0; ow < p.out_w; ++ow, out += C) {
    const Taps cols = taps_w(p, ow);
    const int64_t w0 = ow * p.stride_w - p.pad_w;
    const int64_t h = h0 + rows.begin * p.dilation_h, w = w0 + cols.begin * p.dilation_w;
    const bool empty = rows.begin == rows.end || cols.begin == cols.end;
    MaxWindow<T> window;
    window.x = empty ? image : image + (h * p.in_w + w) * C;
    window.rows = empty ? 0 : rows.end - rows.begin;
    window.cols = cols.end - cols.begin;
    window.row_step = p.dilation_h * p.in_w * C;
    window.col_step = p.dilation_w * C;
    window.code = kFlat ? h * p.in_w + w : rows.begin * p.kernel_w + cols.begin;
    window.relu = relu;
    window.no_code = kFlat ? -1 : 255;
    if (empty) window.code = window.no_code;
    window.code_row_step = kFlat ? p.dilation_h * p.in_w : p.kernel_w;
    window.code_col_step = kFlat ? p.dilation_w : 1;
    max_pixel_nhwc<T, Index != PoolIndex::none>(window, C, out, index + ow * C);
  }
}

template <class T, PoolIndex Index>
void max_forward_nhwc_as(const MaxPool2dForward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  const int64_t C = p.channels, row_cells = p.out_w * C * p.kernel_h * p.kernel_w;
  parallel_for(par, p.batch * p.out_h, planes_grain(row_cells), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      max_row_nhwc<T, Index>(p, a.relu, C, a.input + (i / p.out_h) * p.in_h * p.in_w * C, i % p.out_h,
                             a.output + i * p.out_w * C,
                             static_cast<typename IndexType<Index>::type*>(a.indices) + i * p.out_w * C);
  });
}

template <class T>
void max_forward_nhwc(const MaxPool2dForward<T>& a, const Parallel& par) {
  if (a.index == PoolIndex::none)
    max_forward_nhwc_as<T, PoolIndex::none>(a, par);
  else if (a.index == PoolIndex::window)
    max_forward_nhwc_as<T, PoolIndex::window>(a, par);
  else
    max_forward_nhwc_as<T, PoolIndex::flat>(a, par);
}

// For each input position along one dimension the windows that cover it, with the tap that does:
// entries[first[x]] ... entries[first[x + 1] - 1], the windows in rising order.
struct Covers {
  struct Entry {
    int32_t out, tap;
  };
  int32_t* first;
  Entry* entries;
};

// Memory for windows that cover `entries` cells in all, counted with repetition.
CISDL_INLINE int64_t covers_bytes(int64_t in, int64_t entries) {
  const int64_t bytes = (in + 1) * 4 + entries * 8;
  return (bytes + 63) / 64 * 64;
}

// At most so many, for windows of `kernel` cells.
CISDL_INLINE int64_t covers_entries(int64_t in, int64_t out, int64_t kernel) {
  return out * (kernel < in ? kernel : in);
}

inline Covers list_covers(void* memory, int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                          int64_t dilation) {
  Covers covers;
  covers.entries = static_cast<Covers::Entry*>(memory);
  covers.first = reinterpret_cast<int32_t*>(covers.entries + covers_entries(in, out, kernel));
  int32_t count = 0;
  for (int64_t x = 0; x < in; ++x) {
    covers.first[x] = count;
    const int64_t before = x + pad - (kernel - 1) * dilation;  // where a window starts whose last tap is x
    for (int64_t o = before > 0 ? (before + stride - 1) / stride : 0; o < out && o * stride <= x + pad; ++o) {
      const int64_t reach = x + pad - o * stride;
      if (reach % dilation == 0)
        covers.entries[count++] = {static_cast<int32_t>(o), static_cast<int32_t>(reach / dilation)};
    }
  }
  covers.first[in] = count;
  return covers;
}

template <class T, class IndexT, int NV>
CISDL_INLINE void max_gather_nhwc(const T* grad, const IndexT* index, int64_t channels, const Covers& rows,
                                  const Covers& cols, int64_t h, int64_t w, const Pool2dProblem& p, int64_t n,
                                  T* out) {
  constexpr int W = kWidth<T>;
  constexpr bool kFlat = sizeof(IndexT) == 8;
  Vec<T> acc[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) acc[v] = zero<T>();
  for (int32_t i = rows.first[h]; i < rows.first[h + 1]; ++i) {
    const Covers::Entry row = rows.entries[i];
    for (int32_t j = cols.first[w]; j < cols.first[w + 1]; ++j) {
      const Covers::Entry col = cols.entries[j];
      const Mask<T> code = set1_code<T>(kFlat ? h * p.in_w + w : row.tap * p.kernel_w + col.tap);
      const int64_t at = (row.out * p.out_w + col.out) * channels;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v)
        acc[v] =
            add_where<T>(acc[v], load_index<T>(index + at + v * W, n), code, load_lanes(grad + at + v * W, n));
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) store_lanes(out + v * W, acc[v], n);
}

template <class T, class IndexT>
void max_backward_nhwc_as(const MaxPool2dBackward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  const int64_t C = p.channels, rows_bytes = covers_bytes(p.in_h, covers_entries(p.in_h, p.out_h, p.kernel_h));
  char* memory = static_cast<char*>(
      scratch(Scratch::shared, rows_bytes + covers_bytes(p.in_w, covers_entries(p.in_w, p.out_w, p.kernel_w))));
  const Covers rows = list_covers(memory, p.in_h, p.out_h, p.kernel_h, p.stride_h, p.pad_h, p.dilation_h);
  const Covers cols =
      list_covers(memory + rows_bytes, p.in_w, p.out_w, p.kernel_w, p.stride_w, p.pad_w, p.dilation_w);
  parallel_for(par, p.batch * p.in_h, planes_grain(p.in_w * C), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t h = i % p.in_h, image = (i / p.in_h) * p.out_h * p.out_w * C;
      for (int64_t w = 0; w < p.in_w; ++w) {
        T* out = a.grad_input + (i * p.in_w + w) * C;
        for_channel_blocks<T>(C, [&]<int NV>(int64_t c, int64_t n) __attribute__((always_inline)) {
          max_gather_nhwc<T, IndexT, NV>(a.grad_output + image + c,
                                         static_cast<const IndexT*>(a.indices) + image + c, C, rows, cols, h, w, p,
                                         n, out + c);
        });
      }
    }
  });
}

template <class T>
void max_backward_nhwc(const MaxPool2dBackward<T>& a, const Parallel& par) {
  if (a.index == PoolIndex::window)
    max_backward_nhwc_as<T, uint8_t>(a, par);
  else
    max_backward_nhwc_as<T, int64_t>(a, par);
}

// Channels that fill less than two vectors are scattered instead.
template <class T>
bool max_gather_nhwc_applies(const MaxPool2dBackward<T>& a) {
  return a.layout == Layout::nhwc && a.p.channels >= 2 * kWidth<T> && plane_fits_lanes(a.p);
}

template <class A>
bool is_nhwc_max(const A& a) {
  return a.layout == Layout::nhwc && plane_fits_lanes(a.p);
}

}  // namespace
}  // namespace cisdl
