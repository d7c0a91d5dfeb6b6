// Forward convolution of first layers, with the lanes along the output rows; NCHW, one group.
//
//   y[k, y, x] = b[k] + sum over taps of w[k, tap] window[tap moved by (y, x)]
//
// A register tile is some output channels by some vectors of output pixels, wherever in the band of rows these
// lie: for each tap it loads the vectors straight from the window (conv2d_window.h) and broadcasts a weight for
// each channel. Nothing is packed but the weights, and no patch is ever written, which few input channels would
// not pay for; the window of a band stays in L1 while all output channels pass.
//
// It wins for few input channels and rows that fill the lanes. An item of work is a band of output rows of an
// image.
#pragma once

#include "conv2d_window.h"

namespace cisdl {
namespace {

// Loads of the window cross cache lines, which takes twice the time: more channels than vectors.
constexpr int kRowsTileChannels = kNumRegisters == 32 ? 8 : 3;
constexpr int kRowsTileVectors = 3;
constexpr int64_t kRowsForwardWindowBytes = 40 << 10;

// A vector of output pixels: where it lies in the window and in a plane of the output, and how many of its lanes
// count.
struct RowsVector {
  int64_t window, output, lanes;
};

template <int KT, int QT>
CISDL_NOINLINE void rows_tile(const RowsVector* vectors, const float* window, const int64_t* taps,
                              int64_t num_taps, const float* weight, const float* bias, float* output,
                              int64_t plane, float least) {
  Vec<float> acc[KT][QT];
#pragma GCC unroll 8
  for (int k = 0; k < KT; ++k)
#pragma GCC unroll 3
    for (int q = 0; q < QT; ++q) acc[k][q] = set1(bias[k]);
  const float* x[QT];
#pragma GCC unroll 3
  for (int q = 0; q < QT; ++q) x[q] = window + vectors[q].window;
  for (int64_t t = 0; t < num_taps; ++t, weight += KT) {
    const int64_t tap = taps[t];
    Vec<float> w[KT];
#pragma GCC unroll 8
    for (int k = 0; k < KT; ++k) w[k] = set1(weight[k]);
#pragma GCC unroll 3
    for (int q = 0; q < QT; ++q) {
      const Vec<float> v = load(x[q] + tap);
#pragma GCC unroll 8
      for (int k = 0; k < KT; ++k) acc[k][q] += w[k] * v;
    }
  }
  bool whole = true;
#pragma GCC unroll 3
  for (int q = 0; q < QT; ++q) whole &= vectors[q].lanes == kWidth<float>;
  const auto store_all = [&](auto&& store_one) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int k = 0; k < KT; ++k, output += plane)
#pragma GCC unroll 3
      for (int q = 0; q < QT; ++q)
        store_one(output + vectors[q].output, at_least<float>(acc[k][q], set1(least)), vectors[q].lanes);
  };
  if (whole)
    store_all([](float* to, Vec<float> v, int64_t) __attribute__((always_inline)) { store(to, v); });
  else
    store_all([](float* to, Vec<float> v, int64_t n) __attribute__((always_inline)) { store_up_to(to, v, n); });
}

template <int KT, int QT = kRowsTileVectors>
CISDL_INLINE void rows_tile_vectors(int64_t count, const RowsVector* vectors, const float* window,
                                    const int64_t* taps, int64_t num_taps, const float* weight, const float* bias,
                                    float* output, int64_t plane, float least) {
  if (count == QT) {
    rows_tile<KT, QT>(vectors, window, taps, num_taps, weight, bias, output, plane, least);
  } else if constexpr (QT > 1) {
    rows_tile_vectors<KT, QT - 1>(count, vectors, window, taps, num_taps, weight, bias, output, plane, least);
  }
}

// `channels` channels of a band of `count` vectors, in tiles of about the same size.
template <int KT = kRowsTileChannels>
CISDL_INLINE void rows_band(int64_t channels, const Parts& tiles, int64_t count, const RowsVector* vectors,
                            const float* window, const int64_t* taps, int64_t num_taps, const float* weight,
                            const float* bias, float* output, int64_t plane, float least) {
  if (channels == KT) {
    for (int64_t q = 0; q < count; q += tiles.size)
      rows_tile_vectors<KT>(smaller(tiles.size, count - q), vectors + q, window, taps, num_taps, weight, bias,
                            output, plane, least);
  } else if constexpr (KT > 1) {
    rows_band<KT - 1>(channels, tiles, count, vectors, window, taps, num_taps, weight, bias, output, plane, least);
  }
}

