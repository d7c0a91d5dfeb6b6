// Max pooling in [N, C, H, W]: lanes along a row of the output.
//
// Forward: W neighbouring windows at a time. Tap (r, s) of all of them is one vector of input row r: contiguous at
// stride 1, the even or odd values of two loads at stride 2, gathered else. Each tap updates the running maximum
// and the code of its place; taps pass in row-major order, so ties and NaNs fall as in torch. Where windows reach
// over the border (or the end of memory) the rows are first staged in a small buffer with -inf around the image,
// which never beats the first cell. The last vector of a row starts earlier and repeats some windows. Threads
// share output rows.
// Backward, from window indices at strides 1 and 2: a vector of input cells gathers from the windows that cover
// it, as in pool2d_max_nhwc.h; windows past the border carry index 255, which matches no tap. Other strides, rows
// shorter than a vector, large windows and flat indices are left to max_scatter. Threads share planes.
#pragma once

#include "pool2d_lanes.h"
#include "pool2d_plain.h"

namespace cisdl {
namespace {

// W windows of one output row. Row r of the windows lies at x + r * row_step, taps col_step apart, neighbouring
// windows `stride` apart.
template <class T>
struct MaxRun {
  const T* x;
  int64_t rows, cols;
  int64_t row_step, col_step, stride;
  int64_t code, code_row_step, code_col_step;
  Mask<T> first_code;
};

// Kernel: the width and height of a window, 0 if known only at run time.
template <class T, bool WithCode, int Stride, int Kernel>
CISDL_INLINE RunningMax<T, WithCode> max_run(const MaxRun<T>& w) {
  constexpr int kStep = Stride == 2 ? 2 : 1;
  RunningMax<T, WithCode> max;
  max.start(w.first_code);
  const int64_t cols = Kernel ? Kernel : w.cols;
  const bool paired = Stride == 2 && (Kernel || w.col_step == 1);
  for (int64_t r = 0; r < w.rows; ++r) {
    const T* x = w.x + r * w.row_step;
    int64_t code = w.code + r * w.code_row_step;
    int64_t s = 0;
    if (paired) {
#pragma GCC unroll 2
      for (; s + kStep <= cols; s += kStep, x += kStep, code += 2 * w.code_col_step) {
        const Vec<T> a = load(x), b = load(x + kWidth<T>);
        max.update(even_lanes<T>(a, b), set1_code<T>(code));
        max.update(odd_lanes<T>(a, b), set1_code<T>(code + w.code_col_step));
      }
    }
#pragma GCC unroll 3
    for (; s < cols; ++s, x += w.col_step, code += w.code_col_step)
      max.update(load_strided<T, Stride>(x, w.stride), set1_code<T>(code));
  }
  return max;
}

// Copies row `from` of the image so that place 0 of `to` is column w0, with -inf outside the image.
template <class T>
inline void stage_row(const T* from, int64_t in_w, int64_t w0, int64_t n, T* to) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t w = w0 + i;
    to[i] = w >= 0 && w < in_w ? from[w] : -std::numeric_limits<T>::infinity();
  }
}

template <class T, PoolIndex Index, int Stride, int Kernel>
void max_row_nchw(const MaxPool2dForward<T>& a, int64_t plane, int64_t oh, T* stage, int64_t span) {
  constexpr int W = kWidth<T>;
  constexpr bool kFlat = Index == PoolIndex::flat;
  using IndexT = typename IndexType<Index>::type;
  const Pool2dProblem& p = a.p;
  const Taps rows = taps_h(p, oh);
  const int64_t h = oh * p.stride_h - p.pad_h + rows.begin * p.dilation_h;
  const T* image = a.input + plane * p.in_h * p.in_w;
  const T* end = a.input + p.batch * p.channels * p.in_h * p.in_w;
  const int64_t reach = (p.kernel_w - 1) * p.dilation_w;
  MaxRun<T> run;
  run.rows = rows.end - rows.begin;
  run.cols = p.kernel_w;
  run.col_step = p.dilation_w;
  run.stride = p.stride_w;
  // flat codes count from the first window's column 0 of row h; a base is added at the end
  run.code = kFlat ? 0 : rows.begin * p.kernel_w;
  run.code_row_step = kFlat ? p.dilation_h * p.in_w : p.kernel_w;
  run.code_col_step = kFlat ? p.dilation_w : 1;
  for (int64_t begin = 0; begin < p.out_w; begin += W) {
    const int64_t n = p.out_w < W ? p.out_w : W;
    const int64_t ow = begin + n <= p.out_w ? begin : p.out_w - n;
    const int64_t w0 = ow * p.stride_w - p.pad_w;
    const bool inside = run.rows > 0 && w0 >= 0 && w0 + (n - 1) * p.stride_w + reach < p.in_w;
    const T* x = image + h * p.in_w + w0;
    run.first_code = set1_code<T>(run.code);
    if (inside && x + (run.rows - 1) * p.dilation_h * p.in_w + span <= end) {
      run.x = x;
      run.row_step = p.dilation_h * p.in_w;
    } else {
      for (int64_t r = 0; r < run.rows; ++r)
        stage_row(image + (h + r * p.dilation_h) * p.in_w, p.in_w, w0, span, stage + r * span);
      run.x = stage;
      run.row_step = span;
      for (int64_t i = 0; i < n; ++i) {
        const Taps cols = taps_w(p, ow + i);
        if (run.rows > 0 && cols.begin < cols.end)
          run.first_code[i] = run.code + cols.begin * run.code_col_step;
        else
          run.first_code[i] = kFlat ? -1 - (h * p.in_w + w0 + i * p.stride_w) : 255;
      }
    }
    const auto max = max_run<T, Index != PoolIndex::none, Stride, Kernel>(run);
    const int64_t at = (plane * p.out_h + oh) * p.out_w + ow;
    if (n == W)
      store(a.output + at, max.best);
    else
      store_partial(a.output + at, max.best, n);
    if constexpr (Index != PoolIndex::none) {
      Mask<T> code = max.code;
      if constexpr (kFlat) code += set1_code<T>(h * p.in_w + w0) + iota<T>() * set1_code<T>(p.stride_w);
      store_index<T>(static_cast<IndexT*>(a.indices) + at, code, n);
    }
  }
}

