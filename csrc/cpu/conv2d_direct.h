// Direct convolution for few output channels per group, depthwise above all; NCHW, lanes along the output row.
//
// A register tile is up to kDirectRows output channels by a few output rows by one vector of columns. For every tap
// it loads one vector of each row straight from the window (conv2d_window.h) and broadcasts one weight per channel:
// nothing is packed but the weights. That wins where too few channels share a patch to pay for packing it
// (conv2d_packed_gemm.h), as long as the rows fill their vectors.
//
// An item is a band of output rows of one group of one image, low enough that its window stays in L2. Sums over
// many input channels are cut at kMaxChain taps and added up in the output in order.
#pragma once

#include "conv2d_window.h"

namespace cisdl {
namespace {

constexpr int kDirectRows = kNumRegisters == 32 ? 8 : 6;  // output channels
constexpr int64_t kDirectWindowBytes = 128 << 10;

// Output rows of a tile of `rows` channels: what the registers hold beside the operands, at most 4.
constexpr int direct_height(int rows) {
  const int fit = (kNumRegisters - 4) / rows;
  return fit < 4 ? fit : 4;
}

// Where a tile goes: see Conv2dView for the strides.
template <class T>
struct DirectOutput {
  T* out;
  int64_t out_channel, out_y, out_x;
  const T* bias;  // or null
  bool accumulate;
};

// Stores a tile of sums, [rows][height] vectors of `cols` lanes. One function for tiles of all sizes: it is a small
// part of the time and would be most of the code.
template <class T>
__attribute__((noinline)) void store_direct_tile(const T* sums, int64_t rows, int64_t height, const DirectOutput<T>& to,
                                                 int64_t cols) {
  constexpr int W = kWidth<T>;
  for (int64_t k = 0; k < rows; ++k) {
    const T bias = to.bias && !to.accumulate ? to.bias[k] : T(0);
    for (int64_t y = 0; y < height; ++y, sums += W) {
      T* dst = to.out + k * to.out_channel + y * to.out_y;
      if (to.out_x == 1 && cols >= W)
        store(dst, load(sums) + (to.accumulate ? load(dst) : set1(bias)));
      else
        store_strided<T>(dst, to.out_x, sums, smaller(cols, W), bias, to.accumulate);
    }
  }
}

template <class T, int KR, int YR>
void direct_tile(const T* window, int64_t y_stride, const int64_t* taps, int64_t num_taps, const T* weight,
                 const DirectOutput<T>& to, int64_t cols) {
  constexpr int W = kWidth<T>;
  Vec<T> acc[KR][YR];
#pragma GCC unroll 8
  for (int k = 0; k < KR; ++k)
#pragma GCC unroll 4
    for (int y = 0; y < YR; ++y) acc[k][y] = zero<T>();
  for (int64_t i = 0; i < num_taps; ++i, weight += KR) {
    const T* src = window + taps[i];
    Vec<T> x[YR];
#pragma GCC unroll 4
    for (int y = 0; y < YR; ++y) x[y] = load(src + y * y_stride);
#pragma GCC unroll 8
    for (int k = 0; k < KR; ++k) {
      const Vec<T> w = set1(weight[k]);
#pragma GCC unroll 4
      for (int y = 0; y < YR; ++y) acc[k][y] += w * x[y];
    }
  }
  alignas(kVecBytes) T sums[KR * YR * W];
#pragma GCC unroll 8
  for (int k = 0; k < KR; ++k)
#pragma GCC unroll 4
    for (int y = 0; y < YR; ++y) store(sums + (k * YR + y) * W, acc[k][y]);
  store_direct_tile<T>(sums, KR, YR, to, cols);
}

// A band of `height` output rows of KR channels.
template <class T, int KR, int YR = direct_height(KR)>
void direct_rows(const T* window, int64_t y_stride, const int64_t* taps, int64_t num_taps, const T* weight,
                 DirectOutput<T> to, int64_t height, int64_t width) {
  for (; height >= YR; height -= YR) {
    for (int64_t x = 0; x < width; x += kWidth<T>) {
      DirectOutput<T> at = to;
      at.out += x * to.out_x;
      direct_tile<T, KR, YR>(window + x, y_stride, taps, num_taps, weight, at, width - x);
    }
    window += YR * y_stride;
    to.out += YR * to.out_y;
  }
  if constexpr (YR > 1) {
    if (height > 0) direct_rows<T, KR, YR - 1>(window, y_stride, taps, num_taps, weight, to, height, width);
  }
}

template <class T, int KR = kDirectRows>
CISDL_INLINE void direct_channels(int64_t rows, const T* window, int64_t y_stride, const int64_t* taps,
                                  int64_t num_taps, const T* weight, const DirectOutput<T>& to, int64_t height,
                                  int64_t width) {
  if (rows == KR) {
    direct_rows<T, KR>(window, y_stride, taps, num_taps, weight, to, height, width);
  } else if constexpr (KR > 1) {
    direct_channels<T, KR - 1>(rows, window, y_stride, taps, num_taps, weight, to, height, width);
  }
}

template <class T>
void direct_conv2d(const Conv2dView<T>& v, const Parallel& par) {
  const Conv2dProblem& p = v.p;
  const int64_t channels = p.in_channels / p.groups, cells = p.kernel_h * p.kernel_w, plane = p.out_h * p.out_w;
  const int64_t group_rows = p.out_channels / p.groups;
  if (p.batch * p.out_channels * plane == 0) return;

  // Input channels of a block, tiles of output channels, output rows of a band.
  const Parts blocks = split_evenly(channels, larger(1, kMaxChain / cells), 1);
  const Parts tiles = split_evenly(group_rows, kDirectRows, 1);
  const WindowShape whole(p, 0, plane, blocks.size);
  const int64_t window_rows = kDirectWindowBytes / static_cast<int64_t>(sizeof(T)) / (blocks.size * whole.row_stride);
  const Parts bands =
      split_evenly(p.out_h, larger(4, (window_rows - (p.kernel_h - 1) * p.dilation_h) / whole.row_step), 4);

  // Weights as [group][block][tile], each tile [tap][rows].
  const int64_t tile_stride = tiles.size * blocks.size * cells + kPackSlack<T>;
  const int64_t group_tiles = blocks.count * tiles.count;
  T* packed =
      static_cast<T*>(scratch(Scratch::shared, p.groups * group_tiles * tile_stride * static_cast<int64_t>(sizeof(T))));
  const auto block_channels = [&](int64_t block) { return larger(0, smaller(blocks.size, channels - block * blocks.size)); };
  const auto tile_rows = [&](int64_t tile) { return smaller(tiles.size, group_rows - tile * tiles.size); };
  parallel_for(par, p.groups * group_tiles, grain_for(8 * tile_stride), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t tile = i % tiles.count, block = i / tiles.count % blocks.count, group = i / group_tiles;
      pack_weight_tile<T>(v, v.weight + group * v.weight_group + tile * tiles.size * v.weight_row, tile_rows(tile),
                          block * blocks.size * cells, block_channels(block) * cells, packed + i * tile_stride);
    }
  });

