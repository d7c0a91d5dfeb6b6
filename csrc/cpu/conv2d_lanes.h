// Convolutions of small images with few channels, LeNet's above all: a batch in vector lanes.
//
// W images of the batch are brought side by side: cell (c, h, w) of all of them becomes one vector. Then nothing
// depends on how long a row is, where it begins or how the tensor lies in memory: every load is a whole aligned
// vector, stride and dilation are distances between vectors, and NCHW and channels_last differ in strides only.
//
//   forward         a register tile is some output channels by some columns of an output row; for each tap it
//                   loads the columns, broadcasts a weight for each channel. Kernel rows outside the image are
//                   left out, columns outside it are skipped.
//   backward_input  the same, of grad_output with the kernel turned around and channels swapped; stride 1.
//
// The gradient of the weight is in conv2d_lanes_weight.h. It wins where the rows of an image are too short for the
// lanes and the channels too few to share the packing of patches, and the batch fills the lanes. Its price are two
// transposes in registers for every cell. An item of work is a band of rows of W images, small enough for the L2
// cache.
#pragma once

#include "conv2d_view.h"

namespace cisdl {
namespace {

using V = Vec<float>;
constexpr int64_t kLanes = kWidth<float>;
constexpr int64_t kLanesBandBytes = 768 << 10, kLanesTileBytes = 26 << 10;

constexpr int kLanesChannels = kNumRegisters == 32 ? 4 : 3;  // output channels of a tile

// Columns of a tile of `channels` output channels.
constexpr int lanes_columns(int channels) {
  constexpr int kMany[] = {0, 12, 12, 8, 6}, kFew[] = {0, 6, 5, 4};
  return kNumRegisters == 32 ? kMany[channels] : kFew[channels];
}

// Some rows of W images side by side, with zeros around: [plane][row][column][unit][W]. A plane is a channel and
// the unit 1 in NCHW; in NHWC there is one plane, and its unit is the channels.
struct LanesImage {
  const float* data;  // the first image of the tensor
  int64_t image;      // elements from image to image
  int64_t planes, unit, height, width;
  int64_t left;           // zero columns before the first, or, if negative, columns left out
  int64_t rows, columns;  // of the copy

  LanesImage(Layout layout, const float* data, int64_t channels, int64_t height, int64_t width, int64_t left,
             int64_t rows, int64_t columns)
      : data(data),
        image(channels * height * width),
        planes(layout == Layout::nchw ? channels : 1),
        unit(layout == Layout::nchw ? 1 : channels),
        height(height),
        width(width),
        left(left),
        rows(rows),
        columns(columns) {}

  // Distances in the copy, in elements.
  int64_t column_step() const { return unit * kLanes; }
  int64_t row_step() const { return columns * unit * kLanes; }
  int64_t channel_step() const { return unit == 1 ? rows * row_step() : kLanes; }
  int64_t elements() const { return planes * rows * row_step(); }

  // Rows [top, top + rows) of images [n, n + count), count <= W.
  void copy(int64_t n, int64_t count, int64_t top, float* to) const {
    const int64_t begin = smaller(larger(0, left), columns);
    const int64_t end = larger(begin, smaller(columns, left + width));
    const auto zeros = [&](float* p, int64_t cells) {
      std::memset(p, 0, static_cast<size_t>(cells * column_step()) * sizeof(float));
    };
    for (int64_t plane = 0; plane < planes; ++plane)
      for (int64_t i = 0; i < rows;) {
        const int64_t h = top + i;
        if (h < 0 || h >= height || begin == end) {
          zeros(to, columns);
          ++i;
          to += row_step();
          continue;
        }
        // Rows without an edge are one run.
        const int64_t run = left == 0 && columns == width ? smaller(rows - i, height - h) : 1;
        zeros(to, begin);
        const float* from = data + n * image + ((plane * height + h) * width + begin - left) * unit;
        pack_transposed<float, 1>(from, image, count, run * (end - begin) * unit, to + begin * column_step(),
                                  kLanes);
        if (run == 1) zeros(to + end * column_step(), columns - end);
        i += run;
        to += run * row_step();
      }
  }
};

// [cells][W] to `count` images, each a run of cells, `image` elements apart; no value becomes less than `least`.
// By way of a buffer in L1: short stores to as many pages as there are lanes, in turns, cost more than the
// transposes.
CISDL_NOINLINE void part_lanes(const float* from, int64_t cells, int64_t count, float* to, int64_t image,
                               float least) {
  constexpr int64_t kRun = 8 * kLanes, kStride = kRun + kLanes;
  alignas(kVecBytes) float buffer[kLanes * kStride];
  for (int64_t first = 0; first < cells; first += kRun, from += kRun * kLanes) {
    const int64_t run = smaller(kRun, cells - first);
    for (int64_t i = 0; i < run; i += kLanes) {
      V t[kLanes];
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) t[j] = i + j < run ? load(from + (i + j) * kLanes) : zero<float>();
      transpose<float>(t);
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) store(buffer + j * kStride + i, t[j]);
    }
    for (int64_t j = 0; j < count; ++j)
      for (int64_t i = 0; i < run; i += kLanes)
        store_up_to(to + j * image + first + i, at_least<float>(load(buffer + j * kStride + i), set1(least)),
                    run - i);
  }
}

