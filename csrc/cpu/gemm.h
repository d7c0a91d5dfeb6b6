// C = A B (+ bias), each operand row-major or transposed: the product on strided_tile.
//
// The output is split into items of one panel of kTileRows rows by one block of panels of columns. A
// thread walks its items block by block; of each block the panels of B stay in its L2 cache, packed, and the
// register tile runs over them panel of A by panel of A (each stays in L1).
//   A is read where it lies. With rows contiguous along k it is packed beforehand if it meets many columns, and
//     panel by panel, on the way, if its rows would fight for the same lines of L1 (rows_collide). With columns
//     contiguous the elements of a tile lie side by side, and the lines of the panel to come are asked for while
//     this one is multiplied; only with 16 registers, whose tile takes few elements of each line, it is packed.
//   B row-major is packed by the way, as the first rows of A meet it (strided_tile); with few rows, not at all.
//   B = W^T is packed by transposes in registers. Where B has more columns than A has rows and both are contiguous
//     along k (a linear layer's forward at moderate batch), the product is turned round, C^T = B^T A^T: then the
//     smaller operand is the one that is transposed, and the tiles of C are transposed as they are stored.
// Sums longer than kMaxChain (or less, see read_by_pages) are cut into equal parts, added up in C in order: the
// result depends neither on the number of threads nor on how the items were dealt out.
//
// Wins from about a dozen rows of A on. Below that, see gemm_dot.h and gemm_stream.h.
#pragma once

#include "../common/parallel.h"
#include "gemm_pack.h"
#include "gemm_strided_tile.h"
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
// Of B at a time, packed: at least four panels, and for short sums so many that the rows of C are written in long
// runs.
constexpr int64_t kPackedBlockBytes = 256 << 10;
constexpr int64_t kMinBlockPanels = 4;
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

// A product as the loops below see it: `turned`, C is stored transposed, [n, m].
template <class T>
struct PanelProduct {
  Gemm<T> g;
  bool turned;
};

// Adds a tile [rows][kTileCols] to C^T, or stores it there: c[j * ldc + i] for row i and column j of the tile.
template <class T>
void store_turned(const T* tile, int64_t rows, int64_t cols, T* c, int64_t ldc, bool accumulate) {
  constexpr int W = kWidth<T>;
  for (int64_t i = 0; i < rows; i += W)
    for (int64_t j = 0; j < cols; j += W) {
      Vec<T> t[W];
#pragma GCC unroll 16
      for (int r = 0; r < W; ++r) t[r] = i + r < rows ? load(tile + (i + r) * kTileCols<T> + j) : zero<T>();
      transpose<T>(t);
      const int64_t left = rows - i, end = smaller(W, cols - j);
#pragma GCC unroll 16
      for (int r = 0; r < W; ++r) {
        if (r >= end) break;
        T* to = c + (j + r) * ldc + i;
        if (accumulate) t[r] += load_up_to(to, left);
        store_up_to(to, t[r], left);
      }
    }
}

// Where the panels of B of one block are: packed, or (whole panels of a row-major B) where they lie.
template <class T>
struct BlockOfB {
  const T* packed;
  int64_t packed_stride;  // from panel to panel
  const T* in_place;      // or null
  int64_t in_place_k;
};

// One tile: panel j of the block, for `rows` rows of A.
template <class T>
CISDL_INLINE void block_tile(int64_t rows, int64_t k, const TileA<T>& a, const BlockOfB<T>& b, int64_t j,
                             Read read, const TileOutput<T>& out, int64_t cols) {
  constexpr int N = kTileVectors, W = kWidth<T>;
  T* packed = const_cast<T*>(b.packed) + j * b.packed_stride;
  if (panel_vectors<T>(cols) == 1)
    strided_tile_rows<T, 1, Read::plain>(rows, k, a, {packed, W, nullptr}, out, cols);
  else if (!b.in_place || cols < kTileCols<T>)
    strided_tile_rows<T, N, Read::plain>(rows, k, a, {packed, N * W, nullptr}, out, cols);
  else if (read == Read::copy)
    strided_tile_rows<T, N, Read::copy>(rows, k, a, {b.in_place + j * N * W, b.in_place_k, packed}, out, cols);
  else if (read == Read::ahead)
    strided_tile_rows<T, N, Read::ahead>(rows, k, a, {b.in_place + j * N * W, b.in_place_k, nullptr}, out, cols);
  else
    strided_tile_rows<T, N, Read::plain>(rows, k, a, {b.in_place + j * N * W, b.in_place_k, nullptr}, out, cols);
}

