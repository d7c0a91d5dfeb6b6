// The gradient of the weight by Winograd's F(3x3, 4x4) and, at the ends of rows and columns, F(3x3, 3x3).
//
// Per point a product [output channels] x [input channels], summed over tiles: blocks of up to kMaxChain tiles,
// both operands transformed once, then items of 64 output by 64 input channels that end in their 3x3 taps.
#pragma once

#include "column_sums.h"
#include "conv2d_bias_gradient.h"
#include "winograd_products.h"

namespace cisdl {
namespace {

constexpr int64_t kBlockBytes = 12 << 20;  // of transformed inputs and gradients that are multiplied together
constexpr int kGradRows = kNumRegisters == 32 ? 6 : 4;
constexpr int kGradVectors = kNumRegisters == 32 ? 4 : 2;
constexpr int64_t kGradPanel = kGradVectors * kWidth<float>;
static_assert(kChunk % kGradPanel == 0);

// m[row][column] = sum over tiles of d[tile][row] v[tile][column]; rows of both are kChunk apart.
template <int MR>
CISDL_NOINLINE void gradient_tile(int64_t tiles, const float* __restrict d, const float* __restrict v,
                                  float* __restrict m, const float* next) {
  constexpr int W = kWidth<float>;
  V acc[MR][kGradVectors];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kGradVectors; ++j) acc[i][j] = zero<float>();
  for (int64_t t = 0; t < tiles; ++t, d += kChunk, v += kChunk) {
    __builtin_prefetch(next + t * 16, 0, 2);
    V b[kGradVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kGradVectors; ++j) b[j] = load(v + j * W);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const V a = set1(d[i]);
#pragma GCC unroll 4
      for (int j = 0; j < kGradVectors; ++j) acc[i][j] += a * b[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kGradVectors; ++j) store(m + i * kGradPanel + j * W, acc[i][j]);
}

template <int MR = kGradRows>
CISDL_INLINE void gradient_rows(int64_t rows, int64_t tiles, const float* d, const float* v, float* m,
                                const float* next) {
  if (rows == MR) {
    gradient_tile<MR>(tiles, d, v, m, next);
  } else if constexpr (MR > 1) {
    gradient_rows<MR - 1>(rows, tiles, d, v, m, next);
  }
}

// The 3x3 gradients of output channel k and the W input channels from c on, out of their 36 products.
CISDL_NOINLINE void store_gradient(const Conv2dBackwardWeight<float>& a, int64_t k, int64_t c,
                                   const float* products, int64_t point_stride, bool accumulate) {
  constexpr int W = kWidth<float>;
  const int64_t channels = a.p.in_channels, lanes = smaller(W, channels - c);
  V taps[9];
  transform_2d<6, 6, 3, 3>(
      [](const auto& in, auto& out) __attribute__((always_inline)) { output_transform(in, out); },
      [&](int r, int s) __attribute__((always_inline)) { return load(products + (r * kSide + s) * point_stride); },
      [&](int r, int s, V v) __attribute__((always_inline)) { taps[r * 3 + s] = v; });
  if (a.layout == Layout::nhwc) {
    float* to = a.grad_weight + k * 9 * channels + c;
    for (int tap = 0; tap < 9; ++tap, to += channels) {
      if (accumulate) taps[tap] += load_up_to(to, lanes);
      store_up_to(to, taps[tap], lanes);
    }
    return;
  }
  float* to = a.grad_weight + (k * channels + c) * 9;
  if constexpr (W >= 9) {
    V rows[W] = {};
    for (int tap = 0; tap < 9; ++tap) rows[tap] = taps[tap];
    transpose<float>(rows);
    for (int64_t lane = 0; lane < lanes; ++lane, to += 9)
      store_partial(to, accumulate ? rows[lane] + load_partial(to, 9) : rows[lane], 9);
  } else {
    float buffer[9 * W];
    for (int tap = 0; tap < 9; ++tap) store(buffer + tap * W, taps[tap]);
    for (int64_t lane = 0; lane < lanes; ++lane, to += 9)
      for (int tap = 0; tap < 9; ++tap) to[tap] = buffer[tap * W + lane] + (accumulate ? to[tap] : 0);
  }
}

void bias_gradient(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  if (a.layout == Layout::nchw)
    conv2d_bias_gradient(p, a.grad_output, a.grad_bias, par);
  else
    column_sums<float>(a.grad_output, p.batch * p.out_h * p.out_w, p.out_channels, a.grad_bias, par);
}

// Output channels [k, k + rows) by kGradPanel input channels from c on: [point][row][kGradPanel] to m.
constexpr int64_t kGradStride = kChunk * kGradPanel + 48;
void multiply_tiles(const TransformedTiles& d, const TransformedTiles& v, int64_t k, int64_t rows, int64_t c,
                    float* m) {
  const int64_t parts = ceil_div(rows, kGradRows);
  for (int64_t point = 0; point < kPoints; ++point) {
    const float *from_d = d.at(k) + point * d.point_stride, *from_v = v.at(c) + point * v.point_stride;
    const int64_t tiles = v.block.tiles_at(point / kSide, point % kSide);
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t row = part * rows / parts;
      const float* next = part < 4 ? from_v + v.point_stride + part * tiles * 16
                                   : from_d + d.point_stride + (part - 4) * tiles * 16;
      gradient_rows((part + 1) * rows / parts - row, tiles, from_d + row, from_v,
                    m + point * kGradStride + row * kGradPanel, next);
    }
  }
}

void store_gradients(const Conv2dBackwardWeight<float>& a, int64_t k, int64_t rows, int64_t c, const float* m,
                     bool accumulate) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < smaller(kGradPanel, a.p.in_channels - c); col += kWidth<float>)
      store_gradient(a, k + row, c + col, m + row * kGradPanel + col, kGradStride, accumulate);
}

