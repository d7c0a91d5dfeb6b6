// Convolution as a matrix product whose right operand is never written out: "packed_gemm".
//
//   y[k, pixel] = b[k] + sum_tap w[k, tap] patch[tap, pixel],      tap = (c, r, s), pixel = (n, y, x)
//
// Weights are packed once a call into tiles [tap][rows] for outer_tile. The pixels are split into items of some
// panels; a thread walks its items, packs the patches of a block of taps (whole channels where possible) into
// panels that stay in its L2 cache, and runs every tile of weights over them: a tile of weights stays in L1 while
// it meets the item's panels. The sums of the blocks are added up in the output in order, so the result does not
// depend on the number of threads.
//
// Packing a vector of patches costs about as much as four FMAs, the product one FMA for each output channel: this
// wins wherever there are more than a handful of output channels; below, see conv2d_direct.h. The gradient to the
// input is the same product over another view (conv2d_view.h).
#pragma once

#include "conv2d_patches.h"

namespace cisdl {
namespace {

constexpr int64_t kPanelBytes = 512 << 10;  // packed patches of an item: half of an L2 cache
constexpr int64_t kBlockTaps = 256;         // of a block: its panel fits in L1
constexpr int64_t kStreamTaps = 16;         // packed at a time over all panels of an item
static_assert(kBlockTaps <= kMaxChain);
constexpr int64_t kMaxItemPanels = 32;

template <class T>
struct ConvBlocking {
  int64_t taps, rows;   // sizes of the product within a group
  Parts blocks;         // of taps
  Parts tiles;          // of rows
  int64_t tile_stride;  // elements of a packed tile of one block
  int64_t pixels;       // batch * out_h * out_w
  int64_t item_pixels;
  int64_t pixel_items;  // items along the pixels
  int64_t row_items;    // items along the tiles of rows: more than one only for want of pixels

  ConvBlocking(const Conv2dProblem& p, int num_threads) {
    const int64_t channels = p.in_channels / p.groups, cells = p.kernel_h * p.kernel_w;
    taps = channels * cells;
    rows = p.out_channels / p.groups;
    blocks = split_evenly(cells <= kBlockTaps ? channels : taps,
                          cells <= kBlockTaps ? kBlockTaps / cells : kBlockTaps, 1);
    if (cells <= kBlockTaps) blocks.size *= cells;
    tiles = split_evenly(rows, kTileRows, 1);
    tile_stride = tiles.size * blocks.size + kPackSlack<T>;
    pixels = p.batch * p.out_h * p.out_w;

    const int64_t panels = ceil_div(pixels, kTileCols<T>);
    const int64_t panel_bytes = larger(1, blocks.size) * kTileCols<T> * static_cast<int64_t>(sizeof(T));
    const int64_t most = larger(1, smaller(kMaxItemPanels, kPanelBytes / panel_bytes));
    // Smaller items than fit in the cache where that fills the last round of items better.
    int64_t best = most;
    const auto rounds = [&](int64_t s) {
      return smaller(ceil_div(p.groups * ceil_div(panels, s), num_threads) * s, p.groups * panels);
    };
    for (int64_t size = most - 1; size >= ceil_div(most, 4); --size)
      if (rounds(size) * 33 < rounds(best) * 32) best = size;
    item_pixels = best * kTileCols<T>;
    pixel_items = ceil_div(pixels, item_pixels);
    row_items = larger(1, smaller(tiles.count, num_threads / larger(1, p.groups * pixel_items)));
  }

  int64_t tap_count(int64_t block) const { return larger(0, smaller(blocks.size, taps - block * blocks.size)); }
  int64_t tile_rows(int64_t tile) const { return smaller(tiles.size, rows - tile * tiles.size); }
};

// All weights: [group][block of taps][tile of rows], each tile [tap][rows].
template <class T>
const T* pack_weights(const Conv2dView<T>& g, const ConvBlocking<T>& b, const Parallel& par) {
  const int64_t tiles = g.p.groups * b.blocks.count * b.tiles.count;
  T* packed = static_cast<T*>(scratch(Scratch::shared, tiles * b.tile_stride * static_cast<int64_t>(sizeof(T))));
  parallel_for(par, tiles, grain_for(8 * b.tile_stride), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t tile = i % b.tiles.count, block = i / b.tiles.count % b.blocks.count;
      const int64_t group = i / b.tiles.count / b.blocks.count;
      pack_weight_tile<T>(g, g.weight + group * g.weight_group + tile * b.tiles.size * g.weight_row,
                          b.tile_rows(tile), block * b.blocks.size, b.tap_count(block),
                          packed + i * b.tile_stride);
    }
  });
  return packed;
}

// Writes a tile of results for a panel whose pixels are not one run of the output: `tile` is [rows][kTileCols].
template <class T>
void scatter_tile(const Conv2dView<T>& g, const T* tile, int64_t rows, int64_t pixel, int64_t cols, T* out,
                  const T* bias, bool accumulate, T least) {
  const Conv2dProblem& p = g.p;
  const int64_t plane = p.out_h * p.out_w;
  for (int64_t j = 0; j < cols;) {
    const int64_t n = (pixel + j) / plane, in_plane = (pixel + j) % plane;
    const int64_t y = in_plane / p.out_w, x = in_plane % p.out_w;
    const int64_t run = smaller(cols - j, g.plane_is_run() ? plane - in_plane : p.out_w - x);
    T* dst = out + n * g.out_image + y * g.out_y + x * g.out_x;
    for (int64_t i = 0; i < rows; ++i)
      store_strided<T>(dst + i * g.out_channel, g.out_x, tile + i * kTileCols<T> + j, run, bias ? bias[i] : T(0),
                       accumulate, least);
    j += run;
  }
}

