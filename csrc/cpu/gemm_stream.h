// C = A B with B row-major, for products that are bound by reading B or by writing C: few rows, or a short sum.
//
// Nothing is packed. The kernel is a rank-KU update of MR rows, C[MR][n] += A[MR][KU] B[KU][n]: the MR * KU
// scalars of A are broadcast into registers once, then KU rows of B are read from left to right, each as one
// sequential stream, and MR rows of C with them.
//   few rows (the gradient of x at small batch): the columns are cut into chunks whose MR rows of C stay in L1;
//     all rows of A meet the KU rows of B before the next KU are read, so B is read from memory once;
//   short sum (the gradient of W at small batch): the KU loop is inside, so C is written from L1 once.
// Parallel over chunks of columns in the first case, over groups of rows in the second.
#pragma once

#include "gemm.h"

namespace cisdl {
namespace {

constexpr int kUpdateRows = 4;
// Rows of B in one update: as many as leave registers for the broadcasts.
template <int MR>
constexpr int kUpdateDepth = kNumRegisters == 32 ? (MR <= 2 ? 8 : 4)
                                                 : (MR == 1   ? 8
                                                    : MR == 2 ? 4
                                                              : 2);

template <class T, int MR, int KU>
void rank_update(const Lines<T>& a, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t n, bool overwrite) {
  constexpr int W = kWidth<T>;
  Vec<T> av[MR][KU];
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int u = 0; u < KU; ++u) av[i][u] = set1(a.data[i * a.line_stride + u * a.k_stride]);
  auto step = [&](int64_t j, auto&& read, auto&& write) __attribute__((always_inline)) {
    Vec<T> acc[MR];
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) acc[i] = overwrite ? zero<T>() : read(c + i * ldc + j);
#pragma GCC unroll 8
    for (int u = 0; u < KU; ++u) {
      const Vec<T> bv = read(b + u * ldb + j);
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i) acc[i] += av[i][u] * bv;
    }
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) write(c + i * ldc + j, acc[i]);
  };
  int64_t j = 0;
  for (; j + W <= n; j += W)
    step(
        j, [](const T* p) __attribute__((always_inline)) { return load(p); },
        [](T* p, Vec<T> v) __attribute__((always_inline)) { store(p, v); });
  if (j < n)
    step(
        j, [left = n - j](const T* p) __attribute__((always_inline)) { return load_partial(p, left); },
        [left = n - j](T* p, Vec<T> v) __attribute__((always_inline)) { store_partial(p, v, left); });
}

// k rows of B, KU at a time; KU halves for the rest.
template <class T, int MR, int KU = kUpdateDepth<MR>>
CISDL_INLINE void rank_updates(const Lines<T>& a, int64_t k, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t n,
                               bool overwrite) {
  int64_t kk = 0;
  for (; kk + KU <= k; kk += KU)
    rank_update<T, MR, KU>({a.data + kk * a.k_stride, a.line_stride, a.k_stride}, b + kk * ldb, ldb, c, ldc, n,
                           overwrite && kk == 0);
  if constexpr (KU > 1) {
    if (kk < k)
      rank_updates<T, MR, KU / 2>({a.data + kk * a.k_stride, a.line_stride, a.k_stride}, k - kk, b + kk * ldb, ldb,
                                  c, ldc, n, overwrite && kk == 0);
  }
}

template <class T, int MR = kUpdateRows>
CISDL_INLINE void rank_updates_rows(int64_t rows, const Lines<T>& a, int64_t k, const T* b, int64_t ldb, T* c,
                                    int64_t ldc, int64_t n, bool overwrite) {
  if (rows == MR) {
    rank_updates<T, MR>(a, k, b, ldb, c, ldc, n, overwrite);
  } else if constexpr (MR > 1) {
    rank_updates_rows<T, MR - 1>(rows, a, k, b, ldb, c, ldc, n, overwrite);
  }
}

// Few rows: C[m, n] = A B (+ row bias, at least `least`), written, not added to. k > 0.
template <class T>
void gemm_few_rows(int64_t m, int64_t n, int64_t k, const Lines<T>& a, const T* b, int64_t ldb,
                   const TileOutput<T>& out, const Parallel& par) {
  if (m == 0 || n == 0) return;
  constexpr int64_t kAccumulatorBytes = 16 << 10;
  constexpr int64_t step = 8;  // rows of B that stay in L1 while all rows of A meet them
  const bool prefetch = m > kUpdateRows && n * k * static_cast<int64_t>(sizeof(T)) > kL2Bytes;
  const int64_t unit = 4 * kWidth<T>;
  const int64_t fit = larger(unit, kAccumulatorBytes / (m * static_cast<int64_t>(sizeof(T))) / unit * unit);
  const int64_t chunk =
      smaller(fit, split_evenly(n, larger(unit, (n + par.num_threads - 1) / par.num_threads), unit).size);
  const Parts panels = split_evenly(m, kUpdateRows, 1);
  parallel_for(par, (n + chunk - 1) / chunk, grain_for(m * chunk * k), [&](int64_t begin, int64_t end) {
    T* sums = static_cast<T*>(scratch(Scratch::local, m * chunk * static_cast<int64_t>(sizeof(T))));
    for (int64_t j = begin * chunk; j < smaller(n, end * chunk); j += chunk) {
      const int64_t cols = smaller(chunk, n - j);
      for (int64_t k0 = 0; k0 < k; k0 += kMaxChain) {
        const int64_t k1 = smaller(k, k0 + kMaxChain);
        for (int64_t kk = k0; kk < k1; kk += step) {
          if (prefetch) prefetch_rows(b + (kk + step) * ldb + j, ldb, smaller(step, k - kk - step), cols);
          for (int64_t i = 0; i < m; i += panels.size)
            rank_updates_rows<T>(smaller(panels.size, m - i),
                                 {a.data + i * a.line_stride + kk * a.k_stride, a.line_stride, a.k_stride},
                                 smaller(step, k1 - kk), b + kk * ldb + j, ldb, sums + i * chunk, chunk, cols,
                                 kk == k0);
        }
        for (int64_t i = 0; i < m; ++i) {
          const T* sum = sums + i * chunk;
          T* c = out.c + i * out.ldc + j;
          const T bias = out.row_bias ? out.row_bias[i] : T(0), least = k1 == k ? out.least : T(kNoLeast);
          for (int64_t jj = 0; jj < cols; ++jj) {
            const T y = sum[jj] + (k0 == 0 ? bias : c[jj]);
            c[jj] = y < least ? least : y;  // a NaN stays
          }
        }
      }
    }
  });
}

// Short sum: C[m, n] = A B with 0 < k <= kMaxChain.
template <class T>
void gemm_short_sum(int64_t m, int64_t n, int64_t k, const Lines<T>& a, const T* b, int64_t ldb, T* c, int64_t ldc,
                    const Parallel& par) {
  if (m == 0 || n == 0) return;
  constexpr int64_t kChunk = 512;  // columns: kUpdateRows rows of C stay in L1
  const Parts panels = split_evenly(m, kUpdateRows, 1);
  parallel_for(par, panels.count, grain_for(panels.size * n * (k + 4)), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t i = p * panels.size, rows = smaller(panels.size, m - i);
      for (int64_t j = 0; j < n; j += kChunk)
        rank_updates_rows<T>(rows, {a.data + i * a.line_stride, a.line_stride, a.k_stride}, k, b + j, ldb,
                             c + i * ldc + j, ldc, smaller(kChunk, n - j), true);
    }
  });
}

}  // namespace
}  // namespace cisdl
