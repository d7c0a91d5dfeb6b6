// The gradient to the weight of a channels_last convolution, and to its bias.
//
//   dw[k, r, s, c] = sum over images and pixels (y, x) of dy[n, y, x, k] * in[n, y*stride - pad + r*dilation, ...,
//   c]
//
// An outer product for every pixel (product_tile): the channels of dy and the channels under a tap are contiguous,
// so both are read where they lie, one of them by broadcast and the other as lanes: whichever fills vectors better
// becomes the lanes. For each tap the sum runs over the pixels whose tap is inside the image. With fewer channels
// than lanes the taps of a kernel row are taken as one strip of kernel_w * C values; then borders do matter, and
// the rows below a chunk of pixels are first copied into a band with zeros around.
//
// The pixels are cut into chunks of at most about kMaxChain; a chunk's dy and input stay in L2 while all tiles
// pass, and a tile adds to dw in memory. Meanwhile the tiles, a share each, ask for the next chunk. Mapping:
// threads share the tiles of dw, each takes all chunks in order, so the order of every sum is fixed.
#pragma once

#include "column_sums.h"
#include "conv2d_nhwc_view.h"

namespace cisdl {
namespace {

// A chunk of pixels: images [n, n + images), rows [y, y + rows), columns [x, x + cols).
struct PixelChunk {
  int64_t n, images, y, rows, x, cols;
};

// Cuts batch x height x width pixels, at least one: several images, some rows of one image, or part of one row.
struct PixelChunks {
  int64_t batch, height, width;
  int64_t images, rows, cols;  // of a chunk
  int64_t along_n, along_y, along_x;

  PixelChunks(int64_t n, int64_t h, int64_t w) : batch(n), height(h), width(w) {
    cols = w < kMaxChain ? w : kMaxChain;
    rows = cols == w ? kMaxChain / cols : 1;
    if (rows > h) rows = h;
    images = rows == h && cols == w ? kMaxChain / (rows * cols) : 1;
    if (images > n) images = n;
    along_n = (n + images - 1) / images;
    along_y = (h + rows - 1) / rows;
    along_x = (w + cols - 1) / cols;
  }
  int64_t count() const { return along_n * along_y * along_x; }
  PixelChunk operator[](int64_t i) const {
    const auto part = [](int64_t index, int64_t size, int64_t total) {
      return total - index * size < size ? total - index * size : size;
    };
    const int64_t x = i % along_x, y = i / along_x % along_y, n = i / along_x / along_y;
    return {n * images, part(n, images, batch), y * rows, part(y, rows, height), x * cols, part(x, cols, width)};
  }
};

// Outputs [begin, end) of [0, n) for which begin <= out * stride + offset < in.
CISDL_INLINE void clip_outputs(int64_t stride, int64_t offset, int64_t in, int64_t& begin, int64_t& end) {
  const int64_t first = offset < 0 ? (-offset + stride - 1) / stride : 0;
  const int64_t last = in - offset > 0 ? (in - offset - 1) / stride + 1 : 0;
  if (begin < first) begin = first;
  if (end > last) end = last;
  if (end < begin) end = begin;
}

// How dw is cut into tiles: per group and strip (a tap, or a row of taps), a matrix [K][strip]; `swapped` makes
// the strip its rows and K its lanes, and dw is then [strips][strip][K] until it is transposed at the end.
struct WeightTiles {
  bool merged, swapped;
  int64_t groups, strips, strip, k;  // strip: its length
  int64_t rows, lanes, row_tiles, panels;

  template <class T>
  WeightTiles(const Conv2dProblem& p, const T*) {
    const int64_t c = p.in_channels / p.groups;
    groups = p.groups;
    k = p.out_channels / p.groups;
    merged = p.groups == 1 && p.dilation_w == 1 && p.kernel_w > 1 && c < kWidth<T>;
    strips = p.kernel_h * (merged ? 1 : p.kernel_w);
    strip = merged ? p.kernel_w * c : c;
    // What a pixel costs: multiplications, or loads where they are more.
    const auto cost = [](int64_t row_count, int64_t lane_count) {
      const int64_t vectors = (lane_count + kWidth<T> - 1) / kWidth<T>;
      const int64_t loads = row_count *
                            ((lane_count + kTileCols<T> - 1) / kTileCols<T>)+(row_count + kTileRows - 1) /
                            kTileRows * vectors;
      return row_count * vectors > loads ? row_count * vectors : loads;
    };
    swapped = 20 * cost(k, strip) > 21 * cost(strip, k);
    rows = swapped ? strip : k;
    lanes = swapped ? k : strip;
    row_tiles = (rows + kTileRows - 1) / kTileRows;
    panels = (lanes + kTileCols<T> - 1) / kTileCols<T>;
  }
  int64_t count() const { return groups * strips * panels * row_tiles; }
};

template <class T>
struct WeightGradient {
  Conv2dProblem p;
  const T *input, *grad;
  T* to;  // grad_weight, or [strips][strip][K] if swapped
  WeightTiles tiles;
  int64_t band_rows, band_cols;  // below one chunk of one image, if merged

