// Between images and transformed tiles.
//
// Transformed data lies as [point][chunk of channels][tile][kChunk]: a row of kChunk channels of one tile is what
// one vector loop writes and one broadcast loop of the product reads, at distances that are compile-time
// constants. Tiles are numbered row by row over all images, and images enter and leave a whole row of tiles at a
// time: W channels of its six input rows are first brought into a buffer [row][column][W] with the padding in it
// (for NCHW through transposes in registers), so that the transform itself knows no borders and no layouts.
#pragma once

#include "conv2d_view.h"
#include "winograd_transforms.h"

namespace cisdl {
namespace {

constexpr int64_t kChunk = 64;  // channels that lie together

CISDL_INLINE int64_t round_up(int64_t n, int64_t unit) { return ceil_div(n, unit) * unit; }

// The images on one side of a convolution, and how they are cut into tiles.
struct TiledImages {
  Layout layout;
  int64_t batch, channels, h, w;
  int64_t tile_rows, tile_cols;  // of one image

  int64_t rows() const { return batch * tile_rows; }  // of tiles, over all images
  int64_t tiles() const { return rows() * tile_cols; }
  int64_t chunks() const { return ceil_div(channels, kChunk); }
};

// Transformed tiles of some rows of tiles.
struct TransformedTiles {
  float* data;
  int64_t tiles;         // how many there are
  int64_t point_stride;  // not a multiple of a page: the 36 points of a tile would meet in one cache set

