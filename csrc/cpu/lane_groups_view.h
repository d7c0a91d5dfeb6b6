// A grouped convolution as the tiles of lane_groups_tile.h see it: axes, packed weights, rows, images.
//
// Forward convolution and the gradient to the input are both sums over taps that lie evenly spaced in the image.
// With a stride, the rows of the input's gradient fall into classes with taps of their own (StrideClass in
// conv2d_view.h), and so do its columns; an output row takes all its column classes one after another, while what
// they read is in the cache.
#pragma once

#include "conv2d_view.h"
#include "lane_groups_tile.h"

namespace cisdl {
namespace {

// Of an image, in bytes, from which on asking ahead pays. Measured on eight images, forward and the two gradients,
// 3x3 depthwise: 128 channels on 56x56 1.24, 1.11 and 1.23 times as fast, with stride 2 0.92, 1.22 and 0.94; 256
// channels on 28x28, half as large, 0.90, 0.90 and 0.97.
constexpr int64_t kLargeImage = 1 << 20;
constexpr int64_t kMaxLaneStride = 4;  // classes of an axis, for the gradient to the input

// One class of output rows (or columns): tap j of its position i reads input row i * in_step + start + j * delta.
struct LaneAxis {
  int64_t first, count, out_step;           // positions first + i * out_step
  int64_t in_step, start, delta;            // delta > 0
  int64_t taps, kernel_first, kernel_step;  // tap j is row kernel_first + j * kernel_step of the kernel

  // Positions [begin, end) all of whose taps are inside an input of `size`.
  void inner(int64_t size, int64_t& begin, int64_t& end) const {
    begin = start < 0 ? ceil_div(-start, in_step) : 0;
    const int64_t last = size - 1 - start - larger(0, taps - 1) * delta;
    end = last < 0 ? 0 : smaller(count, last / in_step + 1);
  }
  // Taps [begin, end) of position i that are inside an input of `size`.
  void inside(int64_t i, int64_t size, int64_t& begin, int64_t& end) const {
    const int64_t at = i * in_step + start;
    begin = at < 0 ? smaller(taps, ceil_div(-at, delta)) : 0;
    end = at >= size ? 0 : smaller(taps, (size - 1 - at) / delta + 1);
    if (end < begin) end = begin;
  }
};

CISDL_INLINE LaneAxis forward_axis(int64_t out, int64_t stride, int64_t pad, int64_t dilation, int64_t kernel) {
  return {0, out, 1, stride, -pad, dilation, kernel, 0, 1};
}

CISDL_INLINE LaneAxis backward_axis(const StrideClass& c, int64_t stride) {
  return {c.first,
          c.count,
          stride,
          1,
          c.offset - (c.taps - 1) * c.dilation,
          c.dilation,
          c.taps,
          c.first_tap + (c.taps - 1) * c.tap_step,
          -c.tap_step};
}

// How the columns of a class are cut into tiles.
template <class T>
struct LaneColumns {
  LaneAxis axis;
  int64_t strip_taps, sw;        // of the tile
  int64_t n, tiles;              // pixels of a tile
  int64_t full_begin, full_end;  // tiles all of whose columns are inside
  LaneKernel<T> fast, careful;

  LaneColumns() = default;
  LaneColumns(const LaneAxis& a, int64_t g, int64_t in_w, bool weight) : axis(a) {
    strip_taps = cisdl::strip_taps<T>(g, a.taps, a.delta == 1, a.in_step);
    sw = strip_taps == 1 ? 1 : a.in_step;
    n = weight ? tile_pixels<T, true>(a.count) : tile_pixels<T, false>(a.count);
    tiles = ceil_div(a.count, n);
    int64_t begin, end;
    a.inner(in_w, begin, end);
    full_begin = smaller(tiles, ceil_div(begin, n));
    full_end = larger(full_begin, end / n);
    fast = weight ? lane_kernel<T, true, false>(g, strip_taps, sw, n)
                  : lane_kernel<T, false, false>(g, strip_taps, sw, n);
    // The careful gradient of the weight counts its pixels: the larger tile does for the smaller one.
    careful = weight ? lane_kernel<T, true, true>(g, strip_taps, sw, kLongestTile<T>)
                     : lane_kernel<T, false, true>(g, strip_taps, sw, n);
  }
};

// An image, or a part of it, with `channels` channels together: row 0 of the whole image would be at data.
template <class T>
struct LaneImage {
  T* data;
  int64_t channels, h, w;
  CISDL_INLINE T* row(int64_t y) const { return data + y * w * channels; }
};

template <class T>
struct LaneView {
  int64_t group, channels;
  int64_t in_h, in_w, out_h, out_w;  // of the images read and written
  int64_t h_classes, w_classes;
  LaneAxis h[kMaxLaneStride];
  LaneColumns<T> w[kMaxLaneStride];
  int64_t class_of_row[kMaxLaneStride];             // by y % h_classes
  const T* weight[kMaxLaneStride][kMaxLaneStride];  // packed, by class
  const T* bias;                                    // padded
  T least = kNoLeast;                               // no output becomes less