// ------------------------------------------------------------------------------------------- forward

// A convolution with a weight of any strides.
struct LanesConvolution {
  Conv2dProblem p;
  Layout layout;
  const float* input;
  const float* weight;
  int64_t weight_k, weight_c, weight_r, weight_s;
  const float* bias;
  float* output;
  float least;  // no output becomes less
};

// A tap: where it lies in the copy, and how many of a tile's first columns find it outside the image.
struct LanesTap {
  int64_t offset, skip;
};

// Some columns of an output row: `count` from `first` on in direction `sign`, so that columns outside come first.
struct LanesColumns {
  int64_t first, count, sign;
  bool edge;
  const LanesTap* taps;
};

// y[KT][QT] = bias + sum over taps. Columns of x are x_step apart.
template <int KT, int QT, bool kEdge>
CISDL_NOINLINE void lanes_tile(const float* x, int64_t x_step, const LanesTap* taps, int64_t num_taps,
                               const float* weight, const float* bias, float* y, int64_t y_channel,
                               int64_t y_step) {
  V acc[KT][QT];
#pragma GCC unroll 4
  for (int k = 0; k < KT; ++k)
#pragma GCC unroll 12
    for (int q = 0; q < QT; ++q) acc[k][q] = set1(bias[k]);
  for (int64_t t = 0; t < num_taps; ++t, weight += KT) {
    // Three base addresses and multiples 0, 1 and 2 of the step reach all columns without a register for each.
    const float* base[(QT + 2) / 3];
#pragma GCC unroll 4
    for (int i = 0; i < (QT + 2) / 3; ++i) base[i] = x + taps[t].offset + 3 * i * x_step;
    V w[KT];
#pragma GCC unroll 4
    for (int k = 0; k < KT; ++k) w[k] = set1(weight[k]);
#pragma GCC unroll 12
    for (int q = 0; q < QT; ++q) {
      if (kEdge && q < taps[t].skip) continue;
      const V v = load(base[q / 3] + q % 3 * x_step);
#pragma GCC unroll 4
      for (int k = 0; k < KT; ++k) acc[k][q] += w[k] * v;
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < KT; ++k)
#pragma GCC unroll 12
    for (int q = 0; q < QT; ++q) store(y + k * y_channel + q * y_step, acc[k][q]);
}

template <int KT, int QT = lanes_columns(KT)>
CISDL_INLINE void lanes_columns_tile(const LanesColumns& tile, int64_t x_step, const float* x, int64_t first_tap,
                                     int64_t num_taps, const float* weight, const float* bias, float* y,
                                     int64_t y_channel, int64_t y_step) {
  if (tile.count == QT) {
    const auto run = tile.edge ? lanes_tile<KT, QT, true> : lanes_tile<KT, QT, false>;
    run(x + tile.first * x_step, tile.sign * x_step, tile.taps + first_tap, num_taps, weight, bias,
        y + tile.first * y_step, y_channel, tile.sign * y_step);
  } else if constexpr (QT > 1) {
    lanes_columns_tile<KT, QT - 1>(tile, x_step, x, first_tap, num_taps, weight, bias, y, y_channel, y_step);
  }
}

// An output row of `channels` channels.
template <int KT = kLanesChannels>
CISDL_INLINE void lanes_row(int64_t channels, const LanesColumns* tiles, int64_t num_tiles, int64_t x_step,
                            const float* x, int64_t first_tap, int64_t num_taps, const float* weight,
                            const float* bias, float* y, int64_t y_channel, int64_t y_step) {
  if (channels == KT) {
    for (int64_t i = 0; i < num_tiles; ++i)
      lanes_columns_tile<KT>(tiles[i], x_step, x, first_tap, num_taps, weight, bias, y, y_channel, y_step);
  } else if constexpr (KT > 1) {
    lanes_row<KT - 1>(channels, tiles, num_tiles, x_step, x, first_tap, num_taps, weight, bias, y, y_channel,
                      y_step);
  }
}

// Cells of the copy below some output columns or rows.
int64_t lanes_extent(int64_t outputs, int64_t stride, int64_t kernel, int64_t dilation) {
  return (outputs - 1) * stride + (kernel - 1) * dilation + 1;
}

// How an output row is cut. Where no tile reaches over both edges of the image, columns outside it are skipped,
// and the copy needs none.
struct LanesCut {
  Conv2dProblem p;
  Parts parts;  // of columns
  bool padded;  // by columns of zeros

  LanesCut(const Conv2dProblem& p, int channels) : p(p), parts(split_evenly(p.out_w, lanes_columns(channels), 1)) {
    padded = false;
    for (int64_t i = 0; i < parts.count; ++i) padded |= left(i) && right(i);
  }
  int64_t count(int64_t i) const { return smaller(parts.size, p.out_w - i * parts.size); }
  // Input column of the first (last) output column of a tile at tap s, counted from the image's first (last).
  int64_t before(int64_t i, int64_t s) const {
    return i * parts.size * p.stride_w + s * p.dilation_w - p.pad_left;
  }
  int64_t behind(int64_t i, int64_t s) const { return before(i, s) + (count(i) - 1) * p.stride_w - (p.in_w - 1); }
  bool left(int64_t i) const { return before(i, 0) < 0; }
  bool right(int64_t i) const { return behind(i, p.kernel_w - 1) > 0; }
  int64_t copy_left() const { return padded ? p.pad_left : 0; }
  int64_t copy_columns() const {
    return padded ? lanes_extent(p.out_w, p.stride_w, p.kernel_w, p.dilation_w) : p.in_w;
  }

  // Tile i; its taps, by kernel row, are written to `taps`.
  LanesColumns columns(int64_t i, const LanesImage& x, LanesTap* taps) const {
    const bool from_right = !padded && right(i), edge = !padded && (left(i) || right(i));
    for (int64_t r = 0, t = 0; r < p.kernel_h; ++r)
      for (int64_t c = 0; c < p.in_channels; ++c)
        for (int64_t s = 0; s < p.kernel_w; ++s, ++t) {
          const int64_t column = s * p.dilation_w - (padded ? 0 : p.pad_left);
          const int64_t outside = larger(0, from_right ? behind(i, s) : -before(i, s));
          taps[t] = {r * p.dilation_h * x.row_step() + c * x.channel_step() + column * x.column_step(),
                     edge ? ceil_div(outside, p.stride_w) : 0};
        }
    const int64_t first = i * parts.size;
    return {from_right ? first + count(i) - 1 : first, count(i), from_right ? -1 : 1, edge, taps};
  }
};

// Weights as [tile of channels][tap][channel], taps by kernel row; then the bias.
const float* pack_lanes_weight(const LanesConvolution& f, const Parts& tiles) {
  const Conv2dProblem& p = f.p;
  const int64_t num_taps = p.kernel_h * p.in_channels * p.kernel_w;
  float* weight =
      static_cast<float*>(scratch(Scratch::shared, (num_taps + 1) * p.out_channels * int64_t{sizeof(float)}));
  for (int64_t k = 0; k < p.out_channels; ++k) {
    const int64_t tile = k / tiles.size * tiles.size, width = smaller(tiles.size, p.out_channels - tile);
    float* to = weight + tile * num_taps + k % tiles.size;
    for (int64_t r = 0; r < p.kernel_h; ++r)
      for (int64_t c = 0; c < p.in_channels; ++c)
        for (int64_t s = 0; s < p.kernel_w; ++s, to += width)
          *to = f.weight[k * f.weight_k + c * f.weight_c + r * f.weight_r + s * f.weight_s];
    weight[num_taps * p.out_channels + k] = f.bias ? f.bias[k] : 0;
  }
  return weight;
}

void lanes_convolve(const LanesConvolution& f, const Parallel& par) {
  const Conv2dProblem& p = f.p;
  const int64_t row_taps = p.in_channels * p.kernel_w, num_taps = p.kernel_h * row_taps;
  const Parts tiles = split_evenly(p.out_channels, kLanesChannels, 1);
  const float* weight = pack_lanes_weight(f, tiles);
  const float* bias = weight + num_taps * p.out_channels;
  const LanesCut cut(p, static_cast<int>(tiles.size));

  // Bands of rows that fit in the cache, and enough of them for all threads.
  const int64_t groups = ceil_div(p.batch, kLanes), cols = cut.copy_columns();
  const int64_t row_bytes = (p.in_channels * cols * p.stride_h + p.out_channels * p.out_w) * int64_t{sizeof(V)};
  const int64_t wanted = par.num_threads == 1 ? 1 : ceil_div(2 * par.num_threads, groups);
  const Parts bands =
      split_evenly(p.out_h, larger(1, smaller(kLanesBandBytes / row_bytes, ceil_div(p.out_h, wanted))), 1);
  const LanesImage x(f.layout, f.input, p.in_channels, p.in_h, p.in_w, cut.copy_left(),
                     lanes_extent(bands.size, p.stride_h, p.kernel_h, p.dilation_h), cols);
  const LanesImage y(f.layout, nullptr, p.out_channels, p.out_h, p.out_w, 0, bands.size, p.out_w);
  const int64_t work = bands.size * p.out_w * p.out_channels * num_taps * kLanes;
  parallel_for(par, groups * bands.count, grain_for(work), [&](int64_t begin, int64_t end) {
    float* copy =
        static_cast<float*>(scratch(Scratch::local, (x.elements() + y.elements()) * int64_t{sizeof(float)}));
    float* sums = copy + x.elements();
    const int64_t taps_bytes = cut.parts.count * num_taps * int64_t{sizeof(LanesTap)};
    const int64_t columns_bytes = cut.parts.count * int64_t{sizeof(LanesColumns)};
    LanesTap* taps = static_cast<LanesTap*>(scratch(Scratch::extra, taps_bytes + columns_bytes));
    LanesColumns* columns = reinterpret_cast<LanesColumns*>(taps + cut.parts.count * num_taps);
    for (int64_t i = 0; i < cut.parts.count; ++i) columns[i] = cut.columns(i, x, taps + i * num_taps);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / bands.count * kLanes, count = smaller(kLanes, p.batch - n);
      const int64_t y0 = item % bands.count * bands.size, rows = smaller(bands.size, p.out_h - y0);
      x.copy(n, count, y0 * p.stride_h - p.pad_top, copy);
      for (int64_t row = 0; row < rows; ++row) {
        // Kernel rows inside the image.
        const int64_t h = (y0 + row) * p.stride_h - p.pad_top;
        const int64_t r0 = h < 0 ? smaller(p.kernel_h, ceil_div(-h, p.dilation_h)) : 0;
        const int64_t r1 = larger(r0, smaller(p.kernel_h, ceil_div(larger(0, p.in_h - h), p.dilation_h)));
        for (int64_t k = 0; k < p.out_channels; k += tiles.size) {
          const int64_t channels = smaller(tiles.size, p.out_channels - k);
          lanes_row<>(channels, columns, cut.parts.count, p.stride_w * x.column_step(),
                      copy + row * p.stride_h * x.row_step(), r0 * row_taps, (r1 - r0) * row_taps,
                      weight + k * num_taps + r0 * row_taps * channels, bias + k,
                      sums + k * y.channel_step() + row * y.row_step(), y.channel_step(), y.column_step());
        }
      }
      for (int64_t plane = 0; plane < y.planes; ++plane)
        part_lanes(sums + plane * y.channel_step(), rows * p.out_w * y.unit, count,
                   f.output + n * y.image + (plane * p.out_h + y0) * p.out_w * y.unit, y.image, f.least);
    }
  });
}

