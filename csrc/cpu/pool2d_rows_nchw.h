// What the kernels of pooling for [N, C, H, W] share: pooling is done along the rows first, then across them.
//
// A window is an outer product of its columns and its rows, and both the maximum and the sum may be taken along
// the one and then along the other; so each row of the image is pooled once, however many windows it is in, and
// kernel_h * kernel_w steps become kernel_h + kernel_w. In between the rows lie in scratch memory. Planes are cut
// into strips of rows so that this stays in L1; threads share the strips, and what two strips need is made twice.
#pragma once

#include "pool2d_lanes.h"
#include "pool2d_plain.h"

namespace cisdl {
namespace {

constexpr int64_t kStripBytes = 24 * 1024;

template <class T>
using Code = std::remove_reference_t<decltype(Mask<T>{}[0])>;

template <class T>
CISDL_INLINE Mask<T> load_code(const Code<T>* p) {
  Mask<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
CISDL_INLINE void store_code(Code<T>* p, Mask<T> v) {
  std::memcpy(p, &v, sizeof v);
}

template <class T>
CISDL_INLINE int64_t round_up_to_lanes(int64_t n) {
  return (n + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
}

// How many rows of scratch memory, of row_bytes each, a strip may have.
CISDL_INLINE int64_t rows_of_strip(int64_t row_bytes) { return kStripBytes / row_bytes; }

// Calls body(memory, plane, begin, end) for strips of `height` of the `rows` rows of each plane. Each thread
// begins with memory = make() and with a copy of `body`, which had better capture values: after every store the
// compiler reads again what lies behind a reference.
template <class Make, class Body>
CISDL_INLINE void for_each_strip(const Parallel& par, int64_t planes, int64_t rows, int64_t height,
                                 int64_t row_cells, const Make& make, const Body& body) {
  const int64_t strips = (rows + height - 1) / height;
  parallel_for(par, planes * strips, planes_grain(height * row_cells), [&](int64_t first, int64_t last) {
    auto memory = make();
    const auto mine = body;
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % strips * height, end = begin + height;
      mine(memory, i / strips, begin, end < rows ? end : rows);
    }
  });
}

// n values, in whole vectors if there are that many.
template <class T>
CISDL_INLINE void copy_row(const T* from, int64_t n, T* to) {
  constexpr int W = kWidth<T>;
  int64_t i = 0;
  for (; i + W <= n; i += W) store(to + i, load(from + i));
  if (i == n) return;
  if (n >= W)
    store(to + n - W, load(from + n - W));
  else
    store_partial(to, load_partial(from, n), n);
}

// Windows of neighbouring columns: those that cover the cells w, w + Stride, ... of a row are, for tap s, the
// windows w / Stride + offset(s), ...; at stride 2 the even taps cover the columns of one parity and the odd taps
// those of the other.
template <int Stride>
struct ColumnTaps {
  int64_t pad;

  CISDL_INLINE bool swapped() const { return Stride == 2 && (pad & 1); }
  CISDL_INLINE int64_t offset(int64_t s) const { return Stride == 2 ? (pad - s + ((pad - s) & 1)) / 2 : pad - s; }
};

// For each row of the image the rows of windows [begin, end) that cover it, and how much memory that takes.
CISDL_INLINE int64_t windows_over_bytes(const Pool2dProblem& p) {
  return (p.in_h * int64_t{sizeof(Taps)} + 63) / 64 * 64;
}

inline const Taps* list_windows_over(const Pool2dProblem& p, void* memory) {
  Taps* rows = static_cast<Taps*>(memory);
  for (int64_t h = 0; h < p.in_h; ++h) {
    const int64_t above = h + p.pad_h - p.kernel_h, end = (h + p.pad_h) / p.stride_h + 1;
    rows[h].begin = above < 0 ? 0 : above / p.stride_h + 1;
    rows[h].end = end < p.out_h ? end : p.out_h;
    if (rows[h].end < rows[h].begin) rows[h].end = rows[h].begin;
  }
  return rows;
}

// The vectors of a row of the image, one for each parity at stride 2, as n values.
template <class T, int Stride>
CISDL_INLINE void store_columns(T* out, Vec<T> (&v)[Stride], bool swapped, int64_t n) {
  constexpr int W = kWidth<T>;
  if constexpr (Stride == 2) {
    const Pair<T> both = swapped ? interleave<T>(v[1], v[0]) : interleave<T>(v[0], v[1]);
    store_up_to(out, both.first, n);
    if (n > W) store_up_to(out + W, both.second, n - W);
  } else {
    store_up_to(out, v[0], n);
  }
}

}  // namespace
}  // namespace cisdl
