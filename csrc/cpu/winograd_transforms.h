// The transforms of Winograd's F(4x4, 3x3) (Winograd 1980; Lavin & Gray 2016), on vectors of W channels.
//
// In one dimension, four outputs y[i] = sum_k d[i + k] g[k] of a 3-tap filter need six products instead of twelve:
//   y = A^T [ (G g) . (B^T d) ],   one product for each point p of {0, a, -a, b, -b, infinity}:
//   row p of G    (1, p, p^2) / prod over the other finite points q of (p - q)         infinity: (0, 0, 1)
//   row p of B^T  coefficients of prod over the other finite points q of (x - q)       infinity: over all five
//   row i of A^T  p^i for each p                                                       infinity: 1 for i = 3
// and in two dimensions 36 instead of 144. The textbook's points are a = 1, b = 2; a = 3/4, b = 3/2 leave three to
// five times less rounding error, for the same number of operations.
//
// The gradient of the weight is the same form with other roles: three outputs of a 4-tap "filter" dy over the same
// six inputs, F(3x3, 4x4), so its B^T is the same; G has a fourth column p^3, A^T the first three rows.
#pragma once

#include "simd.h"

namespace cisdl {
namespace {

constexpr int kOutTile = 4;  // outputs of a tile along one dimension
constexpr int kInTile = 6;   // inputs of a tile, and points, along one dimension
constexpr int kPoints = kInTile * kInTile;

constexpr float kA = 0.75f, kB = 1.5f;
constexpr float kA2 = kA * kA, kB2 = kB * kB;
// 1 / prod (p - q) for p = 0, +-a (even in p, as the products of differences are), +-b.
constexpr float kScale0 = 1 / (kA2 * kB2);
constexpr float kScaleA = 1 / (2 * kA2 * (kA2 - kB2));
constexpr float kScaleB = 1 / (2 * kB2 * (kB2 - kA2));

using V = Vec<float>;
CISDL_INLINE V times(float c, V v) { return set1(c) * v; }

// B^T d.
CISDL_INLINE void input_transform(const V (&d)[kInTile], V (&out)[kInTile]) {
  const V even_a = d[4] - times(kB2, d[2]), odd_a = times(kA, d[3] - times(kB2, d[1]));
  const V even_b = d[4] - times(kA2, d[2]), odd_b = times(kB, d[3] - times(kA2, d[1]));
  out[0] = times(kA2 * kB2, d[0]) + (d[4] - times(kA2 + kB2, d[2]));
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = times(kA2 * kB2, d[1]) + (d[5] - times(kA2 + kB2, d[3]));
}

// G g for a 3-tap filter.
CISDL_INLINE void filter_transform(const V (&g)[3], V (&out)[kInTile]) {
  const V even_a = times(kScaleA, g[0] + times(kA2, g[2])), odd_a = times(kScaleA * kA, g[1]);
  const V even_b = times(kScaleB, g[0] + times(kB2, g[2])), odd_b = times(kScaleB * kB, g[1]);
  out[0] = times(kScale0, g[0]);
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = g[2];
}

// G g for a 4-tap filter.
CISDL_INLINE void filter_transform(const V (&g)[4], V (&out)[kInTile]) {
  const V even_a = times(kScaleA, g[0] + times(kA2, g[2]));
  const V odd_a = times(kScaleA * kA, g[1] + times(kA2, g[3]));
  const V even_b = times(kScaleB, g[0] + times(kB2, g[2]));
  const V odd_b = times(kScaleB * kB, g[1] + times(kB2, g[3]));
  out[0] = times(kScale0, g[0]);
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = g[3];
}

// A^T m for N outputs (4 of a 3-tap filter, 3 of a 4-tap one); infinity counts in the last.
template <int N>
CISDL_INLINE void output_transform(const V (&m)[kInTile], V (&out)[N]) {
  const V sum_a = m[1] + m[2], diff_a = m[1] - m[2], sum_b = m[3] + m[4], diff_b = m[3] - m[4];
  out[0] = m[0] + sum_a + sum_b;
  out[1] = times(kA, diff_a) + times(kB, diff_b);
  out[2] = times(kA2, sum_a) + times(kB2, sum_b);
  if constexpr (N == 4) {
    out[3] = times(kA * kA2, diff_a) + times(kB * kB2, diff_b) + m[5];
  } else {
    out[2] += m[5];
  }
}

// The two-dimensional transform: `transform` down the columns, then along the rows.
template <int In, int Out, class Transform, class Load, class Store>
CISDL_INLINE void transform_2d(const Transform& transform, const Load& load_at, const Store& store_at) {
  V columns[Out][In];
#pragma GCC unroll 6
  for (int j = 0; j < In; ++j) {
    V d[In], t[Out];
#pragma GCC unroll 6
    for (int i = 0; i < In; ++i) d[i] = load_at(i, j);
    transform(d, t);
#pragma GCC unroll 6
    for (int i = 0; i < Out; ++i) columns[i][j] = t[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < Out; ++i) {
    V t[Out];
    transform(columns[i], t);
#pragma GCC unroll 6
    for (int j = 0; j < Out; ++j) store_at(i, j, t[j]);
  }
}

// Down from 6x6 products to N x N outputs.
template <int N, class Load, int M>
CISDL_INLINE void transform_2d_down(const Load& load_at, V (&out)[M]) {
  static_assert(M >= N * N);
  V columns[N][kInTile];
#pragma GCC unroll 6
  for (int s = 0; s < kInTile; ++s) {
    V m[kInTile], t[N];
#pragma GCC unroll 6
    for (int r = 0; r < kInTile; ++r) m[r] = load_at(r, s);
    output_transform<N>(m, t);
#pragma GCC unroll 4
    for (int r = 0; r < N; ++r) columns[r][s] = t[r];
  }
#pragma GCC unroll 4
  for (int r = 0; r < N; ++r) {
    V t[N];
    output_transform<N>(columns[r], t);
#pragma GCC unroll 4
    for (int s = 0; s < N; ++s) out[r * N + s] = t[s];
  }
}

}  // namespace
}  // namespace cisdl
