// The part of the input that a run of output pixels reads, laid out so that packing never meets an edge.
//
// A panel of patches (conv2d_patches.h) reads each input element once for every tap (r, s) of the kernel. So the
// edges and strides are dealt with once, here: the rows and channels needed are copied into a window of
//
//   [image][channel][row][stride_w phases][columns]
//
// with zeros outside the image. Column j of phase f holds input column j*stride_w + f, so that the pixels of an
// output row read consecutive elements for every tap and any stride. Where the input has that form already
// (stride 1, nothing outside the image) the window is the input itself and nothing is copied.
//
// Padding is signed: a negative one crops, as gradients need.
#pragma once

#include "conv2d_view.h"

namespace cisdl {
namespace {

// Geometry of the window under output pixels [begin, end) of the flattened (n, y, x), for `channels` channels.
struct WindowShape {
  int64_t image, y, x;      // first image, first output row and column covered
  int64_t images;           // images covered
  int64_t h, w;             // input row and column of the first element; may lie outside the image
  int64_t rows, row_step;   // input rows kept, and how many of them one step of y moves on
  int64_t h_step;           // input rows from one row kept to the next
  int64_t phases, columns;  // phases kept, and columns of each
  int64_t row_stride, channel_stride, image_stride;

  WindowShape() = default;
  WindowShape(const Conv2dProblem& p, int64_t begin, int64_t end, int64_t channels) {
    const int64_t plane = p.out_h * p.out_w, last = end - 1;
    image = begin / plane;
    images = last / plane - image + 1;
    int64_t y_last = p.out_h - 1, x_last = p.out_w - 1;
    y = x = 0;
    if (images == 1) {
      y = begin % plane / p.out_w;
      y_last = last % plane / p.out_w;
      if (y == y_last) {
        x = begin % p.out_w;
        x_last = last % p.out_w;
      }
    }
    const bool one_row = p.kernel_h == 1;  // then the rows between two output rows are not needed
    h = y * p.stride_h - p.pad_top;
    w = x * p.stride_w - p.pad_left;
    h_step = one_row ? p.stride_h : 1;
    row_step = one_row ? 1 : p.stride_h;
    rows = (y_last - y) * row_step + (p.kernel_h - 1) * p.dilation_h + 1;
    const int64_t width = (x_last - x) * p.stride_w + (p.kernel_w - 1) * p.dilation_w + 1;
    phases = p.kernel_w == 1 ? 1 : p.stride_w;
    columns = ceil_div(width, p.stride_w);
    row_stride = phases * columns;
    channel_stride = rows * row_stride;
    image_stride = channels * channel_stride;
  }

  // Elements of the window and one vector more, which a load may reach past its end.
  template <class T>
  int64_t size() const {
    return images * image_stride + 2 * kWidth<T>;
  }

  // Whether the window lies in the image as it is, with `slack` elements of the tensor behind it.
  bool is_input(const Conv2dProblem& p, int64_t first_channel, int64_t channels, int64_t slack) const {
    const int64_t h_last = h + (rows - 1) * h_step;
    if (p.stride_w != 1 || h < 0 || w < 0 || h_last >= p.in_h || w + columns > p.in_w) return false;
    const int64_t last_channel = (image + images - 1) * p.in_channels + first_channel + channels - 1;
    const int64_t last = (last_channel * p.in_h + h_last) * p.in_w + w + columns;
    return last + slack <= p.batch * p.in_channels * p.in_h * p.in_w;
  }

  // Use the input's own strides.
  void set_input_strides(const Conv2dProblem& p) {
    row_stride = p.in_w * h_step;
    channel_stride = p.in_h * p.in_w;
    image_stride = p.in_channels * channel_stride;
  }

  // Where tap (channel, r, s) of the first pixel lies.
  int64_t tap(const Conv2dProblem& p, int64_t channel, int64_t r, int64_t s) const {
    const int64_t column = s * p.dilation_w;
    return channel * channel_stride + r * p.dilation_h * row_stride + column % p.stride_w * columns +
           column / p.stride_w;
  }