  int64_t vectors() const { return ceil_div(channels, kWidth<T>); }
  int64_t vector_size(int64_t a, int64_t b) const { return h[a].taps * w[b].axis.taps * group * kWidth<T>; }

  // Which input rows the output rows [y0, y1) read.
  void rows_read(int64_t y0, int64_t y1, int64_t& begin, int64_t& end) const {
    begin = in_h;
    end = 0;
    for (int64_t y = y0; y < y1; ++y) {
      const LaneAxis& a = h[class_of_row[y % h_classes]];
      const int64_t at = (y - a.first) / a.out_step * a.in_step + a.start;
      int64_t first, last;
      a.inside((y - a.first) / a.out_step, in_h, first, last);
      if (first == last) continue;
      begin = smaller(begin, at + first * a.delta);
      end = larger(end, at + (last - 1) * a.delta + 1);
    }
    if (end < begin) begin = end = 0;
  }

  // One class of columns of output row y; channels [begin, end) of the images, which are channels vector * W and
  // up of the weight. `sums`: as the packed weight; null but for the gradient of the weight.
  void columns(int64_t a, int64_t b, int64_t y, const LaneImage<const T>& in, const LaneImage<T>& out,
               int64_t begin, int64_t end, int64_t vector, T* sums) const {
    const LaneAxis& rows = h[a];
    const LaneColumns<T>& cols = w[b];
    const LaneAxis& ca = cols.axis;
    const int64_t i = (y - rows.first) / rows.out_step;
    int64_t r0, r1;
    rows.inside(i, in_h, r0, r1);
    const int64_t size = vector_size(a, b), skipped = r0 * ca.taps * group * kWidth<T> + vector * size;
    LaneRow<T> row;
    row.x = in.row(i * rows.in_step + rows.start + r0 * rows.delta) + ca.start * in.channels;
    row.pixel_step = ca.in_step * in.channels;
    row.column_step = cols.strip_taps == 1 ? row.pixel_step : in.channels;
    row.tap_row_step = rows.delta * in.w * in.channels;
    row.tap_rows = r1 - r0;
    row.strip_step = cols.strip_taps * ca.delta * in.channels;
    row.strips = ca.taps / cols.strip_taps;
    row.out = out.row(y) + ca.first * out.channels;
    row.out_step = ca.out_step * out.channels;
    row.weight = sums ? nullptr : weight[a][b] + skipped;
    row.sums = sums ? sums + skipped : nullptr;
    row.weight_vector = size;
    // A band of NCHW is in the cache.
    row.look_ahead = in.channels == channels && in_h * in_w * channels * int64_t{sizeof(T)} >= kLargeImage;
    row.least = least;
    row.bias = bias ? bias + vector * kWidth<T> : nullptr;
    const int64_t full = begin + (end - begin) / kWidth<T> * kWidth<T>;
    const auto run = [&](LaneKernel<T> kernel, int64_t first, int64_t last, int64_t c0, int64_t c1) {
      if (c0 == c1) return;
      // A gradient may not count a pixel twice; otherwise the last tile may overlap the one before.
      for (int64_t t = first; t < last;) {
        const bool short_one = (t + 1) * cols.n > ca.count;
        const int64_t pixel = short_one && !sums ? ca.count - cols.n : t * cols.n;
        const int64_t count = kernel == cols.fast && !short_one ? smaller(last, ca.count / cols.n) - t : 1;
        kernel(row,
               {pixel, count, c0, c1, pixel * ca.in_step + ca.start, in_w, cols.strip_taps == 1 ? ca.in_step : 1,
                cols.strip_taps * ca.delta, smaller(cols.n, ca.count - pixel)});
        t += count;
      }
    };
    run(cols.careful, 0, cols.full_begin, begin, full);
    run(cols.fast, cols.full_begin, cols.full_end, begin, full);
    run(cols.careful, cols.full_end, cols.tiles, begin, full);
    run(cols.careful, 0, cols.tiles, full, end);
  }

