// 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3): four times fewer products than the definition has.
//
//   forward          y  = A^T [ sum_c (G w) . (B^T x) ] A           per tile of 4x4 outputs, from 6x6 inputs
//   backward_input   the same, of grad_output with the kernel turned around and channels swapped
//   backward_weight  dw = A^T [ sum_tiles (G dy) . (B^T x) ] A      F(3x3, 4x4) on the same six points
//
// The sums over channels (or tiles) are 36 matrix products, one per point, in register tiles: kTileRows tiles by
// 32 output channels (16 with AVX2), transformed inputs broadcast, transformed weights in the lanes.
//
// Two orders of work. With many tiles, all weights are transformed first; then every item, some rows of tiles that
// fit in the L2 cache, goes from its inputs to its outputs while the weights stream by. With few tiles (deep
// layers, small batches) the transformed weights would be the larger traffic: there the inputs are transformed
// first, and each panel of 32 output channels transforms its weights a part at a time, uses them at once, and
// writes nothing but its outputs.
//
// When it wins: from about 32 channels on both sides on. Limits: float32 only; its rounding error is a few
// times that of a direct sum (sums over channels are chains of at most kChunk, so it does not grow with them). A
// size that is not a multiple of 4 pays for whole tiles.
#include "column_sums.h"
#include "conv2d_bias_gradient.h"
#include "winograd_tiles.h"