  const int64_t images = p.batch * p.groups;
  const int64_t work = bands.size * p.out_w * group_rows * channels * cells;
  parallel_for(par, bands.count * images, grain_for(work), [&](int64_t begin, int64_t end) {
    int64_t taps[kMaxChain];
    for (int64_t i = begin; i < end;) {
      const int64_t band = i / images, stop = smaller(end, (band + 1) * images);
      const int64_t y = band * bands.size, height = smaller(bands.size, p.out_h - y);
      WindowShape shape(p, y * p.out_w, (y + height) * p.out_w, blocks.size);
      T* window = static_cast<T*>(scratch(Scratch::local, shape.size<T>() * static_cast<int64_t>(sizeof(T))));
      for (int64_t tap = 0; tap < blocks.size * cells; ++tap)
        taps[tap] = shape.tap(p, tap / cells, tap % cells / p.kernel_w, tap % p.kernel_w);
      for (; i < stop; ++i) {
        const int64_t group = i % p.groups;
        shape.image = i % images / p.groups;
        for (int64_t block = 0; block < blocks.count; ++block) {
          copy_window(p, v.input, group * channels + block * blocks.size, block_channels(block), shape, window);
          for (int64_t tile = 0; tile < tiles.count; ++tile) {
            const int64_t k = group * group_rows + tile * tiles.size;
            const DirectOutput<T> to{v.output + shape.image * v.out_image + k * v.out_channel + y * v.out_y,
                                     v.out_channel, v.out_y, v.out_x, v.bias ? v.bias + k : nullptr, block > 0};
            direct_channels<T>(tile_rows(tile), window, shape.row_step * shape.row_stride, taps,
                               block_channels(block) * cells,
                               packed + (group * group_tiles + block * tiles.count + tile) * tile_stride, to, height,
                               p.out_w);
          }
        }
      }
    }
  });
}

// Whether a view with `rows` output channels per group and output rows of `width` is cheaper here than packed: a
// vector of patches costs about four FMAs to pack, and a row's last vector may be partly empty here.
template <class T>
bool direct_is_cheaper(int64_t channels, int64_t rows, int64_t width, int64_t cells) {
  const int64_t filled = ceil_div(width, kWidth<T>) * kWidth<T>;
  return channels > 0 && rows <= kDirectRows && cells <= kMaxChain && rows * filled < (rows + 4) * width;
}

template <class T>
bool conv2d_direct_forward_applies(const Conv2dForward<T>& args) {
  const Conv2dProblem& p = args.p;
  return args.layout == Layout::nchw &&
         direct_is_cheaper<T>(p.in_channels, p.out_channels / p.groups, p.out_w, p.kernel_h * p.kernel_w);
}

template <class T>
void conv2d_direct_forward(const Conv2dForward<T>& args, const Parallel& par) {
  direct_conv2d<T>(forward_view(args), par);
}

template <class T>
bool conv2d_direct_backward_input_applies(const Conv2dBackwardInput<T>& args) {
  const Conv2dProblem& p = args.p;
  return args.layout == Layout::nchw &&
         direct_is_cheaper<T>(p.out_channels, p.in_channels / p.groups, ceil_div(p.in_w, p.stride_w),
                              p.kernel_h * p.kernel_w);
}

template <class T>
void conv2d_direct_backward_input(const Conv2dBackwardInput<T>& args, const Parallel& par) {
  for_each_stride_class(args, par, [&](const Conv2dView<T>& view) { direct_conv2d<T>(view, par); });
}

}  // namespace
}  // namespace cisdl
