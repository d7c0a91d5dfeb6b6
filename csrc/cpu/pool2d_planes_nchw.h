// Pooling of small planes in [N, C, H, W]: lanes across planes.
//
// A row of an 8 x 8 or 13 x 13 image fills a vector badly. Here W planes (of batch * channels) are transposed in
// registers into [cells][W] in scratch memory, which is channels_last with W channels; the row functions of
// pool2d_*_nhwc.h do the pooling, and the result is transposed back. Moving costs about as much as pooling, so
// rows that fill a vector are left to pool2d_*_nchw.h. Threads share groups of W planes; of the last group some
// lanes may repeat its last plane, and are dropped.
#pragma once

#include "pool2d_avg_nhwc.h"
#include "pool2d_lanes.h"
#include "pool2d_max_nhwc.h"
#include "simd_shuffle.h"

namespace cisdl {
namespace {

// W vectors of W cells, from the planes at `from` to [W cells][W planes] at `to`; n cells are wanted.
template <class T>
CISDL_INLINE void move_cells_to_lanes(const T* const (&from)[kWidth<T>], int64_t c, int64_t n, T* to) {
  constexpr int W = kWidth<T>;
  Vec<T> rows[W];
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) rows[i] = load_lanes(from[i] + c, n);
  transpose<T>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i)
    if (i < n) store(to + (c + i) * W, rows[i]);
}

// [planes][cells] -> [cells][W]; lanes past `planes` repeat the last plane.
template <class T>
void planes_to_lanes(const T* from, int64_t planes, int64_t cells, T* to) {
  constexpr int W = kWidth<T>;
  const T* plane[W];
  for (int i = 0; i < W; ++i) plane[i] = from + (i < planes ? i : planes - 1) * cells;
  int64_t c = 0;
  for (; c + W <= cells; c += W) move_cells_to_lanes<T>(plane, c, W, to);
  if (c < cells) move_cells_to_lanes<T>(plane, c, cells - c, to);
}

// [cells][W] -> [planes][cells], each vector of a plane's cells through put(place, vector, n). Planes of one cell
// lie as the lanes do.
template <class T, class Put>
CISDL_INLINE void lanes_to_planes(const T* from, int64_t planes, int64_t cells, Put&& put) {
  constexpr int W = kWidth<T>;
  if (cells == 1) {
    put(0, load(from), planes);
    return;
  }
  for (int64_t c = 0; c < cells; c += W) {
    const int64_t n = cells - c < W ? cells - c : W;
    Vec<T> rows[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) rows[i] = load(from + (i < n ? c + i : cells - 1) * W);
    transpose<T>(rows);
    if (n == W && planes == W) {
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) put(i * cells + c, rows[i], int64_t{W});
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i)
        if (i < planes) put(i * cells + c, rows[i], n);
    }
  }
}

// Calls body(first plane, planes, [in cells][W], [out cells][W]) for each group of planes; the second buffer has
// room for codes after the values.
template <class T, class Problem, class Body>
CISDL_INLINE void for_plane_groups(const Problem& p, const Parallel& par, Body&& body) {
  constexpr int W = kWidth<T>;
  const int64_t in_cells = p.in_h * p.in_w, out_cells = p.out_h * p.out_w, planes = p.batch * p.channels;
  parallel_for(par, (planes + W - 1) / W, planes_grain(in_cells * W), [&](int64_t begin, int64_t end) {
    T* in = static_cast<T*>(scratch(Scratch::local, (in_cells + 2 * out_cells) * W * int64_t{sizeof(T)}));
    for (int64_t i = begin; i < end; ++i)
      body(i * W, planes - i * W < W ? planes - i * W : int64_t{W}, in, in + in_cells * W);
  });
}