namespace cisdl {
namespace {

constexpr int64_t kPanel = kTileCols<float>;  // output channels of a panel
constexpr int64_t kBytes = sizeof(float);

// The weights of a convolution by strides, so that both directions read the same tensor.
struct Weights {
  const float* data;      // tap (0, 0) of the first output and input channel
  int64_t out, in, r, s;  // strides; r and s are negative where the kernel is turned around
  int64_t outs, ins;      // how many channels
};

struct Convolution {
  TiledImages x, y;
  int64_t pad_top, pad_left;
  const float* input;
  Weights w;
  const float* bias;
  float* output;
};

TiledImages images(Layout layout, int64_t batch, int64_t channels, int64_t h, int64_t w, int64_t out_h,
                   int64_t out_w) {
  return {layout, batch, channels, h, w, ceil_div(out_h, kOutTile), ceil_div(out_w, kOutTile)};
}

// ------------------------------------------------------------------------------------------- the products

// M[tile][column] for MR tiles by kPanel columns at one point and one chunk: v is [tile][kChunk], u is
// [channel][kPanel]. Every chunk is summed from zero before it is added to `m`: the transform's cancellation
// magnifies what a longer chain would round off.
template <int MR>
CISDL_NOINLINE void product_tile(int64_t channels, const float* __restrict v, const float* __restrict u,
                                 float* __restrict m, int64_t ldm, bool accumulate) {
  constexpr int W = kWidth<float>;
  V acc[MR][kTileVectors];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < kTileVectors; ++j) acc[i][j] = zero<float>();
  for (int64_t c = 0; c < channels; ++c, u += kPanel) {
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
      float* to = m + i * ldm + j * W;
      store(to, accumulate ? acc[i][j] + load(to) : acc[i][j]);
    }
}

template <int MR = kTileRows>
CISDL_INLINE void product_rows(int64_t rows, int64_t channels, const float* v, const float* u, float* m,
                               int64_t ldm, bool accumulate) {
  if (rows == MR) {
    product_tile<MR>(channels, v, u, m, ldm, accumulate);
  } else if constexpr (MR > 1) {
    product_rows<MR - 1>(rows, channels, v, u, m, ldm, accumulate);
  }
}

// Products of one panel of output channels: [point][tile][kPanel].
struct Products {
  float* data;
  int64_t point_stride;
  Products(float* data, int64_t tiles) : data(data), point_stride(stride_of(tiles)) {}
  static int64_t stride_of(int64_t tiles) { return tiles * kPanel + 48; }
  static int64_t elements(int64_t tiles) { return kPoints * stride_of(tiles); }
};

// Channels [c, c + count) of `v`, at most a chunk, against the panel u, [point][count][kPanel]; adds to `m` after
// the first chunk.
void multiply(const TransformedTiles& v, int64_t c, int64_t count, const float* u, const Products& m) {
  const Parts panels = split_evenly(v.tiles, kTileRows, 1);
  for (int64_t point = 0; point < kPoints; ++point)
    for (int64_t t = 0; t < v.tiles; t += panels.size)
      product_rows(smaller(panels.size, v.tiles - t), count, v.at(t, c) + point * v.point_stride,
                   u + point * count * kPanel, m.data + point * m.point_stride + t * kPanel, kPanel, c > 0);
}

// ----------------------------------------------------------------------------------- transformed weights

// Panel [k, k + kPanel) of channels [c, c + count), as [point][channel][kPanel].
CISDL_NOINLINE void transform_weights(const Weights& w, int64_t k, int64_t c, int64_t count, float* u) {
  constexpr int64_t W = kWidth<float>;
  alignas(kVecBytes) float taps[9 * W];
  for (int64_t k0 = k; k0 < k + kPanel; k0 += W) {
    const int64_t lanes = larger(0, smaller(W, w.outs - k0));
    for (int64_t i = 0; i < count; ++i) {
      const float* from = w.data + k0 * w.out + (c + i) * w.in;
      for (int64_t r = 0; r < 3; ++r)
        for (int64_t s = 0; s < 3; ++s)
          for (int64_t lane = 0; lane < W; ++lane)
            taps[(r * 3 + s) * W + lane] = lane < lanes ? from[lane * w.out + r * w.r + s * w.s] : 0;
      float* to = u + i * kPanel + (k0 - k);
      V columns[kInTile][3];
#pragma GCC unroll 3
      for (int s = 0; s < 3; ++s) {
        const V g[3] = {load(taps + s * W), load(taps + (3 + s) * W), load(taps + (6 + s) * W)};
        V t[kInTile];
        filter_transform(g, t);
#pragma GCC unroll 6
        for (int r = 0; r < kInTile; ++r) columns[r][s] = t[r];
      }
#pragma GCC unroll 6
      for (int r = 0; r < kInTile; ++r) {
        V t[kInTile];
        filter_transform(columns[r], t);
#pragma GCC unroll 6
        for (int s = 0; s < kInTile; ++s) store(to + (r * kInTile + s) * count * kPanel, t[s]);
      }
    }
  }
}

// ----------------------------------------------------------------------------------- forward, both orders

const auto by_input = [](const V (&d)[kInTile], V (&out)[kInTile])
                          __attribute__((always_inline)) { input_transform(d, out); };

int64_t row_buffer(const TiledImages& x, const TiledImages& y) {
  const int64_t cols = (x.tile_cols - 1) * kOutTile + kInTile;
  return larger(kInTile * cols, kOutTile * (y.w + kWidth<float>)) * kWidth<float>;
}

constexpr int64_t kItemBytes = 768 << 10;   // of transformed inputs in an item
constexpr int64_t kFewTileBytes = 6 << 20;  // of all transformed inputs, up to which they go first

void transform_inputs(const Convolution& f, int64_t row, int64_t rows, const TransformedTiles& v, int64_t tile,
                      int64_t c, float* buffer) {
  transform_tiles<kInTile>(f.x, f.input, f.pad_top, f.pad_left, row, rows, c, v, tile, buffer, by_input);
}

void finish(const Convolution& f, int64_t row, int64_t rows, int64_t k, const Products& m, float* buffer) {
  for (int64_t k0 = k; k0 < smaller(k + kPanel, f.y.channels); k0 += kWidth<float>)
    untransform_tiles(f.y, f.output, f.bias, row, rows, k0, m.data + (k0 - k), m.point_stride, kPanel, buffer);
}

void inputs_first(const Convolution& f, const Parallel& par) {
  constexpr int64_t W = kWidth<float>;
  const int64_t tiles = f.x.tiles(), blocks = ceil_div(f.x.channels, W);
  const TransformedTiles v(
      static_cast<float*>(scratch(Scratch::shared, TransformedTiles::elements(tiles, f.x.chunks()) * kBytes)),
      tiles, f.x.chunks());
  parallel_for(par, f.x.rows() * blocks, 1, [&](int64_t begin, int64_t end) {
    float* buffer = static_cast<float*>(scratch(Scratch::extra, row_buffer(f.x, f.y) * kBytes));
    for (int64_t i = begin; i < end; ++i)
      transform_inputs(f, i / blocks, 1, v, i / blocks * f.x.tile_cols, i % blocks * W, buffer);
  });
  parallel_for(par, ceil_div(f.y.channels, kPanel), 1, [&](int64_t begin, int64_t end) {
    const int64_t u_size = kPoints * smaller(kChunk, f.x.channels) * kPanel;
    float* u = static_cast<float*>(scratch(Scratch::local, (u_size + Products::elements(tiles)) * kBytes));
    float* buffer = static_cast<float*>(scratch(Scratch::extra, row_buffer(f.x, f.y) * kBytes));
    const Products m(u + u_size, tiles);
    for (int64_t k = begin * kPanel; k < smaller(end * kPanel, f.y.channels); k += kPanel) {
      for (int64_t c = 0; c < f.x.channels; c += kChunk) {
        const int64_t count = smaller(kChunk, f.x.channels - c);
        transform_weights(f.w, k, c, count, u);
        multiply(v, c, count, u, m);
      }
      finish(f, 0, f.y.rows(), k, m, buffer);
    }
  });
}

void weights_first(const Convolution& f, const Parallel& par) {
  constexpr int64_t W = kWidth<float>;
  const int64_t channels = f.x.channels, panels = ceil_div(f.y.channels, kPanel);
  const Parts parts = Parts{ceil_div(channels, kChunk), kChunk};
  float* u = static_cast<float*>(scratch(Scratch::shared, panels * kPoints * channels * kPanel * kBytes));
  const auto weights_of = [&](int64_t panel, int64_t c) { return u + (panel * channels + c) * kPoints * kPanel; };
  parallel_for(par, panels * parts.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t panel = i / parts.count, c = i % parts.count * parts.size;
      transform_weights(f.w, panel * kPanel, c, smaller(parts.size, channels - c), weights_of(panel, c));
    }
  });

  const int64_t row_bytes = kPoints * f.x.tile_cols * f.x.chunks() * kChunk * kBytes;
  const Parts items = split_evenly(f.x.rows(), larger(1, kItemBytes / row_bytes), 1);
  const int64_t tiles = items.size * f.x.tile_cols;
  parallel_for(par, items.count, 1, [&](int64_t begin, int64_t end) {
    const int64_t v_size = TransformedTiles::elements(tiles, f.x.chunks());
    float* memory = static_cast<float*>(scratch(Scratch::local, (v_size + Products::elements(tiles)) * kBytes));
    float* buffer = static_cast<float*>(scratch(Scratch::extra, row_buffer(f.x, f.y) * kBytes));
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item * items.size, rows = smaller(items.size, f.x.rows() - row);
      const TransformedTiles v(memory, rows * f.x.tile_cols, f.x.chunks());
      const Products m(memory + v_size, v.tiles);
      for (int64_t c = 0; c < channels; c += W) transform_inputs(f, row, rows, v, 0, c, buffer);
      for (int64_t panel = 0; panel < panels; ++panel) {
        for (int64_t c = 0; c < channels; c += parts.size)
          multiply(v, c, smaller(parts.size, channels - c), weights_of(panel, c), m);
        finish(f, row, rows, panel * kPanel, m, buffer);
      }
    }
  });
}

