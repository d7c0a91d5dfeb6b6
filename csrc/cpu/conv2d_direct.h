// Direct convolution for few output channels per group; NCHW, lanes along the output row.
//
// A register tile is up to kDirectRows output channels by a few output rows by one vector of columns. For every
// tap it loads one vector of each row straight from the window (conv2d_window.h), which is the input itself where
// no edge and no stride is in the way, and broadcasts one weight per channel: nothing is packed but the weights.
// That wins where too few channels share a patch to pay for packing it (conv2d_packed_gemm.h), as long as the rows
// fill their vectors.
//
// An item is a band of output rows of one group of one image, low enough that its window stays in L2. Sums over
// many input channels are cut at kMaxChain taps and added up in the output in order. Nothing is added across
// threads.
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
  T least;  // no output becomes less
};

// Stores a tile of sums, [rows][height] vectors of `cols` lanes. One function for tiles of all sizes: it is a
// small part of the time and would be most of the code.
template <class T>
__attribute__((noinline)) void store_direct_tile(const T* sums, int64_t rows, int64_t height,
                                                 const DirectOutput<T>& to, int64_t cols) {
  constexpr int W = kWidth<T>;
  for (int64_t k = 0; k < rows; ++k) {
    const T bias = to.bias && !to.accumulate ? to.bias[k] : T(0);
    for (int64_t y = 0; y < height; ++y, sums += W) {
      T* dst = to.out + k * to.out_channel + y * to.out_y;
      if (to.out_x == 1 && cols >= W)
        store(dst, at_least<T>(load(sums) + (to.accumulate ? load(dst) : set1(bias)), set1(to.least)));
      else
        store_strided<T>(dst, to.out_x, sums, smaller(cols, W), bias, to.accumulate, to.least);
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

// How one view is cut, and where its packed weights lie.
template <class T>
struct DirectPlan {
  Conv2dView<T> v;
  int64_t channels, rows, cells;   // of a group: input channels, output channels; of the kernel
  Parts blocks;                    // of input channels
  Parts tiles;                     // of output channels
  int64_t group_tiles, tile_size;  // packed tiles of a group and elements of one: [group][block][tile][tap][rows]
  int64_t bands;                   // of output rows, as many as its window asks for
  T* packed;

  DirectPlan() = default;
  explicit DirectPlan(const Conv2dView<T>& view) : v(view) {
    const Conv2dProblem& p = v.p;
    channels = p.in_channels / p.groups;
    rows = p.out_channels / p.groups;
    cells = p.kernel_h * p.kernel_w;
    blocks = split_evenly(channels, larger(1, kMaxChain / cells), 1);
    tiles = split_evenly(rows, kDirectRows, 1);
    group_tiles = blocks.count * tiles.count;
    tile_size = tiles.size * blocks.size * cells + kPackSlack<T>;
    const WindowShape whole(p, 0, p.out_h * p.out_w, blocks.size);
    const int64_t fit = kDirectWindowBytes / static_cast<int64_t>(sizeof(T)) / (blocks.size * whole.row_stride);
    bands = ceil_div(p.out_h, larger(4, (fit - (p.kernel_h - 1) * p.dilation_h) / whole.row_step));
  }

  int64_t packed_size() const { return v.p.groups * group_tiles * tile_size; }
  int64_t block_channels(int64_t block) const { return smaller(blocks.size, channels - block * blocks.size); }
  int64_t tile_rows(int64_t tile) const { return smaller(tiles.size, rows - tile * tiles.size); }

  void pack_tile(int64_t i) const {
    const int64_t tile = i % tiles.count, block = i / tiles.count % blocks.count, group = i / group_tiles;
    pack_weight_tile<T>(v, v.weight + group * v.weight_group + tile * tiles.size * v.weight_row, tile_rows(tile),
                        block * blocks.size * cells, block_channels(block) * cells, packed + i * tile_size);
  }

  // The window of output rows [y, y + height) and where in it the taps of a block are: in a copy of the window,
  // then, kMaxChain further on, in the input itself.
  WindowShape window(int64_t y, int64_t height, int64_t* taps) const {
    const Conv2dProblem& p = v.p;
    const WindowShape shape(p, y * p.out_w, (y + height) * p.out_w, blocks.size);
    WindowShape in_place = shape;
    in_place.set_input_strides(p);
    for (int64_t i = 0; i < blocks.size * cells; ++i) {
      const int64_t channel = i / cells, r = i % cells / p.kernel_w, s = i % p.kernel_w;
      taps[i] = shape.tap(p, channel, r, s);
      taps[kMaxChain + i] = in_place.tap(p, channel, r, s);
    }
    return shape;
  }

  // Output rows [y, y + height) of one group of image shape.image.
  void run(int64_t group, int64_t y, int64_t height, const WindowShape& shape, const int64_t* taps,
           T* buffer) const {
    const Conv2dProblem& p = v.p;
    for (int64_t block = 0; block < blocks.count; ++block) {
      WindowShape found = shape;
      const T* window =
          make_window(p, v.input, group * channels + block * blocks.size, block_channels(block), found, buffer);
      const int64_t* found_taps = window == buffer ? taps : taps + kMaxChain;
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t k = group * rows + tile * tiles.size;
        T* out = v.output + shape.image * v.out_image + k * v.out_channel + y * v.out_y;
        const T* bias = v.bias ? v.bias + k : nullptr;
        const T least = block == blocks.count - 1 ? v.least : T(kNoLeast);
        direct_channels<T>(tile_rows(tile), window, found.row_step * found.row_stride, found_taps,
                           block_channels(block) * cells,
                           packed + (group * group_tiles + block * tiles.count + tile) * tile_size,
                           {out, v.out_channel, v.out_y, v.out_x, bias, block > 0, least}, height, p.out_w);
      }
    }
  }
};

constexpr int kMaxDirectViews = 16;

// Runs up to kMaxDirectViews views of the same images and groups together, so that the stride classes of a
// gradient fill a plane while it is in the cache.
template <class T>
void direct_conv2d(const Conv2dView<T>* views, int count, const Parallel& par) {
  DirectPlan<T> plans[kMaxDirectViews];
  int64_t packed_size = 0, num_tiles = 0, bands = 1, work = 0;
  for (int i = 0; i < count; ++i) {
    plans[i] = DirectPlan<T>(views[i]);
    const Conv2dProblem& p = views[i].p;
    packed_size += plans[i].packed_size();
    num_tiles += p.groups * plans[i].group_tiles;
    bands = larger(bands, plans[i].bands);
    work += p.out_h * p.out_w * plans[i].rows * plans[i].channels * plans[i].cells;
  }
  const int64_t groups = views[0].p.groups, images = views[0].p.batch * groups;
  T* packed = static_cast<T*>(scratch(Scratch::shared, packed_size * static_cast<int64_t>(sizeof(T))));
  for (int i = 0; i < count; ++i) {
    plans[i].packed = packed;
    packed += plans[i].packed_size();
  }
  parallel_for(par, num_tiles, grain_for(8 * packed_size / num_tiles), [&](int64_t begin, int64_t end) {
    int64_t first = 0;
    for (const DirectPlan<T>* plan = plans; plan < plans + count; ++plan) {
      const int64_t tiles = groups * plan->group_tiles;
      for (int64_t i = larger(begin, first); i < smaller(end, first + tiles); ++i) plan->pack_tile(i - first);
      first += tiles;
    }
  });

  parallel_for(par, bands * images, grain_for(work / bands), [&](int64_t begin, int64_t end) {
    int64_t* taps = static_cast<int64_t*>(
        scratch(Scratch::extra, 2 * count * kMaxChain * static_cast<int64_t>(sizeof(int64_t))));
    WindowShape shapes[kMaxDirectViews];
    for (int64_t i = begin; i < end;) {
      const int64_t band = i / images, stop = smaller(end, (band + 1) * images);
      const auto first_row = [&](int j, int64_t b) { return views[j].p.out_h * b / bands; };
      int64_t window_size = 0;
      for (int j = 0; j < count; ++j) {
        const int64_t y = first_row(j, band), height = first_row(j, band + 1) - y;
        if (height == 0) continue;
        shapes[j] = plans[j].window(y, height, taps + 2 * j * kMaxChain);
        window_size = larger(window_size, shapes[j].template size<T>());
      }
      T* buffer = static_cast<T*>(scratch(Scratch::local, window_size * static_cast<int64_t>(sizeof(T))));
      for (; i < stop; ++i)
        for (int j = 0; j < count; ++j) {
          const int64_t y = first_row(j, band), height = first_row(j, band + 1) - y;
          if (height == 0) continue;
          shapes[j].image = i % images / groups;
          plans[j].run(i % groups, y, height, shapes[j], taps + 2 * j * kMaxChain, buffer);
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
  Conv2dView<T> view = forward_view(args);
  if (take_vectors_as_rows<T>(view.p)) view.out_y = view.p.out_w;
  if (args.p.batch * args.p.out_channels * args.p.out_h * args.p.out_w > 0) direct_conv2d<T>(&view, 1, par);
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
  if (args.p.batch * args.p.in_channels == 0) return;
  Conv2dView<T> views[kMaxDirectViews];
  int count = 0;
  for_each_stride_class(args, par, [&](const Conv2dView<T>& view) {
    views[count++] = view;
    if (count == kMaxDirectViews) {
      direct_conv2d<T>(views, count, par);
      count = 0;
    }
  });
  if (count > 0) direct_conv2d<T>(views, count, par);
}

}  // namespace
}  // namespace cisdl
