// The gradient of the weight with a batch in vector lanes; see conv2d_lanes.h.
//
//   dw[k,c,r,s] = sum over images, p, q of dy[n,k,p,q] x[n,c,p*stride + r*dilation - pad, ...]
//
// A register tile is some output channels by some taps: for every pixel it loads a vector of each channel of dy
// and of each tap of x, W images side by side, and multiplies each with each. The sums of a tile stay in memory,
// lanes and all, until the last images are added; then lanes are summed. First, threads bring images side by side,
// as many as the L2 cache holds; then each takes tiles of dw, so that one thread makes every sum. The bias
// gradient is summed from the copies.
#pragma once

#include "conv2d_lanes.h"

namespace cisdl {
namespace {

// Taps of a tile of dw of `channels` output channels.
constexpr int lanes_taps(int channels) {
  constexpr int kMany[] = {0, 8, 8, 8, 6}, kFew[] = {0, 6, 4, 3};
  return kNumRegisters == 32 ? kMany[channels] : kFew[channels];
}

// Pixels of W images: where each lies in the copy of the input, and the distances of grad_output's.
struct LanesWalk {
  int64_t pixels;
  const int64_t* x;
  int64_t dy_channel, dy_pixel;
};

// sums[KT][NT] (vectors) += sum over pixels of dy[k] x[tap].
template <int KT, int NT>
CISDL_NOINLINE void lanes_gradient_tile(const LanesWalk& walk, const float* dy, const float* x,
                                        const int64_t* taps, float* sums) {
  V acc[KT][NT];
#pragma GCC unroll 4
  for (int k = 0; k < KT; ++k)
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t) acc[k][t] = zero<float>();
  int64_t tap[NT];
#pragma GCC unroll 8
  for (int t = 0; t < NT; ++t) tap[t] = taps[t];
  const int64_t channel = walk.dy_channel;
  // One loop over all pixels: with a loop of its own for every short row, a fifth of the time goes to leaving it.
  for (int64_t i = 0; i < walk.pixels; ++i, dy += walk.dy_pixel) {
    const float* v = x + walk.x[i];
    V d[KT];
    d[0] = load(dy);
    if constexpr (KT > 1) d[1] = load(dy + channel);
    if constexpr (KT > 2) d[2] = load(dy + 2 * channel);
    if constexpr (KT > 3) d[3] = load(dy + 3 * channel);
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t) {
      const V u = load(v + tap[t]);
#pragma GCC unroll 4
      for (int k = 0; k < KT; ++k) acc[k][t] += d[k] * u;
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < KT; ++k)
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t, sums += kLanes) store(sums, load(sums) + acc[k][t]);
}

template <int KT, int NT = lanes_taps(KT)>
CISDL_INLINE void lanes_gradient_taps(int64_t num_taps, const LanesWalk& walk, const float* dy, const float* x,
                                      const int64_t* taps, float* sums) {
  if (num_taps == NT) {
    lanes_gradient_tile<KT, NT>(walk, dy, x, taps, sums);
  } else if constexpr (NT > 1) {
    lanes_gradient_taps<KT, NT - 1>(num_taps, walk, dy, x, taps, sums);
  }
}

template <int KT = kLanesChannels>
CISDL_INLINE void lanes_gradient(int64_t channels, int64_t num_taps, const LanesWalk& walk, const float* dy,
                                 const float* x, const int64_t* taps, float* sums) {
  if (channels == KT) {
    lanes_gradient_taps<KT>(num_taps, walk, dy, x, taps, sums);
  } else if constexpr (KT > 1) {
    lanes_gradient<KT - 1>(channels, num_taps, walk, dy, x, taps, sums);
  }
}

// One vector: the sum of `cells` vectors, `step` apart.
V sum_cells(const float* p, int64_t cells, int64_t step) {
  V sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= cells; i += 8)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) sums[j] += load(p + (i + j) * step);
  for (; i < cells; ++i) sums[0] += load(p + i * step);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

