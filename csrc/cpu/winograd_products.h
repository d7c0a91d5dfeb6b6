// The products of Winograd's convolution over channels, and the transformed weights that they read.
#pragma once

#include "winograd_tiles.h"

namespace cisdl {
namespace {

constexpr int64_t kPanel = kTileCols<float>;  // output channels of a panel
constexpr int64_t kBytes = sizeof(float);

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

// ------------------------------------------------------------------------------------------- the products

// M[tile][column] for MR tiles by kPanel columns at one point and one chunk: v is [tile][kChunk], u is
// [channel][kPanel]. Every chunk is summed from zero before it is added to `m`: the transform's cancellation
// magnifies what a longer chain would round off.
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
    __builtin_prefetch(v + 2 * MR * kChunk + c * 16);
    __builtin_prefetch(m + c * 16);
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

// Transformed weights of a panel and a chunk: [point][channel][kPanel].
constexpr int64_t kWeightStride = kChunk * kPanel + 16;
constexpr int64_t kWeightsSize = kPoints * kWeightStride;

// Channels [c, c + count) of `v`, at most a chunk, against `u`; adds to `m` after the first chunk.
inline void multiply(const TransformedTiles& v, int64_t c, int64_t count, const float* u, const Products& m) {
  for (int64_t i = 0; i < kSide; ++i)
    for (int64_t j = 0; j < kSide; ++j) {
      const int64_t point = i * kSide + j, tiles = v.block.tiles_at(i, j);
      const int64_t parts = ceil_div(tiles, kTileRows);
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t t = part * tiles / parts, rows = (part + 1) * tiles / parts - t;
        product_rows(rows, count, v.at(c) + point * v.point_stride + t * kChunk, u + point * kWeightStride,
                     m.data + point * m.point_stride + t * kPanel, c > 0);
      }
    }
}

// ----------------------------------------------------------------------------------- transformed weights

// The weights of a convolution by strides, so that both directions read the same tensor. Of `in` and `tap`, or of
// `out` and `tap`, or of `out` or `in` alone, memory is dense (NCHW, its gradient, channels_last of either).
struct Weights {
  const float* data;
  int64_t out, in, tap;  // strides
  int64_t outs, ins;     // how many channels
  bool turned;           // whether taps are to be read from the last to the first
};

inline Weights weights_of(const Conv2dProblem& p, Layout layout, const float* data) {
  const int64_t in = layout == Layout::nchw ? 9 : 1, tap = layout == Layout::nchw ? 1 : p.in_channels;
  return {data, 9 * p.in_channels, in, tap, p.out_channels, p.in_channels, false};
}

constexpr int64_t kWeightBuffer = kChunk * 9 * kWidth<float>;

// W output channels from k on of channels [c, c + count), as [channel][tap][W].
inline void gather_weights(const Weights& w, int64_t k, int64_t c, int64_t count, float* to) {
  constexpr int64_t W = kWidth<float>;
  const int64_t lanes = larger(0, smaller(W, w.outs - k));
  const float* from = w.data + k * w.out + c * w.in;
  if (w.tap == 1 && w.in == 9) {
    pack_transposed<float, 1>(from, w.out, lanes, 9 * count, to, W);
  } else if (w.tap == 1) {
    for (int64_t i = 0; i < count; ++i)
      pack_transposed<float, 1>(from + i * w.in, w.out, lanes, 9, to + i * 9 * W, W);
  } else if (w.in == 1) {
    for (int64_t tap = 0; tap < 9; ++tap)
      pack_transposed<float, 1>(from + tap * w.tap, w.out, lanes, count, to + tap * W, 9 * W);
  } else {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t tap = 0; tap < 9; ++tap)
        store(to + (i * 9 + tap) * W, load_up_to(from + i * w.in + tap * w.tap, lanes));
  }
}

// Panel [k, k + kPanel) of channels [c, c + count) to `u`.
CISDL_NOINLINE void transform_weights(const Weights& w, int64_t k, int64_t c, int64_t count, float* u,
                                      float* buffer) {
  constexpr int64_t W = kWidth<float>;
  for (int64_t k0 = k; k0 < k + kPanel; k0 += W) {
    gather_weights(w, k0, c, count, buffer);
    const float* from = w.turned ? buffer + 8 * W : buffer;
    const int64_t step = w.turned ? -W : W;
    float* to = u + (k0 - k);
    for (int64_t i = 0; i < count; ++i, from += 9 * W, to += kPanel)
      transform_2d<3, 3, 6, 6>(
          by_filter, [&](int r, int s) __attribute__((always_inline)) { return load(from + (r * 3 + s) * step); },
          [&](int r, int s, V v)
              __attribute__((always_inline)) { store(to + (r * kSide + s) * kWeightStride, v); });
  }
}

}  // namespace
}  // namespace cisdl