void convolve(const Convolution& f, const Parallel& par) {
  constexpr int64_t kEnoughPanels = 4;  // to share out
  const int64_t bytes = TransformedTiles::elements(f.x.tiles(), f.x.chunks()) * kBytes;
  if (bytes <= kFewTileBytes && ceil_div(f.y.channels, kPanel) >= kEnoughPanels)
    inputs_first(f, par);
  else
    weights_first(f, par);
}

Weights weights_of(const Conv2dProblem& p, Layout layout, const float* data) {
  if (layout == Layout::nchw) return {data, p.in_channels * 9, 9, 3, 1, p.out_channels, p.in_channels};
  return {data, 9 * p.in_channels, 1, 3 * p.in_channels, p.in_channels, p.out_channels, p.in_channels};
}

void forward(const Conv2dForward<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  convolve({images(a.layout, p.batch, p.in_channels, p.in_h, p.in_w, p.out_h, p.out_w),
            images(a.layout, p.batch, p.out_channels, p.out_h, p.out_w, p.out_h, p.out_w), p.pad_top, p.pad_left,
            a.input, weights_of(p, a.layout, a.weight), a.bias, a.output},
           par);
}

void backward_input(const Conv2dBackwardInput<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  const Weights w = weights_of(p, a.layout, a.weight);
  convolve({images(a.layout, p.batch, p.out_channels, p.out_h, p.out_w, p.in_h, p.in_w),
            images(a.layout, p.batch, p.in_channels, p.in_h, p.in_w, p.in_h, p.in_w),
            2 - p.pad_top,
            2 - p.pad_left,
            a.grad_output,
            {w.data + 2 * w.r + 2 * w.s, w.in, w.out, -w.r, -w.s, w.ins, w.outs},
            nullptr,
            a.grad_input},
           par);
}

