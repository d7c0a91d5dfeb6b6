// Max and average pooling, forward and backward, in float, double, bfloat16 and float16.
//
// Pooling does almost no arithmetic: what counts is to move each byte once, in wide pieces, with enough of them
// under way. A thread makes `rows` elements one below another, of `lanes` neighbouring channels each:
//
//   nhwc, channels in whole 16 bytes   lanes = 16 bytes (8 of 16 bits, 4 floats), rows = 1
//   all else                           lanes = 1, rows = 4
//
// so the place is decoded once for 8 (4) elements. In the first, every access is 16 bytes a thread and 512 a warp
// (the index of max pooling: 8 bytes a thread, 256 a warp). In the second, neighbouring threads take neighbours in
// memory, so a warp's access is one piece of 64 bytes in 16 bits; the four rows are four loads under way, and what
// windows of the four share is loaded once in backward. Between windows that overlap, the L1 and L2 caches stand.
//
// Forward of max pooling reads the input once and writes the output and, for training, one byte of index:
// per output of a 2 x 2 window in 16 bits, 8 + 2 + 1 bytes. Backward is a gather: each input cell looks through
// the windows that contain it, in the order of the output, and adds up what comes back. It writes every cell once
// and reads each gradient and index once from memory (2 + 1 bytes read and 8 written for that window); nothing
// needs clearing first, there are no atomics and the sum's order is fixed. Expected is the rate of a copy of as
// many bytes, but for small tensors, which a launch outlasts, and in nchw for maps narrower than a warp, whose
// sectors of 32 bytes are shared between warps.
//
// Rounding: 16-bit numbers become floats when loaded, sums are formed in float and rounded once; that is torch's
// rule. A maximum is exact.
//
// max_pool2d_gather reads the input at the places of the maxima.
#pragma once

#include <cmath>

#include "launch.cuh"
#include "scalars.h"

namespace cisdl::cuda {

struct Place {
  int64_t n, c, h, w;
};

// The place of element `index` of an image tensor.
__device__ inline Place split_place(int64_t index, Layout layout, int64_t channels, int64_t height,
                                    int64_t width) {
  Place at;
  if (layout == Layout::nchw) {
    at.w = index;
    at.h = divide_off(at.w, width);
    at.c = divide_off(at.h, height);
    at.n = divide_off(at.c, channels);
  } else {
    at.c = index;
    at.w = divide_off(at.c, channels);
    at.h = divide_off(at.w, width);
    at.n = divide_off(at.h, height);
  }
  return at;
}

// Neighbours in memory, read and written as one.
template <class T, int lanes>
struct alignas(lanes * sizeof(T)) Lanes {
  T value[lanes];
};

template <int lanes, class T>
__device__ Lanes<T, lanes> load_lanes(const T* from) {
  return *reinterpret_cast<const Lanes<T, lanes>*>(from);
}

// 16 bytes in PTX itself: nvcc 13.0 makes four stores of an assignment here.
template <int lanes, class T>
__device__ void store_lanes(T* to, const Lanes<T, lanes>& values) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof values == 16) {
    uint32_t word[4];
    memcpy(word, &values, sizeof word);
    asm("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(word[0]), "r"(word[1]),
        "r"(word[2]), "r"(word[3])
        : "memory");
    return;
  }
#endif
  *reinterpret_cast<Lanes<T, lanes>*>(to) = values;
}

struct Range {
  int64_t begin, end;
};

__device__ inline int64_t quotient(int64_t a, int64_t b) { return divide_off(a, b); }

// The cells of a window along one axis that lie inside the image, and the first one's place in the image.
struct Taps {
  int64_t begin, end;
  int64_t first;
};

__device__ inline Taps taps_inside(int64_t window, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation,
                                   int64_t size) {
  const int64_t start = window * stride - pad;
  const int64_t begin = CISDL_INSIDE(start >= 0) ? 0 : quotient(-start + dilation - 1, dilation);
  int64_t end = kernel;  // a division only where the window reaches beyond the image
  if (!CISDL_INSIDE(start + (kernel - 1) * dilation < size))
    end = start < size ? quotient(size - 1 - start, dilation) + 1 : 0;
  return {begin, end, start + begin * dilation};
}