  // Where output pixel (n, py, px) lies, counted from the first.
  int64_t pixel(int64_t n, int64_t py, int64_t px) const {
    return (n - image) * image_stride + (py - y) * row_step * row_stride + (px - x);
  }
};

// dst[0, n) = src[0, n); may write a vector past dst + n, reads nothing at or past src_end.
template <class T>
CISDL_INLINE void copy_spill(T* dst, const T* src, int64_t n, const T* src_end) {
  constexpr int W = kWidth<T>;
  for (int64_t i = 0; i < n; i += W)
    store(dst + i, src + i + W <= src_end ? load(src + i) : load_partial(src + i, n - i));
}

template <class T>
struct EvenLanes {
  static constexpr int at(int lane) { return 2 * lane; }  // runs on into the second vector by itself
};

// p[0], p[S], p[2*S], ...: S a power of two; reads S whole vectors.
template <class T, int S>
CISDL_INLINE Vec<T> load_every(const T* p) {
  if constexpr (S == 1) {
    return load(p);
  } else {
    return shuffle<T, EvenLanes<T>>(load_every<T, S / 2>(p), load_every<T, S / 2>(p + kWidth<T> * (S / 2)));
  }
}

// dst[i] = src[i*S] for i < n; as copy_spill.
template <class T, int S>
CISDL_INLINE void copy_every(T* dst, const T* src, int64_t n, const T* src_end) {
  constexpr int W = kWidth<T>;
  int64_t i = 0;
  for (; i < n && src_end - src >= (i + W) * S; i += W) store(dst + i, load_every<T, S>(src + i * S));
  for (; i < n; ++i) dst[i] = src[i * S];
}

// dst[0, n) = 0; may write a vector past dst + n.
template <class T>
CISDL_INLINE void zero_spill(T* dst, int64_t n) {
  for (int64_t i = 0; i < n; i += kWidth<T>) store(dst + i, zero<T>());
}

// One row of the window: every phase of input row `src` from column w on; zero where src is null. Each write may
// spill into what follows, so rows are made in order.
template <class T>
CISDL_INLINE void copy_window_row(T* dst, const T* src, const T* src_end, const WindowShape& shape,
                                  const Conv2dProblem& p) {
  if (!src) {
    zero_spill(dst, shape.row_stride);
    return;
  }
  for (int64_t f = 0; f < shape.phases; ++f, dst += shape.columns) {
    // Column j of this phase is input column first + j*stride.
    const int64_t first = shape.w + f, stride = p.stride_w;
    const int64_t begin = smaller(first < 0 ? ceil_div(-first, stride) : 0, shape.columns);
    const int64_t end = larger(begin, smaller(shape.columns, ceil_div(larger(p.in_w - first, 0), stride)));
    zero_spill(dst, begin);
    if (stride == 1) {
      copy_spill(dst + begin, src + first + begin, end - begin, src_end);
    } else if (stride == 2) {
      copy_every<T, 2>(dst + begin, src + first + begin * 2, end - begin, src_end);
    } else if (stride == 4) {
      copy_every<T, 4>(dst + begin, src + first + begin * 4, end - begin, src_end);
    } else {
      for (int64_t j = begin; j < end; ++j) dst[j] = src[first + j * stride];
    }
    zero_spill(dst + end, shape.columns - end);
  }
}

// Copies the window of channels [first_channel, first_channel + channels) to `dst`, of shape.size<T>() elements.
template <class T>
void copy_window(const Conv2dProblem& p, const T* input, int64_t first_channel, int64_t channels,
                 const WindowShape& shape, T* dst) {
  const int64_t plane = p.in_h * p.in_w;
  const T* end = input + p.batch * p.in_channels * plane;
  for (int64_t n = 0; n < shape.images; ++n)
    for (int64_t c = 0; c < channels; ++c) {
      const T* src = input + ((shape.image + n) * p.in_channels + first_channel + c) * plane;
      for (int64_t i = 0; i < shape.rows; ++i, dst += shape.row_stride) {
        const int64_t h = shape.h + i * shape.h_step;
        copy_window_row(dst, h >= 0 && h < p.in_h ? src + h * p.in_w : nullptr, end, shape, p);
      }
    }
}

// Copies the window to `buffer`, or finds it in the input and sets the strides accordingly. Returns its first
// element.
template <class T>
const T* make_window(const Conv2dProblem& p, const T* input, int64_t first_channel, int64_t channels,
                     WindowShape& shape, T* buffer) {
  if (shape.is_input(p, first_channel, channels, kWidth<T>)) {
    shape.set_input_strides(p);
    return input + ((shape.image * p.in_channels + first_channel) * p.in_h + shape.h) * p.in_w + shape.w;
  }
  copy_window(p, input, first_channel, channels, shape, buffer);
  return buffer;
}

}  // namespace
}  // namespace cisdl
