// The gradient of a first layer's weight, with the lanes along the rows of grad_output; NCHW, one group.
//
//   dw[k, tap] = sum over n, y, x of dy[n,k,y,x] window[tap moved by (y, x)]
//
// A register tile is some output channels by some taps, each a vector of partial sums: a step loads a vector of
// every channel of dy and of every tap of the window (conv2d_window.h) and multiplies each with each. Nothing is
// transposed or packed but the window, which few input channels keep small. The images are taken in bands of rows:
// a tile's part of dy stays in L1 while all taps pass, the window in L2 while all output channels pass; what a
// band adds to a tile is kept in memory, lanes and all. Lanes are added up at the very end. The bias gradient is
// summed along with it, for dy is large and read once.
//
// It wins for few input channels and rows that fill the lanes; with many input channels the windows grow, and
// outer products over transposed pixels (conv2d_weight_gradient.h) or Winograd are better. An item of work is a
// tile of output channels: one thread makes all of its sums.
#pragma once

#include "conv2d_window.h"

namespace cisdl {
namespace {

// Loads of the window cross cache lines, those of dy mostly do not: more channels than taps.
constexpr int kRowsChannels = kNumRegisters == 32 ? 6 : 3;
constexpr int kRowsTaps = kNumRegisters == 32 ? 4 : 3;
constexpr int64_t kRowsGradientBytes = 20 << 10, kRowsWindowBytes = 96 << 10;

// A vector of pixels: where it lies in the window and in a plane of dy.
struct RowsStep {
  int64_t window, dy;
};

// The pixels of a band: `full` whole vectors, then `partial` ones of `tail` lanes, the ends of rows. Two loops
// over all of them: with a loop of its own for every short row, a good part of the time goes to leaving it.
struct RowsBand {
  const RowsStep* steps;
  int64_t full, partial, tail;
  int64_t dy_channel;
};

// Asks for the rows of dy that come next, a line for every step of a tile.
CISDL_INLINE void ask_for(const float* p) { __builtin_prefetch(p, 0, 3); }

// sums[KT][NT] (vectors) += the band.
template <int KT, int NT>
CISDL_NOINLINE void rows_gradient_tile(const RowsBand& band, const float* dy, const float* window,
                                       const int64_t* taps, float* sums, const float* next) {
  constexpr int64_t W = kWidth<float>;
  Vec<float> acc[KT][NT];
#pragma GCC unroll 6
  for (int k = 0; k < KT; ++k)
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t) acc[k][t] = zero<float>();
  int64_t tap[NT];
#pragma GCC unroll 8
  for (int t = 0; t < NT; ++t) tap[t] = taps[t];
  const auto add = [&](const RowsStep& step, auto&& read) __attribute__((always_inline)) {
    const float* g = dy + step.dy;
    const float* x = window + step.window;
    Vec<float> d[KT];
#pragma GCC unroll 6
    for (int k = 0; k < KT; ++k) d[k] = read(g + k * band.dy_channel);
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t) {
      const Vec<float> v = read(x + tap[t]);
#pragma GCC unroll 6
      for (int k = 0; k < KT; ++k) acc[k][t] += d[k] * v;
    }
  };
  const RowsStep* step = band.steps;
  for (int64_t i = 0; i < band.full; ++i, ++step) {
    ask_for(next + step->dy);
    add(*step, [](const float* p) __attribute__((always_inline)) { return load(p); });
  }
  for (int64_t i = 0; i < band.partial; ++i, ++step)
    add(*step, [&](const float* p) __attribute__((always_inline)) { return load_partial(p, band.tail); });
#pragma GCC unroll 6
  for (int k = 0; k < KT; ++k)
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t, sums += W) store(sums, load(sums) + acc[k][t]);
}

template <int KT, int NT = kRowsTaps>
CISDL_INLINE void rows_gradient_taps(int64_t num_taps, const RowsBand& band, const float* dy, const float* window,
                                     const int64_t* taps, float* sums, const float* next) {
  if (num_taps == NT) {
    rows_gradient_tile<KT, NT>(band, dy, window, taps, sums, next);
  } else if constexpr (NT > 1) {
    rows_gradient_taps<KT, NT - 1>(num_taps, band, dy, window, taps, sums, next);
  }
}

template <int KT = kRowsChannels>
CISDL_INLINE void rows_gradient(int64_t channels, int64_t num_taps, const RowsBand& band, const float* dy,
                                const float* window, const int64_t* taps, float* sums, const float* next) {
  if (channels == KT) {
    rows_gradient_taps<KT>(num_taps, band, dy, window, taps, sums, next);
  } else if constexpr (KT > 1) {
    rows_gradient<KT - 1>(channels, num_taps, band, dy, window, taps, sums, next);
  }
}

// sums (a vector) += a run.
CISDL_INLINE void add_run(const float* run, int64_t size, float* sums) {
  constexpr int64_t W = kWidth<float>;
  Vec<float> acc[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= size; i += 4 * W)
#pragma GCC unroll 6
    for (int v = 0; v < 4; ++v) acc[v] += load(run + i + v * W);
  for (; i < size; i += W) acc[0] += load_up_to(run + i, size - i);
  store(sums, load(sums) + ((acc[0] + acc[1]) + (acc[2] + acc[3])));
}