// One item: output pixels [begin, end) of a group, tiles [first_tile, last_tile).
template <class T>
void implicit_gemm_item(const Conv2dView<T>& g, const ConvBlocking<T>& b, const T* packed_weight, int64_t group,
                        int64_t begin, int64_t end, int64_t first_tile, int64_t last_tile) {
  constexpr int64_t C = kTileCols<T>;
  const Conv2dProblem& p = g.p;
  const int64_t channels = p.in_channels / p.groups, cells = p.kernel_h * p.kernel_w, plane = p.out_h * p.out_w;
  const bool plane_is_run = g.plane_is_run();
  const int64_t panel_stride = b.blocks.size * C, panels = ceil_div(end - begin, C);
  T* patches = static_cast<T*>(scratch(Scratch::local, panels * panel_stride * static_cast<int64_t>(sizeof(T))));
  alignas(kVecBytes) T tile_buffer[(kTileRows + 1) * C];

  for (int64_t block = 0; block < b.blocks.count; ++block) {
    const int64_t first_tap = block * b.blocks.size, num_taps = b.tap_count(block);
    if (num_taps > 0) {
      const int64_t first_channel = first_tap / cells;
      const int64_t block_channels = ceil_div(first_tap + num_taps, cells) - first_channel;
      WindowShape shape(p, begin, end, block_channels);
      T* buffer = static_cast<T*>(scratch(Scratch::extra, shape.size<T>() * static_cast<int64_t>(sizeof(T))));
      const T* window = make_window(p, g.input, group * channels + first_channel, block_channels, shape, buffer);
      int64_t taps[kBlockTaps];
      for (int64_t i = 0; i < num_taps; ++i) {
        const int64_t tap = first_tap + i;
        taps[i] = shape.tap(p, tap / cells - first_channel, tap % cells / p.kernel_w, tap % p.kernel_w);
      }
      PanelPieces<T> pieces[kMaxItemPanels];
      for (int64_t j = 0; j < panels; ++j)
        pieces[j] = PanelPieces<T>(p, shape, begin + j * C, smaller(C, end - begin - j * C));
      // A few taps at a time over all panels: from a wide plane they then read a few streams, not one line each.
      for (int64_t i = 0; i < num_taps; i += kStreamTaps)
        for (int64_t j = 0; j < panels; ++j)
          pack_panel<T>(pieces[j], window, taps + i, smaller(kStreamTaps, num_taps - i),
                        patches + j * panel_stride + i * pieces[j].vectors * kWidth<T>);
    }
    const bool accumulate = block > 0;
    const T least = block == b.blocks.count - 1 ? g.least : T(kNoLeast);
    for (int64_t tile = first_tile; tile < last_tile; ++tile) {
      const int64_t rows = b.tile_rows(tile), k = group * b.rows + tile * b.tiles.size;
      const T* weight = packed_weight + ((group * b.blocks.count + block) * b.tiles.count + tile) * b.tile_stride;
      const T* bias = g.bias ? g.bias + k : nullptr;
      T* out = g.output + k * g.out_channel;
      for (int64_t j = 0; j < panels; ++j) {
        const int64_t pixel = begin + j * C, cols = smaller(C, end - pixel);
        const int64_t n = pixel / plane, in_plane = pixel % plane;
        if (plane_is_run && in_plane + cols <= plane) {
          const TileOutput<T> to{
              out + n * g.out_image + in_plane, g.out_channel, accumulate, bias, nullptr, least};
          run_tile<T>(rows, num_taps, weight, patches + j * panel_stride, to, cols);
        } else {
          const TileOutput<T> to{tile_buffer, C, false, nullptr, nullptr};
          run_tile<T>(rows, num_taps, weight, patches + j * panel_stride, to, cols);
          scatter_tile<T>(g, tile_buffer, rows, pixel, cols, out, bias, accumulate, least);
        }
      }
    }
  }
}

template <class T>
void implicit_gemm(const Conv2dView<T>& problem, const Parallel& par) {
  Conv2dView<T> g = problem;
  Conv2dProblem& p = g.p;
  if (p.batch * p.out_channels * p.out_h * p.out_w == 0) return;
  if (is_pointwise(p) && g.out_y == p.out_w * g.out_x) {
    take_plane_as_row(p);
    g.out_y = p.out_w * g.out_x;
  }
  const ConvBlocking<T> b(p, par.num_threads);
  const T* packed = pack_weights(g, b, par);
  const int64_t work = b.item_pixels * b.taps * b.rows / b.row_items;
  parallel_for(par, p.groups * b.pixel_items * b.row_items, grain_for(work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i % b.row_items, item = i / b.row_items % b.pixel_items;
      const int64_t group = i / b.row_items / b.pixel_items;
      const int64_t pixel = item * b.item_pixels;
      implicit_gemm_item<T>(g, b, packed, group, pixel, smaller(pixel + b.item_pixels, b.pixels),
                            b.tiles.count * part / b.row_items, b.tiles.count * (part + 1) / b.row_items);
    }
  });
}

template <class T>
void conv2d_packed_gemm_forward(const Conv2dForward<T>& args, const Parallel& par) {
  implicit_gemm<T>(forward_view(args), par);
}

template <class T>
void conv2d_packed_gemm_backward_input(const Conv2dBackwardInput<T>& args, const Parallel& par) {
  for_each_stride_class(args, par, [&](const Conv2dView<T>& view) { implicit_gemm<T>(view, par); });
}

}  // namespace
}  // namespace cisdl
