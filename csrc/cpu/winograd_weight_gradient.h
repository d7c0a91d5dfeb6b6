// The gradient of the weight by Winograd's F(3x3, 4x4) and, at the ends of rows and columns, F(3x3, 3x3).
//
// Per point a product [output channels] x [input channels], summed over tiles: blocks of up to kBlockTiles tiles,
// both operands transformed once, then items of 64 output by 64 input channels that end in their 3x3 taps. Up to
// four such items keep their products in the cache for many small blocks instead (few_channels).
#pragma once

#include "column_sums.h"
#include "conv2d_bias_gradient.h"
#include "winograd_products.h"

namespace cisdl {
namespace {

// Transformed inputs and gradients that are multiplied together: many, as every block adds to all gradients, but
// no more than the last cache keeps.
constexpr int64_t kBlockTiles = 128, kBlockBytes = 12 << 20;
constexpr int kGradRows = 6;
constexpr int kGradVectors = kNumRegisters == 32 ? 4 : 2;
constexpr int64_t kGradPanel = kGradVectors * kWidth<float>;
constexpr int64_t kGradStride = kChunk * kGradPanel + 48;
static_assert(kChunk % kGradPanel == 0);

// m[row][column] = sum over tiles of d[tile][row] v[tile][column]; rows of both are kChunk apart. Meanwhile a line
// of `next` for every tile is brought into the L2 cache.
template <int MR, int NV>
CISDL_NOINLINE void gradient_tile(int64_t tiles, const float* __restrict d, const float* __restrict v,
                                  float* __restrict m, const float* next, bool accumulate) {
  constexpr int W = kWidth<float>;
  V acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) acc[i][j] = zero<float>();
  for (int64_t t = 0; t < tiles; ++t, d += kChunk, v += kChunk) {
    __builtin_prefetch(next + t * kLine, 0, 2);
    V b[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) b[j] = load(v + j * W);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const V a = set1(d[i]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] += a * b[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      float* to = m + i * kGradPanel + j * W;
      store(to, accumulate ? load(to) + acc[i][j] : acc[i][j]);
    }
}

template <int NV, int MR = kGradRows * kGradVectors / NV>
CISDL_INLINE void gradient_rows(int64_t rows, int64_t tiles, const float* d, const float* v, float* m,
                                const float* next, bool accumulate) {
  if (rows == MR) {
    gradient_tile<MR, NV>(tiles, d, v, m, next, accumulate);
  } else if constexpr (MR > 1) {
    gradient_rows<NV, MR - 1>(rows, tiles, d, v, m, next, accumulate);
  }
}

// The gradients of output channel k and the W input channels from c on, out of their 36 products: Down x Across
// taps from `first` on of the kernel's.
template <int Down, int Across>
CISDL_NOINLINE void store_gradient(const Conv2dBackwardWeight<float>& a, int64_t k, int64_t c, int64_t first,
                                   const float* products, bool accumulate) {
  constexpr int W = kWidth<float>, kRow = 3 - Down, kCol = 3 - Across;
  const int64_t channels = a.p.in_channels, lanes = smaller(W, channels - c);
  const int64_t width = a.p.kernel_w, all = a.p.kernel_h * width;
  V taps[Down * Across];
  transform_2d<3 + Down, 3 + Across, Down, Across>(
      [](const auto& in, auto& out) __attribute__((always_inline)) { output_transform(in, out); },
      [&](int r, int s) __attribute__((always_inline)) {
        return load(products + ((r + kRow) * kSide + s + kCol) * kGradStride);
      },
      [&](int r, int s, V v) __attribute__((always_inline)) { taps[r * Across + s] = v; });
  if (a.layout == Layout::nhwc) {
    float* to = a.grad_weight + (k * all + first) * channels + c;
    for (int r = 0; r < Down; ++r)
      for (int s = 0; s < Across; ++s) {
        float* tap = to + (r * width + s) * channels;
        V v = taps[r * Across + s];
        if (accumulate) v += load_up_to(tap, lanes);
        store_up_to(tap, v, lanes);
      }
    return;
  }
  float* to = a.grad_weight + (k * channels + c) * all + first;
  if (W >= 9 && all == 9) {
    if constexpr (W >= 9 && Down * Across == 9) {
      V rows[W] = {};
      for (int tap = 0; tap < 9; ++tap) rows[tap] = taps[tap];
      transpose<float>(rows);
      for (int64_t lane = 0; lane < lanes; ++lane, to += 9)
        store_partial(to, accumulate ? rows[lane] + load_partial(to, 9) : rows[lane], 9);
    }
    return;
  }
  float buffer[Down * Across * W];
  for (int tap = 0; tap < Down * Across; ++tap) store(buffer + tap * W, taps[tap]);
  for (int64_t lane = 0; lane < lanes; ++lane, to += all)
    for (int r = 0; r < Down; ++r)
      for (int s = 0; s < Across; ++s) {
        float* tap = to + r * width + s;
        *tap = buffer[(r * Across + s) * W + lane] + (accumulate ? *tap : 0);
      }
}

void bias_gradient(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  if (a.layout == Layout::nchw)
    conv2d_bias_gradient(p, a.grad_output, a.grad_bias, par);
  else
    column_sums<float>(a.grad_output, p.batch * p.out_h * p.out_w, p.out_channels, a.grad_bias, par);
}

// Output channels [k, k + rows) by kGradPanel input channels from c on, `cols` of which count, to m:
// [point][row][kGradPanel]. Up to half a panel is multiplied in tiles half as wide and twice as high.
void multiply_tiles(const TransformedTiles& d, const TransformedTiles& v, int64_t k, int64_t rows, int64_t c,
                    int64_t cols, float* m, bool accumulate) {
  constexpr int kHalf = kGradVectors / 2;
  const bool narrow = cols <= kHalf * kWidth<float>;
  const int64_t parts = ceil_div(rows, narrow ? 2 * kGradRows : kGradRows);
  for (int64_t point = 0; point < kPoints; ++point) {
    const float *from_d = d.at(k) + point * d.point_stride, *from_v = v.at(c) + point * v.point_stride;
    const int64_t tiles = v.tiles_at(point / kSide, point % kSide), lines = tiles * kLine;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t row = part * rows / parts, count = (part + 1) * rows / parts - row;
      // The operands of the next point have four lines a tile each.
      const float* next =
          part < 4 ? from_v + v.point_stride + part * lines : from_d + d.point_stride + (part - 4) * lines;
      float* to = m + point * kGradStride + row * kGradPanel;
      if (narrow)
        gradient_rows<kHalf>(count, tiles, from_d + row, from_v, to, next, accumulate);
      else
        gradient_rows<kGradVectors>(count, tiles, from_d + row, from_v, to, next, accumulate);
    }
  }
}

void store_gradients(const Conv2dBackwardWeight<float>& a, const Piece& down, const Piece& across, int64_t k,
                     int64_t rows, int64_t c, const float* m, bool accumulate) {
  const auto store = down.taps == 3 ? (across.taps == 3 ? store_gradient<3, 3> : store_gradient<3, 2>)
                                    : (across.taps == 3 ? store_gradient<2, 3> : store_gradient<2, 2>);
  const int64_t first = down.first * a.p.kernel_w + across.first;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < smaller(kGradPanel, a.p.in_channels - c); col += kWidth<float>)
      store(a, k + row, c + col, first, m + row * kGradPanel + col, accumulate);
}

