// Grouped convolutions whose groups fit in a vector, depthwise above all, with lanes along the channels.
//
// The tiles (lane_groups_tile.h) want the channels of a pixel together. In channels_last they are; the rows of the
// output are shared out to the threads. In NCHW a thread takes one vector of channels of one image, a band of rows
// at a time, turns the band around in registers on its way into the cache (W x W transposes), and the result on
// its way out: two dozen instructions a vector, which the tiles more than earn back, since a row of an NCHW plane
// seldom fills its vectors and needs an unaligned load for every product.
//
// The gradient of the weight sums a tile's pixels in registers, tiles of some rows in a buffer, and those buffers
// in another: chains stay short. Threads share the vectors of channels, so the order of a sum is always the same.
#include "column_sums.h"
#include "conv2d_bias_gradient.h"
#include "lane_groups_view.h"

namespace cisdl {
namespace {

constexpr int64_t kBandBytes = 128 << 10;  // of each of the two bands that NCHW keeps
constexpr int64_t kSumTiles = 64;          // tiles summed in one buffer, about

// planes[c][0, pixels) = pixel[.][c] for c < channels, planes `stride` apart.
template <class T>
void spread_planes(const T* pixels, int64_t count, int64_t channels, T* planes, int64_t stride) {
  constexpr int W = kWidth<T>;
  for (int64_t i = 0; i < count; i += W) {
    const int64_t n = smaller(W, count - i);
    Vec<T> t[W];
#pragma GCC unroll 16
    for (int k = 0; k < W; ++k) t[k] = k < n ? load(pixels + (i + k) * W) : zero<T>();
    transpose<T>(t);
#pragma GCC unroll 16
    for (int c = 0; c < W; ++c)
      if (c < channels) store_up_to(planes + c * stride + i, t[c], n);
  }
}

// Bands of output rows whose two copies fit in kBandBytes each.
template <class T>
Parts lane_bands(const LaneView<T>& v) {
  const int64_t row = larger(larger(1, v.out_w), v.in_w * v.in_h / larger(1, v.out_h)) * kVecBytes;
  return split_evenly(v.out_h, larger(1, kBandBytes / row), 1);
}

// Input rows [begin, end) of W channels, turned around into the calling thread's memory.
template <class T>
LaneImage<const T> load_band(Scratch slot, const T* plane, int64_t channels, int64_t h, int64_t w, int64_t begin,
                             int64_t end) {
  constexpr int64_t W = kWidth<T>;
  T* band = static_cast<T*>(scratch(slot, larger(1, end - begin) * w * W * int64_t{sizeof(T)}));
  if (end > begin) pack_transposed<T, 1>(plane + begin * w, h * w, channels, (end - begin) * w, band, W);
  return {band - begin * w * W, W, h, w};
}

template <class T>
void run_lane_view(const LaneView<T>& v, Layout layout, int64_t batch, const T* input, T* output,
                   const Parallel& par) {
  constexpr int64_t W = kWidth<T>;
  if (batch * v.out_h * v.out_w == 0) return;
  const int64_t in_plane = v.in_h * v.in_w, out_plane = v.out_h * v.out_w;
  const int64_t row_work = v.out_w * v.h[0].taps * v.w[0].axis.taps * v.group;
  if (layout == Layout::nhwc) {
    parallel_for(par, batch * v.out_h, grain_for(row_work * v.channels), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / v.out_h;
        v.row(i % v.out_h, {input + n * in_plane * v.channels, v.channels, v.in_h, v.in_w},
              {output + n * out_plane * v.channels, v.channels, v.out_h, v.out_w}, 0, v.channels, 0, nullptr);
      }
    });
    return;
  }
  const Parts bands = lane_bands(v);
  const int64_t vectors = v.vectors();
  parallel_for(
      par, batch * vectors * bands.count, grain_for(row_work * W * bands.size), [&](int64_t begin, int64_t end) {
        T* out = static_cast<T*>(scratch(Scratch::extra, bands.size * v.out_w * W * int64_t{sizeof(T)}));
        for (int64_t i = begin; i < end; ++i) {
          const int64_t band = i % bands.count, vector = i / bands.count % vectors, n = i / bands.count / vectors;
          const int64_t y0 = band * bands.size, y1 = smaller(v.out_h, y0 + bands.size);
          const int64_t channels = smaller(W, v.channels - vector * W), first = n * v.channels + vector * W;
          int64_t h0, h1;
          v.rows_read(y0, y1, h0, h1);
          const LaneImage<const T> in =
              load_band(Scratch::local, input + first * in_plane, channels, v.in_h, v.in_w, h0, h1);
          const LaneImage<T> to{out - y0 * v.out_w * W, W, v.out_h, v.out_w};
          for (int64_t y = y0; y < y1; ++y) v.row(y, in, to, 0, W, vector, nullptr);
          spread_planes(out, (y1 - y0) * v.out_w, channels, output + first * out_plane + y0 * v.out_w, out_plane);
        }
      });
}

template <class T>
void forward(const Conv2dForward<T>& a, const Parallel& par) {
  LaneView<T> v = lane_forward_view<T>(a.p, false);
  v.least = a.least;
  pack_lane_weight(v, a.p, a.layout, a.weight, a.bias, false, par);
  run_lane_view(v, a.layout, a.p.batch, a.input, a.output, par);
}

template <class T>
void backward_input(const Conv2dBackwardInput<T>& a, const Parallel& par) {
  LaneView<T> v = lane_backward_view<T>(a.p);
  pack_lane_weight(v, a.p, a.layout, a.weight, static_cast<const T*>(nullptr), true, par);
  run_lane_view(v, a.layout, a.p.batch, a.grad_output, a.grad_input, par);
}