// The windows along one axis that reach over input cell `cell` (with dilation, perhaps between their cells).
__device__ inline Range windows_over(int64_t cell, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation,
                                     int64_t out_size) {
  const int64_t before = cell + pad - (kernel - 1) * dilation;  // where a window starts that ends with the cell
  const int64_t end = quotient(cell + pad, stride) + 1;
  const int64_t begin = CISDL_INSIDE(before >= 0) ? quotient(before + stride - 1, stride) : 0;
  return {begin, CISDL_INSIDE(end <= out_size) ? end : out_size};
}

// Which cell of window `window` input cell `cell` is, along one axis; -1 if it is none.
__device__ inline int64_t tap_of(int64_t cell, int64_t window, int64_t kernel, int64_t stride, int64_t pad,
                                 int64_t dilation) {
  int64_t reach = cell + pad - window * stride;
  if (reach < 0) return -1;
  const int64_t tap = dilation == 1 ? reach : divide_off(reach, dilation);
  return (dilation == 1 || reach == 0) && tap < kernel ? tap : -1;
}

// How a thread's elements lie: `rows` of them one below another, `lanes` neighbours in memory each; and how far
// apart the elements of both tensors are.
struct PoolStrides {
  ImageStrides in, out;
};

template <int lanes, int rows>
__host__ __device__ int64_t strips_of(int64_t batch, int64_t channels, int64_t height, int64_t width) {
  return batch * (channels / lanes) * divide_up(height, rows) * width;
}

// The place of a thread's first element.
template <int lanes, int rows, class Args>
__device__ Place split_strip(int64_t index, const Args& args, int64_t height, int64_t width) {
  Place at = split_place(index, args.layout, args.p.channels / lanes, divide_up(height, rows), width);
  at.c *= lanes;
  at.h *= rows;
  return at;
}

__device__ inline int64_t offset_of(const Place& at, const ImageStrides& strides) {
  return at.n * strides.n + at.c * strides.c + at.h * strides.h + at.w * strides.w;
}

// Blocks of a multiprocessor: 80 registers a thread, enough loads under way.
constexpr int kPoolBlocks = 3;

// What max pooling of one element has found so far. Of 16 bytes at once only where 32 bits hold every tap.
template <class T, class Tap>
struct Winner {
  Sum<T> value = -INFINITY;
  Tap tap = -1;  // r * kernel_w + s

  __device__ void meet(Sum<T> other, Tap other_tap) {
    if (tap < 0 || other > value || other != other) {  // the first cell, a greater one, a NaN
      value = other;
      tap = other_tap;
    }
  }
};