void transform_input(const Conv2dBackwardWeight<float>& a, const TiledImages& x, int64_t row, int64_t rows,
                     int64_t c, const TransformedTiles& v, float* buffer) {
  transform_tiles<Cells::inputs>(x, a.input, a.p.pad_top, a.p.pad_left, row, rows, c, v, buffer, by_input);
}

void transform_grad_output(const Conv2dBackwardWeight<float>& a, const TiledImages& y, int64_t row, int64_t rows,
                           int64_t c, const TransformedTiles& d, float* buffer) {
  transform_tiles<Cells::grad_outputs>(y, a.grad_output, 0, 0, row, rows, c, d, buffer, by_filter);
}

constexpr int64_t kFewTiles = 32;  // in a block whose operands and products stay in the L2 cache
constexpr int64_t kFewBlocks = 8;  // that share products

// Up to four pairs of chunks: all products of one chunk with another and their operands, for a small block of
// tiles, fit in the L2 cache. Items are groups of blocks by pairs of chunks, each with gradients of its own, added
// up at the end. To transform a chunk anew for every pair takes less time than to fetch it from beyond the cache.
void few_channels(const Conv2dBackwardWeight<float>& a, const TiledImages& x, const TiledImages& y,
                  const Parallel& par) {
  constexpr int64_t W = kWidth<float>, kMost = kChunk / kGradPanel;
  const Piece whole = {0, 3};
  const Blocks blocks(y, kFewTiles);
  const Parts groups = split_evenly(blocks.count(), kFewBlocks, 1);
  const int64_t size = TransformedTiles::elements(blocks.most_tiles(), 1), weights = y.channels * x.channels * 9;
  const int64_t pairs = x.chunks() * y.chunks();
  float* partial = groups.count == 1 ? a.grad_weight : scratch_floats(Scratch::shared, groups.count * weights);
  parallel_for(par, groups.count * pairs, 1, [&](int64_t begin, int64_t end) {
    float* memory = scratch_floats(Scratch::local, 2 * size + kMost * kPoints * kGradStride);
    float* buffer = scratch_floats(Scratch::extra, row_buffer(blocks));
    float* m = memory + 2 * size;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t group = item / pairs, pair = item % pairs;
      const int64_t c0 = pair % x.chunks() * kChunk, k0 = pair / x.chunks() * kChunk;
      const int64_t cols = smaller(kChunk, x.channels - c0), rows = smaller(kChunk, y.channels - k0);
      Conv2dBackwardWeight<float> own = a;
      own.grad_weight = partial + group * weights;
      const int64_t first = group * groups.size, last = smaller(first + groups.size, blocks.count());
      for (int64_t b = first; b < last; ++b) {
        const Block block = blocks.at(b);
        const TransformedTiles v(memory, block, whole, whole, c0), d(memory + size, block, whole, whole, k0);
        for (int64_t c = c0; c < c0 + cols; c += W) transform_input(a, x, block.row, block.rows, c, v, buffer);
        for (int64_t k = k0; k < k0 + rows; k += W)
          transform_grad_output(a, y, block.row, block.rows, k, d, buffer);
        for (int64_t c = 0; c < cols; c += kGradPanel)
          multiply_tiles(d, v, k0, rows, c0 + c, cols - c, m + c / kGradPanel * kPoints * kGradStride, b > first);
      }
      for (int64_t c = 0; c < cols; c += kGradPanel)
        store_gradients(own, whole, whole, k0, rows, c0 + c, m + c / kGradPanel * kPoints * kGradStride, false);
    }
  });
  if (groups.count == 1) return;
  parallel_for(par, ceil_div(weights, kMaxChain), grain_for(groups.count * kMaxChain),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin * kMaxChain; i < smaller(end * kMaxChain, weights); i += W) {
                   const int64_t lanes = weights - i;
                   V sum = load_up_to(partial + i, lanes);
                   for (int64_t group = 1; group < groups.count; ++group)
                     sum += load_up_to(partial + group * weights + i, lanes);
                   store_up_to(a.grad_weight + i, sum, lanes);
                 }
               });
}