template <class T>
void add_and_clear(T* total, T* sums, int64_t size) {
  for (int64_t i = 0; i < size; i += kWidth<T>) {
    store(total + i, load(total + i) + load(sums + i));
    store(sums + i, zero<T>());
  }
}

template <class T>
void grad_weight(const Conv2dBackwardWeight<T>& a, const Parallel& par) {
  constexpr int64_t W = kWidth<T>;
  const Conv2dProblem& p = a.p;
  const LaneView<T> v = lane_forward_view<T>(p, true);
  const int64_t in_plane = v.in_h * v.in_w, out_plane = v.out_h * v.out_w, size = v.vector_size(0, 0);
  const Parts bands = lane_bands(v);
  const int64_t most_rows = larger(1, kSumTiles / larger(1, v.w[0].tiles));
  parallel_for(par, v.vectors(), 1, [&](int64_t begin, int64_t end) {
    // Channels_last takes all its vectors together, NCHW one after another.
    const int64_t step = a.layout == Layout::nhwc ? end - begin : 1, all = (end - begin) * size;
    T* total = static_cast<T*>(scratch(Scratch::shared2, 2 * all * int64_t{sizeof(T)}));
    T* sums = total + all;
    std::memset(total, 0, static_cast<size_t>(2 * all) * sizeof(T));
    for (int64_t vector = begin; vector < end; vector += step) {
      T *my_total = total + (vector - begin) * size, *my_sums = sums + (vector - begin) * size;
      const int64_t channels = smaller(step * W, v.channels - vector * W);
      int64_t rows = 0;
      const auto add_row = [&](int64_t y, const LaneImage<const T>& in, const LaneImage<T>& dy, int64_t lanes) {
        v.row(y, in, dy, 0, lanes, 0, my_sums);
        if (++rows == most_rows) {
          add_and_clear(my_total, my_sums, step * size);
          rows = 0;
        }
      };
      for (int64_t n = 0; n < p.batch; ++n) {
        if (a.layout == Layout::nhwc) {
          const LaneImage<const T> in{a.input + n * in_plane * v.channels + vector * W, v.channels, v.in_h,
                                      v.in_w};
          // The tiles only read dy.
          const LaneImage<T> dy{const_cast<T*>(a.grad_output) + n * out_plane * v.channels + vector * W,
                                v.channels, v.out_h, v.out_w};
          for (int64_t y = 0; y < v.out_h; ++y) add_row(y, in, dy, channels);
          continue;
        }
        const int64_t first = n * v.channels + vector * W;
        for (int64_t y0 = 0; y0 < v.out_h; y0 += bands.size) {
          const int64_t y1 = smaller(v.out_h, y0 + bands.size);
          int64_t h0, h1;
          v.rows_read(y0, y1, h0, h1);
          const LaneImage<const T> in =
              load_band(Scratch::local, a.input + first * in_plane, channels, v.in_h, v.in_w, h0, h1);
          const LaneImage<const T> dy =
              load_band(Scratch::extra, a.grad_output + first * out_plane, channels, v.out_h, v.out_w, y0, y1);
          const LaneImage<T> dy_rows{const_cast<T*>(dy.data), W, v.out_h, v.out_w};
          for (int64_t y = y0; y < y1; ++y) add_row(y, in, dy_rows, W);
        }
      }
      add_and_clear(my_total, my_sums, step * size);
      const LaneWeightStrides to(p, a.layout, v.group);
      const T* from = my_total;
      for (int64_t c0 = vector * W; c0 < (vector + step) * W; c0 += W)
        for (int64_t r = 0; r < p.kernel_h; ++r)
          for (int64_t s = 0; s < p.kernel_w; ++s)
            for (int64_t j = 0; j < v.group; ++j, from += W)
              for (int64_t c = c0; c < smaller(v.channels, c0 + W); ++c)
                a.grad_weight[c * to.channel + j * to.j + r * to.r + s * to.s] = from[c - c0];
    }
  });
}

template <class T>
void backward_weight(const Conv2dBackwardWeight<T>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  if (a.grad_bias && a.layout == Layout::nchw) conv2d_bias_gradient(p, a.grad_output, a.grad_bias, par);
  if (a.grad_bias && a.layout == Layout::nhwc)
    column_sums(a.grad_output, p.batch * p.out_h * p.out_w, p.out_channels, a.grad_bias, par);
  if (a.grad_weight) grad_weight(a, par);
}

// Depthwise, or equal groups of 2, 4 or 8 channels in and out, as far as a vector holds them. An NCHW vector with
// most lanes empty is left to the others.
template <class T>
bool applies(const Conv2dProblem& p, Layout layout) {
  const int64_t g = p.groups > 1 ? p.in_channels / p.groups : 0;
  return p.in_channels == p.out_channels && (g == 1 || g == 2 || g == 4 || g == 8) && g <= kWidth<T> &&
         (layout == Layout::nhwc || 2 * p.in_channels >= kWidth<T>) && p.stride_h <= kMaxLaneStride &&
         p.stride_w <= kMaxLaneStride;
}

template <class T>
constexpr LaneGroupKernels<T> kernels() {
  return {applies<T>, forward<T>, backward_input<T>, backward_weight<T>};
}

constexpr LaneGroupFamily kFamily = {kernels<float>(), kernels<double>()};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(lane_groups, LaneGroupFamily) { return &cisdl::kFamily; }
