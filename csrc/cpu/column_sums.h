// Sums over the rows of a row-major matrix: the gradient of a bias.
//
// Lanes along the columns, so every load is contiguous; parallel over groups of columns. Rows are added in
// chains of kMaxChain, then the chains: a batch of a million rows loses no digits that one chain would.
#pragma once

#include "../common/parallel.h"
#include "gemm_tile.h"

namespace cisdl {
namespace {

// sums[j] = sum over i of x[i, j], x: [rows, cols], rows `stride` apart; dense if that is 0.
template <class T>
void column_sums(const T* x, int64_t rows, int64_t cols, T* sums, const Parallel& par, int64_t stride = 0) {
  constexpr int W = kWidth<T>, kVectors = 4;
  constexpr int64_t kGroup = W * kVectors;
  const int64_t groups = (cols + kGroup - 1) / kGroup;
  if (stride == 0) stride = cols;
  const int64_t work = rows * kGroup > 0 ? rows * kGroup : 1;
  parallel_for(par, groups, (1 << 17) / work + 1, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin * kGroup; j < end * kGroup && j < cols; j += kGroup) {
      const int64_t n = cols - j;
      Vec<T> total[kVectors] = {};
      for (int64_t i0 = 0; i0 < rows; i0 += kMaxChain) {
        const int64_t i1 = i0 + kMaxChain < rows ? i0 + kMaxChain : rows;
        Vec<T> part[kVectors] = {};
        if (n >= kGroup) {
          for (int64_t i = i0; i < i1; ++i)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) part[v] += load(x + i * stride + j + v * W);
        } else {
          for (int64_t i = i0; i < i1; ++i)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
              const int64_t left = n - v * W;
              if (left >= W)
                part[v] += load(x + i * stride + j + v * W);
              else if (left > 0)
                part[v] += load_partial(x + i * stride + j + v * W, left);
            }
        }
        for (int v = 0; v < kVectors; ++v) total[v] += part[v];
      }
      for (int v = 0; v < kVectors; ++v) {
        const int64_t left = n - v * W;
        if (left >= W)
          store(sums + j + v * W, total[v]);
        else if (left > 0)
          store_partial(sums + j + v * W, total[v], left);
      }
    }
  });
}

}  // namespace
}  // namespace cisdl
