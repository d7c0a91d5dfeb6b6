// Max and average pooling in [N, C, H, W]: lanes along a row of windows.
//
// Columns first: W neighbouring windows of one row of the image at a time. Tap s of all of them is one vector:
// contiguous at stride 1, the even or odd values of two loads at stride 2, gathered else. The maxima (with the
// codes of their places) or sums go to scratch memory, and of those each row of the output takes the maxima or
// sums of its rows. So taps pass in row-major order, and ties and NaNs fall as in torch.
//
// Rows whose windows reach over the border, or whose last vector would reach over the end of memory, are first
// staged with -inf (or zero) around them. Where windows fill the rows without overlapping, as 2x2 at stride 2
// mostly does, the rows of a strip are one long row, and narrow planes fill vectors, too.
#pragma once

#include "pool2d_avg_nhwc.h"
#include "pool2d_rows_nchw.h"

namespace cisdl {
namespace {

// What a window comes to while its taps pass, one of these in each lane.
template <class Element, PoolIndex Kind>
struct MaxFold {
  using T = Element;
  static constexpr PoolIndex kIndex = Kind;
  static constexpr T kOutside = -std::numeric_limits<T>::infinity();
  RunningMax<T, Kind != PoolIndex::none> max;

  CISDL_INLINE void start(Vec<T> v, Mask<T> code) {
    max.best = v;
    max.code = code;
  }
  CISDL_INLINE void add(Vec<T> v, Mask<T> code) { max.update(v, code); }
  CISDL_INLINE Vec<T> value() const { return max.best; }
  CISDL_INLINE Mask<T> code() const { return max.code; }
};

template <class Element>
struct SumFold {
  using T = Element;
  static constexpr PoolIndex kIndex = PoolIndex::none;
  static constexpr T kOutside = T(0);
  Vec<T> sum;

