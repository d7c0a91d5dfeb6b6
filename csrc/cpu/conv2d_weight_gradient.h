// The gradient to a convolution's weight as a sum of outer products over pixels, both operands packed.
//
//   dw[k,c,r,s] = sum over pixels (n,y,x) of dy[k, pixel] x[c, pixel moved by (r, s)]
//
// Both tensors are rewritten pixel by pixel, channels together: then a pixel adds, for every tap (r, s), the outer
// product of a few scalars with a few vectors to a tile of dw that stays in registers, and neither padding nor
// stride costs anything inside the loop. Which side lies along the vector lanes is chosen by how well it fills
// them:
//
//   lanes = input channels    tile rows are output channels: a = dy [pixel][rows], b = x [row][column][lanes]
//   lanes = output channels   tile rows are (s, c) of a kernel row, which lie next to each other in
//                             x [row][column][channels]: a = x, b = dy [pixel][lanes]. For images of few channels.
//
// From NCHW that is a transpose, in registers; from channels_last a copy, which gathers what a tile reads: the
// pixels of a wide image lie some KB apart, in few sets of the L1 cache.
//
// The batch is taken in chunks that stay in the L2 cache: all threads rewrite a chunk, then share out the tiles of
// dw. Of a chunk, a part of some hundred pixels, whose operands stay in L1, meets all tiles of a thread before the
// next; a tile sums a part in registers and adds it to its place in memory. Chunks follow one another and every
// tile belongs to one thread, so the result does not depend on their number.
#pragma once

#include "column_sums.h"
#include "conv2d_bias_gradient.h"
#include "conv2d_window.h"

namespace cisdl {
namespace {

// The pixels of one pass of a tile, and how its operands move from image to image, row to row and column to
// column.
struct GradientWalk {
  int64_t images, rows, columns;
  int64_t a_image, a_row, a_column;
  int64_t b_image, b_row, b_column;
};

// sums[MR][NV*W] += sum over the walk of a[MR] (x) b[NV*W].
template <class T, int MR, int NV>
void gradient_tile(const GradientWalk& walk, const T* a, const T* b, T* sums) {
  constexpr int W = kWidth<T>;
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[i][v] = zero<T>();
  for (int64_t n = 0; n < walk.images; ++n)
    for (int64_t y = 0; y < walk.rows; ++y) {
      const T* __restrict pa = a + n * walk.a_image + y * walk.a_row;
      const T* __restrict pb = b + n * walk.b_image + y * walk.b_row;
      for (int64_t x = 0; x < walk.columns; ++x, pa += walk.a_column, pb += walk.b_column) {
        Vec<T> bv[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) bv[v] = load(pb + v * W);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
          const Vec<T> av = set1(pa[i]);
#pragma GCC unroll 2
          for (int v = 0; v < NV; ++v) acc[i][v] += av * bv[v];
        }
      }
    }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      T* p = sums + (i * NV + v) * W;
      store(p, load(p) + acc[i][v]);
    }
}

template <class T, int NV, int MR = kTileRows>
CISDL_INLINE void gradient_tile_rows(int64_t rows, const GradientWalk& walk, const T* a, const T* b, T* sums) {
  if (rows == MR) {
    gradient_tile<T, MR, NV>(walk, a, b, sums);
  } else if constexpr (MR > 1) {
    gradient_tile_rows<T, NV, MR - 1>(rows, walk, a, b, sums);
  }
}

constexpr int64_t kGradientChunkBytes = 1 << 20;
// Pixels of a part: more where the sums, which every part reads and writes, do not stay in the cache.
constexpr int64_t kPartPixels = 256, kGradientSumBytes = 1 << 20;

// How the work is cut, and where everything lies. "x" is the input, "dy" grad_output, both rewritten.
template <class T>
struct GradientPlan {
  Conv2dProblem p;
  Layout layout;
  int64_t group_in, group_out;
  bool lanes_are_inputs;
  int64_t row_taps;            // taps (or kernel rows, where s is part of the tile's rows) with sums of their own
  int64_t rows;                // of a group's product: output channels, or kernel_w * input channels
  Parts tiles;                 // of rows
  int64_t lanes, lane_blocks;  // of a group's product, and blocks of kTileCols of them
  int64_t tile_size;           // elements of a tile's sums for one tap

