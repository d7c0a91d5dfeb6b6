// The gradient to the weight where a group has few channels, depthwise above all; NCHW, lanes along the output
// row.
//
//   dw[k, tap] = sum over n, y, x of dy[n,k,y,x] window[tap moved by (y, x)]
//
// A register tile is a few output channels by a few taps, each a vector of partial sums along the row, folded to
// one number at the very end. Nothing is transposed, as the outer products of conv2d_weight_gradient.h need, and
// no lane is wasted on channels that are not there; each load feeds fewer FMAs, so with 16 channels or more it
// loses.
//
// An item is one tile of dw: one thread sums all pixels for it, so the result does not depend on their number.
#pragma once

#include "conv2d_bias_gradient.h"
#include "conv2d_window.h"

namespace cisdl {
namespace {

constexpr int kDirectSums = kNumRegisters == 32 ? 24 : 9;  // accumulators of a tile
constexpr int kDirectGradientRows = kNumRegisters == 32 ? 6 : 3;

// Taps of a tile of `rows` output channels.
constexpr int direct_taps(int rows) {
  const int fit = kDirectSums / rows;
  return fit < 9 ? fit : 9;
}

// What a tile walks over: a band of one image.
struct GradientBand {
  int64_t height, width;
  int64_t dy_channel, dy_row;  // strides of grad_output
  int64_t window_row;          // from one output row to the next
};

// sums[KR][NT] (vectors) += over the band.
template <class T, int KR, int NT>
void direct_gradient_tile(const GradientBand& band, const T* dy, const T* window, const int64_t* taps,
                          Vec<T>* sums) {
  constexpr int W = kWidth<T>;
  const int64_t vectors = ceil_div(band.width, W), most_rows = larger(1, kMaxChain / vectors);
  const int64_t tail = band.width - (vectors - 1) * W;
  alignas(kVecBytes) T lanes[W];
  for (int i = 0; i < W; ++i) lanes[i] = i < tail ? T(1) : T(0);
  const Mask<T> inside = load(lanes) != zero<T>();
  for (int64_t y0 = 0; y0 < band.height; y0 += most_rows) {
    Vec<T> acc[KR][NT];
#pragma GCC unroll 6
    for (int k = 0; k < KR; ++k)
#pragma GCC unroll 9
      for (int t = 0; t < NT; ++t) acc[k][t] = zero<T>();
    for (int64_t y = y0; y < smaller(y0 + most_rows, band.height); ++y) {
      const T* dy_row = dy + y * band.dy_row;
      const T* row = window + y * band.window_row;
      const auto step = [&](int64_t x, auto&& read_dy, auto&& read_x) __attribute__((always_inline)) {
        Vec<T> g[KR];
#pragma GCC unroll 6
        for (int k = 0; k < KR; ++k) g[k] = read_dy(dy_row + k * band.dy_channel + x);
#pragma GCC unroll 9
        for (int t = 0; t < NT; ++t) {
          const Vec<T> v = read_x(row + taps[t] + x);
#pragma GCC unroll 6
          for (int k = 0; k < KR; ++k) acc[k][t] += g[k] * v;
        }
      };
      int64_t x = 0;
      for (; x + W <= band.width; x += W)
        step(
            x, [](const T* p) __attribute__((always_inline)) { return load(p); },
            [](const T* p) __attribute__((always_inline)) { return load(p); });
      if (x < band.width)
        step(
            x, [tail](const T* p) __attribute__((always_inline)) { return load_partial(p, tail); },
            [inside](const T* p) __attribute__((always_inline)) { return select<T>(inside, load(p), zero<T>()); });
    }
#pragma GCC unroll 6
    for (int k = 0; k < KR; ++k)
#pragma GCC unroll 9
      for (int t = 0; t < NT; ++t) sums[k * NT + t] += acc[k][t];
  }
}

template <class T, int KR, int NT = direct_taps(KR)>
CISDL_INLINE void direct_gradient_taps(int64_t num_taps, const GradientBand& band, const T* dy, const T* window,
                                       const int64_t* taps, Vec<T>* sums) {
  if (num_taps == NT) {
    direct_gradient_tile<T, KR, NT>(band, dy, window, taps, sums);
  } else if constexpr (NT > 1) {
    direct_gradient_taps<T, KR, NT - 1>(num_taps, band, dy, window, taps, sums);
  }
}

template <class T, int KR = kDirectGradientRows>
CISDL_INLINE void direct_gradient(int64_t rows, int64_t num_taps, const GradientBand& band, const T* dy,
                                  const T* window, const int64_t* taps, Vec<T>* sums) {
  if (rows == KR) {
    direct_gradient_taps<T, KR>(num_taps, band, dy, window, taps, sums);
  } else if constexpr (KR > 1) {
    direct_gradient<T, KR - 1>(rows, num_taps, band, dy, window, taps, sums);
  }
}

constexpr int64_t kGradientWindowBytes = 256 << 10;

template <class T>
void direct_weight_gradient(const Conv2dBackwardWeight<T>& args, const Parallel& par) {
  Conv2dProblem p = args.p;
  take_vectors_as_rows<T>(p);
  const int64_t group_in = p.in_channels / p.groups, group_out = p.out_channels / p.groups;
  const int64_t cells = p.kernel_h * p.kernel_w, plane = p.out_h * p.out_w, num_taps = group_in * cells;
  const Parts tiles = split_evenly(group_out, kDirectGradientRows, 1);
  const Parts tap_tiles = split_evenly(num_taps, direct_taps(static_cast<int>(tiles.size)), 1);
  const int64_t group_items = tiles.count * tap_tiles.count;
  const int64_t work = p.batch * plane * tiles.size * tap_tiles.size;
  parallel_for(par, p.groups * group_items, grain_for(work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / group_items, tile = i / tap_tiles.count % tiles.count;
      const int64_t first_tap = i % tap_tiles.count * tap_tiles.size;
      const int64_t item_taps = smaller(tap_tiles.size, num_taps - first_tap);
      const int64_t rows = smaller(tiles.size, group_out - tile * tiles.size),
                    k = group * group_out + tile * tiles.size;
      const int64_t channel = first_tap / cells, channels = (first_tap + item_taps - 1) / cells - channel + 1;
      Vec<T> sums[kDirectSums] = {};

      const WindowShape whole(p, 0, plane, channels);
      const int64_t fit = kGradientWindowBytes / static_cast<int64_t>(sizeof(T)) / (channels * whole.row_stride);
      const Parts bands =
          split_evenly(p.out_h, larger(4, (fit - (p.kernel_h - 1) * p.dilation_h) / whole.row_step), 1);
      for (int64_t y = 0; y < p.out_h; y += bands.size) {
        const int64_t height = smaller(bands.size, p.out_h - y);
        const WindowShape copied(p, y * p.out_w, (y + height) * p.out_w, channels);
        T* buffer = static_cast<T*>(scratch(Scratch::local, copied.size<T>() * static_cast<int64_t>(sizeof(T))));
        for (int64_t n = 0; n < p.batch; ++n) {
          WindowShape shape = copied;
          shape.image = n;
          const T* window = make_window(p, args.input, group * group_in + channel, channels, shape, buffer);
          int64_t taps[9];
          for (int64_t t = 0; t < item_taps; ++t) {
            const int64_t tap = first_tap + t;
            taps[t] = shape.tap(p, tap / cells - channel, tap % cells / p.kernel_w, tap % p.kernel_w);
          }
          const GradientBand band{height, p.out_w, plane, p.out_w, shape.row_step * shape.row_stride};
          direct_gradient<T>(rows, item_taps, band,
                             args.grad_output + (n * p.out_channels + k) * plane + y * p.out_w, window, taps,
                             sums);
        }
      }
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t t = 0; t < item_taps; ++t)
          args.grad_weight[(k + r) * num_taps + first_tap + t] = sum_lanes<T>(sums[r * item_taps + t]);
    }
  });
}

// Whether summing along rows is cheaper than outer products, whose lanes are channels of one side and which
// transpose what they read: where a pointwise problem has one tile of output channels, that is most of their time.
template <class T>
bool conv2d_direct_weight_applies(const Conv2dBackwardWeight<T>& args) {
  const Conv2dProblem& p = args.p;
  constexpr int64_t W = kWidth<T>;
  if (args.layout != Layout::nchw) return false;
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  if (is_pointwise(p) && p.groups == 1 && out <= kDirectGradientRows && p.out_h * p.out_w >= 8 * W) return true;
  const int64_t outer = W * smaller(ceil_div(in, W) * out, ceil_div(out, W) * in);
  return in * out * ceil_div(p.out_w, W) * W * 4 < outer * p.out_w * 3;
}

template <class T>
void conv2d_direct_backward_weight(const Conv2dBackwardWeight<T>& args, const Parallel& par) {
  if (args.grad_bias) conv2d_bias_gradient(args.p, args.grad_output, args.grad_bias, par);
  if (args.grad_weight) direct_weight_gradient(args, par);
}

}  // namespace
}  // namespace cisdl