// ------------------------------------------------------------------------------------------- entries

void lanes_forward(const Conv2dForward<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  const int64_t cells = p.kernel_h * p.kernel_w, c = p.in_channels;
  const bool last = a.layout == Layout::nhwc;
  lanes_convolve({p, a.layout, a.input, a.weight, c * cells, last ? 1 : cells, p.kernel_w * (last ? c : 1),
                  last ? c : 1, a.bias, a.output, a.least},
                 par);
}

void lanes_backward_input(const Conv2dBackwardInput<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  const int64_t cells = p.kernel_h * p.kernel_w, c = p.in_channels;
  const bool last = a.layout == Layout::nhwc;
  const int64_t r = p.kernel_w * (last ? c : 1), s = last ? c : 1;
  Conv2dProblem q = p;
  q.in_channels = p.out_channels;
  q.out_channels = p.in_channels;
  q.in_h = p.out_h;
  q.in_w = p.out_w;
  q.out_h = p.in_h;
  q.out_w = p.in_w;
  q.pad_top = (p.kernel_h - 1) * p.dilation_h - p.pad_top;
  q.pad_left = (p.kernel_w - 1) * p.dilation_w - p.pad_left;
  lanes_convolve({q, a.layout, a.grad_output, a.weight + (p.kernel_h - 1) * r + (p.kernel_w - 1) * s,
                  last ? 1 : cells, c * cells, -r, -s, nullptr, a.grad_input, kNoLeast},
                 par);
}

}  // namespace
}  // namespace cisdl
