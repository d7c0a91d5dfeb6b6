// Adaptive max and average pooling, forward and backward, in float, double, bfloat16 and float16.
//
// As pool2d.cuh, with other windows: window i of `out` along `in` cells is [floor(i in / out), ceil((i + 1) in /
// out)), and by the same formula with the roles exchanged come the windows that contain a cell. In nhwc a thread
// has the channels of 16 bytes, where they come in whole ones.
//
// Forward: windows are often large and few (a network's last pooling takes a whole plane). So `slices` threads
// share one of 32 cells or more: each takes every slices-th cell, then what they found meets in shared memory,
// halves upon halves, in an order that is always the same. In nchw the threads of a window are neighbours and read
// neighbouring cells, in nhwc neighbours have neighbouring channels: in both a warp's access is one piece of
// memory or few. Backward: a gather, one thread per element; of a pooling to one cell in nchw, per 16 bytes, since
// every cell of a plane gets the same.
//
// Traffic: the input once and the output, backward the other way round; max pooling has an index of 8 bytes,
// torch's, beside each output. Expected is the rate of a copy where there are outputs (forward) for some thousand
// threads.
#pragma once

#include "gemm.cuh"
#include "pool2d.cuh"
#include "sums.cuh"

namespace cisdl::cuda {

// The cells of window i of `out` along `in` cells; called with (i, in, out), the windows that contain cell i.
__device__ inline Range adaptive_window(int64_t i, int64_t out, int64_t in) {
  return {quotient(i * in, out), quotient((i + 1) * in + out - 1, out)};
}

__device__ inline int64_t cells_of(const Range& rows, const Range& columns) {
  return (rows.end - rows.begin) * (columns.end - columns.begin);
}

// Calls body(h, w) for every slices-th cell of a window, from `slice` on.
template <class Body>
__device__ void for_each_cell(const Range& rows, const Range& columns, int slice, int slices, const Body& body) {
  const int64_t cells = cells_of(rows, columns);
#pragma unroll 4
  for (int64_t cell = slice; cell < cells; cell += slices) {
    int64_t w = cell;
    const int64_t h = divide_off(w, columns.end - columns.begin);
    body(rows.begin + h, columns.begin + w);
  }
}

// Which output a thread works for, with which share of its cells.
struct Share {
  int slice, slices;
  int number;  // of the output among those of the block
  int across;  // outputs of a block

  __device__ Share(Layout layout, int slices) : slices(slices), across(kThreads / slices) {
    const int thread = threadIdx.x;
    slice = layout == Layout::nchw ? thread % slices : thread / across;
    number = layout == Layout::nchw ? thread / slices : thread % across;
  }
  // Where a slice's result is in shared memory.
  __device__ int place(int of_slice) const { return of_slice * across + number; }
};

// The larger of two, a NaN being the largest: of equal ones the first, of NaNs the last (torch's rule), in
// whatever order they meet.
template <class T>
struct Found {
  T value;
  int64_t place;  // in the plane; -1: nothing

