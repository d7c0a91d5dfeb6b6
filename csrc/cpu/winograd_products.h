// The products of Winograd's convolution over channels, and the transformed weights that they read.
#pragma once

#include "winograd_tiles.h"

namespace cisdl {
namespace {

constexpr int64_t kPanel = kTileCols<float>;                    // output channels of a panel
constexpr int64_t kBytes = sizeof(float), kLine = 64 / kBytes;  // floats in a line of the cache

inline float* scratch_floats(Scratch slot, int64_t count) {
  return static_cast<float*>(scratch(slot, count * kBytes));
}

inline TiledImages images(Layout layout, int64_t batch, int64_t channels, int64_t h, int64_t w, int64_t out_h,
                          int64_t out_w) {
  return {layout, batch, channels, h, w, cut(out_h), cut(out_w)};
}

// For the cells under a row of tiles, or its outputs.
inline int64_t row_buffer(const Blocks& blocks) {
  return kSide * (4 * blocks.cols.size + 2 + kWidth<float>)*kWidth<float>;
}

const auto by_input = [](const auto& in, auto& out) __attribute__((always_inline)) { input_transform(in, out); };
const auto by_filter = [](const auto& in, auto& out) __attribute__((always_inline)) { filter_transform(in, out); };

// Transformed weights of a panel and a chunk: [point][channel][kPanel].
constexpr int64_t kWeightStride = kChunk * kPanel + 16;
constexpr int64_t kWeightsSize = kPoints * kWeightStride;

// ------------------------------------------------------------------------------------------- the products

// M[tile][column] for MR tiles by kPanel columns at one point and one chunk: v is [tile][kChunk], u is
// [channel][kPanel]. Every chunk is summed from zero before it is added to `m`: the transform's cancellation
// magnifies what a longer chain would round off. Meanwhile a line a channel is asked for of `m` and of the tiles
// after the next MR, which follow in memory.
template <int MR>
CISDL_NOINLINE void product_tile(int64_t channels, const float* __restrict v, const float* __restrict u,
                                 float* __restrict m, bool accumulate) {
  constexpr int W = kWidth<float>;
  V acc[MR][kTileVectors];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < kTileVectors; ++j) acc[i][j] = zero<float>();
  for (int64_t c = 0; c < channels; ++c, u += kPanel) {
    __builtin_prefetch(v + 2 * MR * kChunk + c * kLine);
    __builtin_prefetch(m + c * kLine);
    __builtin_prefetch(u + kWeightStride, 0, 2);
    V b[kTileVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kTileVectors; ++j) b[j] = load(u + j * W);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const V a = set1(v[i * kChunk + c]);
#pragma GCC unroll 2
      for (int j = 0; j < kTileVectors; ++j) acc[i][j] += a * b[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < kTileVectors; ++j) {
      float* to = m + i * kPanel + j * W;
      store(to, accumulate ? acc[i][j] + load(to) : acc[i][j]);
    }
}

template <int MR = kTileRows>
CISDL_INLINE void product_rows(int64_t rows, int64_t channels, const float* v, const float* u, float* m,
                               bool accumulate) {
  if (rows == MR) {
    product_tile<MR>(channels, v, u, m, accumulate);
  } else if constexpr (MR > 1) {
    product_rows<MR - 1>(rows, channels, v, u, m, accumulate);
  }
}

// Channels [c, c + count) of `v`, at most a chunk, against `u`.
inline void multiply(const TransformedTiles& v, int64_t c, int64_t count, const float* u, const Products& m,
                     bool accumulate) {
  for (int64_t i = 0; i < kSide; ++i)
    for (int64_t j = 0; j < kSide; ++j) {
      const int64_t point = i * kSide + j, tiles = v.tiles_at(i, j);
      const int64_t parts = ceil_div(tiles, kTileRows);
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t t = part * tiles / parts, rows = (part + 1) * tiles / parts - t;
        product_rows(rows, count, v.at(c) + point * v.point_stride + t * kChunk, u + point * kWeightStride,
                     m.data + point * m.point_stride + t * kPanel, accumulate);
      }
    }
}

// ----------------------------------------------------------------------------------- transformed weights

// The weights of a convolution by strides, so that both directions read the same tensor. Of `in` and `tap`, or of
// `out` and `tap`, or of `out` or `in` alone, memory is dense (NCHW, its gradient, channels_last of either).
struct Weights {
  const float* data;
  Pieces kernel;
  int64_t out, in, tap;  // strides
  int64_t outs, ins;     // how many channels
  bool turned;           // whether taps are to be read from the last to the first