template <class T, PoolIndex Index, int Stride, int Kernel>
void max_forward_nchw_as(const MaxPool2dForward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  // what one vector of windows reads of a row; at stride 2 a pair of loads may take one value more
  const int64_t span = (kWidth<T> - 1) * p.stride_w + (p.kernel_w - 1) * p.dilation_w + 2;
  const int64_t rows = p.kernel_h < p.in_h ? p.kernel_h : p.in_h;
  parallel_for(par, p.batch * p.channels * p.out_h, planes_grain(p.out_w * window_cells_inside(p)),
               [&](int64_t begin, int64_t end) {
                 T* stage = static_cast<T*>(scratch(Scratch::local, rows * span * int64_t{sizeof(T)}));
                 for (int64_t i = begin; i < end; ++i)
                   max_row_nchw<T, Index, Stride, Kernel>(a, i / p.out_h, i % p.out_h, stage, span);
               });
}

template <class T, PoolIndex Index>
void max_forward_nchw_of(const MaxPool2dForward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  if (p.stride_w == 2 && p.kernel_w == 2 && p.dilation_w == 1)
    max_forward_nchw_as<T, Index, 2, 2>(a, par);
  else if (p.stride_w == 2 && p.kernel_w == 3 && p.dilation_w == 1)
    max_forward_nchw_as<T, Index, 2, 3>(a, par);
  else if (p.stride_w == 2)
    max_forward_nchw_as<T, Index, 2, 0>(a, par);
  else if (p.stride_w == 1)
    max_forward_nchw_as<T, Index, 1, 0>(a, par);
  else
    max_forward_nchw_as<T, Index, 0, 0>(a, par);
}

template <class T>
void max_forward_nchw(const MaxPool2dForward<T>& a, const Parallel& par) {
  if (a.index == PoolIndex::none)
    max_forward_nchw_of<T, PoolIndex::none>(a, par);
  else if (a.index == PoolIndex::window)
    max_forward_nchw_of<T, PoolIndex::window>(a, par);
  else
    max_forward_nchw_of<T, PoolIndex::flat>(a, par);
}

// The gradients and indices of a plane with room around each row, so that any vector of windows can be read.
template <class T>
struct PaddedPlane {
  T* grad;
  uint8_t* index;
  int64_t left, width;
};

template <class T>
inline void pad_plane(const T* grad, const uint8_t* index, int64_t rows, int64_t cols, const PaddedPlane<T>& to) {
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t* line = to.index + r * to.width;
    std::memset(line, 255, static_cast<size_t>(to.width));
    std::memcpy(line + to.left, index + r * cols, static_cast<size_t>(cols));
    std::memcpy(to.grad + r * to.width + to.left, grad + r * cols, static_cast<size_t>(cols) * sizeof(T));
  }
}