  int64_t chunk_images, chunk_rows;  // output rows: all, or fewer if chunk_images is 1
  int64_t row_step, h_step;          // as in WindowShape
  int64_t col_step, w_step;
  int64_t x_rows, x_columns;           // of a chunk's image
  int64_t x_width;                     // elements of a column
  int64_t x_image, x_block, x_blocks;  // strides in elements, number of blocks
  int64_t dy_width, dy_image, dy_block, dy_blocks;

  // What a pixel costs: multiplications, or loads where they are more.
  static int64_t pixel_cost(int64_t rows, int64_t lanes) {
    const int64_t vectors = ceil_div(lanes, kWidth<T>);
    return larger(rows * vectors, rows * ceil_div(lanes, kTileCols<T>) + ceil_div(rows, kTileRows) * vectors);
  }

  GradientPlan(const Conv2dProblem& problem, Layout l) : p(problem), layout(l) {
    if (is_pointwise(p)) take_rows_together(p);
    group_in = p.in_channels / p.groups;
    group_out = p.out_channels / p.groups;
    lanes_are_inputs = pixel_cost(group_out, group_in) <= pixel_cost(group_in, group_out);
    const bool merged = !lanes_are_inputs && p.dilation_w == 1;
    row_taps = merged ? p.kernel_h : p.kernel_h * p.kernel_w;
    rows = lanes_are_inputs ? group_out : merged ? p.kernel_w * group_in : group_in;
    lanes = lanes_are_inputs ? group_in : group_out;
    tiles = split_evenly(rows, kTileRows, 1);
    lane_blocks = ceil_div(lanes, kTileCols<T>);
    tile_size = tiles.size * kTileCols<T>;

    row_step = p.kernel_h == 1 ? 1 : p.stride_h;
    h_step = p.kernel_h == 1 ? p.stride_h : 1;
    col_step = p.kernel_w == 1 ? 1 : p.stride_w;
    w_step = p.kernel_w == 1 ? p.stride_w : 1;
    x_columns = (p.out_w - 1) * col_step + (p.kernel_w - 1) * p.dilation_w + 1;
    x_blocks = p.groups * (lanes_are_inputs ? lane_blocks : 1);
    x_width = lanes_are_inputs ? kTileCols<T> : group_in;
    dy_blocks = p.groups * (lanes_are_inputs ? tiles.count : lane_blocks);
    dy_width = lanes_are_inputs ? tiles.size : kTileCols<T>;

    const int64_t row_bytes = static_cast<int64_t>(sizeof(T)) *
                              (x_blocks * x_width * x_columns * row_step + dy_blocks * dy_width * p.out_w);
    const int64_t fit = larger(1, kGradientChunkBytes / row_bytes);
    chunk_images = larger(1, smaller(p.batch, fit / p.out_h));
    chunk_rows = smaller(p.out_h, fit);
    x_rows = (chunk_rows - 1) * row_step + (p.kernel_h - 1) * p.dilation_h + 1;
    x_image = aligned(x_rows * x_columns * x_width + kPackSlack<T>);
    x_block = chunk_images * x_image;
    dy_image = aligned(chunk_rows * p.out_w * dy_width + kPackSlack<T>);
    dy_block = chunk_images * dy_image;
  }

  // Whole vectors: every image of a block of lanes begins at one.
  static int64_t aligned(int64_t n) { return ceil_div(n, kWidth<T>) * kWidth<T>; }

  // Rows of a plane as one, as many as a part has pixels for.
  static void take_rows_together(Conv2dProblem& p) {
    int64_t together = 1;
    for (int64_t d = 2; d <= p.out_h && d * p.out_w <= kMaxChain; ++d)
      if (p.out_h % d == 0) together = d;
    p.in_h = p.out_h /= together;
    p.in_w = p.out_w *= together;
  }

  int64_t block_lanes(int64_t block) const { return smaller(kTileCols<T>, lanes - block * kTileCols<T>); }
  int64_t tile_rows(int64_t tile) const { return smaller(tiles.size, rows - tile * tiles.size); }
};