  int64_t taps() const { return kernel.down * kernel.across; }
};

inline Weights weights_of(const Conv2dProblem& p, Layout layout, const float* data) {
  const int64_t taps = p.kernel_h * p.kernel_w;
  const bool nchw = layout == Layout::nchw;
  return {data,
          {p.kernel_h, p.kernel_w},
          taps * p.in_channels,
          nchw ? taps : 1,
          nchw ? 1 : p.in_channels,
          p.out_channels,
          p.in_channels,
          false};
}

constexpr int64_t kGathered = 16;  // channels at a time
inline int64_t weight_buffer(const Weights& w) { return kGathered * w.taps() * kWidth<float>; }

// W output channels from k on of channels [c, c + count), as [channel][tap][W].
inline void gather_weights(const Weights& w, int64_t k, int64_t c, int64_t count, float* to) {
  constexpr int64_t W = kWidth<float>;
  const int64_t lanes = larger(0, smaller(W, w.outs - k)), taps = w.taps();
  const float* from = w.data + k * w.out + c * w.in;
  if (w.tap == 1 && w.in == taps) {
    pack_transposed<float, 1>(from, w.out, lanes, taps * count, to, W);
  } else if (w.tap == 1) {
    for (int64_t i = 0; i < count; ++i)
      pack_transposed<float, 1>(from + i * w.in, w.out, lanes, taps, to + i * taps * W, W);
  } else if (w.in == 1) {
    for (int64_t tap = 0; tap < taps; ++tap)
      pack_transposed<float, 1>(from + tap * w.tap, w.out, lanes, count, to + tap * W, taps * W);
  } else {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t tap = 0; tap < taps; ++tap)
        store(to + (i * taps + tap) * W, load_up_to(from + i * w.in + tap * w.tap, lanes));
  }
}

// `count` kernels of W lanes, `from` at the first tap of the piece of the first.
template <int Down, int Across>
CISDL_NOINLINE void transform_kernels(int64_t count, const float* from, int64_t stride, int64_t row_stride,
                                      int64_t tap_stride, float* to) {
  constexpr int kRow = 3 - Down, kCol = 3 - Across;  // the first point
  for (int64_t i = 0; i < count; ++i, from += stride, to += kPanel)
    transform_2d<Down, Across, 3 + Down, 3 + Across>(
        by_filter,
        [&](int r, int s) __attribute__((always_inline)) { return load(from + r * row_stride + s * tap_stride); },
        [&](int r, int s, V v)
            __attribute__((always_inline)) { store(to + ((r + kRow) * kSide + s + kCol) * kWeightStride, v); });
}

// Panel [k, k + kPanel) of channels [c, c + count) to `u`, the `piece`-th of the kernel.
inline void transform_weights(const Weights& w, int64_t piece, int64_t k, int64_t c, int64_t count, float* u,
                              float* buffer) {
  constexpr int64_t W = kWidth<float>;
  const Piece down = w.kernel.down_at(piece), across = w.kernel.across_at(piece);
  const int64_t first = down.first * w.kernel.across + across.first, taps = w.taps();
  const int64_t tap_stride = w.turned ? -W : W, row_stride = w.kernel.across * tap_stride;
  const float* from = w.turned ? buffer + (taps - 1 - first) * W : buffer + first * W;
  for (int64_t k0 = k; k0 < k + kPanel; k0 += W)
    for (int64_t i = 0; i < count; i += kGathered) {
      const int64_t some = smaller(kGathered, count - i);
      float* to = u + i * kPanel + (k0 - k);
      gather_weights(w, k0, c + i, some, buffer);
      if (down.taps == 3 && across.taps == 3)
        transform_kernels<3, 3>(some, from, taps * W, row_stride, tap_stride, to);
      else if (down.taps == 3)
        transform_kernels<3, 2>(some, from, taps * W, row_stride, tap_stride, to);
      else if (across.taps == 3)
        transform_kernels<2, 3>(some, from, taps * W, row_stride, tap_stride, to);
      else
        transform_kernels<2, 2>(some, from, taps * W, row_stride, tap_stride, to);
    }
}

}  // namespace
}  // namespace cisdl