template <class T, int Stride, int Kernel>
void max_gather_nchw_as(const MaxPool2dBackward<T>& a, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const Pool2dProblem& p = a.p;
  const int64_t in_cells = p.in_h * p.in_w, out_cells = p.out_h * p.out_w;
  const int64_t kernel_w = Kernel ? Kernel : p.kernel_w;
  PaddedPlane<T> layout;
  layout.left = (p.kernel_w - 1) * p.dilation_w + 1;
  layout.width = layout.left + (p.in_w + p.pad_w) / Stride + 2 * W;
  if (layout.width < layout.left + p.out_w) layout.width = layout.left + p.out_w;
  layout.width = (layout.width + 63) / 64 * 64;
  const int64_t plane_cells = p.out_h * layout.width;
  parallel_for(par, p.batch * p.channels, planes_grain(in_cells), [&](int64_t begin, int64_t end) {
    PaddedPlane<T> padded = layout;
    padded.grad = static_cast<T*>(scratch(Scratch::local, plane_cells * int64_t{sizeof(T) + 1}));
    padded.index = reinterpret_cast<uint8_t*>(padded.grad + plane_cells);
    for (int64_t plane = begin; plane < end; ++plane) {
      pad_plane(a.grad_output + plane * out_cells, static_cast<const uint8_t*>(a.indices) + plane * out_cells,
                p.out_h, p.out_w, padded);
      for (int64_t h = 0; h < p.in_h; ++h) {
        T* out = a.grad_input + plane * in_cells + h * p.in_w;
        // the rows of windows that cover row h, and which of their rows it is
        int64_t num_rows = 0, row_at[256], first_code[256];
        for (int64_t r = 0; r < p.kernel_h; ++r) {
          const int64_t from = h + p.pad_h - r * p.dilation_h;
          if (from < 0) break;
          if (from % p.stride_h || from / p.stride_h >= p.out_h) continue;
          row_at[num_rows] = from / p.stride_h * padded.width + padded.left;
          first_code[num_rows++] = r * kernel_w;
        }
        for (int64_t w = 0; w < p.in_w; w += Stride * W) {
          // at stride 2: the cells w, w + 2, ... and w + 1, w + 3, ...
          Vec<T> acc[Stride];
          for (int i = 0; i < Stride; ++i) acc[i] = zero<T>();
          for (int64_t r = 0; r < num_rows; ++r) {
#pragma GCC unroll 3
            for (int64_t s = 0; s < kernel_w; ++s) {
              const int64_t from_w = w + p.pad_w - s * p.dilation_w;
              const int i = Stride == 2 ? static_cast<int>(from_w & 1) : 0;
              const int64_t at = row_at[r] + (Stride == 2 ? (from_w + i) >> 1 : from_w);
              const Mask<T> index = load_index<T>(padded.index + at, W), code = set1_code<T>(first_code[r] + s);
              const Vec<T> v = load(padded.grad + at);
              if (Stride == 1 || i == 0)
                acc[0] = add_where<T>(acc[0], index, code, v);
              else
                acc[Stride - 1] = add_where<T>(acc[Stride - 1], index, code, v);
            }
          }
          if constexpr (Stride == 2) {
            const Pair<T> both = interleave<T>(acc[0], acc[1]);
            acc[0] = both.first;
            acc[1] = both.second;
          }
          for (int i = 0; i < Stride; ++i) {
            const int64_t n = p.in_w - w - i * W;
            if (n >= W)
              store(out + w + i * W, acc[i]);
            else if (n > 0)
              store_partial(out + w + i * W, acc[i], n);
          }
        }
      }
    }
  });
}

template <class T>
void max_gather_nchw(const MaxPool2dBackward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  if (p.stride_w == 2 && p.kernel_w == 2)
    max_gather_nchw_as<T, 2, 2>(a, par);
  else if (p.stride_w == 2 && p.kernel_w == 3)
    max_gather_nchw_as<T, 2, 3>(a, par);
  else if (p.stride_w == 2)
    max_gather_nchw_as<T, 2, 0>(a, par);
  else
    max_gather_nchw_as<T, 1, 0>(a, par);
}

// Lanes of float hold flat indices in 32 bits.
template <class T>
bool max_forward_nchw_applies(const MaxPool2dForward<T>& a) {
  return a.layout == Layout::nchw && plane_fits_lanes(a.p) && rows_of_windows_fit(a.p);
}

// Gathering reads each window once for every tap; scattering touches a cell once for every window.
CISDL_INLINE int64_t kernel_cells_per_stride(const Pool2dProblem& p) {
  return p.kernel_h * p.kernel_w / (p.stride_h * p.stride_w);
}

template <class T>
bool max_gather_nchw_applies(const MaxPool2dBackward<T>& a) {
  return a.layout == Layout::nchw && a.index == PoolIndex::window && a.p.stride_w <= 2 && a.p.out_w >= kWidth<T> &&
         kernel_cells_per_stride(a.p) <= 4;
}

}  // namespace
}  // namespace cisdl
