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
// Where a side is no multiple of four, tiles of three outputs, F(3, 3), fill it up. They leave the point 0 out:
// with row p of G as it is, row p of their B^T is multiplied by (p - 0). So both kinds of tile share one set of
// transformed weights, and 7 = 4 + 3 outputs take 11 products instead of 12.
//
// The gradient of the weight is the same form with other roles: three outputs of a 4-tap (3-tap) "filter" dy over
// the same six (five) inputs, so its B^T is the same; G has a fourth column p^3, A^T the first three rows.
#pragma once

#include "simd.h"

namespace cisdl {
namespace {

constexpr int kSide = 6;  // points along one dimension
constexpr int kPoints = kSide * kSide;

constexpr float kA = 0.75f, kB = 1.5f;
constexpr float kA2 = kA * kA, kB2 = kB * kB;
// 1 / prod (p - q) for p = 0, +-a (even in p, as the products of differences are), +-b.
constexpr float kScale0 = 1 / (kA2 * kB2);
constexpr float kScaleA = 1 / (2 * kA2 * (kA2 - kB2));
constexpr float kScaleB = 1 / (2 * kB2 * (kB2 - kA2));

using V = Vec<float>;
CISDL_INLINE V times(float c, V v) { return set1(c) * v; }

// All functions take and give the points in the order above; those of a tile or a kernel without the point 0 begin
// with the second.

// B^T d of a tile of four.
CISDL_INLINE void input_transform(const V (&d)[6], V (&out)[6]) {
  const V even_a = d[4] - times(kB2, d[2]), odd_a = times(kA, d[3] - times(kB2, d[1]));
  const V even_b = d[4] - times(kA2, d[2]), odd_b = times(kB, d[3] - times(kA2, d[1]));
  out[0] = times(kA2 * kB2, d[0]) + (d[4] - times(kA2 + kB2, d[2]));
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = times(kA2 * kB2, d[1]) + (d[5] - times(kA2 + kB2, d[3]));
}

// B^T d without the point 0. Three outputs of two taps see four inputs and have no use for infinity.
template <int Inputs>
CISDL_INLINE void input_transform(const V (&d)[Inputs], V (&out)[5]) {
  static_assert(Inputs == 4 || Inputs == 5);
  const V even_a = times(kA2, d[2] - times(kB2, d[0])), odd_a = times(kA, d[3] - times(kB2, d[1]));
  const V even_b = times(kB2, d[2] - times(kA2, d[0])), odd_b = times(kB, d[3] - times(kA2, d[1]));
  out[0] = even_a + odd_a;
  out[1] = even_a - odd_a;
  out[2] = even_b + odd_b;
  out[3] = even_b - odd_b;
  if constexpr (Inputs == 5)
    out[4] = times(kA2 * kB2, d[0]) + (d[4] - times(kA2 + kB2, d[2]));
  else
    out[4] = zero<float>();
}

// G g for Taps = 2, 3 or 4 taps at all six points, or without the point 0.
template <int Taps, int Points>
CISDL_INLINE void filter_transform(const V (&g)[Taps], V (&out)[Points]) {
  constexpr int first = Points - 5;
  V even_a = g[0], even_b = g[0], odd_a = g[1], odd_b = g[1];
  if constexpr (Taps > 2) {
    even_a += times(kA2, g[2]);
    even_b += times(kB2, g[2]);
  }
  if constexpr (Taps == 4) {
    odd_a += times(kA2, g[3]);
    odd_b += times(kB2, g[3]);
  }
  even_a = times(kScaleA, even_a), odd_a = times(kScaleA * kA, odd_a);
  even_b = times(kScaleB, even_b), odd_b = times(kScaleB * kB, odd_b);
  if constexpr (first == 1) out[0] = times(kScale0, g[0]);
  out[first] = even_a + odd_a;
  out[first + 1] = even_a - odd_a;
  out[first + 2] = even_b + odd_b;
  out[first + 3] = even_b - odd_b;
  out[first + 4] = g[Taps - 1];
}

// A^T m for N outputs; infinity counts in the last.
template <int Points, int N>
CISDL_INLINE void output_transform(const V (&m)[Points], V (&out)[N]) {
  constexpr int first = Points - 5;
  const V sum_a = m[first] + m[first + 1], diff_a = m[first] - m[first + 1];
  const V sum_b = m[first + 2] + m[first + 3], diff_b = m[first + 2] - m[first + 3];
  out[0] = sum_a + sum_b;
  if constexpr (first == 1) out[0] += m[0];
  out[1] = times(kA, diff_a) + times(kB, diff_b);
  if constexpr (N > 2) out[2] = times(kA2, sum_a) + times(kB2, sum_b);
  if constexpr (N > 3) out[3] = times(kA * kA2, diff_a) + times(kB * kB2, diff_b);
  out[N - 1] += m[first + 4];
}

// The two-dimensional transform of Rows x Cols cells to ToRows x ToCols: `transform` down the columns, then along
// the rows.
template <int Rows, int Cols, int ToRows, int ToCols, class Transform, class Load, class Store>
CISDL_INLINE void transform_2d(const Transform& transform, const Load& load_at, const Store& store_at) {
  V columns[ToRows][Cols];
#pragma GCC unroll 6
  for (int j = 0; j < Cols; ++j) {
    V d[Rows], t[ToRows];
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) d[i] = load_at(i, j);
    transform(d, t);
#pragma GCC unroll 6
    for (int i = 0; i < ToRows; ++i) columns[i][j] = t[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < ToRows; ++i) {
    V t[ToCols];
    transform(columns[i], t);
#pragma GCC unroll 6
    for (int j = 0; j < ToCols; ++j) store_at(i, j, t[j]);
  }
}

}  // namespace
}  // namespace cisdl