void rows_backward_weight(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  constexpr int64_t W = kWidth<float>, kBytes = sizeof(float);
  const Conv2dProblem& p = a.p;
  const int64_t cells = p.kernel_h * p.kernel_w, plane = p.out_h * p.out_w;
  const int64_t num_taps = a.grad_weight ? p.in_channels * cells : 0, K = p.out_channels;
  const Parts tiles = split_evenly(K, kRowsChannels, 1), tap_tiles = split_evenly(num_taps, kRowsTaps, 1);
  // Of every output channel: a vector of sums for each tap, one for the bias.
  float* sums = static_cast<float*>(scratch(Scratch::shared2, K * (num_taps + 1) * W * kBytes));
  std::memset(sums, 0, static_cast<size_t>(K * (num_taps + 1) * W * kBytes));

  const WindowShape whole(p, 0, plane, p.in_channels);
  const int64_t fit_dy = kRowsGradientBytes / kBytes / (tiles.size * p.out_w);
  const int64_t fit_window = kRowsWindowBytes / kBytes / (p.in_channels * whole.row_step * whole.row_stride);
  const Parts bands = split_evenly(p.out_h, larger(2, smaller(fit_dy, fit_window)), 1);
  const int64_t band_steps = bands.size * ceil_div(p.out_w, W);
  const int64_t work = p.batch * plane * tiles.size * (num_taps + 1);
  parallel_for(par, tiles.count, grain_for(work), [&](int64_t begin, int64_t end) {
    RowsStep* steps = static_cast<RowsStep*>(scratch(
        Scratch::extra, band_steps * int64_t{sizeof(RowsStep)} + (num_taps + 1) * int64_t{sizeof(int64_t)}));
    int64_t* taps = reinterpret_cast<int64_t*>(steps + band_steps);
    for (int64_t y = 0; y < p.out_h; y += bands.size) {
      const int64_t rows = smaller(bands.size, p.out_h - y);
      WindowShape shape(p, y * p.out_w, (y + rows) * p.out_w, p.in_channels);
      float* window = static_cast<float*>(scratch(Scratch::local, shape.size<float>() * kBytes));
      for (int64_t t = 0; t < num_taps; ++t)
        taps[t] = shape.tap(p, t / cells, t % cells / p.kernel_w, t % p.kernel_w);
      const RowsBand band{steps, rows * (p.out_w / W), p.out_w % W ? rows : 0, p.out_w % W, plane};
      RowsStep* step = steps;
      for (int64_t tails = 0; tails < 2; ++tails)
        for (int64_t row = 0; row < rows; ++row)
          for (int64_t x = tails ? p.out_w / W * W : 0; tails ? x < p.out_w : x + W <= p.out_w; x += W)
            *step++ = {row * shape.row_step * shape.row_stride + x, row * p.out_w + x};
      for (int64_t n = 0; n < p.batch; ++n) {
        shape.image = n;
        if (num_taps > 0) copy_window(p, a.input, 0, p.in_channels, shape, window);
        for (int64_t tile = begin; tile < end; ++tile) {
          const int64_t k = tile * tiles.size, channels = smaller(tiles.size, K - k);
          const float* dy = a.grad_output + (n * K + k) * plane + y * p.out_w;
          if (a.grad_bias)
            for (int64_t i = 0; i < channels; ++i)
              add_run(dy + i * plane, rows * p.out_w, sums + (K * num_taps + k + i) * W);
          // What comes next: the following channels, or those of the next image. Each tile of taps asks for a
          // channel.
          const float* next = tile + 1 < end    ? dy + channels * plane
                              : n + 1 < p.batch ? dy + (K - k + begin * tiles.size) * plane
                                                : dy;
          for (int64_t t = 0, i = 0; t < num_taps; t += tap_tiles.size, ++i)
            rows_gradient<>(channels, smaller(tap_tiles.size, num_taps - t), band, dy, window, taps + t,
                            sums + (k * num_taps + channels * t) * W, next + smaller(i, channels - 1) * plane);
        }
      }
    }
    // The sums of lanes, in place: vectors are read before their sums are written.
    const int64_t first = begin * tiles.size, last = smaller(end * tiles.size, K);
    float* own = sums + first * num_taps * W;
    const int64_t vectors = (last - first) * num_taps;
    for (int64_t i = 0; i < vectors; i += W) {
      Vec<float> v[W];
      for (int64_t j = 0; j < W; ++j) v[j] = i + j < vectors ? load(own + (i + j) * W) : zero<float>();
      sum_lanes_of<float, kWidth<float>>(v, own + i);
    }
    for (int64_t k = first; k < last; ++k) {
      const int64_t tile = k / tiles.size * tiles.size, channels = smaller(tiles.size, K - tile);
      for (int64_t t = 0; t < num_taps; t += tap_tiles.size) {
        // A tile of taps lies as [channel][tap].
        const int64_t width = smaller(tap_tiles.size, num_taps - t);
        const float* from = own + (tile - first) * num_taps + channels * t + (k - tile) * width;
        for (int64_t i = 0; i < width; ++i) a.grad_weight[k * num_taps + t + i] = from[i];
      }
      if (a.grad_bias) a.grad_bias[k] = sum_lanes<float>(load(sums + (K * num_taps + k) * W));
    }
  });
}

}  // namespace
}  // namespace cisdl
