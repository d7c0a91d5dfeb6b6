// Max and average pooling, forward and backward, one thread per element of the result; in nhwc, where channels
// come in whole 16 bytes, per 16 bytes of it (`lanes` elements), so that address arithmetic is shared and memory
// moves in the widest accesses there are.
//
// Pooling does almost no arithmetic, so all that counts is memory: neighbouring threads write neighbouring
// elements in either layout, and what windows share is read again from the caches. Backward looks, for each input
// cell, through the windows that contain it, in the order of the output, and adds up what comes back from those;
// every cell is written once, nothing needs clearing first, there are no atomics and the sum's order is fixed.
// max_pool2d_gather reads the input at the places of the maxima.
//
// Both layouts share one kernel: a place is decoded from the element's number, then strides lead to the others.
#pragma once

#include <cmath>

#include "launch.cuh"

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

template <int lanes, class T>
__device__ void store_lanes(T* to, const Lanes<T, lanes>& values) {
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
  const int64_t fit = start < size ? quotient(size - 1 - start, dilation) + 1 : 0;
  return {begin, CISDL_INSIDE(kernel <= fit) ? kernel : fit, start + begin * dilation};
}

// The windows along one axis that reach over input cell `cell` (with dilation, perhaps between their cells).
__device__ inline Range windows_over(int64_t cell, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation,
                                     int64_t out_size) {
  const int64_t before = cell + pad - (kernel - 1) * dilation;  // where a window starts that ends with the cell
  const int64_t end = quotient(cell + pad, stride) + 1;
  const int64_t begin = CISDL_INSIDE(before >= 0) ? quotient(before + stride - 1, stride) : 0;
  return {begin, CISDL_INSIDE(end <= out_size) ? end : out_size};
}

// Which cell of window `window` input cell `cell` is, along one axis; -1 if it lies between two.
__device__ inline int64_t tap_of(int64_t cell, int64_t window, int64_t stride, int64_t pad, int64_t dilation) {
  int64_t reach = cell + pad - window * stride;
  const int64_t tap = divide_off(reach, dilation);
  return reach == 0 ? tap : -1;
}

// A window without any cell inside the image gives -inf and an index that no cell has.
template <class T, int lanes>
__global__ void __launch_bounds__(kThreads)
    max_pool2d_kernel(const __grid_constant__ MaxPool2dForward<T> args, const __grid_constant__ ImageStrides in) {
  const Pool2dProblem& p = args.p;
  for_each_element(p.batch * p.channels * p.out_h * p.out_w / lanes, [&](int64_t i) {
    const Place out = split_place(i, args.layout, p.channels / lanes, p.out_h, p.out_w);
    const T* input = args.input + out.n * in.n + out.c * lanes * in.c;
    T best[lanes];
    int64_t window[lanes], flat[lanes];
#pragma unroll
    for (int l = 0; l < lanes; ++l) {
      best[l] = -INFINITY;
      window[l] = flat[l] = -1;
    }
    const Taps rows = taps_inside(out.h, p.kernel_h, p.stride_h, p.pad_h, p.dilation_h, p.in_h);
    const Taps columns = taps_inside(out.w, p.kernel_w, p.stride_w, p.pad_w, p.dilation_w, p.in_w);
    int64_t h = rows.first;
    for (int64_t r = rows.begin; r < rows.end; ++r, h += p.dilation_h) {
      int64_t w = columns.first;
      for (int64_t s = columns.begin; s < columns.end; ++s, w += p.dilation_w) {
        const auto cell = load_lanes<lanes>(input + h * in.h + w * in.w);
#pragma unroll
        for (int l = 0; l < lanes; ++l) {
          const T value = cell.value[l];
          if (flat[l] < 0 || value > best[l] || value != value) {  // the first cell, a greater one, a NaN
            best[l] = value;
            window[l] = r * p.kernel_w + s;
            flat[l] = h * p.in_w + w;
          }
        }
      }
    }
    Lanes<T, lanes> outputs;
    Lanes<uint8_t, lanes> windows;
#pragma unroll
    for (int l = 0; l < lanes; ++l) {
      if (args.relu && best[l] <= 0) {
        best[l] = 0;
        window[l] = flat[l] = -1;
      }
      outputs.value[l] = best[l];
      windows.value[l] = static_cast<uint8_t>(window[l]);
      if (args.index == PoolIndex::flat) static_cast<int64_t*>(args.indices)[i * lanes + l] = flat[l];
    }
    store_lanes(args.output + i * lanes, outputs);
    if (args.index == PoolIndex::window) store_lanes(static_cast<uint8_t*>(args.indices) + i * lanes, windows);
  });
}