// A window without any cell inside the image gives -inf and an index that no cell has.
template <class T, int lanes, int rows>
__global__ void __launch_bounds__(kThreads, kPoolBlocks)
    max_pool2d_kernel(const __grid_constant__ MaxPool2dForward<T> args,
                      const __grid_constant__ PoolStrides strides) {
  using Tap = std::conditional_t<lanes == 1, int64_t, int32_t>;
  const Pool2dProblem& p = args.p;
  for_each_element(strips_of<lanes, rows>(p.batch, p.channels, p.out_h, p.out_w), [&](int64_t index) {
    const Place out = split_strip<lanes, rows>(index, args, p.out_h, p.out_w);
    const T* input = args.input + out.n * strides.in.n + out.c * strides.in.c;
    Winner<T, Tap> best[rows][lanes];
    const Taps lowest = taps_inside(out.h + rows - 1, p.kernel_h, p.stride_h, p.pad_h, p.dilation_h, p.in_h);
    const Taps highest = taps_inside(out.h, p.kernel_h, p.stride_h, p.pad_h, p.dilation_h, p.in_h);
    const Taps across = taps_inside(out.w, p.kernel_w, p.stride_w, p.pad_w, p.dilation_w, p.in_w);
    const int64_t first_h = out.h * p.stride_h - p.pad_h;
    for (int64_t r = lowest.begin; r < highest.end; ++r) {
      bool inside[rows];
      const T* row[rows];
#pragma unroll
      for (int v = 0; v < rows; ++v) {
        const int64_t h = first_h + v * p.stride_h + r * p.dilation_h;
        inside[v] = rows == 1 || CISDL_INSIDE(h >= 0 && h < p.in_h);
        row[v] = input + h * strides.in.h;
      }
      int64_t w = across.first * strides.in.w;
#pragma unroll(rows == 1 ? 2 : 1)
      for (int64_t s = across.begin; s < across.end; ++s, w += p.dilation_w * strides.in.w) {
        Lanes<T, lanes> cell[rows];
#pragma unroll
        for (int v = 0; v < rows; ++v)
          if (inside[v]) cell[v] = load_lanes<lanes>(row[v] + w);
#pragma unroll
        for (int v = 0; v < rows; ++v)
          if (inside[v])
#pragma unroll
            for (int l = 0; l < lanes; ++l)
              best[v][l].meet(cell[v].value[l], static_cast<Tap>(r * p.kernel_w + s));
      }
    }
    const int64_t first = offset_of(out, strides.out);
#pragma unroll
    for (int v = 0; v < rows; ++v) {
      if (rows > 1 && !CISDL_INSIDE(out.h + v < p.out_h)) continue;
      const int64_t at = first + v * strides.out.h;
      Lanes<T, lanes> outputs;
      Lanes<uint8_t, lanes> windows;
#pragma unroll
      for (int l = 0; l < lanes; ++l) {
        auto [value, tap] = best[v][l];
        if (args.relu && value <= 0) {
          value = 0;
          tap = -1;
        }
        outputs.value[l] = T(value);
        windows.value[l] = static_cast<uint8_t>(tap);
        if (args.index == PoolIndex::flat) {
          int64_t s = tap;
          const int64_t r = tap < 0 ? 0 : divide_off(s, p.kernel_w);
          const int64_t h = first_h + v * p.stride_h + r * p.dilation_h;
          const int64_t w = out.w * p.stride_w - p.pad_w + s * p.dilation_w;
          static_cast<int64_t*>(args.indices)[at + l] = tap < 0 ? -1 : h * p.in_w + w;
        }
      }
      store_lanes(args.output + at, outputs);
      if (args.index == PoolIndex::window) store_lanes(static_cast<uint8_t*>(args.indices) + at, windows);
    }
  });
}

// The sums of a strip's cells, rounded once.
template <class T, int lanes, int rows, class Args>
__device__ void store_strip(const Args& args, const Place& in, const ImageStrides& strides,
                            const Lanes<Sum<T>, lanes> (&sum)[rows]) {
  const int64_t first = offset_of(in, strides);
#pragma unroll
  for (int v = 0; v < rows; ++v) {
    if (rows > 1 && !CISDL_INSIDE(in.h + v < args.p.in_h)) continue;
    Lanes<T, lanes> result;
#pragma unroll
    for (int l = 0; l < lanes; ++l) result.value[l] = T(sum[v].value[l]);
    store_lanes(args.grad_input + first + v * strides.h, result);
  }
}

// The rows of windows over a strip of cells: a window may lie over some of them only.
template <int rows>
__device__ Range windows_over_strip(int64_t cell, const Pool2dProblem& p) {
  const Range first = windows_over(cell, p.kernel_h, p.stride_h, p.pad_h, p.dilation_h, p.out_h);
  if (rows == 1) return first;
  const Range last = windows_over(cell + rows - 1, p.kernel_h, p.stride_h, p.pad_h, p.dilation_h, p.out_h);
  return {first.begin, last.end};
}

