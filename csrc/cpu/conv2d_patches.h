// Panels of patches: the B operand of an implicit GEMM, packed as outer_tile reads it.
//
// A panel covers up to kTileCols output pixels, consecutive in the flattened (n, y, x), so that it may run over
// the ends of rows and images and small planes still fill it. Row `tap` of the panel holds, for every pixel, the
// input element under tap (c, r, s): in the window (conv2d_window.h) those are runs of consecutive elements, one
// for each output row that the panel touches. The runs are cut into pieces that lie within one vector; a vector of
// the panel is put together in a register, one load and one blend for each piece, and stored once.
#pragma once

#include "conv2d_window.h"

namespace cisdl {
namespace {

template <class T>
struct PanelPieces {
  int vectors = 0;
  int count[kTileVectors] = {};             // pieces of each vector
  int lane[kTileVectors][kWidth<T>];        // first lane of a piece
  int64_t offset[kTileVectors][kWidth<T>];  // where in the window lane 0 would lie, if the piece reached there

  PanelPieces() = default;
  // Pixels [begin, begin + cols) of the flattened (n, y, x).
  PanelPieces(const Conv2dProblem& p, const WindowShape& window, int64_t begin, int64_t cols) {
    int64_t x = begin % p.out_w, y = begin / p.out_w % p.out_h, n = begin / p.out_w / p.out_h;
    vectors = panel_vectors<T>(cols);
    for (int64_t done = 0; done < cols;) {
      const int64_t v = done / kWidth<T>, first = done % kWidth<T>;
      const int64_t length = smaller(smaller(p.out_w - x, cols - done), kWidth<T> - first);
      lane[v][count[v]] = static_cast<int>(first);
      offset[v][count[v]++] = window.pixel(n, y, x) - first;
      done += length;
      x += length;
      if (x == p.out_w) {
        x = 0;
        if (++y == p.out_h) {
          y = 0;
          ++n;
        }
      }
    }
  }
};

// Lanes `first` and up.
template <class T>
CISDL_INLINE Mask<T> lanes_from(int first) {
  alignas(kVecBytes) T index[kWidth<T>];
  for (int i = 0; i < kWidth<T>; ++i) index[i] = static_cast<T>(i);
  return load(index) >= set1(static_cast<T>(first));
}

// One vector of a panel, of N pieces (0: any number), for each tap.
template <class T, int N>
void pack_vector(int count, const int* lane, const int64_t* offset, const T* window, const int64_t* taps,
                 int64_t num_taps, T* dst, int64_t width) {
  const int pieces = N ? N : count;
  Mask<T> masks[N ? N : kWidth<T>];
  for (int j = 1; j < pieces; ++j) masks[j] = lanes_from<T>(lane[j]);
  for (int64_t i = 0; i < num_taps; ++i, dst += width) {
    const T* src = window + taps[i];
    Vec<T> v = load(src + offset[0]);
#pragma GCC unroll 4
    for (int j = 1; j < pieces; ++j) v = select<T>(masks[j], load(src + offset[j]), v);
    store(dst, v);
  }
}

// Packs a panel: [num_taps][width].
template <class T>
void pack_panel(const PanelPieces<T>& pieces, const T* window, const int64_t* taps, int64_t num_taps, T* dst) {
  const int64_t width = pieces.vectors * kWidth<T>;
  for (int v = 0; v < pieces.vectors; ++v, dst += kWidth<T>) {
    const int count = pieces.count[v];
    const auto pack = [&](auto&& function) {
      function(count, pieces.lane[v], pieces.offset[v], window, taps, num_taps, dst, width);
    };
    switch (count) {
      case 1:
        pack(pack_vector<T, 1>);
        break;
      case 2:
        pack(pack_vector<T, 2>);
        break;
      case 3:
        pack(pack_vector<T, 3>);
        break;
      case 4:
        pack(pack_vector<T, 4>);
        break;
      default:
        pack(pack_vector<T, 0>);
        break;
    }
  }
}

}  // namespace
}  // namespace cisdl