// Forward of a maximum (A: MaxPool2dForward or its adaptive sibling) by row(image, oh, out, code), which pools row
// oh of W planes.
template <class T, PoolIndex Index, class A, class Row>
CISDL_INLINE void max_by_plane_groups(const A& a, const Parallel& par, Row&& row) {
  constexpr int W = kWidth<T>;
  using Code = std::remove_reference_t<decltype(Mask<T>{}[0])>;
  using IndexT = typename IndexType<Index>::type;
  const int64_t in_cells = a.p.in_h * a.p.in_w, out_w = a.p.out_w, out_cells = a.p.out_h * out_w;
  for_plane_groups<T>(a.p, par, [&](int64_t first, int64_t planes, T* in, T* out) {
    planes_to_lanes<T>(a.input + first * in_cells, planes, in_cells, in);
    Code* code = reinterpret_cast<Code*>(out + out_cells * W);
    for (int64_t oh = 0; oh < a.p.out_h; ++oh) row(in, oh, out + oh * out_w * W, code + oh * out_w * W);
    T* to = a.output + first * out_cells;
    lanes_to_planes<T>(out, planes, out_cells,
                       [&](int64_t at, Vec<T> v, int64_t n) { store_lanes<T>(to + at, v, n); });
    if constexpr (Index != PoolIndex::none) {
      IndexT* index = static_cast<IndexT*>(a.indices) + first * out_cells;
      lanes_to_planes<T>(reinterpret_cast<const T*>(code), planes, out_cells,
                         [&](int64_t at, Vec<T> v, int64_t n) { store_index<T>(index + at, (Mask<T>)v, n); });
    }
  });
}

// Forward of an average by row(image, oh, out), and its backward by row(grad, h, out).
template <class T, class A, class Row>
CISDL_INLINE void avg_by_plane_groups(const A& a, const Parallel& par, Row&& row) {
  constexpr int W = kWidth<T>;
  const int64_t in_cells = a.p.in_h * a.p.in_w, out_cells = a.p.out_h * a.p.out_w;
  for_plane_groups<T>(a.p, par, [&](int64_t first, int64_t planes, T* in, T* out) {
    planes_to_lanes<T>(a.input + first * in_cells, planes, in_cells, in);
    for (int64_t oh = 0; oh < a.p.out_h; ++oh) row(in, oh, out + oh * a.p.out_w * W);
    T* to = a.output + first * out_cells;
    lanes_to_planes<T>(out, planes, out_cells,
                       [&](int64_t at, Vec<T> v, int64_t n) { store_lanes<T>(to + at, v, n); });
  });
}

template <class T, class A, class Row>
CISDL_INLINE void avg_backward_by_plane_groups(const A& a, const Parallel& par, Row&& row) {
  constexpr int W = kWidth<T>;
  const int64_t in_cells = a.p.in_h * a.p.in_w, out_cells = a.p.out_h * a.p.out_w;
  for_plane_groups<T>(a.p, par, [&](int64_t first, int64_t planes, T* in, T* out) {
    planes_to_lanes<T>(a.grad_output + first * out_cells, planes, out_cells, out);
    for (int64_t h = 0; h < a.p.in_h; ++h) row(out, h, in + h * a.p.in_w * W);
    T* to = a.grad_input + first * in_cells;
    lanes_to_planes<T>(in, planes, in_cells,
                       [&](int64_t at, Vec<T> v, int64_t n) { store_lanes<T>(to + at, v, n); });
  });
}

template <class T, PoolIndex Index>
void max_forward_planes_as(const MaxPool2dForward<T>& a, const Parallel& par) {
  max_by_plane_groups<T, Index>(a, par, [&](const T* image, int64_t oh, T* out, auto* code) {
    max_row_nhwc<T, Index>(a.p, a.relu, kWidth<T>, image, oh, out, code);
  });
}

template <class T>
void max_forward_planes(const MaxPool2dForward<T>& a, const Parallel& par) {
  if (a.index == PoolIndex::none)
    max_forward_planes_as<T, PoolIndex::none>(a, par);
  else if (a.index == PoolIndex::window)
    max_forward_planes_as<T, PoolIndex::window>(a, par);
  else
    max_forward_planes_as<T, PoolIndex::flat>(a, par);
}

