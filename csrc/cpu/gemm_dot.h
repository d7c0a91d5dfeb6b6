// C = A B^T (+ bias) with both operands dense along k, on dot_tile: nothing is packed.
//
// Right for few rows of A, where packing B would cost as much as the product: every weight is read once, kDotCols
// rows of B at a time. Parallel over groups of columns of C. Long sums are cut into parts of kDotPart, so that
// the rows of A stay in L1 while they meet the rows of B.
#pragma once

#include "gemm.h"

namespace cisdl {
namespace {

constexpr int64_t kDotPart = 2048;

template <class T, int MR, int NR>
CISDL_INLINE void dot_block(int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb,
                            const TileOutput<T>& out) {
  dot_tile<T, MR, NR>(k, a, lda, b, ldb, [&](int i, int j, T sum) __attribute__((always_inline)) {
    T* c = out.c + i * out.ldc + j;
    if (out.accumulate)
      *c += sum;
    else
      *c = sum + (out.row_bias ? out.row_bias[i] : T(0)) + (out.col_bias ? out.col_bias[j] : T(0));
  });
}

// dot_tile for sizes known only at run time: 1 <= rows <= kDotRows, 1 <= cols <= kDotCols.
template <class T, int MR, int NR>
void dot_block_exact(int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, const TileOutput<T>& out) {
  dot_block<T, MR, NR>(k, a, lda, b, ldb, out);
}
template <class T, int NR, int MR = kDotRows>
CISDL_INLINE void dot_block_rows(int64_t rows, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb,
                                 const TileOutput<T>& out) {
  if (rows == MR) {
    dot_block_exact<T, MR, NR>(k, a, lda, b, ldb, out);
  } else if constexpr (MR > 1) {
    dot_block_rows<T, NR, MR - 1>(rows, k, a, lda, b, ldb, out);
  }
}
template <class T, int NR = kDotCols>
CISDL_INLINE void dot_block_any(int64_t rows, int64_t cols, int64_t k, const T* a, int64_t lda, const T* b,
                                int64_t ldb, const TileOutput<T>& out) {
  if (cols == NR) {
    dot_block_rows<T, NR>(rows, k, a, lda, b, ldb, out);
  } else if constexpr (NR > 1) {
    dot_block_any<T, NR - 1>(rows, cols, k, a, lda, b, ldb, out);
  }
}

// a: [m, k] with row stride lda; b: [n, k] with row stride ldb.
template <class T>
void gemm_dot(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb,
              const TileOutput<T>& out, const Parallel& par) {
  if (m == 0 || n == 0) return;
  const int64_t groups = (n + kDotCols - 1) / kDotCols;
  const Parts parts = split_evenly(k, kDotPart, kWidth<T>);
  const Parts panels = split_evenly(m, kDotRows, 1);
  parallel_for(par, groups, grain_for(kDotCols * m * k), [&](int64_t begin, int64_t end) {
    auto block = [&](int64_t group, int64_t part) {
      const int64_t j = group * kDotCols, cols = smaller(kDotCols, n - j);
      const int64_t k0 = part * parts.size, length = smaller(parts.size, k - k0);
      for (int64_t i = 0; i < m; i += panels.size)
        dot_block_any<T>(smaller(panels.size, m - i), cols, length, a + i * lda + k0, lda, b + j * ldb + k0, ldb,
                         tile_at(out, i, j, out.accumulate || part > 0));
    };
    if (panels.count == 1) {  // B is read once, in the order in which it lies
      for (int64_t group = begin; group < end; ++group)
        for (int64_t part = 0; part < parts.count; ++part) block(group, part);
    } else {
      for (int64_t part = 0; part < parts.count; ++part)
        for (int64_t group = begin; group < end; ++group) block(group, part);
    }
  });
}

}  // namespace
}  // namespace cisdl