  __device__ bool loses_to(const Found& other) const {
    if (place < 0 || other.place < 0) return place < 0;
    if (other.value != other.value) return value == value || other.place > place;
    return value < other.value || (value == other.value && other.place < place);
  }
};

template <class T, int lanes>
__global__ void __launch_bounds__(kThreads)
    adaptive_max_pool2d_kernel(const __grid_constant__ AdaptiveMaxPool2dForward<T> args,
                               const __grid_constant__ PoolStrides strides, int slices) {
  using Best = Lanes<Found<Sum<T>>, lanes>;
  CISDL_SHARED(PartialSums<Best>, partial);
  const AdaptivePool2dProblem& p = args.p;
  const Share share(args.layout, slices);
  const int64_t count = strips_of<lanes, 1>(p.batch, p.channels, p.out_h, p.out_w);
  for (int64_t begin = int64_t{blockIdx.x} * share.across; begin < count;
       begin += int64_t{gridDim.x} * share.across) {
    const int64_t index = begin + share.number;
    const bool exists = CISDL_INSIDE(index < count);
    const Place out = split_strip<lanes, 1>(exists ? index : 0, args, p.out_h, p.out_w);
    Best best;
#pragma unroll
    for (int l = 0; l < lanes; ++l) best.value[l] = {-INFINITY, -1};
    if (exists) {
      const T* input = args.input + out.n * strides.in.n + out.c * strides.in.c;
      for_each_cell(adaptive_window(out.h, p.out_h, p.in_h), adaptive_window(out.w, p.out_w, p.in_w), share.slice,
                    slices, [&](int64_t h, int64_t w) {
                      const auto cell = load_lanes<lanes>(input + h * strides.in.h + w * strides.in.w);
#pragma unroll
                      for (int l = 0; l < lanes; ++l) {
                        const Found<Sum<T>> found = {Sum<T>(cell.value[l]), h * p.in_w + w};
                        if (best.value[l].loses_to(found)) best.value[l] = found;
                      }
                    });
    }
    if (slices > 1) partial.value[share.place(share.slice)] = best;
    for (int half = slices / 2; half > 0; half /= 2) {
      __syncthreads();
      if (share.slice < half) {
        const Best& other = partial.value[share.place(share.slice + half)];
#pragma unroll
        for (int l = 0; l < lanes; ++l)
          if (best.value[l].loses_to(other.value[l])) best.value[l] = other.value[l];
        partial.value[share.place(share.slice)] = best;
      }
    }
    if (share.slice == 0 && exists) {
      const int64_t at = offset_of(out, strides.out);
      Lanes<T, lanes> outputs;
#pragma unroll
      for (int l = 0; l < lanes; ++l) {
        outputs.value[l] = T(best.value[l].value);
        if (args.indices) args.indices[at + l] = best.value[l].place;
      }
      store_lanes(args.output + at, outputs);
    }
    if (slices > 1) __syncthreads();  // the next outputs may overwrite what was found
  }
}

template <class T, int lanes>
__global__ void __launch_bounds__(kThreads)
    adaptive_avg_pool2d_kernel(const __grid_constant__ AdaptiveAvgPool2dForward<T> args,
                               const __grid_constant__ PoolStrides strides, int slices) {
  using Sums = Lanes<Sum<T>, lanes>;
  CISDL_SHARED(PartialSums<Sums>, partial);
  const AdaptivePool2dProblem& p = args.p;
  const Share share(args.layout, slices);
  const int64_t count = strips_of<lanes, 1>(p.batch, p.channels, p.out_h, p.out_w);
  for (int64_t begin = int64_t{blockIdx.x} * share.across; begin < count;
       begin += int64_t{gridDim.x} * share.across) {
    const int64_t index = begin + share.number;
    const bool exists = CISDL_INSIDE(index < count);
    const Place out = split_strip<lanes, 1>(exists ? index : 0, args, p.out_h, p.out_w);
    const Range rows = adaptive_window(out.h, p.out_h, p.in_h);
    const Range columns = adaptive_window(out.w, p.out_w, p.in_w);
    Sums sum = {};
    if (exists) {
      const T* input = args.input + out.n * strides.in.n + out.c * strides.in.c;
      for_each_cell(rows, columns, share.slice, slices, [&](int64_t h, int64_t w) {
        const auto cell = load_lanes<lanes>(input + h * strides.in.h + w * strides.in.w);
#pragma unroll
        for (int l = 0; l < lanes; ++l) sum.value[l] += Sum<T>(cell.value[l]);
      });
    }
    if (slices > 1) partial.value[share.place(share.slice)] = sum;
    for (int half = slices / 2; half > 0; half /= 2) {
      __syncthreads();
      if (share.slice < half) {
        const Sums& other = partial.value[share.place(share.slice + half)];
#pragma unroll
        for (int l = 0; l < lanes; ++l) sum.value[l] += other.value[l];
        partial.value[share.place(share.slice)] = sum;
      }
    }
    if (share.slice == 0 && exists) {
      const auto divisor = static_cast<Sum<T>>(cells_of(rows, columns));
      Lanes<T, lanes> result;
#pragma unroll
      for (int l = 0; l < lanes; ++l) result.value[l] = T(sum.value[l] / divisor);
      store_lanes(args.output + offset_of(out, strides.out), result);
    }
    if (slices > 1) __syncthreads();  // the next outputs may overwrite the sums
  }
}

// What comes back to a cell of the input from one output. Args is AdaptiveMaxPool2dBackward or
// AdaptiveAvgPool2dBackward; `cells`: of the output's window.
template <class T>
__device__ Sum<T> share_of(const AdaptiveMaxPool2dBackward<T>& args, Sum<T> grad, int64_t output, int64_t place,
                           int64_t /*cells*/) {
  return args.indices[output] == place ? grad : Sum<T>(0);
}

template <class T>
__device__ Sum<T> share_of(const AdaptiveAvgPool2dBackward<T>& /*args*/, Sum<T> grad, int64_t /*output*/,
                           int64_t /*place*/, int64_t cells) {
  return grad / static_cast<Sum<T>>(cells);
}

template <class T, int lanes, class Args>
__global__ void __launch_bounds__(kThreads)
    adaptive_pool2d_backward_kernel(const __grid_constant__ Args args,
                                    const __grid_constant__ PoolStrides strides) {
  const AdaptivePool2dProblem& p = args.p;
  for_each_element(strips_of<lanes, 1>(p.batch, p.channels, p.in_h, p.in_w), [&](int64_t index) {
    const Place in = split_strip<lanes, 1>(index, args, p.in_h, p.in_w);
    const Range over_row = adaptive_window(in.h, p.in_h, p.out_h);
    const Range over_column = adaptive_window(in.w, p.in_w, p.out_w);
    const int64_t image = in.n * strides.out.n + in.c * strides.out.c;
    Lanes<Sum<T>, lanes> sum[1] = {};
    for (int64_t h = over_row.begin; h < over_row.end; ++h) {
      const Range rows = adaptive_window(h, p.out_h, p.in_h);
      for (int64_t w = over_column.begin; w < over_column.end; ++w) {
        const Range columns = adaptive_window(w, p.out_w, p.in_w);
        const int64_t o = image + h * strides.out.h + w * strides.out.w;
        const auto grad = load_lanes<lanes>(args.grad_output + o);
#pragma unroll
        for (int l = 0; l < lanes; ++l)
          sum[0].value[l] +=
              share_of<T>(args, Sum<T>(grad.value[l]), o + l, in.h * p.in_w + in.w, cells_of(rows, columns));
      }
    }
    store_strip<T, lanes, 1>(args, in, strides.in, sum);
  });
}

// The same in nchw for one output a plane: 16 bytes a thread, wherever planes end.
template <class T, class Args>
__global__ void __launch_bounds__(kThreads) global_pool2d_backward_kernel(const __grid_constant__ Args args) {
  constexpr int kLanes = 16 / sizeof(T);
  const int64_t cells = args.p.in_h * args.p.in_w;
  const int64_t count = args.p.batch * args.p.channels * cells;
  for_each_element(divide_up(count, kLanes), [&](int64_t index) {
    int64_t cell = index * kLanes;
    int64_t plane = divide_off(cell, cells);
    Sum<T> shares[kLanes];
#pragma unroll
    for (int l = 0; l < kLanes; ++l) {
      if (CISDL_INSIDE(index * kLanes + l < count))
        shares[l] = share_of<T>(args, Sum<T>(args.grad_output[plane]), plane, cell, cells);
      if (++cell == cells) {
        cell = 0;
        ++plane;
      }
    }
    store_values(args.grad_input + index * kLanes, count - index * kLanes, shares);
  });
}

}  // namespace cisdl::cuda