void transform_input(const Conv2dBackwardWeight<float>& a, const TiledImages& x, int64_t row, int64_t c,
                     const TransformedTiles& v, float* buffer) {
  transform_tiles<2>(x, a.input, a.p.pad_top, a.p.pad_left, row, 1, c, v, buffer, by_input);
}

void transform_grad_output(const Conv2dBackwardWeight<float>& a, const TiledImages& y, int64_t row, int64_t c,
                           const TransformedTiles& d, float* buffer) {
  transform_tiles<0>(y, a.grad_output, 0, 0, row, 1, c, d, buffer, by_filter);
}

void backward_weight(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  constexpr int64_t W = kWidth<float>;
  const Conv2dProblem& p = a.p;
  if (a.grad_bias) bias_gradient(a, par);
  const TiledImages x = images(a.layout, p.batch, p.in_channels, p.in_h, p.in_w, p.out_h, p.out_w);
  const TiledImages y = images(a.layout, p.batch, p.out_channels, p.out_h, p.out_w, p.out_h, p.out_w);
  const int64_t tile_bytes = kPoints * (x.chunks() + y.chunks()) * kChunk * kBytes;
  const Blocks blocks(y, larger(1, smaller(kBlockBytes / tile_bytes, kMaxChain)));
  const int64_t x_groups = ceil_div(x.channels, W), groups = x_groups + ceil_div(y.channels, W);
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const Block block = blocks.at(b);
    const auto memory = [&](Scratch slot, int64_t chunks) {
      return TransformedTiles(scratch_floats(slot, TransformedTiles::elements(blocks.most_tiles(), chunks)),
                              block);
    };
    const TransformedTiles v = memory(Scratch::shared, x.chunks()), d = memory(Scratch::shared2, y.chunks());
    parallel_for(par, groups * block.rows, 1, [&](int64_t begin, int64_t end) {
      float* buffer = scratch_floats(Scratch::extra, row_buffer(blocks));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = block.row + i / groups, group = i % groups;
        if (group < x_groups)
          transform_input(a, x, row, group * W, v, buffer);
        else
          transform_grad_output(a, y, row, (group - x_groups) * W, d, buffer);
      }
    });
    // An item: kChunk output channels by a panel of input channels.
    const int64_t panels = ceil_div(x.channels, kGradPanel);
    parallel_for(par, y.chunks() * panels, 1, [&](int64_t begin, int64_t end) {
      float* m = scratch_floats(Scratch::local, kPoints * kGradStride);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t k = item / panels * kChunk, c = item % panels * kGradPanel;
        const int64_t rows = smaller(kChunk, y.channels - k);
        multiply_tiles(d, v, k, rows, c, m);
        store_gradients(a, k, rows, c, m, b > 0);
      }
    });
  }
}

}  // namespace
}  // namespace cisdl