  // Tile `i`: what it adds to dw from one chunk. `band` holds the chunk's input if merged.
  void add(int64_t i, const PixelChunk& chunk, bool accumulate, const T* band) const {
    const int64_t row_tile = i % tiles.row_tiles;
    i /= tiles.row_tiles;
    const int64_t panel = i % tiles.panels;
    i /= tiles.panels;
    const int64_t strip = i % tiles.strips, group = i / tiles.strips;
    const int64_t r = tiles.merged ? strip : strip / p.kernel_w, s = tiles.merged ? 0 : strip % p.kernel_w;
    const int64_t dh = r * p.dilation_h - p.pad_top, dw = s * p.dilation_w - p.pad_left;
    int64_t y0 = chunk.y, y1 = chunk.y + chunk.rows, x0 = chunk.x, x1 = chunk.x + chunk.cols;
    const T* x;
    int64_t x_image, x_row;
    const int64_t x_col = p.stride_w * p.in_channels;
    if (tiles.merged) {
      x_image = band_rows * band_cols * p.in_channels;
      x_row = p.stride_h * band_cols * p.in_channels;
      x = band + r * p.dilation_h * band_cols * p.in_channels;
    } else {
      clip_outputs(p.stride_h, dh, p.in_h, y0, y1);
      clip_outputs(p.stride_w, dw, p.in_w, x0, x1);
      x_image = p.in_h * p.in_w * p.in_channels;
      x_row = p.stride_h * p.in_w * p.in_channels;
      x = input + ((chunk.n * p.in_h + y0 * p.stride_h + dh) * p.in_w + x0 * p.stride_w + dw) * p.in_channels +
          group * tiles.strip;
    }
    const T* g = grad + ((chunk.n * p.out_h + y0) * p.out_w + x0) * p.out_channels + group * tiles.k;
    const int64_t g_image = p.out_h * p.out_w * p.out_channels, g_row = p.out_w * p.out_channels;
    const int64_t row0 = tiles.rows * row_tile / tiles.row_tiles;
    const int64_t rows = tiles.rows * (row_tile + 1) / tiles.row_tiles - row0;
    const int64_t lane0 = panel * kTileCols<T>;
    const int64_t cols = tiles.lanes - lane0 < kTileCols<T> ? tiles.lanes - lane0 : int64_t{kTileCols<T>};
    const TileAhead ahead =
        next_chunk(chunk, ((group * tiles.strips + strip) * tiles.panels + panel) * tiles.row_tiles + row_tile);
    PixelWalk walk{chunk.images, y1 - y0, x1 - x0, g_image, g_row, p.out_channels, x_image, x_row, x_col};
    TileOutput<T> out;
    out.accumulate = accumulate;
    out.row_bias = out.col_bias = nullptr;
    if (tiles.swapped) {
      walk = {chunk.images, y1 - y0, x1 - x0, x_image, x_row, x_col, g_image, g_row, p.out_channels};
      out.ldc = tiles.k;
      out.c = to + ((group * tiles.strips + strip) * tiles.strip + row0) * out.ldc + lane0;
      product(walk, x + row0, g + lane0, out, rows, cols, ahead);
    } else {
      out.ldc = tiles.strips * tiles.strip;
      out.c = to + (group * tiles.k + row0) * out.ldc + strip * tiles.strip + lane0;
      product(walk, g + row0, x + lane0, out, rows, cols, ahead);
    }
  }

  // Tile `i`'s share of what the chunk after this one reads: pixels are in order from chunk to chunk.
  TileAhead next_chunk(const PixelChunk& chunk, int64_t i) const {
    const int64_t pixels = chunk.images * chunk.rows * chunk.cols, scale = p.stride_h * p.stride_w;
    const int64_t x =
        ((chunk.n * p.in_h + chunk.y * p.stride_h) * p.in_w + chunk.x * p.stride_w + pixels * scale) *
        p.in_channels;
    const int64_t g = ((chunk.n * p.out_h + chunk.y) * p.out_w + chunk.x + pixels) * p.out_channels;
    const int64_t share_x = scale * p.in_channels * int64_t{sizeof(T)} / tiles.count();  // bytes, of one pixel
    const int64_t share_g = p.out_channels * int64_t{sizeof(T)} / tiles.count();
    return {reinterpret_cast<const char*>(input + x) + pixels * share_x * i,
            reinterpret_cast<const char*>(grad + g) + pixels * share_g * i, share_x, share_g};
  }