template <class T, int lanes, int rows>
__global__ void __launch_bounds__(kThreads, kPoolBlocks)
    max_pool2d_backward_kernel(const __grid_constant__ MaxPool2dBackward<T> args,
                               const __grid_constant__ PoolStrides strides) {
  const Pool2dProblem& p = args.p;
  for_each_element(strips_of<lanes, rows>(p.batch, p.channels, p.in_h, p.in_w), [&](int64_t index) {
    const Place in = split_strip<lanes, rows>(index, args, p.in_h, p.in_w);
    const int64_t image = in.n * strides.out.n + in.c * strides.out.c;
    const Range down = windows_over_strip<rows>(in.h, p);
    const Range across = windows_over(in.w, p.kernel_w, p.stride_w, p.pad_w, p.dilation_w, p.out_w);
    Lanes<Sum<T>, lanes> sum[rows] = {};
    for (int64_t h = down.begin; h < down.end; ++h) {
      int64_t r[rows];
#pragma unroll
      for (int v = 0; v < rows; ++v) r[v] = tap_of(in.h + v, h, p.kernel_h, p.stride_h, p.pad_h, p.dilation_h);
      for (int64_t w = across.begin; w < across.end; ++w) {
        const int64_t s = tap_of(in.w, w, p.kernel_w, p.stride_w, p.pad_w, p.dilation_w);
        if (s < 0) continue;
        const int64_t o = image + h * strides.out.h + w * strides.out.w;
        const auto grad = load_lanes<lanes>(args.grad_output + o);
        if (args.index == PoolIndex::window) {
          const auto windows = load_lanes<lanes>(static_cast<const uint8_t*>(args.indices) + o);
#pragma unroll
          for (int v = 0; v < rows; ++v) {
            const auto here = static_cast<int>(r[v] < 0 ? -1 : r[v] * p.kernel_w + s);
#pragma unroll
            for (int l = 0; l < lanes; ++l)
              if (windows.value[l] == here) sum[v].value[l] += Sum<T>(grad.value[l]);
          }
        } else {
#pragma unroll
          for (int l = 0; l < lanes; ++l) {
            const int64_t place = static_cast<const int64_t*>(args.indices)[o + l];
#pragma unroll
            for (int v = 0; v < rows; ++v)
              if (place == (in.h + v) * p.in_w + in.w) sum[v].value[l] += Sum<T>(grad.value[l]);
          }
        }
      }
    }
    store_strip<T, lanes, rows>(args, in, strides.in, sum);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    max_pool2d_gather_kernel(const __grid_constant__ MaxPool2dGather<T> args,
                             const __grid_constant__ PoolStrides strides) {
  const Pool2dProblem& p = args.p;
  for_each_element(p.batch * p.channels * p.out_h * p.out_w, [&](int64_t i) {
    const Place out = split_place(i, args.layout, p.channels, p.out_h, p.out_w);
    int64_t h = -1;
    int64_t w = -1;
    if (args.index == PoolIndex::flat) {
      w = static_cast<const int64_t*>(args.indices)[i];
      if (w >= 0) h = divide_off(w, p.in_w);
    } else {
      int64_t s = static_cast<const uint8_t*>(args.indices)[i];
      const int64_t r = divide_off(s, p.kernel_w);
      if (r < p.kernel_h) {
        h = out.h * p.stride_h - p.pad_h + r * p.dilation_h;
        w = out.w * p.stride_w - p.pad_w + s * p.dilation_w;
      }
    }
    const bool inside = CISDL_INSIDE(h >= 0 && h < p.in_h && w >= 0 && w < p.in_w);
    args.output[i] = inside ? args.input[offset_of({out.n, out.c, h, w}, strides.in)] : T{};
  });
}

// The cells of one average-pooling window along one axis.
struct WindowSpan {
  int64_t begin, end;  // inside the image
  int64_t padded;      // how many cells lie inside the padded image
};

__device__ inline WindowSpan window_span(int64_t window, int64_t kernel, int64_t stride, int64_t pad,
                                         int64_t size) {
  const int64_t begin = window * stride - pad;
  const int64_t padded_end = CISDL_INSIDE(begin + kernel <= size + pad) ? begin + kernel : size + pad;
  const int64_t inside = CISDL_INSIDE(begin >= 0) ? begin : 0;
  return {inside, CISDL_INSIDE(padded_end <= size) ? padded_end : size, padded_end - begin};
}

// By what an average-pooling window divides. Args is AvgPool2dForward or AvgPool2dBackward.
template <class Args>
__device__ int64_t window_divisor(const Args& args, const WindowSpan& rows, const WindowSpan& columns) {
  if (args.divisor_override != 0) return args.divisor_override;
  if (args.count_include_pad) return rows.padded * columns.padded;
  return (rows.end - rows.begin) * (columns.end - columns.begin);
}

template <class T, int lanes, int rows>
__global__ void __launch_bounds__(kThreads, kPoolBlocks)
    avg_pool2d_kernel(const __grid_constant__ AvgPool2dForward<T> args,
                      const __grid_constant__ PoolStrides strides) {
  const Pool2dProblem& p = args.p;
  for_each_element(strips_of<lanes, rows>(p.batch, p.channels, p.out_h, p.out_w), [&](int64_t index) {
    const Place out = split_strip<lanes, rows>(index, args, p.out_h, p.out_w);
    const T* input = args.input + out.n * strides.in.n + out.c * strides.in.c;
    WindowSpan down[rows];
#pragma unroll
    for (int v = 0; v < rows; ++v) down[v] = window_span(out.h + v, p.kernel_h, p.stride_h, p.pad_h, p.in_h);
    const WindowSpan across = window_span(out.w, p.kernel_w, p.stride_w, p.pad_w, p.in_w);
    Lanes<Sum<T>, lanes> sum[rows] = {};
    for (int64_t r = 0; r < p.kernel_h; ++r) {  // the r-th row of each window, counted inside the image
      const T* row[rows];
      bool inside[rows];
      bool any = false;
#pragma unroll
      for (int v = 0; v < rows; ++v) {
        inside[v] = CISDL_INSIDE(down[v].begin + r < down[v].end);
        row[v] = input + (down[v].begin + r) * strides.in.h;
        any = any || inside[v];
      }
      if (!any) break;
#pragma unroll(rows == 1 ? 2 : 1)
      for (int64_t w = across.begin; w < across.end; ++w) {
        Lanes<T, lanes> cell[rows];
#pragma unroll
        for (int v = 0; v < rows; ++v)
          if (inside[v]) cell[v] = load_lanes<lanes>(row[v] + w * strides.in.w);
#pragma unroll
        for (int v = 0; v < rows; ++v)
          if (inside[v])
#pragma unroll
            for (int l = 0; l < lanes; ++l) sum[v].value[l] += Sum<T>(cell[v].value[l]);
      }
    }
    const int64_t first = offset_of(out, strides.out);
#pragma unroll
    for (int v = 0; v < rows; ++v) {
      if (rows > 1 && !CISDL_INSIDE(out.h + v < p.out_h)) continue;
      const auto divisor = static_cast<Sum<T>>(window_divisor(args, down[v], across));
      Lanes<T, lanes> result;
#pragma unroll
      for (int l = 0; l < lanes; ++l) result.value[l] = T(sum[v].value[l] / divisor);
      store_lanes(args.output + first + v * strides.out.h, result);
    }
  });
}

template <class T, int lanes, int rows>
__global__ void __launch_bounds__(kThreads, kPoolBlocks)
    avg_pool2d_backward_kernel(const __grid_constant__ AvgPool2dBackward<T> args,
                               const __grid_constant__ PoolStrides strides) {
  const Pool2dProblem& p = args.p;
  for_each_element(strips_of<lanes, rows>(p.batch, p.channels, p.in_h, p.in_w), [&](int64_t index) {
    const Place in = split_strip<lanes, rows>(index, args, p.in_h, p.in_w);
    const T* grad_output = args.grad_output + in.n * strides.out.n + in.c * strides.out.c;
    const Range over_rows = windows_over_strip<rows>(in.h, p);
    const Range over_column = windows_over(in.w, p.kernel_w, p.stride_w, p.pad_w, 1, p.out_w);
    Lanes<Sum<T>, lanes> sum[rows] = {};
    for (int64_t h = over_rows.begin; h < over_rows.end; ++h) {
      const WindowSpan down = window_span(h, p.kernel_h, p.stride_h, p.pad_h, p.in_h);
      for (int64_t w = over_column.begin; w < over_column.end; ++w) {
        const WindowSpan across = window_span(w, p.kernel_w, p.stride_w, p.pad_w, p.in_w);
        const auto divisor = static_cast<Sum<T>>(window_divisor(args, down, across));
        const auto grad = load_lanes<lanes>(grad_output + h * strides.out.h + w * strides.out.w);
#pragma unroll
        for (int l = 0; l < lanes; ++l) {
          const Sum<T> share = Sum<T>(grad.value[l]) / divisor;
#pragma unroll
          for (int v = 0; v < rows; ++v)
            if (rows == 1 || (in.h + v >= down.begin && in.h + v < down.end)) sum[v].value[l] += share;
        }
      }
    }
    store_strip<T, lanes, rows>(args, in, strides.in, sum);
  });
}

}  // namespace cisdl::cuda