// ----------------------------------------------------------------------------- gradient of the weight

constexpr int64_t kBlockBytes = 6 << 20;  // of transformed inputs and gradients that are multiplied together
constexpr int kGradRows = 4;
constexpr int kGradVectors = kNumRegisters == 32 ? 4 : 2;
constexpr int64_t kGradPanel = kGradVectors * kWidth<float>;
static_assert(kChunk % kGradRows == 0 && kChunk % kGradPanel == 0);

// m[row][column] = sum over tiles of d[tile][row] v[tile][column]; rows of both are kChunk apart.
CISDL_NOINLINE void gradient_tile(int64_t tiles, const float* __restrict d, const float* __restrict v,
                                  float* __restrict m) {
  constexpr int W = kWidth<float>;
  V acc[kGradRows][kGradVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kGradRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kGradVectors; ++j) acc[i][j] = zero<float>();
  for (int64_t t = 0; t < tiles; ++t, d += kChunk, v += kChunk) {
    V b[kGradVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kGradVectors; ++j) b[j] = load(v + j * W);
#pragma GCC unroll 8
    for (int i = 0; i < kGradRows; ++i) {
      const V a = set1(d[i]);
#pragma GCC unroll 4
      for (int j = 0; j < kGradVectors; ++j) acc[i][j] += a * b[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kGradRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kGradVectors; ++j) store(m + i * kGradPanel + j * W, acc[i][j]);
}

// The 3x3 gradients of output channel k and the W input channels from c on, out of their 36 products.
CISDL_NOINLINE void store_gradient(const Conv2dBackwardWeight<float>& a, int64_t k, int64_t c,
                                   const float* products, int64_t point_stride, bool accumulate) {
  constexpr int W = kWidth<float>;
  const int64_t channels = a.p.in_channels, lanes = smaller(W, channels - c);
  V taps[9];
  transform_2d_down<3>(
      [&](int r, int s)
          __attribute__((always_inline)) { return load(products + (r * kInTile + s) * point_stride); },
      taps);
  if (a.layout == Layout::nhwc) {
    float* to = a.grad_weight + k * 9 * channels + c;
    for (int tap = 0; tap < 9; ++tap, to += channels) {
      if (accumulate) taps[tap] += lanes == W ? load(to) : load_partial(to, lanes);
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

void backward_weight(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  constexpr int64_t W = kWidth<float>;
  const Conv2dProblem& p = a.p;
  if (a.grad_bias && a.layout == Layout::nchw) conv2d_bias_gradient(p, a.grad_output, a.grad_bias, par);
  if (a.grad_bias && a.layout == Layout::nhwc)
    column_sums<float>(a.grad_output, p.batch * p.out_h * p.out_w, p.out_channels, a.grad_bias, par);
  const TiledImages x = images(a.layout, p.batch, p.in_channels, p.in_h, p.in_w, p.out_h, p.out_w);
  const TiledImages y = images(a.layout, p.batch, p.out_channels, p.out_h, p.out_w, p.out_h, p.out_w);
  const auto by_filter = [](const V(&g)[kOutTile], V(&out)[kInTile])
                             __attribute__((always_inline)) { filter_transform(g, out); };
  const int64_t row_bytes = kPoints * x.tile_cols * (x.chunks() + y.chunks()) * kChunk * kBytes;
  const int64_t most = smaller(kBlockBytes / row_bytes, kMaxChain / x.tile_cols);
  const Parts blocks = split_evenly(x.rows(), larger(1, most), 1);
  const int64_t x_parts = ceil_div(x.channels, W), y_parts = ceil_div(y.channels, W);
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t row = block * blocks.size, rows = smaller(blocks.size, x.rows() - row);
    const int64_t tiles = rows * x.tile_cols;
    const auto memory = [&](Scratch slot, int64_t chunks) {
      return TransformedTiles(
          static_cast<float*>(scratch(slot, TransformedTiles::elements(tiles, chunks) * kBytes)), tiles, chunks);
    };
    const TransformedTiles v = memory(Scratch::shared, x.chunks()), d = memory(Scratch::shared2, y.chunks());
    parallel_for(par, x_parts + y_parts, 1, [&](int64_t begin, int64_t end) {
      float* buffer = static_cast<float*>(scratch(Scratch::extra, row_buffer(x, y) * kBytes));
      for (int64_t i = begin; i < end; ++i) {
        if (i < x_parts)
          transform_tiles<kInTile>(x, a.input, p.pad_top, p.pad_left, row, rows, i * W, v, 0, buffer, by_input);
        else
          transform_tiles<kOutTile>(y, a.grad_output, 0, 0, row, rows, (i - x_parts) * W, d, 0, buffer, by_filter);
      }
    });
    // An item: kChunk output channels by a panel of input channels.
    const int64_t panels = ceil_div(x.channels, kGradPanel);
    parallel_for(par, y.chunks() * panels, 1, [&](int64_t begin, int64_t end) {
      constexpr int64_t kPointStride = kChunk * kGradPanel + 48;
      float* m = static_cast<float*>(scratch(Scratch::local, kPoints * kPointStride * kBytes));
      for (int64_t item = begin; item < end; ++item) {
        const int64_t k0 = item / panels * kChunk, c0 = item % panels * kGradPanel;
        const int64_t count = smaller(kChunk, y.channels - k0);
        for (int64_t point = 0; point < kPoints; ++point)
          for (int64_t k = 0; k < count; k += kGradRows)
            gradient_tile(tiles, d.at(0, k0 + k) + point * d.point_stride, v.at(0, c0) + point * v.point_stride,
                          m + point * kPointStride + k * kGradPanel);
        for (int64_t k = 0; k < count; ++k)
          for (int64_t c = c0; c < smaller(c0 + kGradPanel, x.channels); c += W)
            store_gradient(a, k0 + k, c, m + k * kGradPanel + (c - c0), kPointStride, block > 0);
      }
    });
  }
}

constexpr WinogradKernels kKernels = {forward, backward_input, backward_weight};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(winograd, WinogradKernels) { return &cisdl::kKernels; }
