// outer_tile (gemm_tile.h) on operands that may lie where they are: element (i, kk) of A is a[i * a_row + kk *
// a_k], row kk of the panel of B is b + kk * b_k. The broadcasts of A hit the cache whichever way it lies; of B a
// row of the panel has to be contiguous.
//
// A panel of B that is met for the first time lies in rows far apart, which no hardware prefetcher foresees:
// `Read::ahead` asks for the rows to come while the tile computes, towards its end for the first rows of the panel
// beside it, and `Read::copy` besides stores the panel packed as [k][width] for the rows of A to follow. Both hide
// behind the multiply-adds, so packing costs no time of its own. In the same way TileA::ahead asks for what the
// next tile will need of A, and every tile for the lines of C that it will write.
#pragma once

#include "gemm_tile.h"

namespace cisdl {
namespace {

enum class Read { plain, ahead, copy };

constexpr int64_t kRowsAhead = 24;

template <class T>
struct TileA {
  const T* data;
  int64_t row, k;                  // strides
  int64_t ahead = 0, ahead_k = 0;  // where to ask for what comes later: from `data` on, and further with each k
};

template <class T>
struct TileB {
  const T* data;
  int64_t k;  // stride
  T* copy;    // where Read::copy stores the panel
};

template <class T, int MR, int NV, Read kRead>
void strided_tile(int64_t k, const TileA<T>& ta, const TileB<T>& tb, const TileOutput<T>& out, int64_t cols) {
  constexpr int W = kWidth<T>;
  constexpr int kLine = 64 / static_cast<int>(sizeof(T));
  const T* __restrict a = ta.data;
  const T* __restrict b = tb.data;
  T* __restrict copy = tb.copy;
  const int64_t a_row = ta.row, a_k = ta.k, b_k = tb.k, next_k = ta.ahead_k;
  const T* next = a + ta.ahead;
  const T* const beside = b + NV * W;
  const int64_t last_own = k - kRowsAhead - 1;  // after it, what lies kRowsAhead ahead is the panel's no more
  const T* later = last_own < 0 ? beside : b + kRowsAhead * b_k;
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV * W; j += kLine) __builtin_prefetch(out.c + i * out.ldc + j, 1, 3);
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[i][v] = zero<T>();
  for (int64_t kk = 0; kk < k; ++kk) {
    Vec<T> bv[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      bv[v] = load(b + v * W);
      if constexpr (kRead == Read::copy) store(copy + v * W, bv[v]);
    }
    if constexpr (kRead != Read::plain)
#pragma GCC unroll 4
      for (int j = 0; j < NV * W; j += kLine) __builtin_prefetch(later + j, 0, 3);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const Vec<T> av = set1(a[i * a_row]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) acc[i][v] += av * bv[v];
    }
    __builtin_prefetch(next, 0, 2);
    next += next_k;
    if constexpr (kRead != Read::plain) later = kk == last_own ? beside : later + b_k;
    a += a_k;
    b += b_k;
    if constexpr (kRead == Read::copy) copy += NV * W;
  }
  store_tile<T, MR, NV>(acc, out, cols);
}

// strided_tile for `rows` known only at run time, 1 <= rows <= kTileRows.
template <class T, int NV, Read kRead, int MR = kTileRows>
CISDL_INLINE void strided_tile_rows(int64_t rows, int64_t k, const TileA<T>& a, const TileB<T>& b,
                                    const TileOutput<T>& out, int64_t cols) {
  if (rows == MR) {
    strided_tile<T, MR, NV, kRead>(k, a, b, out, cols);
  } else if constexpr (MR > 1) {
    constexpr int kLess = smaller_tile<T>(MR);
    if constexpr (kLess < MR - 1) {
      if (rows > kLess) {
        strided_tile<T, kLess, NV, kRead>(k, a, b, out, cols);
        return strided_tile_rows<T, NV, kRead, kLess>(
            rows - kLess, k, {a.data + kLess * a.row, a.row, a.k, a.ahead, a.ahead_k}, b, below(out, kLess), cols);
      }
    }
    strided_tile_rows<T, NV, kRead, kLess>(rows, k, a, b, out, cols);
  }
}

}  // namespace
}  // namespace cisdl
