// The tile of recurrent layers: C[MR][NV vectors] = A B, B a packed panel [k][NV*W], rows of A in chunks.
//
// A panel of MR rows of A lies chunk by chunk along k: [k / kChunk][MR][kChunk]. So every broadcast has a constant
// distance from one pointer (rows a stride apart want a register each, and of those there are too few for 14
// rows), and yet a row is copied there by whole vectors, without the transposes of a [k][MR] panel: what is
// multiplied once a step could not pay for those. Rows a power of two apart would share sets of the cache besides.
//
// B is used once a step and may not fit in L2: its rows are asked for kPanelAhead ahead, far enough for L3.
#pragma once

#include "gemm.h"

namespace cisdl {
namespace {

constexpr int64_t kChunk = 16;
constexpr int64_t kPanelAhead = 24;

// Part of a sum: `k` rows of a panel of B, and what they meet.
template <class T>
struct Segment {
  int64_t k;
  const T* a;  // chunks
  const T* b;
};

template <class T, int MR, int NV>
CISDL_INLINE void accumulate_segment(const Segment<T>& s, Vec<T> (&acc)[MR][NV]) {
  constexpr int W = kWidth<T>;
  constexpr int kLine = 64 / static_cast<int>(sizeof(T));
  const T* __restrict a = s.a;
  const T* __restrict b = s.b;
  for (int64_t left = s.k; left > 0; left -= kChunk, a += (MR - 1) * kChunk) {
    const T* const end = a + (left < kChunk ? left : kChunk);
#pragma GCC unroll 2
    for (; a < end; ++a) {
      Vec<T> bv[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) bv[v] = load(b + v * W);
#pragma GCC unroll 4
      for (int j = 0; j < NV * W; j += kLine) __builtin_prefetch(b + kPanelAhead * NV * W + j, 0, 3);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const Vec<T> av = set1(a[i * kChunk]);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) acc[i][v] += av * bv[v];
      }
      b += NV * W;
    }
  }
}

template <class T, int MR, int NV>
void chunk_tile(const Segment<T>& first, const Segment<T>& second, const TileOutput<T>& out, int64_t cols) {
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[i][v] = zero<T>();
  accumulate_segment<T, MR, NV>(first, acc);
  accumulate_segment<T, MR, NV>(second, acc);
  store_tile<T, MR, NV>(acc, out, cols);
}

template <class T, int NV, int MR = kTileRows>
CISDL_INLINE void chunk_tile_rows(int64_t rows, const Segment<T>& first, const Segment<T>& second,
                                  const TileOutput<T>& out, int64_t cols) {
  if (rows == MR) {
    chunk_tile<T, MR, NV>(first, second, out, cols);
  } else if constexpr (MR > 1) {
    chunk_tile_rows<T, NV, MR - 1>(rows, first, second, out, cols);
  }
}

CISDL_INLINE int64_t whole_chunks(int64_t k) { return (k + kChunk - 1) / kChunk * kChunk; }

// Copies rows [rows, k], `stride` apart, as rows [at, at + rows) of a panel of `panel_rows` rows.
template <class T>
void copy_chunks(const T* from, int64_t stride, int64_t rows, int64_t k, T* panel, int64_t panel_rows,
                 int64_t at) {
  constexpr int W = kWidth<T>;
  for (int64_t i = 0; i < rows; ++i) {
    const T* row = from + i * stride;
    T* to = panel + (at + i) * kChunk;
    int64_t k0 = 0;
    for (; k0 + kChunk <= k; k0 += kChunk, to += panel_rows * kChunk)
#pragma GCC unroll 8
      for (int64_t v = 0; v < kChunk; v += W) store(to + v, load(row + k0 + v));
    for (; k0 < k; k0 += W, to += W) store_up_to(to, load_up_to(row + k0, k - k0), k - k0);
  }
}

// One panel of at most kTileCols columns, zero-filled to whole vectors, by rows of A in chunks: C = A B in parts
// that no accumulator is too long for.
template <class T>
void multiply_panel(int64_t rows, Segment<T> first, Segment<T> second, TileOutput<T> out, int64_t cols) {
  const bool narrow = panel_vectors<T>(cols) == 1;
  const auto tile = [&](const Segment<T>& a, const Segment<T>& b) {
    if (narrow)
      chunk_tile_rows<T, 1>(rows, a, b, out, cols);
    else
      chunk_tile_rows<T, kTileVectors>(rows, a, b, out, cols);
    out.accumulate = true;
  };
  if (first.k + second.k <= kMaxChain) return tile(first, second);
  const int64_t width = panel_vectors<T>(cols) * kWidth<T>;
  for (const Segment<T>* s : {&first, &second}) {
    const Parts parts = split_evenly(s->k, kMaxChain, kChunk);
    for (int64_t k0 = 0; k0 < s->k; k0 += parts.size)
      tile({smaller(parts.size, s->k - k0), s->a + k0 * rows, s->b + k0 * width}, {});
  }
}

}  // namespace
}  // namespace cisdl