void lanes_backward_weight(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  constexpr int64_t kBytes = sizeof(float);
  const int64_t K = p.out_channels, row_taps = p.in_channels * p.kernel_w, num_taps = p.kernel_h * row_taps;
  const LanesImage x(a.layout, a.input, p.in_channels, p.in_h, p.in_w, p.pad_left,
                     lanes_extent(p.out_h, p.stride_h, p.kernel_h, p.dilation_h),
                     lanes_extent(p.out_w, p.stride_w, p.kernel_w, p.dilation_w));
  const LanesImage dy(a.layout, a.grad_output, K, p.out_h, p.out_w, 0, p.out_h, p.out_w);
  const Parts tiles = split_evenly(K, kLanesChannels, 1);
  const Parts tap_tiles = split_evenly(num_taps, lanes_taps(static_cast<int>(tiles.size)), 1);

  // Partial sums of dw, [tile][tap][channels of the tile][W], and of the bias, [channel][W]; then the copies.
  const int64_t groups = ceil_div(p.batch, kLanes), group_size = x.elements() + dy.elements();
  const int64_t chunk = larger(1, smaller(groups, kLanesBandBytes / (group_size * kBytes)));
  const int64_t sums_size = K * num_taps * kLanes, bias_size = groups * K * kLanes;
  float* sums = static_cast<float*>(scratch(Scratch::shared2, (sums_size + bias_size) * kBytes));
  float* bias_sums = sums + sums_size;
  float* copies = static_cast<float*>(scratch(Scratch::shared, chunk * group_size * kBytes));
  std::memset(sums, 0, static_cast<size_t>(sums_size * kBytes));

  const int64_t plane = p.out_h * p.out_w;
  // A tile of gradients stays in L1 while the tiles of taps pass.
  const int64_t most_pixels = smaller(kMaxChain, kLanesTileBytes / (tiles.size * kVecBytes));
  const int64_t most_rows = larger(1, smaller(p.out_h, most_pixels / p.out_w));
  const int64_t tap_parts =
      par.num_threads == 1 ? 1 : smaller(tap_tiles.count, ceil_div(4 * par.num_threads, tiles.count));
  for (int64_t first = 0; first < groups; first += chunk) {
    const int64_t count = smaller(chunk, groups - first);
    parallel_for(par, count, grain_for(8 * group_size), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = (first + i) * kLanes, images = smaller(kLanes, p.batch - n);
        float* copy = copies + i * group_size;
        if (a.grad_weight) x.copy(n, images, -p.pad_top, copy);
        dy.copy(n, images, 0, copy + x.elements());
        if (a.grad_bias)
          for (int64_t k = 0; k < K; ++k)
            store(bias_sums + ((first + i) * K + k) * kLanes,
                  sum_cells(copy + x.elements() + k * dy.channel_step(), plane, dy.column_step()));
      }
    });
    if (!a.grad_weight) continue;
    const int64_t work = count * plane * kLanes * tiles.size * num_taps / tap_parts;
    parallel_for(par, tiles.count * tap_parts, grain_for(work), [&](int64_t begin, int64_t end) {
      int64_t* taps = static_cast<int64_t*>(
          scratch(Scratch::extra, (num_taps + most_rows * p.out_w) * int64_t{sizeof(int64_t)}));
      for (int64_t t = 0; t < num_taps; ++t)
        taps[t] = t / row_taps * p.dilation_h * x.row_step() + t % row_taps / p.kernel_w * x.channel_step() +
                  t % p.kernel_w * p.dilation_w * x.column_step();
      int64_t* pixels = taps + num_taps;
      for (int64_t i = 0; i < most_rows * p.out_w; ++i)
        pixels[i] = i / p.out_w * p.stride_h * x.row_step() + i % p.out_w * p.stride_w * x.column_step();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t k = i / tap_parts * tiles.size, channels = smaller(tiles.size, K - k), part = i % tap_parts;
        for (int64_t group = 0; group < count; ++group)
          for (int64_t y = 0; y < p.out_h; y += most_rows) {
            const float* copy = copies + group * group_size;
            const LanesWalk walk{smaller(most_rows, p.out_h - y) * p.out_w, pixels, dy.channel_step(),
                                 dy.column_step()};
            for (int64_t j = tap_tiles.count * part / tap_parts; j < tap_tiles.count * (part + 1) / tap_parts;
                 ++j) {
              const int64_t tap = j * tap_tiles.size;
              lanes_gradient<>(channels, smaller(tap_tiles.size, num_taps - tap), walk,
                               copy + x.elements() + k * dy.channel_step() + y * dy.row_step(),
                               copy + y * p.stride_h * x.row_step(), taps + tap,
                               sums + (k * num_taps + channels * tap) * kLanes);
            }
          }
      }
    });
  }

  if (a.grad_weight) {
    // The sums of lanes, in place: sums[i] is that of vector i, read before it is overwritten.
    for (int64_t i = 0; i < sums_size / kLanes; i += kLanes) {
      V v[kLanes];
      for (int64_t j = 0; j < kLanes; ++j)
        v[j] = i + j < sums_size / kLanes ? load(sums + (i + j) * kLanes) : zero<float>();
      sum_lanes_of<float, kWidth<float>>(v, sums + i);
    }
    const bool last = a.layout == Layout::nhwc;  // [K][r][s][C] instead of [K][C][r][s]
    for (int64_t k = 0; k < K; ++k) {
      const int64_t tile = k / tiles.size * tiles.size, channels = smaller(tiles.size, K - tile);
      for (int64_t t = 0; t < num_taps; ++t) {
        // A tile of taps lies as [channel][tap].
        const int64_t first = t / tap_tiles.size * tap_tiles.size;
        const int64_t width = smaller(tap_tiles.size, num_taps - first);
        const int64_t r = t / row_taps, c = t % row_taps / p.kernel_w, s = t % p.kernel_w;
        const int64_t to = last ? (r * p.kernel_w + s) * p.in_channels + c : (c * p.kernel_h + r) * p.kernel_w + s;
        a.grad_weight[k * num_taps + to] =
            sums[tile * num_taps + channels * first + (k - tile) * width + (t - first)];
      }
    }
  }
  if (a.grad_bias)
    for (int64_t k = 0; k < K; ++k) {
      V sum = zero<float>();
      for (int64_t group = 0; group < groups; ++group) sum += load(bias_sums + (group * K + k) * kLanes);
      a.grad_bias[k] = sum_lanes<float>(sum);
    }
}

}  // namespace
}  // namespace cisdl
