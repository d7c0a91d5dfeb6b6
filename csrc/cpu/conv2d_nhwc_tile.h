// The two register tiles of channels_last convolution. Both are outer products like outer_tile (gemm_tile.h), but
// read the image where it lies instead of from a packed copy.
//
// pixel_tile    forward and gradient to the input: C[pixel][out channel] = sum over runs and kk of
//               x[pixel][run.offset + kk] * w[kk][out channel]. The pixels are neighbours in one output row, so
//               they lie a fixed distance apart; a run is a stretch of contiguous input values under all of them
//               (the channels of a tap, or of a row of taps). Weights are packed in the order of the runs.
//               What the next tile reads and writes is asked for by the way, a line of each with every step of a
//               sum: pixels come from memory once and sums are short, so the multiply-adds of one tile are just
//               enough to hide the lines of the next, and a burst of requests would stall them.
// product_tile  gradient to the weight: C[i][j] = sum over pixels of a[pixel][i] * b[pixel][j], where a and b step
//               from pixel to pixel by fixed distances: a row of i's is broadcast, a row of j's is a vector load.
#pragma once

#include "gemm_tile.h"

namespace cisdl {
namespace {

// A stretch of contiguous values under each pixel, `offset` after the pixel's first, and the row of the packed
// weight that its first value meets.
struct PixelRun {
  int64_t offset, length, weight_row;
};

// Two stretches of memory to bring into the cache during one tile, so many bytes further with every step of its
// sum. They may lie outside every array: a prefetch never faults.
struct TileAhead {
  const char *input, *output;
  int64_t input_step, output_step;
};

// Row i of a matrix with byte stride `step`; groups of three rows share a base pointer, so that all addresses are
// one base register plus 0, 1 or 2 times `step` and no row needs a register of its own.
template <class T, int MR>
struct RowPointers {
  static constexpr int kBases = (MR + 2) / 3;
  const char* base[kBases];
  int64_t step;

  CISDL_INLINE RowPointers(const T* a, int64_t lda) : step(lda * static_cast<int64_t>(sizeof(T))) {
#pragma GCC unroll 8
    for (int i = 0; i < kBases; ++i) {
      base[i] = reinterpret_cast<const char*>(a + 3 * i * lda);
      asm("" : "+r"(base[i]));  // or the compiler makes a pointer of every row, and spills them
    }
  }
  CISDL_INLINE T at(int i, int64_t kk) const {
    return *reinterpret_cast<const T*>(base[i / 3] + step * (i % 3) + kk * static_cast<int64_t>(sizeof(T)));
  }
  CISDL_INLINE void advance(int64_t n) {
#pragma GCC unroll 8
    for (int i = 0; i < kBases; ++i) {
      base[i] += n * static_cast<int64_t>(sizeof(T));
      asm("" : "+r"(base[i]));
    }
  }
};

// x: the first pixel, the others lda apart; weight: packed [rows][NV*W].
template <class T, int MR, int NV, bool kAhead>
void pixel_tile(const PixelRun* runs, int64_t num_runs, const T* x, int64_t lda, const T* weight,
                const TileOutput<T>& out, int64_t cols, TileAhead ahead) {
  constexpr int W = kWidth<T>, kUnroll = 4;
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[i][v] = zero<T>();
  for (int64_t run = 0; run < num_runs; ++run) {
    RowPointers<T, MR> rows(x + runs[run].offset, lda);
    const T* w = weight + runs[run].weight_row * (NV * W);
    auto step = [&](int u) __attribute__((always_inline)) {
      if constexpr (kAhead) {
        __builtin_prefetch(ahead.input, 0, 3);
        __builtin_prefetch(ahead.output, 1, 3);
        ahead.input += ahead.input_step;
        ahead.output += ahead.output_step;
      }
      Vec<T> bv[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) bv[v] = load(w + (u * NV + v) * W);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const Vec<T> av = set1(rows.at(i, u));
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) acc[i][v] += av * bv[v];
      }
    };
    int64_t kk = runs[run].length;
    for (; kk >= kUnroll; kk -= kUnroll) {
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) step(u);
      rows.advance(kUnroll);
      w += kUnroll * NV * W;
    }
    for (; kk > 0; --kk) {
      step(0);
      rows.advance(1);
      w += NV * W;
    }
  }
  store_tile<T, MR, NV>(acc, out, cols);
}

