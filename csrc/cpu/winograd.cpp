// 3x3 and 5x5 convolutions of stride 1 by Winograd's F(4x4, 3x3): four (3.3) times fewer products than the
// definition.
//
//   forward          y  = A^T [ sum_c (G w) . (B^T x) ] A           per tile of 4x4 outputs, from 6x6 inputs
//   backward_input   the same, of grad_output with the kernel turned around and channels swapped
//   backward_weight  dw = A^T [ sum_tiles (G dy) . (B^T x) ] A      F(3x3, 4x4) on the same six points
//
// The sums over channels (or tiles) are 36 matrix products, one per point, in register tiles: kTileRows tiles by
// 32 output channels (16 with AVX2), transformed inputs broadcast, transformed weights in the lanes.
//
// Two orders of work. Where all transformed weights fit in the L2 cache and there are many tiles, they are made
// once; then every item, a block of some 28 tiles, goes from its inputs to its outputs without leaving the cache.
// With more channels, transformed weights are the larger traffic: transforming them anew is faster than to fetch
// them from beyond the cache. There the inputs of a larger block are transformed first, and each panel of 32
// output channels transforms its weights a chunk at a time, uses them at once, and writes nothing but its outputs.
//
// A 5x5 kernel is four pieces, of 3x3, 3x2, 2x3 and 2x2 taps: they are like further channels, each with its own
// transform of the inputs.
//
// When it wins: from 16 channels on both sides on, 32 with 5x5. Limits: float32 only; its rounding error is
// a few times that of a direct sum (sums over channels are chains of at most kChunk, so it does not grow with
// them).
#include "winograd_products.h"
#include "winograd_weight_gradient.h"

namespace cisdl {
namespace {

struct Convolution {
  TiledImages x, y;
  int64_t pad_top, pad_left;
  const float* input;
  Weights w;
  const float* bias;
  float* output;
  float least = kNoLeast;

  // The inputs of a block that meet a piece of the kernel.
  TransformedTiles tiles(float* memory, const Block& block, int64_t piece) const {
    return {memory, block, w.kernel.down_at(piece), w.kernel.across_at(piece)};
  }
};

constexpr int64_t kStoredWeightBytes = 2560 << 10;  // of all transformed weights, up to which they are made once
constexpr int64_t kItemTiles = 32, kItemBytes = 512 << 10;  // an item: so many tiles, or more while they are small
constexpr int64_t kPanelTiles = (640 << 10) / (kPoints * kPanel * kBytes);  // a block of them otherwise

void transform_inputs(const Convolution& f, int64_t row, int64_t rows, const TransformedTiles& v, int64_t c,
                      float* buffer) {
  transform_tiles<Cells::inputs>(f.x, f.input, f.pad_top, f.pad_left, row, rows, c, v, buffer, by_input);
}

void finish(const Convolution& f, int64_t k, const Products& m, float* buffer) {
  for (int64_t k0 = k; k0 < smaller(k + kPanel, f.y.channels); k0 += kWidth<float>)
    untransform_tiles(f.y, f.output, f.bias, f.least, k0, m, k0 - k, buffer);
}

// The weights stored: shared out by blocks.
void by_blocks(const Convolution& f, const Parallel& par) {
  const int64_t channels = f.x.channels, chunks = f.x.chunks(), panels = ceil_div(f.y.channels, kPanel);
  const int64_t pieces = f.w.kernel.count(), parts = pieces * chunks;  // of a panel's weights
  float* u = scratch_floats(Scratch::shared, panels * parts * kWeightsSize);
  parallel_for(par, panels * parts, 1, [&](int64_t begin, int64_t end) {
    float* buffer = scratch_floats(Scratch::extra, weight_buffer(f.w));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t k = i / parts * kPanel, piece = i % parts / chunks, c = i % chunks * kChunk;
      transform_weights(f.w, piece, k, c, smaller(kChunk, channels - c), u + i * kWeightsSize, buffer);
    }
  });