  static void product(const PixelWalk& walk, const T* a, const T* b, const TileOutput<T>& out, int64_t rows,
                      int64_t cols, const TileAhead& ahead) {
    if (cols == kTileCols<T>)
      product_tile_rows<T, kTileVectors, false, true>(rows, walk, a, b, out, cols, ahead);
    else if (cols > kWidth<T>)
      product_tile_rows<T, kTileVectors, true, true>(rows, walk, a, b, out, cols, ahead);
    else
      product_tile_rows<T, 1, true, true>(rows, walk, a, b, out, cols, ahead);
  }

  void copy_bands(const PixelChunk& chunk, T* band) const {
    const int64_t image = p.in_h * p.in_w * p.in_channels;
    for (int64_t n = 0; n < chunk.images; ++n)
      copy_band(input + (chunk.n + n) * image, p.in_h, p.in_w, p.in_channels, chunk.y * p.stride_h - p.pad_top,
                band_rows, chunk.x * p.stride_w - p.pad_left, band_cols,
                band + n * band_rows * band_cols * p.in_channels);
  }
};

// [groups][depth][K] -> [groups*K][depth]
template <class T>
void transpose_weight(const T* from, int64_t groups, int64_t depth, int64_t k, T* to, const Parallel& par) {
  parallel_for(par, groups * k, 16384 / (depth + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t d = 0; d < depth; ++d) to[i * depth + d] = from[(i / k * depth + d) * k + i % k];
  });
}

template <class T>
void conv2d_nhwc_grad_weight(const Conv2dBackwardWeight<T>& a, const Parallel& par) {
  Conv2dProblem p = a.p;
  const int64_t elements = p.out_channels * (p.in_channels / p.groups) * p.kernel_h * p.kernel_w;
  if (p.batch * p.out_h * p.out_w == 0) {
    std::memset(a.grad_weight, 0, static_cast<size_t>(elements) * sizeof(T));
    return;
  }
  const bool dense_1x1 = p.kernel_h * p.kernel_w == 1 && p.stride_h == 1 && p.stride_w == 1 && p.out_h == p.in_h &&
                         p.out_w == p.in_w && p.pad_top == 0 && p.pad_left == 0;
  if (dense_1x1) {  // all pixels are one row
    p.in_w = p.out_w = p.batch * p.out_h * p.out_w;
    p.batch = p.in_h = p.out_h = 1;
  }
  const PixelChunks chunks(p.batch, p.out_h, p.out_w);
  WeightGradient<T> job{p, a.input, a.grad_output, a.grad_weight, WeightTiles(p, a.input), 0, 0};
  if (job.tiles.swapped) job.to = static_cast<T*>(scratch(Scratch::shared, elements * int64_t{sizeof(T)}));
  if (job.tiles.merged) {
    job.band_rows = (chunks.rows - 1) * p.stride_h + (p.kernel_h - 1) * p.dilation_h + 1;
    job.band_cols = (chunks.cols - 1) * p.stride_w + p.kernel_w;
  }
  const int64_t band_bytes =
      chunks.images * job.band_rows * job.band_cols * p.in_channels * static_cast<int64_t>(sizeof(T));
  parallel_for(par, job.tiles.count(), 1, [&](int64_t begin, int64_t end) {
    T* band = job.tiles.merged ? static_cast<T*>(scratch(Scratch::local, band_bytes)) : nullptr;
    for (int64_t i = 0; i < chunks.count(); ++i) {
      const PixelChunk chunk = chunks[i];
      if (band) job.copy_bands(chunk, band);
      for (int64_t tile = begin; tile < end; ++tile) job.add(tile, chunk, i > 0, band);
    }
  });
  if (job.tiles.swapped)
    transpose_weight(job.to, p.groups, job.tiles.strips * job.tiles.strip, job.tiles.k, a.grad_weight, par);
}

template <class T>
void conv2d_nhwc_backward_weight(const Conv2dBackwardWeight<T>& a, const Parallel& par) {
  if (a.grad_weight) conv2d_nhwc_grad_weight(a, par);
  if (a.grad_bias)
    column_sums(a.grad_output, a.p.batch * a.p.out_h * a.p.out_w, a.p.out_channels, a.grad_bias, par);
}

}  // namespace
}  // namespace cisdl