template <class T>
void avg_forward_planes(const AvgPool2dForward<T>& a, const Parallel& par) {
  const T* inverse =
      fill_inverse_divisors(a, static_cast<T*>(scratch(Scratch::shared, divisors_bytes(a.p, sizeof(T)))));
  avg_by_plane_groups<T>(a, par, [&](const T* image, int64_t oh, T* out) {
    avg_row_nhwc<T>(a.p, kWidth<T>, inverse, image, oh, out);
  });
}

template <class T>
void avg_backward_planes(const AvgPool2dBackward<T>& a, const Parallel& par) {
  const AvgCovers<T> covers = list_avg_covers(a);
  avg_backward_by_plane_groups<T>(a, par, [&](const T* grad, int64_t h, T* out) {
    avg_gather_row_nhwc<T>(a.p, kWidth<T>, covers, grad, h, out);
  });
}

// One window that is the whole plane: sums along each plane, W of them added up across lanes by a transpose.
template <class T>
void avg_forward_global(const AvgPool2dForward<T>& a, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const int64_t cells = a.p.in_h * a.p.in_w, planes = a.p.batch * a.p.channels;
  T scale;
  fill_inverse_divisors(a, &scale);
  parallel_for(par, (planes + W - 1) / W, planes_grain(cells * W), [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = group * W, n = planes - first < W ? planes - first : W;
      Vec<T> sums[W];
      for (int64_t i = 0; i < W; ++i) {
        const T* x = a.input + (first + (i < n ? i : n - 1)) * cells;
        Vec<T> even = zero<T>(), odd = zero<T>();
        int64_t c = 0;
        for (; c + 2 * W <= cells; c += 2 * W) {
          even += load(x + c);
          odd += load(x + c + W);
        }
        if (c + W <= cells) {
          even += load(x + c);
          c += W;
        }
        if (c < cells) odd += load_partial(x + c, cells - c);
        sums[i] = even + odd;
      }
      transpose<T>(sums);
#pragma GCC unroll 4
      for (int step = W / 2; step > 0; step /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < step; ++i) sums[i] += sums[i + step];
      store_lanes<T>(a.output + first, sums[0] * set1(scale), n);
    }
  });
}

template <class T>
void avg_backward_global(const AvgPool2dBackward<T>& a, const Parallel& par) {
  const int64_t cells = a.p.in_h * a.p.in_w;
  T scale;
  fill_inverse_divisors(a, &scale);
  parallel_for(par, a.p.batch * a.p.channels, planes_grain(cells), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const T share = a.grad_output[plane] * scale;
      T* out = a.grad_input + plane * cells;
      for (int64_t i = 0; i < cells; ++i) out[i] = share;
    }
  });
}

template <class A>
bool window_is_plane(const A& a) {
  const Pool2dProblem& p = a.p;
  return a.layout == Layout::nchw && p.out_h == 1 && p.out_w == 1 && p.kernel_h - p.pad_h >= p.in_h &&
         p.kernel_w - p.pad_w >= p.in_w;
}

// Planes that stay in L1 or near it, and enough of them.
template <class T, class Problem>
bool planes_are_small(const Problem& p) {
  return p.in_h * p.in_w * kVecBytes <= 131072 && 2 * p.batch * p.channels >= kWidth<T>;
}

// Measured against lanes along a row (16 lanes): windows with 5 and 6 columns are as fast either way, and faster
// along the row with indices or backward, where more would have to be transposed.
template <class T>
bool max_forward_planes_applies(const MaxPool2dForward<T>& a) {
  return a.layout == Layout::nchw && planes_are_small<T>(a.p) && plane_fits_lanes(a.p) &&
         (a.index == PoolIndex::none ? 5 * a.p.out_w < 2 * kWidth<T> : 4 * a.p.out_w <= kWidth<T>);
}

template <class T>
bool avg_forward_planes_applies(const AvgPool2dForward<T>& a) {
  return a.layout == Layout::nchw && planes_are_small<T>(a.p) && 5 * a.p.out_w < 2 * kWidth<T>;
}

template <class T>
bool avg_backward_planes_applies(const AvgPool2dBackward<T>& a) {
  return a.layout == Layout::nchw && planes_are_small<T>(a.p) && 4 * a.p.out_w <= kWidth<T>;
}

}  // namespace
}  // namespace cisdl