  TransformedTiles(float* data, int64_t tiles, int64_t chunks)
      : data(data), tiles(tiles), point_stride(point_stride_of(tiles, chunks)) {}
  static int64_t point_stride_of(int64_t tiles, int64_t chunks) { return chunks * tiles * kChunk + 48; }
  static int64_t elements(int64_t tiles, int64_t chunks) { return kPoints * point_stride_of(tiles, chunks); }
  float* at(int64_t tile, int64_t channel) const {
    return data + channel / kChunk * tiles * kChunk + tile * kChunk + channel % kChunk;
  }
};

// Rows [top, top + rows) by columns [left, left + cols) of channels [c, c + W) of image n, as [rows][cols][W];
// what lies outside the image or past the last channel is zero.
inline void gather_rows(const TiledImages& x, const float* data, int64_t n, int64_t c, int64_t top, int64_t left,
                        int64_t rows, int64_t cols, float* buffer) {
  constexpr int64_t W = kWidth<float>;
  const int64_t first = larger(0, left), last = smaller(x.w, left + cols);
  const int64_t lines = smaller(W, x.channels - c);
  for (int64_t r = 0; r < rows; ++r, buffer += cols * W) {
    const int64_t h = top + r;
    if (h < 0 || h >= x.h || first >= last) {
      for (int64_t i = 0; i < cols; ++i) store(buffer + i * W, zero<float>());
      continue;
    }
    for (int64_t i = left; i < first; ++i) store(buffer + (i - left) * W, zero<float>());
    for (int64_t i = last; i < left + cols; ++i) store(buffer + (i - left) * W, zero<float>());
    float* to = buffer + (first - left) * W;
    if (x.layout == Layout::nchw) {
      const int64_t plane = x.h * x.w;
      pack_transposed<float, 1>(data + (n * x.channels + c) * plane + h * x.w + first, plane, lines, last - first,
                                to, W);
    } else {
      const float* from = data + ((n * x.h + h) * x.w + first) * x.channels + c;
      for (int64_t i = first; i < last; ++i, from += x.channels, to += W)
        store(to, lines == W ? load(from) : load_partial(from, lines));
    }
  }
}

// Transforms `rows` rows of tiles from row `row` on, channels [c, c + W): kTaps x kTaps cells of an image every
// kOutTile cells, beginning `pad` outside it, through `transform`. `tile` is the first one's number in `out`.
template <int kTaps, class Transform>
CISDL_NOINLINE void transform_tiles(const TiledImages& x, const float* data, int64_t pad_top, int64_t pad_left,
                                    int64_t row, int64_t rows, int64_t c, const TransformedTiles& out,
                                    int64_t tile, float* buffer, const Transform& transform) {
  constexpr int64_t W = kWidth<float>;
  const int64_t cols = (x.tile_cols - 1) * kOutTile + kTaps;
  for (int64_t i = row; i < row + rows; ++i) {
    const int64_t n = i / x.tile_rows, top = i % x.tile_rows * kOutTile - pad_top;
    gather_rows(x, data, n, c, top, -pad_left, kTaps, cols, buffer);
    float* to = out.at(tile, c);
    for (int64_t t = 0; t < x.tile_cols; ++t, ++tile, to += kChunk) {
      const float* from = buffer + t * kOutTile * W;
      transform_2d<kTaps, kInTile>(
          transform, [&](int r, int s) __attribute__((always_inline)) { return load(from + (r * cols + s) * W); },
          [&](int r, int s, V v)
              __attribute__((always_inline)) { store(to + (r * kInTile + s) * out.point_stride, v); });
    }
  }
}

// [pixels][W] to [channel][pixel], channels `plane` apart; `channels` of the W count.
inline void store_planes(const float* from, int64_t pixels, int64_t channels, float* to, int64_t plane) {
  constexpr int64_t W = kWidth<float>;
  for (int64_t p = 0; p < pixels; p += W) {
    V t[W];
    const int64_t count = smaller(W, pixels - p);
#pragma GCC unroll 16
    for (int64_t i = 0; i < W; ++i) t[i] = i < count ? load(from + (p + i) * W) : zero<float>();
    transpose<float>(t);
#pragma GCC unroll 16
    for (int64_t i = 0; i < W; ++i) {
      if (i >= channels) break;
      if (count == W)
        store(to + i * plane + p, t[i]);
      else
        store_partial(to + i * plane + p, t[i], count);
    }
  }
}

// Turns products [point][tile][ldm] of W channels from c on into outputs, for `rows` rows of tiles from `row` on,
// and adds the bias. `products` is at the first of these tiles and channels; `buffer` holds a row of tiles.
CISDL_NOINLINE inline void untransform_tiles(const TiledImages& y, float* data, const float* bias, int64_t row,
                                             int64_t rows, int64_t c, const float* products, int64_t point_stride,
                                             int64_t ldm, float* buffer) {
  constexpr int64_t W = kWidth<float>;
  const int64_t lanes = smaller(W, y.channels - c);
  const V b = bias ? (lanes == W ? load(bias + c) : load_partial(bias + c, lanes)) : zero<float>();
  for (int64_t i = row; i < row + rows; ++i) {
    const int64_t n = i / y.tile_rows, top = i % y.tile_rows * kOutTile, height = smaller(kOutTile, y.h - top);
    for (int64_t t = 0; t < y.tile_cols; ++t, products += ldm) {
      const int64_t left = t * kOutTile, width = smaller(kOutTile, y.w - left);
      V out[kOutTile * kOutTile];
      transform_2d_down<kOutTile>(
          [&](int r, int q)
              __attribute__((always_inline)) { return load(products + (r * kInTile + q) * point_stride); },
          out);
#pragma GCC unroll 4
      for (int r = 0; r < kOutTile; ++r) {
        if (r >= height) break;
        if (y.layout == Layout::nchw) {
          float* to = buffer + (r * y.w + left) * W;
#pragma GCC unroll 4
          for (int s = 0; s < kOutTile; ++s)
            if (s < width) store(to + s * W, out[r * kOutTile + s] + b);
        } else {
          float* to = data + ((n * y.h + top + r) * y.w + left) * y.channels + c;
#pragma GCC unroll 4
          for (int s = 0; s < kOutTile; ++s)
            if (s < width) store_up_to(to + s * y.channels, out[r * kOutTile + s] + b, lanes);
        }
      }
    }
    if (y.layout == Layout::nchw)
      store_planes(buffer, height * y.w, lanes, data + ((n * y.channels + c) * y.h + top) * y.w, y.h * y.w);
  }
}

}  // namespace
}  // namespace cisdl