// Channels of a row (or of a run of pixels) together: dst[column][width] = src[channel][column], `stride` elements
// of src from channel to channel and `step` from column to column. `width` is at least `channels`; past it lanes
// are zero up to a whole vector. May write kPackSlack elements past the end.
template <class T>
void interleave_channels(const T* src, int64_t stride, int64_t step, int64_t channels, int64_t columns, T* dst,
                         int64_t width) {
  if (step != 1) {
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t c = 0; c < width; ++c) dst[j * width + c] = c < channels ? src[c * stride + j * step] : T(0);
    return;
  }
  // Whole vectors are stored, so the last group of channels goes first.
  for (int64_t c = (channels - 1) / kWidth<T> * kWidth<T>; c >= 0; c -= kWidth<T>)
    pack_transposed<T, 1>(src + c * stride, stride, channels - c, columns, dst + c, width);
}

// Rewrites the rows of one image that output rows [y, y + rows) read, zero outside the image.
template <class T>
void rewrite_input(const GradientPlan<T>& g, const T* image, int64_t channels, int64_t y, int64_t rows, T* dst,
                   int64_t width) {
  const Conv2dProblem& p = g.p;
  const int64_t x_rows = (rows - 1) * g.row_step + (p.kernel_h - 1) * p.dilation_h + 1;
  // Column j is input column j*w_step - pad_left.
  const int64_t begin = smaller(p.pad_left > 0 ? ceil_div(p.pad_left, g.w_step) : 0, g.x_columns);
  const int64_t end = larger(begin, smaller(g.x_columns, ceil_div(p.in_w + p.pad_left, g.w_step)));
  for (int64_t i = 0; i < x_rows; ++i, dst += g.x_columns * width) {
    const int64_t h = y * p.stride_h - p.pad_top + i * g.h_step;
    if (h < 0 || h >= p.in_h) {
      std::memset(dst, 0, static_cast<size_t>(g.x_columns * width) * sizeof(T));
      continue;
    }
    std::memset(dst, 0, static_cast<size_t>(begin * width) * sizeof(T));
    interleave_channels<T>(image + h * p.in_w + begin * g.w_step - p.pad_left, p.in_h * p.in_w, g.w_step, channels,
                           end - begin, dst + begin * width, width);
    std::memset(dst + end * width, 0, static_cast<size_t>((g.x_columns - end) * width) * sizeof(T));
  }
}

// Channels_last: `columns` runs of `channels`, `step` apart, as dst[column][width]; past the channels lanes are
// zero up to a whole vector, as far as the width has room.
template <class T>
CISDL_INLINE void copy_runs(const T* src, int64_t step, int64_t channels, int64_t columns, T* dst, int64_t width) {
  constexpr int W = kWidth<T>;
  if (channels == kTileCols<T>) {
    for (int64_t j = 0; j < columns; ++j, src += step, dst += width)
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) store(dst + v * W, load(src + v * W));
    return;
  }
  const int64_t room = smaller(width, ceil_div(channels, W) * W);
  for (int64_t j = 0; j < columns; ++j, src += step, dst += width)
    for (int64_t c = 0; c < channels; c += W) store_up_to(dst + c, load_up_to(src + c, channels - c), room - c);
}

// `pixels` pixels of `channels` channels, in blocks of `width` of them (fewer in the last), to
// dst[block][pixel][width]. Some pixels go to all blocks before the next: what was read for the first block is in
// the cache for the others.
template <class T>
void copy_blocks(const T* src, int64_t channels, int64_t pixels, T* dst, int64_t block_stride, int64_t width) {
  const int64_t together = larger(4, 4096 / larger(1, channels));
  for (int64_t i = 0; i < pixels; i += together)
    for (int64_t c = 0, block = 0; c < channels; c += width, ++block)
      copy_runs<T>(src + i * channels + c, channels, smaller(width, channels - c), smaller(together, pixels - i),
                   dst + block * block_stride + i * width, width);
}

// What one thread does of a chunk: a tile of a group's dw for taps [first_tap, last_tap), with its sums
// [row_taps][tile_size].
template <class T>
struct GradientItem {
  int64_t group, tile, lane_block, first_tap, last_tap;
  T* sums;
};