void backward_weight(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  constexpr int64_t W = kWidth<float>;
  const Conv2dProblem& p = a.p;
  if (a.grad_bias) bias_gradient(a, par);
  const TiledImages x = images(a.layout, p.batch, p.in_channels, p.in_h, p.in_w, p.out_h, p.out_w);
  const TiledImages y = images(a.layout, p.batch, p.out_channels, p.out_h, p.out_w, p.out_h, p.out_w);
  const Pieces kernel = {p.kernel_h, p.kernel_w};
  if (x.chunks() * y.chunks() <= 4 && kernel.count() == 1) return few_channels(a, x, y, par);
  const int64_t tile_bytes = kPoints * (x.chunks() + y.chunks()) * kChunk * kBytes;
  const Blocks blocks(y, larger(1, smaller(kBlockBytes / tile_bytes, kBlockTiles)));
  const int64_t x_groups = ceil_div(x.channels, W), y_groups = ceil_div(y.channels, W);
  const int64_t panels = ceil_div(x.channels, kGradPanel);
  const int64_t most = blocks.most_tiles();
  float* inputs = scratch_floats(Scratch::shared, TransformedTiles::elements(most, x.chunks()));
  float* gradients = scratch_floats(Scratch::shared2, TransformedTiles::elements(most, y.chunks()));
  // For every block and every piece of the kernel; the gradients to the block's outputs are transformed for the
  // first piece and the same for all.
  for (int64_t i = 0; i < blocks.count() * kernel.count(); ++i) {
    const int64_t piece = i % kernel.count();
    const Block block = blocks.at(i / kernel.count());
    const Piece down = kernel.down_at(piece), across = kernel.across_at(piece), whole = {0, 3};
    const TransformedTiles v(inputs, block, down, across), d(gradients, block, whole, whole);
    const int64_t groups = x_groups + (piece == 0 ? y_groups : 0);
    parallel_for(par, groups * block.rows, 1, [&](int64_t begin, int64_t end) {
      float* buffer = scratch_floats(Scratch::extra, row_buffer(blocks));
      for (int64_t item = begin; item < end; ++item) {
        const int64_t row = block.row + item / groups, group = item % groups;
        if (group < x_groups)
          transform_input(a, x, row, 1, group * W, v, buffer);
        else
          transform_grad_output(a, y, row, 1, (group - x_groups) * W, d, buffer);
      }
    });
    // An item: kChunk output channels by a panel of input channels.
    parallel_for(par, y.chunks() * panels, 1, [&](int64_t begin, int64_t end) {
      float* m = scratch_floats(Scratch::local, kPoints * kGradStride);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t k = item / panels * kChunk, c = item % panels * kGradPanel;
        const int64_t rows = smaller(kChunk, y.channels - k);
        multiply_tiles(d, v, k, rows, c, x.channels - c, m, false);
        store_gradients(a, down, across, k, rows, c, m, i >= kernel.count());
      }
    });
  }
}

}  // namespace
}  // namespace cisdl
