// The two register tiles on which linear, convolution and the LSTM cell stand.
//
// outer_tile   C[MR][NR] = sum_k a[k][MR] (x) b[k][NR]: for every k it loads NR/W vectors of b, broadcasts MR
//              scalars of a and issues MR*NR/W independent FMAs. Both operands are packed so that they are read
//              in order: a as [k][MR], b as [k][NR]. AVX-512: 14 x 32 floats in 28 of 32 registers; AVX2: 6 x 16
//              in 12 of 16; 128 bit: 6 x 8. This is the tile of large products: near the FMA peak.
// dot_tile     C[MR][NR] = sum_k a[i][k] b[j][k] with the lanes along k and a sum over lanes at the end: both
//              operands are read where they lie (any row stride, k dense), nothing is packed. This is the tile for
//              weights that change every step, for small batches, and for the weight gradient of a convolution.
//
// One accumulator chain grows its rounding error with k: callers split long sums (kMaxChain) and add the parts.
#pragma once

#include "../common/problems.h"
#include "simd_shuffle.h"

namespace cisdl {
namespace {

// Rows and vectors of the outer tile.
constexpr int kTileRows = kNumRegisters == 32 ? 14 : 6;
constexpr int kTileVectors = 2;
template <class T>
constexpr int kTileCols = kTileVectors * kWidth<T>;

// The next smaller tile than one of `rows`. double, which few networks use, has powers of two only, and a rest of
// rows is made of several: compiling tiles takes long.
template <class T>
constexpr int smaller_tile(int rows) {
  if (sizeof(T) == 4) return rows - 1;
  int power = 1;
  while (2 * power < rows) power *= 2;
  return power;
}

// Rows of a and b in the dot tile.
constexpr int kDotRows = kNumRegisters == 32 ? 6 : 3;
constexpr int kDotCols = kNumRegisters == 32 ? 4 : 3;

// The longest sum that goes into one chain of accumulators.
constexpr int64_t kMaxChain = 512;

// Where a tile goes: C row-major, plus what is added to it.
template <class T>
struct TileOutput {
  T* c;
  int64_t ldc;
  bool accumulate = false;      // add to what is in C (then both biases are ignored)
  const T* row_bias = nullptr;  // [rows], or null
  const T* col_bias = nullptr;  // [cols], or null
  T least = kNoLeast;           // no element becomes less
};

// The same from `rows` rows further down.
template <class T>
CISDL_INLINE TileOutput<T> below(TileOutput<T> out, int64_t rows) {
  out.c += rows * out.ldc;
  if (out.row_bias) out.row_bias += rows;
  return out;
}

template <class T, int MR, int NV>
CISDL_INLINE void store_tile(const Vec<T> (&acc)[MR][NV], const TileOutput<T>& out, int64_t cols) {
  constexpr int W = kWidth<T>;
  const Vec<T> least = set1(out.least);
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) {
    const int64_t n = cols - v * W;
    if (n <= 0) break;
    const bool full = n >= W;
    Vec<T> bias = zero<T>();
    if (out.col_bias && !out.accumulate)
      bias = full ? load(out.col_bias + v * W) : load_partial(out.col_bias + v * W, n);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      T* c = out.c + i * out.ldc + v * W;
      Vec<T> sum = acc[i][v];
      if (out.accumulate) {
        sum += full ? load(c) : load_partial(c, n);
      } else {
        sum += bias;
        if (out.row_bias) sum += set1(out.row_bias[i]);
      }
      sum = at_least<T>(sum, least);
      if (full)
        store(c, sum);
      else
        store_partial(c, sum, n);
    }
  }
}

// a: [k][MR] packed; b: [k][NV*W] packed (zero-filled past `cols`).
template <class T, int MR, int NV>
void outer_tile(int64_t k, const T* __restrict a, const T* __restrict b, const TileOutput<T>& out, int64_t cols) {
  constexpr int W = kWidth<T>;
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[i][v] = zero<T>();
  for (int64_t kk = 0; kk < k; ++kk) {
    Vec<T> bv[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) bv[v] = load(b + v * W);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const Vec<T> av = set1(a[i]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) acc[i][v] += av * bv[v];
    }
    a += MR;
    b += NV * W;
  }
  store_tile<T, MR, NV>(acc, out, cols);
}

// outer_tile for `rows` known only at run time, 1 <= rows <= kTileRows; a is packed as [k][rows].
template <class T, int NV, int MR = kTileRows>
CISDL_INLINE void outer_tile_rows(int64_t rows, int64_t k, const T* a, const T* b, const TileOutput<T>& out,
                                  int64_t cols) {
  if (rows == MR) {
    outer_tile<T, MR, NV>(k, a, b, out, cols);
  } else if constexpr (MR > 1) {
    outer_tile_rows<T, NV, MR - 1>(rows, k, a, b, out, cols);
  }
}

// acc[i * NR + j] += lane by lane, the products of row i of a (stride lda) and row j of b (stride ldb), k dense.
template <class T, int MR, int NR>
CISDL_INLINE void dot_accumulate(Vec<T> (&acc)[MR * NR], int64_t k, const T* __restrict a, int64_t lda,
                                 const T* __restrict b, int64_t ldb) {
  constexpr int W = kWidth<T>;
  auto step = [&](int64_t kk, auto&& read) __attribute__((always_inline)) {
    Vec<T> bv[NR];
#pragma GCC unroll 8
    for (int j = 0; j < NR; ++j) bv[j] = read(b + j * ldb + kk);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const Vec<T> av = read(a + i * lda + kk);
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) acc[i * NR + j] += av * bv[j];
    }
  };
  int64_t kk = 0;
  for (; kk + W <= k; kk += W) step(kk, [](const T* p) __attribute__((always_inline)) { return load(p); });
  if (kk < k) step(kk, [n = k - kk](const T* p) __attribute__((always_inline)) { return load_partial(p, n); });
}

// a: MR rows with stride lda, b: NR rows with stride ldb, k dense; `emit(i, j, sum)` takes each element.
template <class T, int MR, int NR, class Emit>
CISDL_INLINE void dot_tile(int64_t k, const T* __restrict a, int64_t lda, const T* __restrict b, int64_t ldb,
                           const Emit& emit) {
  Vec<T> acc[MR * NR];
#pragma GCC unroll 64
  for (int i = 0; i < MR * NR; ++i) acc[i] = zero<T>();
  dot_accumulate<T, MR, NR>(acc, k, a, lda, b, ldb);
  T sums[MR * NR];
  sum_lanes_of<T, MR * NR>(acc, sums);
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NR; ++j) emit(i, j, sums[i * NR + j]);
}

}  // namespace
}  // namespace cisdl