// Part of a chunk: images [n, n + images), rows [y, y + rows), columns [x, x + columns).
struct GradientPart {
  int64_t n, images, y, rows, x, columns;
};

// Adds one part of a chunk to the sums of an item.
template <class T>
void add_part(const GradientPlan<T>& g, const GradientItem<T>& item, const GradientPart& part, const T* x,
              const T* dy) {
  const Conv2dProblem& p = g.p;
  const int64_t tile_rows = g.tile_rows(item.tile);
  const bool wide = g.block_lanes(item.lane_block) > kWidth<T>;
  const int64_t x_row = g.x_columns * g.x_width;
  if (!g.lanes_are_inputs) x += item.tile * g.tiles.size;
  const int64_t x_step_row = g.row_step * x_row, x_step = g.col_step * g.x_width, dy_row = p.out_w * g.dy_width;
  x += part.n * g.x_image + part.y * x_step_row + part.x * x_step;
  dy += part.n * g.dy_image + part.y * dy_row + part.x * g.dy_width;
  const GradientWalk walk = g.lanes_are_inputs
                                ? GradientWalk{part.images, part.rows, part.columns, g.dy_image, dy_row,
                                               g.dy_width,  g.x_image, x_step_row,   x_step}
                                : GradientWalk{part.images, part.rows,  part.columns, g.x_image, x_step_row,
                                               x_step,      g.dy_image, dy_row,       g.dy_width};
  const int64_t taps_w = g.row_taps / p.kernel_h;
  for (int64_t tap = item.first_tap; tap < item.last_tap; ++tap) {
    const T* tap_x = x + (tap / taps_w * p.dilation_h * g.x_columns + tap % taps_w * p.dilation_w) * g.x_width;
    const T* a = g.lanes_are_inputs ? dy : tap_x;
    const T* b = g.lanes_are_inputs ? tap_x : dy;
    if (wide)
      gradient_tile_rows<T, kTileVectors>(tile_rows, walk, a, b, item.sums + tap * g.tile_size);
    else
      gradient_tile_rows<T, 1>(tile_rows, walk, a, b, item.sums + tap * g.tile_size);
  }
}

// dw from the sums of an item.
template <class T>
void write_gradient(const GradientPlan<T>& g, const GradientItem<T>& item, T* grad_weight) {
  const Conv2dProblem& p = g.p;
  const int64_t cells = p.kernel_h * p.kernel_w, taps = g.group_in * cells, taps_w = g.row_taps / p.kernel_h;
  const int64_t lane = item.lane_block * kTileCols<T>, lanes = g.block_lanes(item.lane_block);
  const int64_t width = lanes > kWidth<T> ? kTileCols<T> : kWidth<T>;
  const bool nchw = g.layout == Layout::nchw;
  const int64_t in_step = nchw ? cells : 1, r_step = p.kernel_w * (nchw ? 1 : g.group_in),
                s_step = nchw ? 1 : g.group_in;
  T* dst = grad_weight + item.group * g.group_out * taps;
  for (int64_t i = 0; i < g.tile_rows(item.tile); ++i) {
    const int64_t row = item.tile * g.tiles.size + i;
    for (int64_t tap = item.first_tap; tap < item.last_tap; ++tap) {
      const T* src = item.sums + tap * g.tile_size + i * width;
      const int64_t r = tap / taps_w, s = tap % taps_w;
      if (g.lanes_are_inputs) {
        T* to = dst + row * taps + lane * in_step + r * r_step + s * s_step;
        for (int64_t j = 0; j < lanes; ++j) to[j * in_step] = src[j];
      } else {  // rows are (s, c)
        T* to = dst + lane * taps + row % g.group_in * in_step + r * r_step + (s + row / g.group_in) * s_step;
        for (int64_t j = 0; j < lanes; ++j) to[j * taps] = src[j];
      }
    }
  }
}