// Whether A is packed beforehand: from how many panels of columns it pays. Measured with 32 registers, of an A
// whose columns are contiguous: with the lines to come asked for, 1.0 to 1.1 times as fast where it lies, whatever
// the size.
constexpr int64_t kMinPackedReuse = 16, kMinPackedReuseColumns = 4;
template <class T>
CISDL_INLINE bool pays_to_pack(const Gemm<T>& g) {
  if (g.a.k_stride == 1) return g.n > kMinPackedReuse * kTileCols<T>;
  return kNumRegisters < 32 && g.n > kMinPackedReuseColumns * kTileCols<T>;
}
// What a tile of `rows` rows asks for meanwhile: the panel of A to come. Of columns, those of the same k; of rows
// that lie one after another the next stretch of memory, spread over the k of them, k0 the first of this part.
template <class T>
CISDL_INLINE void ask_ahead(TileA<T>& a, int64_t rows, int64_t k, int64_t k0) {
  if (a.k != 1) {
    a.ahead = 2 * rows - 1;
    a.ahead_k = a.k;
  } else if (4 * a.row <= 5 * k) {
    a.ahead_k = (rows * a.row + k - 1) / k;
    a.ahead = rows * a.row - k0 + k0 * a.ahead_k;
  }
}
// Rows that lie a multiple of 4 KiB apart share one set of an L1 cache (of the usual 64 sets of 64 bytes), which
// holds 8 or 12 lines: of the 14 that a tile reads at once each would be fetched anew for every k. Measured with
// 8: 1.05 to 1.25 times as fast packed. Multiples of 2 KiB share two sets, and are faster as they lie.
constexpr int64_t kCollidingStride = 4096;
template <class T>
CISDL_INLINE bool rows_collide(const Lines<T>& a) {
  return a.k_stride == 1 && a.line_stride * static_cast<int64_t>(sizeof(T)) % kCollidingStride == 0;
}
// Panels of rows up to which a row-major B is not packed at all.
constexpr int64_t kMaxUnpackedPanels = 2;

// Whether sums are cut shorter, so that the blocks of B are wider. A row-major B that comes from memory is read in
// runs as long as a block is wide: 64 steps make that a page for float, 512 an eighth of one, of each of which the
// address has to be looked up. Few rows of A leave no time for that, and of their C a block stays in L2.
// Measured with 4 MiB of B and more: 4 to 32 rows of A are 1.2 to 1.8 times as fast, 64 rows 1.1 to 1.3 times, 128
// rows even (with 16 registers as well); slower by a twentieth with 256 rows, or with 1 MiB of B.
constexpr int64_t kPagesChain = 64, kMaxPagesRows = 128;

template <class T>
CISDL_INLINE bool read_by_pages(const Gemm<T>& g) {
  return g.b.k_stride != 1 && g.m <= kMaxPagesRows && g.n * g.k * static_cast<int64_t>(sizeof(T)) > 2 * kL2Bytes;
}