  CISDL_INLINE void start(Vec<T> v, Mask<T>) { sum = v; }
  CISDL_INLINE void add(Vec<T> v, Mask<T>) { sum += v; }
  CISDL_INLINE Vec<T> value() const { return sum; }
};

// Scratch memory of a strip, and where its rows lie in it.
template <class T>
struct RowPools {
  T* value;  // what each row of the image comes to for each window
  Code<T>* code;
  T* stage;        // rows of the image with room around them
  Code<T>* first;  // the code of the first tap inside the image of each window
  int64_t pitch, stage_pitch;
};

// Calls visit(s, tap s of W windows) for the taps of a row, of which the first lies at x; what is read ends before
// x + W * stride + reach.
template <class T, int Stride, int Kernel, class Visit>
CISDL_INLINE void for_each_tap(const Pool2dProblem& p, const T* x, Visit&& visit) {
  constexpr int W = kWidth<T>;
  if constexpr (Stride == 2 && Kernel != 0) {
    const Vec<T> a = load(x), b = load(x + W);
    visit(0, even_lanes<T>(a, b));
    visit(1, odd_lanes<T>(a, b));
    if constexpr (Kernel == 3) visit(2, load_strided<T, 2>(x + 2, 2));
  } else {
    const int64_t kernel = Kernel ? Kernel : p.kernel_w;
#pragma GCC unroll 3
    for (int64_t s = 0; s < kernel; ++s) visit(s, load_strided<T, Stride>(x + s * p.dilation_w, p.stride_w));
  }
}

// n windows from x on; `place` is that of x in the plane.
template <class Fold, int Stride, int Kernel, class T = typename Fold::T>
CISDL_INLINE void pool_columns(const Pool2dProblem& p, const T* x, int64_t n, int64_t place, const Code<T>* first,
                               T* value, Code<T>* code) {
  constexpr int W = kWidth<T>;
  constexpr bool kFlat = Fold::kIndex == PoolIndex::flat;
  for (int64_t i = 0; i < n; i += W) {
    Fold fold;
    const Mask<T> places =
        kFlat ? set1_code<T>(place + i * p.stride_w) + iota<T>() * set1_code<T>(p.stride_w) : Mask<T>{};
    for_each_tap<T, Stride, Kernel>(
        p, x + i * p.stride_w, [&](int64_t s, Vec<T> v) __attribute__((always_inline)) {
          const Mask<T> at = kFlat ? places + set1_code<T>(s * p.dilation_w) : set1_code<T>(s);
          if (s > 0)
            fold.add(v, at);
          else if (Fold::kIndex != PoolIndex::none && first)
            fold.start(v, load_code<T>(first + i) + places);
          else
            fold.start(v, at);
        });
    store(value + i, fold.value());
    if constexpr (Fold::kIndex != PoolIndex::none) store_code<T>(code + i, fold.code());
  }
}

// W windows of one row of the output from `count` pooled rows, `row` apart; code counts from code_row, and each
// row of a window's place by kernel_w.
template <class Fold, int Kernel, class T = typename Fold::T>
CISDL_INLINE Fold pool_rows(const Pool2dProblem& p, const T* value, const Code<T>* code, int64_t row, Taps taps) {
  constexpr bool kCode = Fold::kIndex != PoolIndex::none, kFlat = Fold::kIndex == PoolIndex::flat;
  const int64_t count = Kernel ? Kernel : taps.end - taps.begin;
  const auto code_at = [&](int64_t r) __attribute__((always_inline)) {
    if constexpr (!kCode) return Mask<T>{};
    const Mask<T> v = load_code<T>(code + r * row);
    return kFlat ? v : v + set1_code<T>((taps.begin + r) * p.kernel_w);
  };
  Fold fold;
  fold.start(load(value), code_at(0));
#pragma GCC unroll 3
  for (int64_t r = 1; r < count; ++r) fold.add(load(value + r * row), code_at(r));
  return fold;
}

CISDL_INLINE int64_t reach_w(const Pool2dProblem& p) { return (p.kernel_w - 1) * p.dilation_w + 1; }
CISDL_INLINE int64_t reach_h(const Pool2dProblem& p) {
  const int64_t reach = (p.kernel_h - 1) * p.dilation_h + 1;
  return reach < p.in_h ? reach : p.in_h;
}

// put(plane, place in its output, n, Fold of n windows) stores what came out. It holds no references: they would
// be read again after every store.
template <class Fold, int Stride, int Kernel, class A, class Put>
void pool_nchw_as(const A& a, const Parallel& par, const Put& put) {
  using T = typename Fold::T;
  constexpr int W = kWidth<T>;
  constexpr bool kCode = Fold::kIndex != PoolIndex::none, kFlat = Fold::kIndex == PoolIndex::flat;
  const Pool2dProblem& p = a.p;
  const bool one_row = p.pad_w == 0 && p.in_w == p.out_w * p.stride_w && reach_w(p) <= p.stride_w;
  const bool reaches_over = p.pad_w > 0 || (p.out_w - 1) * p.stride_w + reach_w(p) > p.in_w;
  const int64_t planes = p.batch * p.channels, in_cells = p.in_h * p.in_w;
  RowPools<T> layout;
  layout.pitch = one_row ? p.out_w : round_up_to_lanes<T>(p.out_w);
  layout.stage_pitch = one_row ? p.in_w : (layout.pitch - 1) * p.stride_w + reach_w(p) + 1;
  if (layout.stage_pitch < p.pad_w + p.in_w) layout.stage_pitch = p.pad_w + p.in_w;
  const int64_t row_bytes =
      layout.pitch * int64_t{sizeof(T) + sizeof(Code<T>)} + layout.stage_pitch * int64_t{sizeof(T)};
  int64_t height = (rows_of_strip(row_bytes) - reach_h(p)) / p.stride_h + 1;
  height = height < 1 ? 1 : height < p.out_h ? height : p.out_h;
  int64_t rows = (height - 1) * p.stride_h + reach_h(p);
  if (rows > p.in_h) rows = p.in_h;
  const int64_t pooled_cells = rows * layout.pitch + W;
  const int64_t stage_cells = rows * layout.stage_pitch + W * p.stride_w + reach_w(p);
  const auto make = [&] {
    RowPools<T> m = layout;
    m.value =
        static_cast<T*>(scratch(Scratch::local, (pooled_cells + stage_cells) * int64_t{sizeof(T)} +
                                                    (pooled_cells + layout.pitch) * int64_t{sizeof(Code<T>)}));
    m.code = reinterpret_cast<Code<T>*>(m.value + pooled_cells);
    m.first = m.code + pooled_cells;
    m.stage = reinterpret_cast<T*>(m.first + layout.pitch);
    for (int64_t i = 0; reaches_over && i < stage_cells; ++i) m.stage[i] = Fold::kOutside;
    for (int64_t ow = 0; kCode && ow < layout.pitch; ++ow) {
      const int64_t tap = ow < p.out_w ? taps_w(p, ow).begin : 0;
      m.first[ow] = static_cast<Code<T>>(kFlat ? tap * p.dilation_w : tap);
    }
    return m;
  };
  const auto strip = [&](const RowPools<T>& memory, int64_t plane, int64_t begin, int64_t end) {
    const Pool2dProblem p = a.p;
    const RowPools<T> m = memory;
    const auto put_here = put;
    // the rows [top, bottom) of the image
    const int64_t above = begin * p.stride_h - p.pad_h, top = above > 0 ? above : 0;
    const int64_t below = (end - 1) * p.stride_h - p.pad_h + (p.kernel_h - 1) * p.dilation_h + 1;
    const int64_t bottom = below < p.in_h ? below : p.in_h;
    const T* x = a.input + plane * in_cells + top * p.in_w;
    const int64_t to_end = (planes - plane) * in_cells - top * p.in_w;
    const int64_t read = (bottom - top) * p.in_w + W * p.stride_w + reach_w(p);
    int64_t step = p.in_w;
    if (reaches_over || read > to_end) {
      for (int64_t h = 0; h < bottom - top; ++h)
        copy_row(x + h * p.in_w, p.in_w, m.stage + h * m.stage_pitch + p.pad_w);
      x = m.stage;
      step = m.stage_pitch;
    }
    const Code<T>* first = p.pad_w > 0 ? m.first : nullptr;
    if (one_row) {
      pool_columns<Fold, Stride, Kernel>(p, x, (bottom - top) * p.out_w, top * p.in_w, first, m.value, m.code);
    } else {
      for (int64_t h = 0; h < bottom - top; ++h)
        pool_columns<Fold, Stride, Kernel>(p, x + h * step, p.out_w, (top + h) * p.in_w - p.pad_w, first,
                                           m.value + h * m.pitch, m.code + h * m.pitch);
    }
    for (int64_t oh = begin; oh < end; ++oh) {
      const Taps taps = taps_h(p, oh);
      const int64_t from = (oh * p.stride_h - p.pad_h + taps.begin * p.dilation_h - top) * m.pitch;
      const int64_t row = p.dilation_h * m.pitch;
      const bool whole = Kernel && taps.end - taps.begin == Kernel;
      for (int64_t ow = 0; ow < p.out_w; ow += W) {
        const T* value = m.value + from + ow;
        const Code<T>* code = m.code + from + ow;
        put_here(plane, oh * p.out_w + ow, p.out_w - ow,
                 whole ? pool_rows<Fold, Kernel>(p, value, code, row, taps)
                       : pool_rows<Fold, 0>(p, value, code, row, taps));
      }
    }
  };
  for_each_strip(par, planes, p.out_h, height, p.in_w * p.stride_h, make, strip);
}

template <class Fold, class A, class Put>
void pool_nchw(const A& a, const Parallel& par, const Put& put) {
  const Pool2dProblem& p = a.p;
  const bool dense = p.dilation_w == 1;
  if (p.stride_w == 2 && p.kernel_w == 2 && dense)
    pool_nchw_as<Fold, 2, 2>(a, par, put);
  else if (p.stride_w == 2 && p.kernel_w == 3 && dense)
    pool_nchw_as<Fold, 2, 3>(a, par, put);
  else if (p.stride_w == 2)
    pool_nchw_as<Fold, 2, 0>(a, par, put);
  else if (p.stride_w == 1 && p.kernel_w == 3 && dense)
    pool_nchw_as<Fold, 1, 3>(a, par, put);
  else if (p.stride_w == 1)
    pool_nchw_as<Fold, 1, 0>(a, par, put);
  else
    pool_nchw_as<Fold, 0, 0>(a, par, put);
}

// Where the rows of windows fill the planes without overlapping, all planes are one tall one; places in a plane
// would be wrong, those in a window are not.
CISDL_INLINE Pool2dProblem as_tall_plane(const Pool2dProblem& p, PoolIndex index) {
  if (index == PoolIndex::flat || p.pad_h != 0 || p.in_h != p.out_h * p.stride_h || reach_h(p) > p.stride_h)
    return p;
  const int64_t planes = p.batch * p.channels;
  Pool2dProblem tall = p;
  tall.batch = tall.channels = 1;
  tall.in_h *= planes;
  tall.out_h *= planes;
  return tall;
}

template <class T, PoolIndex Index>
void max_forward_nchw_of(const MaxPool2dForward<T>& planes, const Parallel& par) {
  MaxPool2dForward<T> a = planes;
  a.p = as_tall_plane(planes.p, Index);
  using IndexT = typename IndexType<Index>::type;
  using Fold = MaxFold<T, Index>;
  const int64_t out_cells = a.p.out_h * a.p.out_w;
  const auto put = [out_cells, relu = a.relu, output = a.output, indices = static_cast<IndexT*>(a.indices)](
                       int64_t plane, int64_t cell, int64_t n, Fold fold) __attribute__((always_inline)) {
    const int64_t at = plane * out_cells + cell;
    if (relu) fold.max.rectify(Index == PoolIndex::window ? 255 : -1);
    store_up_to(output + at, fold.value(), n);
    if constexpr (Index != PoolIndex::none)
      store_index<T>(indices + at, fold.code(), n < kWidth<T> ? n : kWidth<T>);
  };
  pool_nchw<Fold>(a, par, put);
}

template <class T>
void max_forward_nchw(const MaxPool2dForward<T>& a, const Parallel& par) {
  if (a.index == PoolIndex::none)
    max_forward_nchw_of<T, PoolIndex::none>(a, par);
  else if (a.index == PoolIndex::window)
    max_forward_nchw_of<T, PoolIndex::window>(a, par);
  else
    max_forward_nchw_of<T, PoolIndex::flat>(a, par);
}

template <class T>
void avg_forward_nchw(const AvgPool2dForward<T>& a, const Parallel& par) {
  const int64_t out_cells = a.p.out_h * a.p.out_w;
  const T* inverse =
      fill_inverse_divisors(a, static_cast<T*>(scratch(Scratch::shared, divisors_bytes(a.p, sizeof(T)))));
  using Fold = SumFold<T>;
  const auto put = [out_cells, inverse, output = a.output](int64_t plane, int64_t cell, int64_t n,
                                                           const Fold& fold) __attribute__((always_inline)) {
    store_up_to(output + plane * out_cells + cell, fold.value() * load_up_to(inverse + cell, n), n);
  };
  pool_nchw<Fold>(a, par, put);
}

// Padding and dilation can leave a window without any cell.
CISDL_INLINE bool every_window_has_cells(const Pool2dProblem& p) {
  if (p.dilation_h > 1)
    for (int64_t oh = 0; oh < p.out_h; ++oh)
      if (taps_h(p, oh).begin == taps_h(p, oh).end) return false;
  if (p.dilation_w > 1)
    for (int64_t ow = 0; ow < p.out_w; ++ow)
      if (taps_w(p, ow).begin == taps_w(p, ow).end) return false;
  return true;
}

// Rows of windows that stay within the cache; lanes of float hold places in 32 bits.
template <class A>
bool rows_nchw_applies(const A& a) {
  const Pool2dProblem& p = a.p;
  return a.layout == Layout::nchw && rows_of_windows_fit(p) && plane_fits_lanes(p) &&
         reach_h(p) * (p.in_w + 2 * p.out_w) < 1 << 18 && every_window_has_cells(p);
}

}  // namespace
}  // namespace cisdl