void rows_forward(const Conv2dForward<float>& a, const Parallel& par) {
  constexpr int64_t W = kWidth<float>, kBytes = sizeof(float);
  const Conv2dProblem& p = a.p;
  const int64_t cells = p.kernel_h * p.kernel_w, num_taps = p.in_channels * cells, K = p.out_channels;
  const int64_t plane = p.out_h * p.out_w, row_vectors = ceil_div(p.out_w, W);
  const Parts tiles = split_evenly(K, kRowsTileChannels, 1);

  // Weights as [tile of channels][tap][channel]; then the bias.
  float* weight = static_cast<float*>(scratch(Scratch::shared, K * (num_taps + 1) * kBytes));
  float* bias = weight + K * num_taps;
  for (int64_t k = 0; k < K; ++k) {
    const int64_t tile = k / tiles.size * tiles.size, width = smaller(tiles.size, K - tile);
    for (int64_t t = 0; t < num_taps; ++t)
      weight[tile * num_taps + t * width + k - tile] = a.weight[k * num_taps + t];
    bias[k] = a.bias ? a.bias[k] : 0;
  }

  // Bands whose windows stay in L1, and, if there are few images, enough of them for all threads.
  const WindowShape whole(p, 0, plane, p.in_channels);
  const int64_t fit = kRowsForwardWindowBytes / kBytes / (p.in_channels * whole.row_stride);
  const int64_t wanted = par.num_threads == 1 ? 1 : ceil_div(4 * par.num_threads, p.batch);
  const int64_t most = larger(1, (fit - (p.kernel_h - 1) * p.dilation_h) / whole.row_step);
  const Parts bands = split_evenly(p.out_h, larger(1, smaller(most, ceil_div(p.out_h, wanted))), 1);
  const int64_t work = bands.size * p.out_w * num_taps * K;
  parallel_for(par, p.batch * bands.count, grain_for(work), [&](int64_t begin, int64_t end) {
    const int64_t vectors_bytes = bands.size * row_vectors * int64_t{sizeof(RowsVector)};
    RowsVector* vectors = static_cast<RowsVector*>(
        scratch(Scratch::extra, vectors_bytes + (num_taps + 1) * int64_t{sizeof(int64_t)}));
    int64_t* taps = reinterpret_cast<int64_t*>(vectors + bands.size * row_vectors);
    int64_t listed = 0;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / bands.count, y = item % bands.count * bands.size;
      const int64_t rows = smaller(bands.size, p.out_h - y), count = rows * row_vectors;
      WindowShape shape(p, y * p.out_w, (y + rows) * p.out_w, p.in_channels);
      shape.image = n;
      float* window = static_cast<float*>(scratch(Scratch::local, shape.size<float>() * kBytes));
      if (num_taps > 0) copy_window(p, a.input, 0, p.in_channels, shape, window);
      if (rows != listed) {  // most bands are equally high
        listed = rows;
        for (int64_t t = 0; t < num_taps; ++t)
          taps[t] = shape.tap(p, t / cells, t % cells / p.kernel_w, t % p.kernel_w);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t row = i / row_vectors, x = i % row_vectors * W;
          vectors[i] = {row * shape.row_step * shape.row_stride + x, row * p.out_w + x, smaller(W, p.out_w - x)};
        }
      }
      const Parts vector_tiles = split_evenly(count, kRowsTileVectors, 1);
      for (int64_t k = 0; k < K; k += tiles.size)
        rows_band<>(smaller(tiles.size, K - k), vector_tiles, count, vectors, window, taps, num_taps,
                    weight + k * num_taps, bias + k, a.output + (n * K + k) * plane + y * p.out_w, plane, a.least);
    }
  });
}

}  // namespace
}  // namespace cisdl
