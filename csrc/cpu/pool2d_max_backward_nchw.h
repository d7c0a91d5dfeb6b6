// The gradient of max pooling in [N, C, H, W], from either kind of index, at strides 1 and 2: lanes along a row.
//
// The rows of windows that cover a strip of the image are staged, gradients and indices as wide as lanes, with
// indices around them that name no cell. Then each vector of cells gathers: for every row of windows above it and
// every tap it adds the gradients whose index names it. At stride 2 the even and the odd columns are two vectors,
// interleaved at the end. A cell is written once, and an index that names no cell of its window is harmless.
//
// Gathering reads each window once for every tap, where max_scatter touches one cell for each window: large
// windows and rows that fill little of a vector are left to that.
#pragma once

#include "pool2d_rows_nchw.h"

namespace cisdl {
namespace {

template <class T>
struct StagedWindows {
  T* grad;
  Code<T>* code;
  Mask<T>* taps;  // the code of each tap of a window, in all lanes
  int64_t left, pitch;
};

// Rows of `cols` windows each; `readable` of them lie in memory from the first on. Lanes past the end of a row
// are overwritten by codes that match nothing.
template <class T, class IndexT>
CISDL_INLINE void stage_windows(const T* grad, const IndexT* index, int64_t rows, int64_t cols, int64_t readable,
                                int64_t border, const StagedWindows<T>& to) {
  constexpr int W = kWidth<T>;
  for (int64_t r = 0; r < rows; ++r, grad += cols, index += cols, readable -= cols) {
    T* g = to.grad + r * to.pitch + to.left;
    Code<T>* c = to.code + r * to.pitch + to.left;
    for (int64_t i = 0; i < cols; i += W) {
      const int64_t n = readable - i < W ? readable - i : W;
      store(g + i, load_up_to(grad + i, n));
      store_code<T>(c + i, load_index<T>(index + i, n));
    }
    for (int64_t i = 0; i < border; i += W) store_code<T>(c + cols + i, set1_code<T>(-1));
  }
}

// Row h of the image, of which the windows begin at row `first` of the staged ones.
template <class T, bool Flat, int Stride, int Kernel>
CISDL_INLINE void max_gather_row(const Pool2dProblem& p, const StagedWindows<T>& staged, int64_t first, Taps rows,
                                 int64_t h, T* out) {
  constexpr int W = kWidth<T>;
  const ColumnTaps<Stride> taps{p.pad_w};
  const int64_t kernel_w = Kernel ? Kernel : p.kernel_w;
  for (int64_t w = 0; w < p.in_w; w += Stride * W) {
    Vec<T> acc[Stride];
    Mask<T> place[Stride];  // of the cells in the plane
    for (int i = 0; i < Stride; ++i) {
      acc[i] = zero<T>();
      if constexpr (Flat)
        place[i] = set1_code<T>(h * p.in_w + w + (taps.swapped() ? 1 - i : i)) + iota<T>() * Stride;
    }
    int64_t at = (rows.begin - first) * staged.pitch + staged.left + w / Stride;
    const Mask<T>* code = staged.taps + (h + p.pad_h - rows.begin * p.stride_h) * kernel_w;
    for (int64_t oh = rows.begin; oh < rows.end; ++oh, at += staged.pitch, code -= p.stride_h * kernel_w) {
#pragma GCC unroll 3
      for (int64_t s = 0; s < kernel_w; ++s) {
        const int64_t from = at + taps.offset(s);
        const Mask<T> index = load_code<T>(staged.code + from);
        const Vec<T> v = load(staged.grad + from);
        if (Stride == 1 || s % 2 == 0)
          acc[0] = add_where<T>(acc[0], index, Flat ? place[0] : code[s], v);
        else
          acc[Stride - 1] = add_where<T>(acc[Stride - 1], index, Flat ? place[Stride - 1] : code[s], v);
      }
    }
    store_columns<T, Stride>(out + w, acc, taps.swapped(), p.in_w - w);
  }
}

template <class T, class IndexT, int Stride, int Kernel>
void max_gather_nchw_as(const MaxPool2dBackward<T>& a, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const Pool2dProblem& p = a.p;
  const int64_t in_cells = p.in_h * p.in_w, out_cells = p.out_h * p.out_w, planes = p.batch * p.channels;
  const int64_t left = p.kernel_w, num_taps = p.kernel_h * p.kernel_w;
  int64_t border = (p.in_w + p.pad_w) / Stride + 1 - p.out_w;  // windows that no row has, but cells ask for
  if (border < 0) border = 0;
  const int64_t pitch = left + round_up_to_lanes<T>(p.out_w) + round_up_to_lanes<T>(border) + 2 * W;
  // the windows' rows over `height` rows: one for each stride, and those that overlap
  const int64_t lane_bytes = sizeof(T) + sizeof(Code<T>), overlap = (p.kernel_h - 1) / p.stride_h + 1;
  int64_t height = (rows_of_strip(pitch * lane_bytes) - overlap) * p.stride_h;
  height = height < 1 ? 1 : height < p.in_h ? height : p.in_h;
  const int64_t staged_cells = ((height - 1) / p.stride_h + 1 + overlap) * pitch;
  const Taps* over = list_windows_over(p, scratch(Scratch::shared, windows_over_bytes(p)));
  const auto make = [&] {
    StagedWindows<T> staged;
    staged.taps = static_cast<Mask<T>*>(scratch(Scratch::local, num_taps * kVecBytes + staged_cells * lane_bytes));
    staged.grad = reinterpret_cast<T*>(staged.taps + num_taps);
    staged.code = reinterpret_cast<Code<T>*>(staged.grad + staged_cells);
    staged.left = left;
    staged.pitch = pitch;
    for (int64_t i = 0; i < num_taps; ++i) staged.taps[i] = set1_code<T>(i);
    std::memset(staged.grad, -1, static_cast<size_t>(staged_cells * lane_bytes));
    return staged;
  };
  for_each_strip(par, planes, p.in_h, height, p.in_w, make,
                 [=](const StagedWindows<T>& memory, int64_t plane, int64_t begin, int64_t end) {
                   const Pool2dProblem q = p;
                   const StagedWindows<T> staged = memory;
                   const Taps* rows_over = over;
                   const Taps rows{rows_over[begin].begin, rows_over[end - 1].end};
                   const int64_t from = plane * out_cells + rows.begin * q.out_w;
                   stage_windows<T>(a.grad_output + from, static_cast<const IndexT*>(a.indices) + from,
                                    rows.end - rows.begin, q.out_w, planes * out_cells - from, border, staged);
                   T* out = a.grad_input + plane * in_cells + begin * q.in_w;
                   for (int64_t h = begin; h < end; ++h, out += q.in_w)
                     max_gather_row<T, sizeof(IndexT) == 8, Stride, Kernel>(q, staged, rows.begin, rows_over[h], h,
                                                                            out);
                 });
}

template <class T, class IndexT>
void max_gather_nchw_of(const MaxPool2dBackward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  if (p.stride_w == 2 && p.kernel_w == 2)
    max_gather_nchw_as<T, IndexT, 2, 2>(a, par);
  else if (p.stride_w == 2 && p.kernel_w == 3)
    max_gather_nchw_as<T, IndexT, 2, 3>(a, par);
  else if (p.stride_w == 2)
    max_gather_nchw_as<T, IndexT, 2, 0>(a, par);
  else if (p.kernel_w == 3)
    max_gather_nchw_as<T, IndexT, 1, 3>(a, par);
  else
    max_gather_nchw_as<T, IndexT, 1, 0>(a, par);
}

template <class T>
void max_gather_nchw(const MaxPool2dBackward<T>& a, const Parallel& par) {
  if (a.index == PoolIndex::window)
    max_gather_nchw_of<T, uint8_t>(a, par);
  else
    max_gather_nchw_of<T, int64_t>(a, par);
}

// Measured with 16 lanes: rows of 13 windows gather as fast as they scatter, longer ones faster.
template <class T>
bool max_gather_nchw_applies(const MaxPool2dBackward<T>& a) {
  const Pool2dProblem& p = a.p;
  return a.layout == Layout::nchw && p.stride_w <= 2 && p.dilation_h == 1 && p.dilation_w == 1 &&
         p.kernel_h * p.kernel_w < 5 * p.stride_h * p.stride_w && plane_fits_lanes(p) && rows_of_windows_fit(p) &&
         5 * p.out_w >= 4 * kWidth<T>;
}

}  // namespace
}  // namespace cisdl
