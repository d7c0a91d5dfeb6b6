// Packing matrices into the panels that outer_tile reads.
//
//   A panel: `rows` (<= kTileRows) consecutive rows of A, laid out [k][rows];
//   B panel: `cols` (<= kTileCols) consecutive columns of B, laid out [k][width], zero-filled past `cols`,
//            width = kTileCols, or one vector where the columns fit in one.
// Both are one task: take `lines` lines of length k (rows of A, columns of B) and store them [k][stride]. Where
// the lines are contiguous (a row-major A, B = W^T) that is a transpose, done W x W in registers; where k strides
// (A = G^T, a row-major B) it is a copy of short runs. One of the two strides must be 1.
#pragma once

#include "gemm_tile.h"

namespace cisdl {
namespace {

// A matrix seen as lines along k: element (line, kk) is data[line * line_stride + kk * k_stride], and one of the
// strides is 1.
template <class T>
struct Lines {
  const T* data;
  int64_t line_stride;
  int64_t k_stride;
};

CISDL_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
CISDL_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// How many elements past a packed panel the functions below may overwrite.
template <class T>
constexpr int kPackSlack = kTileRows + 2 * kWidth<T>;

// Lines contiguous along k. Groups of W lines are transposed together; each k stores whole vectors, and what
// spills over the end of one k's run is overwritten by the next k's: hence k ascends and the slack.
template <class T, int kGroups>
void pack_transposed(const T* src, int64_t line_stride, int64_t lines, int64_t k, T* dst, int64_t stride) {
  constexpr int W = kWidth<T>;
  auto block = [&](int64_t kk, int64_t steps) __attribute__((always_inline)) {
    Vec<T> t[kGroups][W];
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) {
        const int64_t line = g * W + i;
        const T* p = src + line * line_stride + kk;
        t[g][i] = line >= lines ? zero<T>() : steps == W ? load(p) : load_partial(p, steps);
      }
      transpose<T>(t[g]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if (i >= steps) break;
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) store(dst + (kk + i) * stride + g * W, t[g][i]);
    }
  };
  int64_t kk = 0;
  for (; kk + W <= k; kk += W) block(kk, W);
  if (kk < k) block(kk, k - kk);
}

// Lines next to each other (line_stride 1): for every k a run of `lines` elements, zero-filled to `width`.
template <class T>
CISDL_INLINE void pack_run(const T* src, int64_t lines, T* dst, int64_t width) {
  constexpr int W = kWidth<T>;
  int64_t i = 0;
  for (; i + W <= lines; i += W) store(dst + i, load(src + i));
  if (i < lines) {
    if (i + W <= width) {
      store(dst + i, load_partial(src + i, lines - i));
      i += W;
    } else {
      store_partial(dst + i, load_partial(src + i, lines - i), lines - i);
      i = lines;
    }
  }
  for (; i + W <= width; i += W) store(dst + i, zero<T>());
}

// Packs an A panel: [k][rows]. May write kPackSlack elements past it.
template <class T>
void pack_a(const Lines<T>& src, int64_t rows, int64_t k, T* dst) {
  constexpr int kGroups = (kTileRows + kWidth<T> - 1) / kWidth<T>;
  if (src.k_stride == 1)
    pack_transposed<T, kGroups>(src.data, src.line_stride, rows, k, dst, rows);
  else
    for (int64_t kk = 0; kk < k; ++kk) pack_run<T>(src.data + kk * src.k_stride, rows, dst + kk * rows, rows);
}

// Vectors in a B panel of `cols` columns, which are its width in outer_tile.
template <class T>
CISDL_INLINE int panel_vectors(int64_t cols) {
  return cols <= kWidth<T> ? 1 : kTileVectors;
}

// Packs the B panels of `cols` columns, panel_stride apart, each [k][width]. Writes nothing past them.
// All panels advance together along k, so that a row-major B is read in long runs; the rows to come are asked for
// ahead, as the hardware's prefetcher does not follow the jumps between them.
template <class T>
void pack_b(const Lines<T>& src, int64_t cols, int64_t k, T* dst, int64_t panel_stride) {
  constexpr int W = kWidth<T>;
  constexpr int64_t N = kTileCols<T>, kAhead = 8, kLine = 64 / static_cast<int64_t>(sizeof(T));
  if (src.k_stride == 1) {
    for (int64_t j = 0; j < cols; j += W)
      pack_transposed<T, 1>(src.data + j * src.line_stride, src.line_stride, cols - j, k,
                            dst + j / N * panel_stride + j % N, panel_vectors<T>(cols - j / N * N) * W);
  } else {
    const int64_t full = cols / N, rest = cols - full * N;
    for (int64_t kk = 0; kk < k; ++kk) {
      const T* p = src.data + kk * src.k_stride;
      for (int64_t j = 0; j < cols; j += kLine) __builtin_prefetch(p + kAhead * src.k_stride + j, 0, 3);
      for (int64_t panel = 0; panel < full; ++panel)
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v)
          store(dst + panel * panel_stride + kk * N + v * W, load(p + panel * N + v * W));
      if (rest > 0) {
        const int64_t width = panel_vectors<T>(rest) * W;
        pack_run<T>(p + full * N, rest, dst + full * panel_stride + kk * width, width);
      }
    }
  }
}

}  // namespace
}  // namespace cisdl