  void row(int64_t y, const LaneImage<const T>& in, const LaneImage<T>& out, int64_t begin, int64_t end,
           int64_t vector, T* sums) const {
    const int64_t a = class_of_row[y % h_classes];
    for (int64_t b = 0; b < w_classes; ++b)
      if (w[b].axis.count > 0) columns(a, b, y, in, out, begin, end, vector, sums);
  }
};

template <class T>
LaneView<T> lane_forward_view(const Conv2dProblem& p, bool weight) {
  LaneView<T> v{};
  v.group = p.in_channels / p.groups;
  v.channels = p.in_channels;
  v.in_h = p.in_h, v.in_w = p.in_w, v.out_h = p.out_h, v.out_w = p.out_w;
  v.h_classes = v.w_classes = 1;
  v.h[0] = forward_axis(p.out_h, p.stride_h, p.pad_top, p.dilation_h, p.kernel_h);
  v.w[0] = LaneColumns<T>(forward_axis(p.out_w, p.stride_w, p.pad_left, p.dilation_w, p.kernel_w), v.group, p.in_w,
                          weight);
  return v;
}

template <class T>
LaneView<T> lane_backward_view(const Conv2dProblem& p) {
  LaneView<T> v{};
  v.group = p.in_channels / p.groups;
  v.channels = p.in_channels;
  v.in_h = p.out_h, v.in_w = p.out_w, v.out_h = p.in_h, v.out_w = p.in_w;
  v.h_classes = p.stride_h, v.w_classes = p.stride_w;
  for (int64_t i = 0; i < p.stride_h; ++i) {
    const StrideClass c(i, p.in_h, p.pad_top, p.stride_h, p.kernel_h, p.dilation_h);
    v.h[i] = backward_axis(c, p.stride_h);
    v.class_of_row[c.first] = i;
  }
  for (int64_t i = 0; i < p.stride_w; ++i) {
    const StrideClass c(i, p.in_w, p.pad_left, p.stride_w, p.kernel_w, p.dilation_w);
    v.w[i] = LaneColumns<T>(backward_axis(c, p.stride_w), v.group, p.out_w, false);
  }
  return v;
}

// Strides of a weight [groups * G][G][kernel_h][kernel_w] in its layout: of a channel, of an input in the group,
// of a row and of a column of the kernel.
struct LaneWeightStrides {
  int64_t channel, j, r, s;
  LaneWeightStrides(const Conv2dProblem& p, Layout layout, int64_t g) {
    const int64_t cells = p.kernel_h * p.kernel_w;
    channel = g * cells;
    j = layout == Layout::nchw ? cells : 1;
    r = p.kernel_w * (layout == Layout::nchw ? 1 : g);
    s = layout == Layout::nchw ? 1 : g;
  }
};

// Packs the weight of every class, and the bias. `transposed`: lanes are channels of the input.
template <class T>
void pack_lane_weight(LaneView<T>& v, const Conv2dProblem& p, Layout layout, const T* weight, const T* bias,
                      bool transposed, const Parallel& par) {
  constexpr int64_t W = kWidth<T>;
  const int64_t padded = v.vectors() * W, cells = p.kernel_h * p.kernel_w;
  T* packed = static_cast<T*>(scratch(Scratch::shared, (cells * v.group + 1) * padded * int64_t{sizeof(T)}));
  v.bias = packed;
  for (int64_t c = 0; c < padded; ++c) packed[c] = bias && c < v.channels ? bias[c] : T(0);
  packed += padded;
  const LaneWeightStrides from(p, layout, v.group);
  for (int64_t a = 0; a < v.h_classes; ++a)
    for (int64_t b = 0; b < v.w_classes; ++b) {
      const LaneAxis &rows = v.h[a], &cols = v.w[b].axis;
      v.weight[a][b] = packed;
      const int64_t size = v.vector_size(a, b);
      parallel_for(par, v.vectors(), grain_for(8 * size), [&](int64_t begin, int64_t end) {
        T* to = packed + begin * size;
        for (int64_t c0 = begin * W; c0 < end * W; c0 += W)
          for (int64_t r = 0; r < rows.taps; ++r)
            for (int64_t s = 0; s < cols.taps; ++s) {
              const T* tap = weight + (rows.kernel_first + r * rows.kernel_step) * from.r +
                             (cols.kernel_first + s * cols.kernel_step) * from.s;
              for (int64_t j = 0; j < v.group; ++j)
                for (int64_t c = c0; c < c0 + W; ++c) {
                  const int64_t first = c / v.group * v.group;
                  const int64_t at = transposed ? (first + j) * from.channel + (c - first) * from.j
                                                : c * from.channel + j * from.j;
                  *to++ = c < v.channels ? tap[at] : T(0);
                }
            }
      });
      packed += v.vectors() * size;
    }
}

}  // namespace
}  // namespace cisdl