// pixel_tile for `rows` pixels, 1 <= rows <= kTileRows.
template <class T, int NV, bool kAhead, int MR = kTileRows>
CISDL_INLINE void pixel_tile_rows(int64_t rows, const PixelRun* runs, int64_t num_runs, const T* x, int64_t lda,
                                  const T* weight, const TileOutput<T>& out, int64_t cols,
                                  const TileAhead& ahead) {
  if (rows == MR) {
    pixel_tile<T, MR, NV, kAhead>(runs, num_runs, x, lda, weight, out, cols, ahead);
  } else if constexpr (MR > 1) {
    constexpr int kLess = smaller_tile<T>(MR);
    if constexpr (kLess < MR - 1) {
      if (rows > kLess) {
        pixel_tile<T, kLess, NV, kAhead>(runs, num_runs, x, lda, weight, out, cols, ahead);
        return pixel_tile_rows<T, NV, kAhead, kLess>(rows - kLess, runs, num_runs, x + kLess * lda, lda, weight,
                                                     below(out, kLess), cols, ahead);
      }
    }
    pixel_tile_rows<T, NV, kAhead, kLess>(rows, runs, num_runs, x, lda, weight, out, cols, ahead);
  }
}

// Pixels a product sums over: images, rows and columns, and how far a and b move from one to the next.
struct PixelWalk {
  int64_t images, rows, cols;
  int64_t a_image, a_row, a_col;
  int64_t b_image, b_row, b_col;
};

// Pixels from a request for a line in L1 to its use.
constexpr int64_t kPixelsAhead = 16;

// a, b: the first pixel's values, MR and cols <= NV*W of them. Partial: fewer columns than NV*W may be read.
// Neither side is read in order: with every pixel the lines of a later one are asked for, from L2, and two lines
// of the pixels to come after these, from memory.
template <class T, int MR, int NV, bool Partial, bool kAhead>
void product_tile(const PixelWalk& walk, const T* a, const T* b, const TileOutput<T>& out, int64_t cols,
                  TileAhead ahead) {
  constexpr int W = kWidth<T>;
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[i][v] = zero<T>();
  const int64_t last = cols - (NV - 1) * W;
  for (int64_t n = 0; n < walk.images; ++n) {
    for (int64_t y = 0; y < walk.rows; ++y) {
      const T* pa = a + n * walk.a_image + y * walk.a_row;
      const T* pb = b + n * walk.b_image + y * walk.b_row;
      for (int64_t x = 0; x < walk.cols; ++x, pa += walk.a_col, pb += walk.b_col) {
        if constexpr (kAhead) {
          __builtin_prefetch(pa + kPixelsAhead * walk.a_col, 0, 3);
          __builtin_prefetch(pa + kPixelsAhead * walk.a_col + MR - 1, 0, 3);
#pragma GCC unroll 2
          for (int v = 0; v < NV; ++v) __builtin_prefetch(pb + kPixelsAhead * walk.b_col + v * W, 0, 3);
          __builtin_prefetch(ahead.input, 0, 2);
          __builtin_prefetch(ahead.output, 0, 2);
          ahead.input += ahead.input_step;
          ahead.output += ahead.output_step;
        }
        Vec<T> bv[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v)
          bv[v] = Partial && v == NV - 1 ? load_partial(pb + v * W, last) : load(pb + v * W);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
          const Vec<T> av = set1(pa[i]);
#pragma GCC unroll 2
          for (int v = 0; v < NV; ++v) acc[i][v] += av * bv[v];
        }
      }
    }
  }
  store_tile<T, MR, NV>(acc, out, cols);
}

// product_tile for `rows` values of a, 1 <= rows <= kTileRows.
template <class T, int NV, bool Partial, bool kAhead, int MR = kTileRows>
CISDL_INLINE void product_tile_rows(int64_t rows, const PixelWalk& walk, const T* a, const T* b,
                                    const TileOutput<T>& out, int64_t cols, const TileAhead& ahead) {
  if (rows == MR) {
    product_tile<T, MR, NV, Partial, kAhead>(walk, a, b, out, cols, ahead);
  } else if constexpr (MR > 1) {
    constexpr int kLess = smaller_tile<T>(MR);
    if constexpr (kLess < MR - 1) {
      if (rows > kLess) {
        product_tile<T, kLess, NV, Partial, kAhead>(walk, a, b, out, cols, ahead);
        return product_tile_rows<T, NV, Partial, kAhead, kLess>(rows - kLess, walk, a + kLess, b,
                                                                below(out, kLess), cols, ahead);
      }
    }
    product_tile_rows<T, NV, Partial, kAhead, kLess>(rows, walk, a, b, out, cols, ahead);
  }
}

}  // namespace
}  // namespace cisdl