template <class T>
void gemm_rows(const PanelProduct<T>& product, const Parallel& par) {
  const Gemm<T>& g = product.g;
  constexpr int64_t kCols = kTileCols<T>;
  const bool pack = pays_to_pack(g);
  const PackedA<T> packed_a = pack ? pack_whole_a<T>(g.a, g.m, g.k, Scratch::shared, par)
                                   : PackedA<T>{nullptr, split_evenly(g.m, kTileRows, 1), 0};
  const Parts panels = packed_a.panels, parts = split_evenly(g.k, read_by_pages(g) ? kPagesChain : kMaxChain, 8);
  const int64_t panel_size = larger(1, parts.size) * kCols;
  const int64_t block_panels =
      larger(kMinBlockPanels, kPackedBlockBytes / (panel_size * static_cast<int64_t>(sizeof(T))));
  const Parts blocks = split_evenly(g.n, block_panels * kCols, kCols);
  const bool pack_by_panel = !pack && rows_collide(g.a);
  const int64_t packed_b_size = blocks.size / kCols * panel_size;
  const int64_t packed_panel_size = pack_by_panel ? panels.size * parts.size + kPackSlack<T> : 0;

  // Rows from panel `first` to `last` of A, columns j0 to j1: one block.
  const auto run_block = [&](int64_t first, int64_t last, int64_t j0, int64_t j1, T* packed) {
    for (int64_t part = 0; part < parts.count; ++part) {
      const int64_t k0 = part * parts.size, k1 = smaller(g.k, k0 + parts.size);
      const Lines<T> lines = {g.b.data + j0 * g.b.line_stride + k0 * g.b.k_stride, g.b.line_stride, g.b.k_stride};
      const bool row_major = g.b.k_stride != 1;
      const int64_t whole = row_major ? (j1 - j0) / kCols * kCols : 0;  // columns that need no packing beforehand
      if (whole < j1 - j0)
        pack_b<T>({lines.data + whole * lines.line_stride, lines.line_stride, lines.k_stride}, j1 - j0 - whole,
                  k1 - k0, packed + whole / kCols * panel_size, panel_size);
      const bool copy = last - first > kMaxUnpackedPanels;
      const bool accumulate = g.out.accumulate || part > 0;
      for (int64_t p = first; p < last; ++p) {
        const bool first_met = p == first;
        const BlockOfB<T> b = {packed, panel_size, row_major && (first_met || !copy) ? lines.data : nullptr,
                               lines.k_stride};
        const Read read = !first_met ? Read::plain : copy ? Read::copy : Read::ahead;
        const int64_t i = p * panels.size, rows = smaller(panels.size, g.m - i);
        TileA<T> a = {g.a.data + i * g.a.line_stride + k0 * g.a.k_stride, g.a.line_stride, g.a.k_stride};
        if (pack) {
          a = {packed_a.data + p * packed_a.stride + k0 * rows, 1, rows};
        } else if (pack_by_panel) {
          pack_a<T>({a.data, a.row, a.k}, rows, k1 - k0, packed + packed_b_size);
          a = {packed + packed_b_size, 1, rows};
        } else {
          ask_ahead<T>(a, panels.size, g.k, k0);
        }
        for (int64_t j = j0; j < j1; j += kCols) {
          const int64_t cols = smaller(kCols, j1 - j);
          if (product.turned) {
            alignas(kVecBytes) T tile[kTileRows * kCols];
            const T* bias = part == 0 && !g.out.accumulate && g.out.row_bias ? g.out.row_bias + i : nullptr;
            block_tile<T>(rows, k1 - k0, a, b, (j - j0) / kCols, read, {tile, kCols, false, bias, nullptr}, cols);
            store_turned<T>(tile, rows, cols, g.out.c + j * g.out.ldc + i, g.out.ldc, accumulate);
          } else {
            TileOutput<T> to = tile_at(g.out, i, j, accumulate);
            if (part == parts.count - 1) to.least = g.out.least;
            block_tile<T>(rows, k1 - k0, a, b, (j - j0) / kCols, read, to, cols);
          }
        }
      }
    }
  };

  parallel_for(par, blocks.count * panels.count, grain_for(panels.size * blocks.size * g.k),
               [&](int64_t begin, int64_t end) {
                 T* packed = static_cast<T*>(scratch(
                     Scratch::local, (packed_b_size + packed_panel_size) * static_cast<int64_t>(sizeof(T))));
                 for (int64_t item = begin; item < end;) {
                   const int64_t block = item / panels.count, first = item % panels.count;
                   const int64_t last = smaller(panels.count, first + end - item);
                   run_block(first, last, block * blocks.size, smaller(g.n, (block + 1) * blocks.size), packed);
                   item += last - first;
                 }
               });
}

// Whether to compute C^T = B^T A^T. Of operands contiguous along k B is transposed, so the smaller one had better
// be B. Of those contiguous the other way A is packed beforehand with 16 registers, and B by the way, so the
// smaller one had better be A, if it meets enough columns to be packed at all. Transposing C costs, too. Measured
// with 16 registers: of 128 columns it is 0.8 times as fast, of 256 1 to 1.2 times.
constexpr int64_t kLeastTurned = 8, kMostTurned = 16;  // panels of columns
template <class T>
CISDL_INLINE bool better_turned(const Gemm<T>& g) {
  if (g.out.row_bias || g.out.least > T(kNoLeast)) return false;
  if (g.a.k_stride == 1 && g.b.k_stride == 1) return g.m * (g.k + g.n) < g.n * g.k;
  return kNumRegisters < 32 && g.a.k_stride != 1 && g.b.k_stride != 1 && g.m >= 2 * g.n &&
         g.k >= 8 * kTileCols<T> && g.n > kLeastTurned * kTileCols<T> && g.n <= kMostTurned * kTileCols<T>;
}

template <class T>
void gemm(const Gemm<T>& g, const Parallel& par) {
  if (g.m == 0 || g.n == 0) return;
  PanelProduct<T> whole = {g, better_turned(g)};
  if (whole.turned) whole.g = {g.n, g.m, g.k, g.b, g.a, {g.out.c, g.out.ldc, g.out.accumulate, g.out.col_bias}};
  // A stays in the cache: a taller one is taken in slices.
  const int64_t most = larger(kTileRows, kMaxPackedBytes / (larger(1, g.k) * static_cast<int64_t>(sizeof(T))));
  const Parts slices = split_evenly(whole.g.m, most, kTileRows);
  for (int64_t i = 0; i < whole.g.m; i += slices.size) {
    PanelProduct<T> slice = whole;
    slice.g.m = smaller(slices.size, whole.g.m - i);
    slice.g.a.data += i * whole.g.a.line_stride;
    slice.g.out =
        whole.turned ? tile_at(whole.g.out, 0, i, g.out.accumulate) : tile_at(whole.g.out, i, 0, g.out.accumulate);
    slice.g.out.least = whole.g.out.least;
    if (whole.turned && whole.g.out.row_bias) slice.g.out.row_bias = whole.g.out.row_bias + i;
    gemm_rows(slice, par);
  }
}

}  // namespace
}  // namespace cisdl
