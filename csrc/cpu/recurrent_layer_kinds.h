// What recurrent_layer.cpp is made of: weights packed as panels of gates, and what differs by the kind of layer:
// which gates there are, and the elementwise step (common/recurrent_steps.h) that follows a block of their sums.
#pragma once

#include "../common/recurrent_layers.h"
#include "recurrent_lanes.h"
#include "recurrent_tile.h"

namespace cisdl {
namespace {

// ------------------------------------------------------------------------------------------- products

// Columns as panels for a tile, gate by gate; of each panel the rows of k one after another.
template <class T>
struct PackedPanels {
  const T* data;
  int64_t k, gate_size;

  const T* panel(int64_t gate, int64_t j) const { return data + gate * gate_size + j * k; }  // j: a first column
};

// Of one matrix or of two, one above the other along k: `columns` columns for each gate.
template <class T>
struct Source {
  Lines<T> lines;
  int64_t k;
};

template <class T>
PackedPanels<T> pack_panels(const Source<T>& above, const Source<T>& below, int64_t gates, int64_t columns,
                            T* packed, const Parallel& par) {
  constexpr int64_t N = kTileCols<T>;
  const int64_t k = above.k + below.k, panels = (columns + N - 1) / N, gate_size = panels * N * k;
  parallel_for(par, gates * panels, grain_for(8 * N * k), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t gate = item / panels, j = item % panels * N, cols = smaller(N, columns - j);
      T* to = packed + gate * gate_size + j * k;
      for (const Source<T>* s : {&above, &below}) {
        pack_b<T>(
            {s->lines.data + (gate * columns + j) * s->lines.line_stride, s->lines.line_stride, s->lines.k_stride},
            cols, s->k, to, N * k);
        to += s->k * panel_vectors<T>(cols) * kWidth<T>;
      }
    }
  });
  return {packed, k, gate_size};
}

template <class T>
void copy_rows(const T* from, int64_t rows, int64_t features, T* to, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i)
    std::memcpy(to + i * stride, from + i * features, static_cast<size_t>(features) * sizeof(T));
}

// ---------------------------------------------------------------------------------- what differs by kind

// Forward: the gates, the gate of which the two sums, of x and of h, stay apart (GRU: n), and the elementwise
// step; `hx`: the state before it.
template <class Args>
struct Kind;

// The sums of a block: parts of N columns.
template <class T>
struct Block {
  const T* sums;  // of the step's first row and hidden unit 0
  int64_t row;
};

template <class T>
struct Kind<LstmLayerForward<T>> {
  static constexpr int64_t kGates = 4, kParts = 4, kApart = -1;
  static LstmStepForward<T> step(const LstmLayerForward<T>& f, const RecurrentRows& s, const T*,
                                 const Block<T>& b) {
    const int64_t at = s.row * f.p.hidden_size;
    return {{s.rows, f.p.hidden_size},
            nullptr,
            f.gates ? f.gates + 4 * at : nullptr,
            f.c,
            f.output + at,
            nullptr,
            f.c_before ? f.c_before + at : nullptr,
            b.sums,
            b.row,
            kTileCols<T>};
  }
};

template <class T>
struct Kind<GruLayerForward<T>> {
  static constexpr int64_t kGates = 3, kParts = 4, kApart = 2;
  static GruStepForward<T> step(const GruLayerForward<T>& f, const RecurrentRows& s, const T* hx,
                                const Block<T>& b) {
    const int64_t at = s.row * f.p.hidden_size;
    return {{s.rows, f.p.hidden_size},
            nullptr,
            hx,
            f.gates ? f.gates + 3 * at : nullptr,
            f.output + at,
            nullptr,
            f.h_part_n ? f.h_part_n + at : nullptr,
            b.sums,
            b.row,
            kTileCols<T>};
  }
};

template <class T>
struct Kind<RnnLayerForward<T>> {
  static constexpr int64_t kGates = 1, kParts = 1, kApart = -1;
  static RnnStepForward<T> step(const RnnLayerForward<T>& f, const RecurrentRows& s, const T*, const Block<T>& b) {
    return {{s.rows, f.p.hidden_size},          f.nonlinearity, b.sums, nullptr,
            f.output + s.row * f.p.hidden_size, nullptr,        b.row};
  }
};

// Backward: `kColumns` times hidden_size columns of grad_gates, of which those from `kFirst` on meet W_hh.
template <class T>
struct Kind<LstmLayerBackward<T>> {
  static constexpr int64_t kGates = 4, kColumns = 4, kFirst = 0;
  static T* product(const LstmLayerBackward<T>& b) { return b.grad_h; }
  static LstmStepBackward<T> step(const LstmLayerBackward<T>& b, const RecurrentRows& s, int64_t stride) {
    const int64_t hidden = b.p.hidden_size, at = s.row * hidden;
    return {{s.rows, hidden},
            b.grad_output ? b.grad_output + at : nullptr,
            b.grad_h,
            b.gates + 4 * at,
            b.c_before + at,
            b.grad_c,
            b.grad_gates + s.row * stride,
            stride,
            nullptr};
  }
};

// da_n of x, then da_r, da_z and da_n of h.
template <class T>
struct Kind<GruLayerBackward<T>> {
  static constexpr int64_t kGates = 3, kColumns = 4, kFirst = 1;
  static T* product(const GruLayerBackward<T>& b) { return b.grad_product; }
  static GruStepBackward<T> step(const GruLayerBackward<T>& b, const RecurrentRows& s, int64_t stride) {
    const int64_t hidden = b.p.hidden_size, at = s.row * hidden;
    T* grads = b.grad_gates + s.row * stride;
    return {{s.rows, hidden},
            b.grad_output ? b.grad_output + at : nullptr,
            b.grad_product,
            b.gates + 3 * at,
            b.h_part_n + at,
            b.h_before + at,
            b.grad_h,
            grads + hidden,
            grads,
            nullptr,
            stride};
  }
};

template <class T>
struct Kind<RnnLayerBackward<T>> {
  static constexpr int64_t kGates = 1, kColumns = 1, kFirst = 0;
  static T* product(const RnnLayerBackward<T>& b) { return b.grad_h; }
  static RnnStepBackward<T> step(const RnnLayerBackward<T>& b, const RecurrentRows& s, int64_t stride) {
    const int64_t hidden = b.p.hidden_size, at = s.row * hidden;
    return {{s.rows, hidden},
            b.nonlinearity,
            b.grad_output ? b.grad_output + at : nullptr,
            b.grad_h,
            b.output + at,
            b.grad_gates + s.row * stride,
            stride};
  }
};

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

CISDL_INLINE Range clipped(const Range& r, int64_t most) { return {smaller(r.begin, most), smaller(r.end, most)}; }

// The elementwise part for some rows of a step and hidden units: those of one panel.
template <class T, class Step>
void take_steps(const Step& step, const Range& rows, const Range& units) {
  constexpr bool kPairs = !requires { step.nonlinearity; };
  if constexpr (kPairs) {
    if (units.size() == LanePair<T>::kCount) {
      for (int64_t row = rows.begin; row < rows.end; ++row)
        take_step<LanePair<T>>(step, row, units.begin, units.size());
      return;
    }
  }
  for (int64_t row = rows.begin; row < rows.end; ++row)
    for (int64_t unit = units.begin; unit < units.end; unit += kWidth<T>)
      take_step<Lanes<T>>(step, row, unit, units.end - unit);
}

}  // namespace
}  // namespace cisdl