template <class T>
void conv2d_weight_gradient(const Conv2dBackwardWeight<T>& args, const Parallel& par) {
  constexpr int64_t kBytes = sizeof(T);
  const int64_t size =
      args.p.out_channels * (args.p.in_channels / args.p.groups) * args.p.kernel_h * args.p.kernel_w;
  if (size == 0 || args.p.batch * args.p.out_h * args.p.out_w == 0) {
    std::memset(args.grad_weight, 0, static_cast<size_t>(size * kBytes));
    return;
  }
  const GradientPlan<T> g(args.p, args.layout);
  const Conv2dProblem& p = g.p;
  const int64_t in_plane = p.in_h * p.in_w, out_plane = p.out_h * p.out_w;
  const int64_t items = p.groups * g.lane_blocks * g.tiles.count, item_size = g.row_taps * g.tile_size;
  T* sums = static_cast<T*>(scratch(Scratch::shared2, items * item_size * kBytes));
  T* x = static_cast<T*>(scratch(Scratch::shared, (g.x_blocks * g.x_block + g.dy_blocks * g.dy_block) * kBytes));
  T* dy = x + g.x_blocks * g.x_block;

  const int64_t part_pixels = items * item_size * kBytes <= kGradientSumBytes ? kPartPixels : kMaxChain;

  // Few tiles and many threads: share out the taps of a tile as well.
  const int64_t tap_parts = smaller(g.row_taps, ceil_div(4 * par.num_threads, items));

  // Image or dy block `i` of a group: its first channel and number of channels.
  const auto x_channels = [&](int64_t i) { return g.lanes_are_inputs ? g.block_lanes(i) : g.group_in; };
  const auto dy_channels = [&](int64_t i) { return g.lanes_are_inputs ? g.tile_rows(i) : g.block_lanes(i); };
  const int64_t group_x = g.x_blocks / p.groups, group_dy = g.dy_blocks / p.groups;

  for (int64_t n0 = 0; n0 < p.batch; n0 += g.chunk_images)
    for (int64_t y0 = 0; y0 < p.out_h; y0 += g.chunk_rows) {
      const int64_t images = smaller(g.chunk_images, p.batch - n0), rows = smaller(g.chunk_rows, p.out_h - y0);
      if (args.layout == Layout::nhwc) {
        // A pointwise one: both have the same pixels.
        parallel_for(par, 2 * images * rows, grain_for(4 * p.out_w * (p.in_channels + p.out_channels)),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t i = begin; i < end; ++i) {
                         const int64_t y = i / 2 % rows, n = i / 2 / rows;
                         const int64_t pixel = ((n0 + n) * p.out_h + y0 + y) * p.out_w;
                         if (i % 2 == 0)
                           copy_blocks<T>(args.input + pixel * p.in_channels, p.in_channels, p.out_w,
                                          x + n * g.x_image + y * p.out_w * g.x_width, g.x_block, g.x_width);
                         else
                           copy_blocks<T>(args.grad_output + pixel * p.out_channels, p.out_channels, p.out_w,
                                          dy + n * g.dy_image + y * p.out_w * g.dy_width, g.dy_block, g.dy_width);
                       }
                     });
      } else {
        const int64_t x_parts = g.x_blocks * images, dy_parts = g.dy_blocks * images;
        parallel_for(par, x_parts + dy_parts, grain_for(8 * g.dy_image), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const bool is_x = i < x_parts;
            const int64_t part = is_x ? i : i - x_parts;
            const int64_t block = part / images, n = part % images;
            if (is_x) {
              const int64_t group = block / group_x, in_group = block % group_x, channels = x_channels(in_group);
              const T* image =
                  args.input + ((n0 + n) * p.in_channels + group * g.group_in + in_group * g.x_width) * in_plane;
              rewrite_input<T>(g, image, channels, y0, rows, x + block * g.x_block + n * g.x_image, g.x_width);
            } else {
              const int64_t group = block / group_dy, in_group = block % group_dy,
                            channels = dy_channels(in_group);
              const T* image =
                  args.grad_output +
                  ((n0 + n) * p.out_channels + group * g.group_out + in_group * g.dy_width) * out_plane;
              interleave_channels<T>(image + y0 * p.out_w, out_plane, 1, channels, rows * p.out_w,
                                     dy + block * g.dy_block + n * g.dy_image, g.dy_width);
            }
          }
        });
      }
      const bool first_chunk = n0 + y0 == 0;
      const bool last_chunk = n0 + images == p.batch && y0 + rows == p.out_h;
      const int64_t work = images * rows * p.out_w * g.row_taps * g.tile_size / tap_parts;
      // As many whole images, else whole rows, else columns as a part may have.
      const Parts image_parts = split_evenly(images, larger(1, part_pixels / (rows * p.out_w)), 1),
                  row_parts = split_evenly(rows, larger(1, part_pixels / p.out_w), 1),
                  column_parts = split_evenly(p.out_w, part_pixels, 1);
      parallel_for(par, items * tap_parts, grain_for(work), [&](int64_t begin, int64_t end) {
        const auto for_each_item = [&](auto&& body) {
          for (int64_t i = begin; i < end; ++i) {
            const int64_t tile = i / tap_parts, tap_part = i % tap_parts;
            body(GradientItem<T>{tile / g.tiles.count / g.lane_blocks, tile % g.tiles.count,
                                 tile / g.tiles.count % g.lane_blocks, g.row_taps * tap_part / tap_parts,
                                 g.row_taps * (tap_part + 1) / tap_parts, sums + tile * item_size});
          }
        };
        if (first_chunk)
          for_each_item([&](const GradientItem<T>& item) {
            std::memset(item.sums + item.first_tap * g.tile_size, 0,
                        static_cast<size_t>((item.last_tap - item.first_tap) * g.tile_size * kBytes));
          });
        for (int64_t n = 0; n < images; n += image_parts.size)
          for (int64_t y = 0; y < rows; y += row_parts.size)
            for (int64_t c = 0; c < p.out_w; c += column_parts.size) {
              const GradientPart part{n, smaller(image_parts.size, images - n),
                                      y, smaller(row_parts.size, rows - y),
                                      c, smaller(column_parts.size, p.out_w - c)};
              for_each_item([&](const GradientItem<T>& item) {
                const int64_t x_block = item.group * group_x + (g.lanes_are_inputs ? item.lane_block : 0);
                const int64_t dy_block =
                    item.group * group_dy + (g.lanes_are_inputs ? item.tile : item.lane_block);
                add_part<T>(g, item, part, x + x_block * g.x_block, dy + dy_block * g.dy_block);
              });
            }
        if (last_chunk)
          for_each_item([&](const GradientItem<T>& item) { write_gradient<T>(g, item, args.grad_weight); });
      });
    }
}

