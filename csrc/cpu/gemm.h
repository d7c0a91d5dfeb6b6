// C = A B (+ bias), each operand row-major or transposed: the packed product on outer_tile.
//
// A is packed once, by all threads, into panels of kTileRows rows. The output is then split into items of one
// A panel by one block of kBlockPanels B panels; a thread walks its items block by block, packs the block of B for
// itself (it stays in its L2 cache) and runs the register tile over it, panel of A by panel of A (each stays in
// L1). Sums longer than kMaxChain are cut into equal parts, added up in C in order: the result depends neither on
// the number of threads nor on how the items were dealt out.
//
// Wins from about a dozen rows of A on: packing costs a read and a write of both operands, the product 2 m n k.
// Below that, see gemm_dot.h and gemm_stream.h.
#pragma once

#include "../common/parallel.h"
#include "gemm_pack.h"
#include "kernels.h"

namespace cisdl {
namespace {

template <class T>
struct Gemm {
  int64_t m, n, k;
  Lines<T> a;         // [m, k]: lines are rows
  Lines<T> b;         // [k, n]: lines are columns
  TileOutput<T> out;  // the whole C
};

// The two ways a row-major matrix [rows, cols] with `stride` enters a product.
template <class T>
CISDL_INLINE Lines<T> lines_are_rows(const T* data, int64_t stride) {
  return {data, stride, 1};
}
template <class T>
CISDL_INLINE Lines<T> lines_are_columns(const T* data, int64_t stride) {
  return {data, 1, stride};
}

// Splits n into parts of at most `most`, as equal as multiples of `unit` allow.
struct Parts {
  int64_t count, size;
};
CISDL_INLINE Parts split_evenly(int64_t n, int64_t most, int64_t unit) {
  const int64_t count = n > 0 ? (n + most - 1) / most : 1;
  int64_t size = (n + count - 1) / count;
  size = (size + unit - 1) / unit * unit;
  return {n > 0 ? (n + size - 1) / size : 1, size};
}

// Work worth a thread: a range given to parallel_for does at least this many multiply-adds.
constexpr int64_t kGrainWork = 1 << 19;
CISDL_INLINE int64_t grain_for(int64_t work_per_item) { return larger(1, kGrainWork / larger(1, work_per_item)); }

// Asks for rows of memory to be brought into L2 while something else is computed: what the hardware's prefetcher
// does not foresee are the jumps from one short row to the next. Never faults, whatever the address.
template <class T>
CISDL_INLINE void prefetch_rows(const T* p, int64_t stride, int64_t rows, int64_t cols) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; j += kLine) __builtin_prefetch(p + i * stride + j, 0, 2);
}

constexpr int64_t kL2Bytes = 1 << 20;
constexpr int64_t kBlockPanels = 4;
constexpr int64_t kMaxPackedBytes = 16 << 20;  // of A at a time: within the last-level cache

template <class T>
CISDL_INLINE TileOutput<T> tile_at(const TileOutput<T>& out, int64_t i, int64_t j, bool accumulate) {
  return {out.c + i * out.ldc + j, out.ldc, accumulate, out.row_bias ? out.row_bias + i : nullptr,
          out.col_bias ? out.col_bias + j : nullptr};
}

template <class T>
CISDL_INLINE void run_tile(int64_t rows, int64_t k, const T* a, const T* b, const TileOutput<T>& out,
                           int64_t cols) {
  if (panel_vectors<T>(cols) == 1)
    outer_tile_rows<T, 1>(rows, k, a, b, out, cols);
  else
    outer_tile_rows<T, kTileVectors>(rows, k, a, b, out, cols);
}

// A packed whole: panels of equal height (the last may be lower) and, within a panel, parts of k one after
// another.
template <class T>
struct PackedA {
  const T* data;
  Parts panels;
  int64_t stride;  // from panel to panel
};

template <class T>
PackedA<T> pack_whole_a(const Lines<T>& a, int64_t m, int64_t k, Scratch slot, const Parallel& par) {
  const Parts panels = split_evenly(m, kTileRows, 1);
  const int64_t stride = panels.size * k + kPackSlack<T>;
  T* data = static_cast<T*>(scratch(slot, panels.count * stride * static_cast<int64_t>(sizeof(T))));
  parallel_for(par, panels.count, grain_for(8 * stride), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t i = p * panels.size;
      pack_a<T>({a.data + i * a.line_stride, a.line_stride, a.k_stride}, smaller(panels.size, m - i), k,
                data + p * stride);
    }
  });
  return {data, panels, stride};
}

template <class T>
void gemm_rows(const Gemm<T>& g, const Parallel& par) {
  const PackedA<T> a = pack_whole_a<T>(g.a, g.m, g.k, Scratch::shared, par);
  const Parts parts = split_evenly(g.k, kMaxChain, 8);
  constexpr int64_t kBlockCols = kBlockPanels * kTileCols<T>;
  const int64_t blocks = (g.n + kBlockCols - 1) / kBlockCols;
  const int64_t panel_size = parts.size * kTileCols<T>;
  const int64_t row_panels = a.panels.count;
  parallel_for(
      par, blocks * row_panels, grain_for(a.panels.size * kBlockCols * g.k), [&](int64_t begin, int64_t end) {
        T* packed =
            static_cast<T*>(scratch(Scratch::local, kBlockPanels * panel_size * static_cast<int64_t>(sizeof(T))));
        for (int64_t item = begin; item < end;) {
          const int64_t block = item / row_panels;
          const int64_t first = item % row_panels, last = smaller(row_panels, first + end - item);
          const int64_t j0 = block * kBlockCols, j1 = smaller(g.n, j0 + kBlockCols);
          for (int64_t part = 0; part < parts.count; ++part) {
            const int64_t k0 = part * parts.size, k1 = smaller(g.k, k0 + parts.size);
            pack_b<T>({g.b.data + j0 * g.b.line_stride + k0 * g.b.k_stride, g.b.line_stride, g.b.k_stride},
                      j1 - j0, k1 - k0, packed, panel_size);
            for (int64_t p = first; p < last; ++p) {
              const int64_t i = p * a.panels.size, rows = smaller(a.panels.size, g.m - i);
              for (int64_t j = j0; j < j1; j += kTileCols<T>)
                run_tile<T>(rows, k1 - k0, a.data + p * a.stride + k0 * rows,
                            packed + (j - j0) / kTileCols<T> * panel_size,
                            tile_at(g.out, i, j, g.out.accumulate || part > 0), smaller(kTileCols<T>, j1 - j));
            }
          }
          item += last - first;
        }
      });
}

template <class T>
void gemm(const Gemm<T>& g, const Parallel& par) {
  if (g.m == 0 || g.n == 0) return;
  // Packed A stays in the cache: a taller one is taken in slices.
  const int64_t most = larger(kTileRows, kMaxPackedBytes / (larger(1, g.k) * static_cast<int64_t>(sizeof(T))));
  const Parts slices = split_evenly(g.m, most, kTileRows);
  for (int64_t i = 0; i < g.m; i += slices.size) {
    Gemm<T> slice = g;
    slice.m = smaller(slices.size, g.m - i);
    slice.a.data += i * g.a.line_stride;
    slice.out = tile_at(g.out, i, 0, g.out.accumulate);
    gemm_rows(slice, par);
  }
}

}  // namespace
}  // namespace cisdl
