// The register tiles of grouped convolutions whose groups fit in a vector (lane_groups.cpp): lanes along the
// channels.
//
//   forward, gradient to the input   out[pixel][c] = bias[c] + sum over taps and j of x[pixel + tap][c/G*G + j]
//   w[tap][j][c] gradient to the weight           dw[tap][j][c] = sum over pixels of dy[pixel][c] x[pixel +
//   tap][c/G*G + j]
//
// G is the number of channels of a group, in and out. Lane c of the vector for j is channel j of c's group: one
// shuffle within the vector makes it, none if G is 1 (depthwise). A tile is N neighbouring pixels of an output row
// by one vector of channels. The taps of a kernel row are taken in strips of KW neighbours: each column under a
// strip is loaded (and shuffled) once and meets up to KW pixels, so that arithmetic and not loads bounds the tile.
// Inside a tile's columns the channels come next, so that memory is read in runs.
#pragma once

#include "simd_shuffle.h"

namespace cisdl {
namespace {

// What all tiles of one output row share.
template <class T>
struct LaneRow {
  const T* x;                      // what the first tap reads for pixel 0, channel 0
  int64_t pixel_step;              // elements from one pixel's first column to the next one's
  int64_t column_step;             // elements from one column of a strip to the next
  int64_t tap_row_step, tap_rows;  // from one row of taps inside the image to the next; how many
  int64_t strip_step, strips;      // from one strip of taps to the next; strips in a row
  T* out;                          // pixel 0, channel 0; the gradient of the weight reads it, as dy
  int64_t out_step;                // from pixel to pixel
  const T* weight;                 // packed [vector][row][tap][j][W], at the first row inside the image
  T* sums;                         // the same layout, for the gradient of the weight
  int64_t weight_vector;           // from vector to vector
  const T* bias;                   // [channels], padded to whole vectors
  T least;                         // no output becomes less
  bool look_ahead;                 // ask for the next tile's lines during each tile
};

// Which tiles, and what of them lies inside.
struct LaneTiles {
  int64_t pixel, count;           // the first pixel of the first tile; tiles
  int64_t begin, end;             // channels
  int64_t column;                 // image column under the first tap of the first tile
  int64_t columns, column_width;  // columns of the image; image columns from one column of a strip to the next
  int64_t strip_width;            // image columns from strip to strip
  int64_t pixels;                 // of a tile: N or, for a careful gradient of the weight, fewer
};

template <class T, int G, int J>
struct GroupLane {
  static constexpr int at(int lane) { return lane / G * G + J; }
};

template <class T, int G, int J>
CISDL_INLINE Vec<T> group_lane(Vec<T> v) {
  if constexpr (G == 1)
    return v;
  else
    return shuffle<T, GroupLane<T, G, J>>(v, v);
}

template <int G, class F>
CISDL_INLINE void for_each_lane(F&& f) {
  [&]<int... J>(std::integer_sequence<int, J...>)
      __attribute__((always_inline)) { (f.template operator()<J>(), ...); }(std::make_integer_sequence<int, G>{});
}

// Calls f(i, s, n) for each column i of a strip that pixel n reads through tap s, and open(i) once before.
template <int KW, int SW, int N, class Open, class F>
CISDL_INLINE void for_each_column(Open&& open, F&& f) {
#pragma GCC unroll 32
  for (int i = 0; i < (N - 1) * SW + KW; ++i) {
    if (!open(i)) continue;
#pragma GCC unroll 8
    for (int s = 0; s < KW; ++s)
      if (i >= s && (i - s) % SW == 0 && (i - s) / SW < N) f(s, (i - s) / SW);
  }
}

// Asks for what the tile on the right will find in no cache: what its last row of taps reads and what it writes,
// for one vector of channels at x and out. The vectors in between hide the way from memory.
template <class T, int SW, int N>
CISDL_INLINE void look_ahead(const LaneRow<T>& row, const T* x, const T* out) {
  x += N * row.pixel_step + (row.tap_rows - 1) * row.tap_row_step;
  out += N * row.out_step;
#pragma GCC unroll 32
  for (int i = 0; i < N * SW; ++i) __builtin_prefetch(x + i * row.column_step, 0, 3);
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) __builtin_prefetch(out + n * row.out_step, 1, 3);
}

// Careful: some columns may lie outside the image, and the last vector may be partial.
template <class T, int G, int KW, int SW, int N, bool Careful>
void lane_tile(const LaneRow<T>& row, const LaneTiles& tiles) {
  constexpr int W = kWidth<T>;
  const Vec<T> least = set1(row.least);
  const T* x_tile = row.x + tiles.pixel * row.pixel_step;
  T* out_tile = row.out + tiles.pixel * row.out_step;
  for (int64_t tile = 0; tile < tiles.count; ++tile) {
    for (int64_t c = tiles.begin; c < tiles.end; c += W) {
      const int64_t lanes = smaller(W, tiles.end - c);
      const T* weight = row.weight + c / W * row.weight_vector;
      const Vec<T> bias = load(row.bias + c);
      Vec<T> sum[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sum[n] = bias;
      if (row.look_ahead) look_ahead<T, SW, N>(row, x_tile + c, out_tile + c);
      const T* x_row = x_tile + c;
      for (int64_t r = 0; r < row.tap_rows; ++r, x_row += row.tap_row_step) {
        const T* x_strip = x_row;
        int64_t column = tiles.column;
        for (int64_t strip = 0; strip < row.strips; ++strip, x_strip += row.strip_step) {
          for_each_lane<G>([&]<int J>() __attribute__((always_inline)) {
            Vec<T> w[KW], v;
#pragma GCC unroll 8
            for (int s = 0; s < KW; ++s) w[s] = load(weight + (s * G + J) * W);
            const T* p = x_strip;
            for_each_column<KW, SW, N>(
                [&](int i) __attribute__((always_inline)) {
                  const bool inside = !Careful || static_cast<uint64_t>(column + i * tiles.column_width) <
                                                      static_cast<uint64_t>(tiles.columns);
                  if (inside) v = group_lane<T, G, J>(Careful ? load_up_to(p, lanes) : load(p));
                  p += row.column_step;
                  return inside;
                },
                [&](int s, int n) __attribute__((always_inline)) { sum[n] += v * w[s]; });
          });
          weight += KW * G * W;
          column += tiles.strip_width;
        }
      }
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        if constexpr (Careful)
          store_up_to(out_tile + n * row.out_step + c, at_least<T>(sum[n], least), lanes);
        else
          store(out_tile + n * row.out_step + c, at_least<T>(sum[n], least));
      }
    }
    x_tile += N * row.pixel_step;
    out_tile += N * row.out_step;
  }
}

// Adds to row.sums. Careful: also, a tile may have fewer than N pixels.
template <class T, int G, int KW, int SW, int N, bool Careful>
void lane_weight_tile(const LaneRow<T>& row, const LaneTiles& tiles) {
  constexpr int W = kWidth<T>;
  const T* x_tile = row.x + tiles.pixel * row.pixel_step;
  const T* dy_tile = row.out + tiles.pixel * row.out_step;
  for (int64_t tile = 0; tile < tiles.count; ++tile) {
    for (int64_t c = tiles.begin; c < tiles.end; c += W) {
      const int64_t lanes = smaller(W, tiles.end - c);
      T* sums = row.sums + c / W * row.weight_vector;
      Vec<T> dy[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const T* p = dy_tile + n * row.out_step + c;
        dy[n] = !Careful ? load(p) : n < tiles.pixels ? load_up_to(p, lanes) : zero<T>();
      }
      if (row.look_ahead) look_ahead<T, SW, N>(row, x_tile + c, dy_tile + c);
      const T* x_row = x_tile + c;
      for (int64_t r = 0; r < row.tap_rows; ++r, x_row += row.tap_row_step) {
        const T* x_strip = x_row;
        int64_t column = tiles.column;
        for (int64_t strip = 0; strip < row.strips; ++strip, x_strip += row.strip_step) {
          for_each_lane<G>([&]<int J>() __attribute__((always_inline)) {
            Vec<T> sum[KW], v;
#pragma GCC unroll 8
            for (int s = 0; s < KW; ++s) sum[s] = zero<T>();
            const T* p = x_strip;
            for_each_column<KW, SW, N>(
                [&](int i) __attribute__((always_inline)) {
                  const bool inside = !Careful || (i < (tiles.pixels - 1) * SW + KW &&
                                                   static_cast<uint64_t>(column + i * tiles.column_width) <
                                                       static_cast<uint64_t>(tiles.columns));
                  if (inside) v = group_lane<T, G, J>(Careful ? load_up_to(p, lanes) : load(p));
                  p += row.column_step;
                  return inside;
                },
                [&](int s, int n) __attribute__((always_inline)) {
                  // A product with a missing pixel's zero would turn an infinity into NaN.
                  if (!Careful || n < tiles.pixels) sum[s] += v * dy[n];
                });
#pragma GCC unroll 8
            for (int s = 0; s < KW; ++s) {
              T* to = sums + (s * G + J) * W;
              store(to, load(to) + sum[s]);
            }
          });
          sums += KW * G * W;
          column += tiles.strip_width;
        }
      }
    }
    x_tile += N * row.pixel_step;
    dy_tile += N * row.out_step;
  }
}

// Pixels of the longest tile. double, which no network uses here, has fewer tiles: this file compiles for long.
template <class T>
constexpr int kLongestTile = sizeof(T) == 4 ? 8 : 4;

template <class T>
using LaneKernel = void (*)(const LaneRow<T>&, const LaneTiles&);

// The tile for a strip of `kw` taps, pixels `sw` columns apart and `n` pixels. double has the narrowest strip
// only.
template <class T, bool Weight, bool Careful, int G, int KW, int SW>
LaneKernel<T> lane_kernel_of(int64_t n) {
  const auto kernel = []<int N>() -> LaneKernel<T> {
    if constexpr (Weight)
      return lane_weight_tile<T, G, KW, SW, N, Careful>;
    else
      return lane_tile<T, G, KW, SW, N, Careful>;
  };
  if (n == kLongestTile<T>) return kernel.template operator()<kLongestTile<T>>();
  if constexpr (sizeof(T) == 4 && !(Weight && Careful))
    if (n == 7) return kernel.template operator()<7>();
  if constexpr (sizeof(T) == 4 && !Weight)
    if (n == 4) return kernel.template operator()<4>();
  if constexpr (!Weight) return kernel.template operator()<1>();
  return nullptr;
}

template <class T, bool Weight, bool Careful, int G>
LaneKernel<T> lane_kernel_in(int64_t kw, int64_t sw, int64_t n) {
  if constexpr (sizeof(T) == 4) {
    if (kw == 3 && sw == 1) return lane_kernel_of<T, Weight, Careful, G, 3, 1>(n);
    if (kw == 3 && sw == 2) return lane_kernel_of<T, Weight, Careful, G, 3, 2>(n);
    if constexpr (G == 1) {
      if (kw == 2) return lane_kernel_of<T, Weight, Careful, G, 2, 1>(n);
      if (kw == 5 && sw == 1) return lane_kernel_of<T, Weight, Careful, G, 5, 1>(n);
      if (kw == 5 && sw == 2) return lane_kernel_of<T, Weight, Careful, G, 5, 2>(n);
      if (kw == 7 && sw == 1) return lane_kernel_of<T, Weight, Careful, G, 7, 1>(n);
      if (kw == 7 && sw == 2) return lane_kernel_of<T, Weight, Careful, G, 7, 2>(n);
    }
  }
  return lane_kernel_of<T, Weight, Careful, G, 1, 1>(n);
}

template <class T, bool Weight, bool Careful>
LaneKernel<T> lane_kernel(int64_t g, int64_t kw, int64_t sw, int64_t n) {
  if constexpr (kWidth<T> >= 2)
    if (g == 2) return lane_kernel_in<T, Weight, Careful, 2>(kw, sw, n);
  if constexpr (kWidth<T> >= 4)
    if (g == 4) return lane_kernel_in<T, Weight, Careful, 4>(kw, sw, n);
  if constexpr (kWidth<T> >= 8)
    if (g == 8) return lane_kernel_in<T, Weight, Careful, 8>(kw, sw, n);
  return lane_kernel_in<T, Weight, Careful, 1>(kw, sw, n);
}

// Pixels of the tiles for a row of `count`: 8 or 7, whichever leaves fewer over, 4 or 1 for short rows; for the
// gradient of the weight, whose tiles may end early, 8 or 7 always. Of double 4, or 1.
template <class T, bool Weight>
CISDL_INLINE int64_t tile_pixels(int64_t count) {
  if (sizeof(T) == 8) return Weight || count >= kLongestTile<T> ? kLongestTile<T> : 1;
  if (!Weight && count < 7) return count >= 4 ? 4 : 1;
  return ceil_div(count, 8) * 8 < ceil_div(count, 7) * 7 ? 8 : 7;
}

// The widest strip that the tiles have and that divides a row of `taps`, `adjacent` in the image.
template <class T>
CISDL_INLINE int64_t strip_taps(int64_t g, int64_t taps, bool adjacent, int64_t sw) {
  if (sizeof(T) == 8 || !adjacent || sw > 2) return 1;
  const auto fits = [&](int64_t kw) { return taps > 0 && taps % kw == 0; };
  if (g == 1 && fits(7)) return 7;
  if (g == 1 && fits(5)) return 5;
  if (fits(3)) return 3;
  if (g == 1 && sw == 1 && fits(2)) return 2;
  return 1;
}

}  // namespace
}  // namespace cisdl