template <class T, int lanes>
__global__ void __launch_bounds__(kThreads)
    max_pool2d_backward_kernel(const __grid_constant__ MaxPool2dBackward<T> args,
                               const __grid_constant__ ImageStrides out) {
  const Pool2dProblem& p = args.p;
  for_each_element(p.batch * p.channels * p.in_h * p.in_w / lanes, [&](int64_t i) {
    const Place in = split_place(i, args.layout, p.channels / lanes, p.in_h, p.in_w);
    const int64_t image = in.n * out.n + in.c * lanes * out.c;
    const int64_t flat = in.h * p.in_w + in.w;
    const Range rows = windows_over(in.h, p.kernel_h, p.stride_h, p.pad_h, p.dilation_h, p.out_h);
    const Range columns = windows_over(in.w, p.kernel_w, p.stride_w, p.pad_w, p.dilation_w, p.out_w);
    Lanes<T, lanes> sum = {};
    for (int64_t h = rows.begin; h < rows.end; ++h) {
      const int64_t r = tap_of(in.h, h, p.stride_h, p.pad_h, p.dilation_h);
      if (r < 0) continue;
      for (int64_t w = columns.begin; w < columns.end; ++w) {
        const int64_t s = tap_of(in.w, w, p.stride_w, p.pad_w, p.dilation_w);
        if (s < 0) continue;
        const int64_t o = image + h * out.h + w * out.w;
        const auto grad = load_lanes<lanes>(args.grad_output + o);
        Lanes<uint8_t, lanes> windows;
        if (args.index == PoolIndex::window)
          windows = load_lanes<lanes>(static_cast<const uint8_t*>(args.indices) + o);
#pragma unroll
        for (int l = 0; l < lanes; ++l) {
          const bool won = args.index == PoolIndex::window
                               ? windows.value[l] == r * p.kernel_w + s
                               : static_cast<const int64_t*>(args.indices)[o + l] == flat;
          if (won) sum.value[l] += grad.value[l];
        }
      }
    }
    store_lanes(args.grad_input + i * lanes, sum);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    max_pool2d_gather_kernel(const __grid_constant__ MaxPool2dGather<T> args,
                             const __grid_constant__ ImageStrides in) {
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
    args.output[i] = inside ? args.input[out.n * in.n + out.c * in.c + h * in.h + w * in.w] : T(0);
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

template <class T, int lanes>
__global__ void __launch_bounds__(kThreads)
    avg_pool2d_kernel(const __grid_constant__ AvgPool2dForward<T> args, const __grid_constant__ ImageStrides in) {
  const Pool2dProblem& p = args.p;
  for_each_element(p.batch * p.channels * p.out_h * p.out_w / lanes, [&](int64_t i) {
    const Place out = split_place(i, args.layout, p.channels / lanes, p.out_h, p.out_w);
    const WindowSpan rows = window_span(out.h, p.kernel_h, p.stride_h, p.pad_h, p.in_h);
    const WindowSpan columns = window_span(out.w, p.kernel_w, p.stride_w, p.pad_w, p.in_w);
    const T* input = args.input + out.n * in.n + out.c * lanes * in.c;
    Lanes<T, lanes> sum = {};
    for (int64_t h = rows.begin; h < rows.end; ++h) {
      for (int64_t w = columns.begin; w < columns.end; ++w) {
        const auto cell = load_lanes<lanes>(input + h * in.h + w * in.w);
#pragma unroll
        for (int l = 0; l < lanes; ++l) sum.value[l] += cell.value[l];
      }
    }
    const T divisor = static_cast<T>(window_divisor(args, rows, columns));
#pragma unroll
    for (int l = 0; l < lanes; ++l) sum.value[l] /= divisor;
    store_lanes(args.output + i * lanes, sum);
  });
}

template <class T, int lanes>
__global__ void __launch_bounds__(kThreads)
    avg_pool2d_backward_kernel(const __grid_constant__ AvgPool2dBackward<T> args,
                               const __grid_constant__ ImageStrides out) {
  const Pool2dProblem& p = args.p;
  for_each_element(p.batch * p.channels * p.in_h * p.in_w / lanes, [&](int64_t i) {
    const Place in = split_place(i, args.layout, p.channels / lanes, p.in_h, p.in_w);
    const T* grad_output = args.grad_output + in.n * out.n + in.c * lanes * out.c;
    const Range over_row = windows_over(in.h, p.kernel_h, p.stride_h, p.pad_h, 1, p.out_h);
    const Range over_column = windows_over(in.w, p.kernel_w, p.stride_w, p.pad_w, 1, p.out_w);
    Lanes<T, lanes> sum = {};
    for (int64_t h = over_row.begin; h < over_row.end; ++h) {
      const WindowSpan rows = window_span(h, p.kernel_h, p.stride_h, p.pad_h, p.in_h);
      for (int64_t w = over_column.begin; w < over_column.end; ++w) {
        const WindowSpan columns = window_span(w, p.kernel_w, p.stride_w, p.pad_w, p.in_w);
        const T divisor = static_cast<T>(window_divisor(args, rows, columns));
        const auto grad = load_lanes<lanes>(grad_output + h * out.h + w * out.w);
#pragma unroll
        for (int l = 0; l < lanes; ++l) sum.value[l] += grad.value[l] / divisor;
      }
    }
    store_lanes(args.grad_input + i * lanes, sum);
  });
}

}  // namespace cisdl::cuda