  const int64_t tile_bytes = kPoints * (parts * kChunk + kPanel) * kBytes;
  const Blocks blocks(f.y, larger(kItemTiles, kItemBytes / tile_bytes));
  const int64_t most = blocks.most_tiles(), v_size = TransformedTiles::elements(most, chunks);
  parallel_for(par, blocks.count(), 1, [&](int64_t begin, int64_t end) {
    float* memory = scratch_floats(Scratch::local, pieces * v_size + Products::elements(most, kPanel));
    float* buffer = scratch_floats(Scratch::extra, row_buffer(blocks));
    for (int64_t i = begin; i < end; ++i) {
      const Block block = blocks.at(i);
      for (int64_t piece = 0; piece < pieces; ++piece)
        for (int64_t c = 0; c < channels; c += kWidth<float>)
          transform_inputs(f, block.row, block.rows, f.tiles(memory + piece * v_size, block, piece), c, buffer);
      const Products m(memory + pieces * v_size, block, kPanel);
      for (int64_t panel = 0; panel < panels; ++panel) {
        for (int64_t part = 0; part < parts; ++part) {
          const int64_t piece = part / chunks, c = part % chunks * kChunk;
          multiply(f.tiles(memory + piece * v_size, block, piece), c, smaller(kChunk, channels - c),
                   u + (panel * parts + part) * kWeightsSize, m, part > 0);
        }
        finish(f, panel * kPanel, m, buffer);
      }
    }
  });
}

// The weights transformed where they are used: block by block, shared out by rows, then by panels.
void by_panels(const Convolution& f, const Parallel& par) {
  constexpr int64_t W = kWidth<float>;
  const int64_t channels = f.x.channels, groups = ceil_div(channels, W), pieces = f.w.kernel.count();
  const Blocks blocks(f.y, kPanelTiles);
  const int64_t most = blocks.most_tiles(), v_size = TransformedTiles::elements(most, f.x.chunks());
  float* memory = scratch_floats(Scratch::shared, pieces * v_size);
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const Block block = blocks.at(b);
    parallel_for(par, block.rows * pieces * groups, 1, [&](int64_t begin, int64_t end) {
      float* buffer = scratch_floats(Scratch::extra, row_buffer(blocks));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = block.row + i / groups / pieces, piece = i / groups % pieces, c = i % groups * W;
        transform_inputs(f, row, 1, f.tiles(memory + piece * v_size, block, piece), c, buffer);
      }
    });
    parallel_for(par, ceil_div(f.y.channels, kPanel), 1, [&](int64_t begin, int64_t end) {
      float* u = scratch_floats(Scratch::local, kWeightsSize + Products::elements(most, kPanel));
      float* buffer = scratch_floats(Scratch::extra, larger(weight_buffer(f.w), row_buffer(blocks)));
      const Products m(u + kWeightsSize, block, kPanel);
      for (int64_t k = begin * kPanel; k < smaller(end * kPanel, f.y.channels); k += kPanel) {
        for (int64_t piece = 0; piece < pieces; ++piece) {
          const TransformedTiles v = f.tiles(memory + piece * v_size, block, piece);
          for (int64_t c = 0; c < channels; c += kChunk) {
            const int64_t count = smaller(kChunk, channels - c);
            transform_weights(f.w, piece, k, c, count, u, buffer);
            multiply(v, c, count, u, m, piece + c > 0);
          }
        }
        finish(f, k, m, buffer);
      }
    });
  }
}

// Few tiles use every transformed weight only once: they need not be kept either.
void convolve(const Convolution& f, const Parallel& par) {
  const int64_t panels = ceil_div(f.y.channels, kPanel), parts = panels * f.w.kernel.count() * f.x.chunks();
  const bool fit = parts * kWeightsSize * kBytes <= kStoredWeightBytes;
  const bool few = f.y.rows() * f.y.across.tiles() <= kPanelTiles && panels > 1;
  fit && !few ? by_blocks(f, par) : by_panels(f, par);
}

void forward(const Conv2dForward<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  convolve({images(a.layout, p.batch, p.in_channels, p.in_h, p.in_w, p.out_h, p.out_w),
            images(a.layout, p.batch, p.out_channels, p.out_h, p.out_w, p.out_h, p.out_w), p.pad_top, p.pad_left,
            a.input, weights_of(p, a.layout, a.weight), a.bias, a.output, a.least},
           par);
}

void backward_input(const Conv2dBackwardInput<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  const Weights w = weights_of(p, a.layout, a.weight);
  convolve({images(a.layout, p.batch, p.out_channels, p.out_h, p.out_w, p.in_h, p.in_w),
            images(a.layout, p.batch, p.in_channels, p.in_h, p.in_w, p.in_h, p.in_w),
            p.kernel_h - 1 - p.pad_top,
            p.kernel_w - 1 - p.pad_left,
            a.grad_output,
            {w.data, w.kernel, w.in, w.out, w.tap, w.ins, w.outs, true},
            nullptr,
            a.grad_input},
           par);
}

constexpr WinogradKernels kKernels = {forward, backward_input, backward_weight};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(winograd, WinogradKernels) { return &cisdl::kKernels; }