// In channels_last only a pointwise one of many channels: reading in place is faster
// (conv2d_nhwc_backward_weight.h) until the pixels of a chunk, some KB apart, meet in few sets of the L1 cache and
// the sums fill L2. Measured, GF/s packed for in place, with vectors of 512 bits: 256 to 256 channels on 28x28 134
// for 157, 256 to 512 on 14x14 139 for 142, 512 to 512 146 for 134; of 256 bits: 128 to 256 on 28x28 63 for 68,
// 512 to 128 69 for 62.
constexpr int64_t kPackedChannels = 128, kPackedProducts = kNumRegisters == 32 ? 512 * 512 : 256 * 256;

template <class T>
bool conv2d_packed_gemm_backward_weight_applies(const Conv2dBackwardWeight<T>& args) {
  const Conv2dProblem& p = args.p;
  return args.layout == Layout::nchw ||
         (p.groups == 1 && is_pointwise(p) && p.in_channels >= kPackedChannels &&
          p.out_channels >= kPackedChannels && p.in_channels * p.out_channels >= kPackedProducts);
}

template <class T>
void conv2d_packed_gemm_backward_weight(const Conv2dBackwardWeight<T>& args, const Parallel& par) {
  const Conv2dProblem& p = args.p;
  if (args.grad_bias && args.layout == Layout::nchw)
    conv2d_bias_gradient(p, args.grad_output, args.grad_bias, par);
  if (args.grad_bias && args.layout == Layout::nhwc)
    column_sums(args.grad_output, p.batch * p.out_h * p.out_w, p.out_channels, args.grad_bias, par);
  if (args.grad_weight) conv2d_weight_gradient(args, par);
}

}  // namespace
}  // namespace cisdl
