// Max pooling with the places of the maxima known, for either layout and both kinds of index: the gradient, which
// scatters to the places, and its adjoint, which gathers from them.
//
// A block is one plane in [N, C, H, W], or one image, with its channels interleaved, in [N, H, W, C]. Scattering
// sets it to zero (small blocks several at once) and adds each output's gradient to the cell its index names, one
// by one, in the order of the outputs. A plane fits L1, so this is bound by additions to memory, about one a
// nanosecond. Threads share blocks.
#pragma once

#include "pool2d_plain.h"

namespace cisdl {
namespace {

// Where each cell of a window lies, counted from the window's first cell.
struct WindowCells {
  static constexpr int64_t kNone = -(int64_t{1} << 60);  // added to any place: outside the block
  int64_t cell[256];
};

template <class A>
inline void list_window_cells(const A& a, int64_t C, WindowCells& cells) {
  if (a.index != PoolIndex::window) return;
  const Pool2dProblem& p = a.p;
  for (int64_t tap = 0; tap < 256; ++tap)
    cells.cell[tap] = tap < p.kernel_h * p.kernel_w
                          ? (tap / p.kernel_w * p.dilation_h * p.in_w + tap % p.kernel_w * p.dilation_w) * C
                          : WindowCells::kNone;
}

// Calls visit(output, place) for each output of a block: both count elements from the block's first, and a place
// outside [0, in_h * in_w * C) is that of a window without a cell inside the image.
template <class A, class Visit>
CISDL_INLINE void for_each_place(const A& a, int64_t block, int64_t C, const WindowCells& cells, Visit&& visit) {
  const Pool2dProblem& p = a.p;
  const int64_t in_cells = p.in_h * p.in_w, out_cells = p.out_h * p.out_w;
  int64_t o = 0;
  if (a.index == PoolIndex::flat) {
    const int64_t* index = static_cast<const int64_t*>(a.indices) + block * out_cells * C;
    if (C == 1) {
      for (; o < out_cells; ++o) visit(o, index[o]);
      return;
    }
    for (int64_t i = 0; i < out_cells; ++i)
      for (int64_t c = 0; c < C; ++c, ++o)
        visit(o, index[o] >= 0 && index[o] < in_cells ? index[o] * C + c : int64_t{-1});
    return;
  }
  const uint8_t* index = static_cast<const uint8_t*>(a.indices) + block * out_cells * C;
  if (C == 1) {
    for (int64_t oh = 0; oh < p.out_h; ++oh) {
      const int64_t first = (oh * p.stride_h - p.pad_h) * p.in_w - p.pad_w;
      for (int64_t ow = 0; ow < p.out_w; ++ow, ++o) visit(o, first + ow * p.stride_w + cells.cell[index[o]]);
    }
    return;
  }
  for (int64_t oh = 0; oh < p.out_h; ++oh) {
    for (int64_t ow = 0; ow < p.out_w; ++ow) {
      const int64_t first = ((oh * p.stride_h - p.pad_h) * p.in_w + ow * p.stride_w - p.pad_w) * C;
      for (int64_t c = 0; c < C; ++c, ++o) visit(o, first + c + cells.cell[index[o]]);
    }
  }
}

// Calls body(begin, end, C, cells) for ranges of the blocks of a problem.
template <class A, class Body>
CISDL_INLINE void for_blocks(const A& a, const Parallel& par, Body&& body) {
  const Pool2dProblem& p = a.p;
  const bool nhwc = a.layout == Layout::nhwc;
  const int64_t blocks = nhwc ? p.batch : p.batch * p.channels, C = nhwc ? p.channels : 1;
  parallel_for(par, blocks, planes_grain(p.in_h * p.in_w * C), [&](int64_t begin, int64_t end) {
    WindowCells cells;
    list_window_cells(a, C, cells);
    body(begin, end, C, cells);
  });
}

template <class T>
void max_scatter(const MaxPool2dBackward<T>& a, const Parallel& par) {
  for_blocks(a, par, [&](int64_t begin, int64_t end, int64_t C, const WindowCells& cells) {
    const int64_t in_size = a.p.in_h * a.p.in_w * C, out_size = a.p.out_h * a.p.out_w * C;
    const int64_t together = 2048 / in_size + 1;
    for (int64_t block = begin; block < end; ++block) {
      const T* grad = a.grad_output + block * out_size;
      T* out = a.grad_input + block * in_size;
      if ((block - begin) % together == 0) {
        const int64_t blocks = end - block < together ? end - block : together;
        std::memset(out, 0, static_cast<size_t>(blocks * in_size) * sizeof(T));
      }
      for_each_place(a, block, C, cells, [&](int64_t o, int64_t place) __attribute__((always_inline)) {
        if (place >= 0 && place < in_size) out[place] += grad[o];
      });
    }
  });
}

template <class T>
void max_gather(const MaxPool2dGather<T>& a, const Parallel& par) {
  for_blocks(a, par, [&](int64_t begin, int64_t end, int64_t C, const WindowCells& cells) {
    const int64_t in_size = a.p.in_h * a.p.in_w * C, out_size = a.p.out_h * a.p.out_w * C;
    for (int64_t block = begin; block < end; ++block) {
      const T* x = a.input + block * in_size;
      T* out = a.output + block * out_size;
      for_each_place(a, block, C, cells, [&](int64_t o, int64_t place) __attribute__((always_inline)) {
        out[o] = place >= 0 && place < in_size ? x[place] : T(0);
      });
    }
  });
}

}  // namespace
}  // namespace cisdl
