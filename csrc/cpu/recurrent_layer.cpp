// A whole recurrent layer in one direction on the CPU: LSTM, GRU and plain, forward and backward
// (common/recurrent_layers.h; the elementwise part of a step: common/recurrent_steps.h).
//
// packed
//   Forward. [W_ih W_hh] is packed once, gate by gate, as panels of one tile's columns (kTileCols hidden units). A
//   step multiplies [x h] by it, tile after tile: for one panel of hidden units and some rows all gates, into a
//   small block; as soon as its sums are complete the activations follow, while it is in L1. Pre-activations exist
//   nowhere else. Backward. Step by step, from the last: the gradient of the pre-activations of a step times W_hh
//   (packed, too) is the gradient of the state before it; as soon as a panel of its columns is complete, the
//   elementwise part of the step before follows. The gradients of the pre-activations of all steps are kept; the
//   gradients of the input and of the weights are one product each at the end. Threads. Rows of the batch do not
//   need each other before the weights' gradients. Where W_hh fits in a core's cache and there are rows for every
//   thread, a thread takes its rows through all steps on its own. Otherwise the hidden units are shared out, with
//   a barrier after every step, and each core keeps its part of W_hh in its cache. Each sum is formed in the same
//   order in either case, so the result does not depend on the threads.
//
// Right for any layer without projection. Below kLeastRows rows of the batch the tiles idle, and reading W_hh
// where it lies is faster: then (`steps`) the layer is made of the products and the steps of a cell, by the
// caller.
#include "column_sums.h"
#include "kernels.h"
#include "recurrent_layer_kinds.h"

namespace cisdl {
namespace {

constexpr int64_t kLeastRows = 4;

// Whether each thread takes its own rows through all steps. With as few rows as that pays for packing it is faster
// than sharing out hidden units and meeting after every step: measured with 4 to 8 rows each on two threads, 1.05
// to 1.8 times as fast (Zen 4).
template <class T>
bool share_rows(const RecurrentLayer& p, int64_t gates, const Parallel& par) {
  const int64_t bytes = gates * p.hidden_size * p.hidden_size * static_cast<int64_t>(sizeof(T));
  return par.num_threads > 1 && p.batch >= kLeastRows * par.num_threads && bytes <= kL2Bytes;
}

// --------------------------------------------------------------------------------------------- forward

template <class Args>
struct Forward;

template <class T, template <class> class Args>
struct Forward<Args<T>> {
  using K = Kind<Args<T>>;
  static constexpr int64_t N = kTileCols<T>, kRow = K::kParts * N;

  const Args<T>& f;
  PackedPanels<T> weights;  // of [x h]
  const T* bias;            // [kGates*hidden_size]: the sum of both, of a gate apart b_ih; or null

  // Step i for some rows and panels of hidden units.
  void step(int64_t i, const Range& batch, const Range& blocks) const {
    const int64_t hidden = f.p.hidden_size, size = f.p.input_size;
    const RecurrentRows s = f.p.order[i], before = i > 0 ? f.p.order[i - 1] : RecurrentRows{0, 0};
    const Range rows = clipped(batch, s.rows);
    if (rows.size() == 0) return;
    const Parts panels = split_evenly(rows.size(), kTileRows, 1);
    const int64_t x_size = panels.size * whole_chunks(size),
                  panel_size = x_size + panels.size * whole_chunks(hidden);
    T* chunks =
        static_cast<T*>(scratch(Scratch::local, panels.count * panel_size * static_cast<int64_t>(sizeof(T))));
    const auto rows_of = [&](int64_t p) {
      return Range{rows.begin + p * panels.size, smaller(rows.end, rows.begin + (p + 1) * panels.size)};
    };
    const T* h_before = f.output + before.row * hidden;
    for (int64_t p = 0; p < panels.count; ++p) {
      const Range some = rows_of(p), known = clipped(some, before.rows);
      T *x = chunks + p * panel_size, *h = x + x_size;
      copy_chunks<T>(f.input + (s.row + some.begin) * size, size, some.size(), size, x, some.size(), 0);
      // The output of the step before; hx where a row begins.
      copy_chunks<T>(h_before + known.begin * hidden, hidden, known.size(), hidden, h, some.size(), 0);
      copy_chunks<T>(f.hx + (some.begin + known.size()) * hidden, hidden, some.size() - known.size(), hidden, h,
                     some.size(), known.size());
    }
    alignas(kVecBytes) T block[kTileRows * kRow];
    for (int64_t j = blocks.begin * N; j < smaller(blocks.end * N, hidden); j += N)
      for (int64_t p = 0; p < panels.count; ++p) {
        const Range some = rows_of(p), known = clipped(some, before.rows), units = {j, smaller(j + N, hidden)};
        const T* x = chunks + p * panel_size;
        multiply({size, x, nullptr}, {hidden, x + x_size, nullptr}, some.size(), j, block);
        const Block<T> sums = {block - some.begin * kRow - j, kRow};
        // A GRU reads the state once more.
        take_steps<T>(K::step(f, s, h_before, sums), known, units);
        take_steps<T>(K::step(f, s, f.hx, sums), {some.begin + known.size(), some.end}, units);
      }
  }

  // The sums of all gates of one panel of hidden units.
  void multiply(Segment<T> x, Segment<T> h, int64_t rows, int64_t j, T* block) const {
    const int64_t hidden = f.p.hidden_size, cols = smaller(N, hidden - j);
    for (int64_t gate = 0; gate < K::kGates; ++gate) {
      x.b = weights.panel(gate, j);
      h.b = x.b + x.k * panel_vectors<T>(cols) * kWidth<T>;
      TileOutput<T> out = {block + gate * N, kRow, false, nullptr, bias ? bias + gate * hidden + j : nullptr};
      if (gate != K::kApart) {
        multiply_panel<T>(rows, x, h, out, cols);
        continue;
      }
      multiply_panel<T>(rows, x, {}, out, cols);
      out = {out.c + N, kRow, false, nullptr, f.b_hh ? f.b_hh + gate * hidden + j : nullptr};
      multiply_panel<T>(rows, h, {}, out, cols);
    }
  }

  void run(const Parallel& par) const {
    const int64_t blocks = (f.p.hidden_size + N - 1) / N;
    if (share_rows<T>(f.p, K::kGates, par)) {
      const int64_t each = (f.p.batch + par.num_threads - 1) / par.num_threads;
      parallel_for(par, par.num_threads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = 0; i < f.p.steps; ++i)
          step(i, clipped({begin * each, end * each}, f.p.batch), {0, blocks});
      });
      return;
    }
    const int64_t work = K::kGates * N * (f.p.input_size + f.p.hidden_size);
    for (int64_t i = 0; i < f.p.steps; ++i)
      parallel_for(par, blocks, grain_for(f.p.order[i].rows * work),
                   [&](int64_t begin, int64_t end) { step(i, {0, f.p.batch}, {begin, end}); });
  }
};

// h_n: of each row the output of its last step.
template <class T>
void last_states(const LayerForward<T>& f) {
  const int64_t hidden = f.p.hidden_size;
  for (int64_t i = 0; i < f.p.steps; ++i) {
    const int64_t remain = i + 1 < f.p.steps ? f.p.order[i + 1].rows : 0;
    if (remain < f.p.order[i].rows)
      copy_rows(f.output + (f.p.order[i].row + remain) * hidden, f.p.order[i].rows - remain, hidden,
                f.h_n + remain * hidden, hidden);
  }
}

template <class T, template <class> class Args>
void forward_packed(const Args<T>& f, const Parallel& par) {
  using K = Kind<Args<T>>;
  const int64_t hidden = f.p.hidden_size, size = f.p.input_size, units = K::kGates * hidden;
  T* bias = nullptr;
  if (f.b_ih || f.b_hh) {
    bias = static_cast<T*>(scratch(Scratch::outer, units * static_cast<int64_t>(sizeof(T))));
    for (int64_t u = 0; u < units; ++u) {
      const bool together = K::kApart < 0 || u / hidden != K::kApart;
      bias[u] = (f.b_ih ? f.b_ih[u] : T(0)) + (f.b_hh && together ? f.b_hh[u] : T(0));
    }
  }
  const Forward<Args<T>> forward = {
      f,
      pack_panels<T>({lines_are_rows(f.w_ih, size), size}, {lines_are_rows(f.w_hh, hidden), hidden}, K::kGates,
                     hidden, f.packed, par),
      bias};
  forward.run(par);
  last_states<T>(f);
}

// -------------------------------------------------------------------------------------------- backward

template <class T, template <class> class Args>
void backward_packed(const Args<T>& b, const Parallel& par) {
  using K = Kind<Args<T>>;
  constexpr int64_t N = kTileCols<T>;
  const int64_t hidden = b.p.hidden_size, size = b.p.input_size, units = K::kGates * hidden, rows = b.p.rows;
  const int64_t stride = gate_stride(K::kColumns * hidden), blocks = (hidden + N - 1) / N;
  const PackedPanels<T> w_hh =
      pack_panels<T>({lines_are_columns(b.w_hh, hidden), units}, {}, 1, hidden, b.packed, par);
  const T* met = b.grad_gates + K::kFirst * hidden;  // what meets W_hh

  // The gradient of the state before step i, and with it the elementwise part of the step before; i may be
  // `steps`.
  const auto step = [&](int64_t i, const Range& batch, const Range& some) {
    const RecurrentRows s = i < b.p.steps ? b.p.order[i] : RecurrentRows{0, 0};
    const Range mine = clipped(batch, s.rows);
    const Parts panels = split_evenly(mine.size(), kTileRows, 1);
    const int64_t panel_size = panels.size * whole_chunks(units);
    T* chunks =
        static_cast<T*>(scratch(Scratch::local, panels.count * panel_size * static_cast<int64_t>(sizeof(T))));
    const auto rows_of = [&](int64_t p) {
      return Range{mine.begin + p * panels.size, smaller(mine.end, mine.begin + (p + 1) * panels.size)};
    };
    const int64_t count = mine.size() > 0 ? panels.count : 0;
    for (int64_t p = 0; p < count; ++p)
      copy_chunks<T>(met + (s.row + rows_of(p).begin) * stride, stride, rows_of(p).size(), units,
                     chunks + p * panel_size, rows_of(p).size(), 0);
    for (int64_t j = some.begin * N; j < smaller(some.end * N, hidden); j += N) {
      for (int64_t p = 0; p < count; ++p)
        multiply_panel<T>(rows_of(p).size(), {units, chunks + p * panel_size, w_hh.panel(0, j)}, {},
                          {K::product(b) + rows_of(p).begin * hidden + j, hidden}, smaller(N, hidden - j));
      if (i > 0) {
        const RecurrentRows before = b.p.order[i - 1];
        take_steps<T>(K::step(b, before, stride), clipped(batch, before.rows), {j, smaller(j + N, hidden)});
      }
    }
  };
  const int64_t last = b.wants_hx ? 0 : 1;
  if (share_rows<T>(b.p, K::kGates, par)) {
    const int64_t each = (b.p.batch + par.num_threads - 1) / par.num_threads;
    parallel_for(par, par.num_threads, 1, [&](int64_t begin, int64_t end) {
      const Range mine = clipped({begin * each, end * each}, b.p.batch);
      for (int64_t i = b.p.steps; i >= last; --i) step(i, mine, {0, blocks});
    });
  } else {
    for (int64_t i = b.p.steps; i >= last; --i)
      parallel_for(par, blocks, grain_for(b.p.order[i > 0 ? i - 1 : 0].rows * units * N),
                   [&](int64_t begin, int64_t end) { step(i, {0, b.p.batch}, {begin, end}); });
  }

  const auto input_gradient = [&](const T* grads, int64_t k, const T* weight, bool accumulate) {
    gemm<T>({rows,
             size,
             k,
             lines_are_rows(grads, stride),
             lines_are_columns(weight, size),
             {b.grad_input, size, accumulate}},
            par);
  };
  const auto weight_gradient = [&](const T* grads, int64_t m, const T* data, int64_t n, T* grad) {
    gemm<T>({m, n, rows, lines_are_columns(grads, stride), lines_are_columns(data, n), {grad, n}}, par);
  };
  if constexpr (K::kFirst == 0) {
    if (b.grad_input) input_gradient(b.grad_gates, units, b.w_ih, false);
    if (b.grad_w_ih) weight_gradient(b.grad_gates, units, b.input, size, b.grad_w_ih);
    if (b.grad_bias) column_sums<T>(b.grad_gates, rows, units, b.grad_bias, par, stride);
  } else {  // of x: r and z, then n
    const int64_t two = 2 * hidden;
    if (b.grad_input) {
      input_gradient(met, two, b.w_ih, false);
      input_gradient(b.grad_gates, hidden, b.w_ih + two * size, true);
    }
    if (b.grad_w_ih) {
      weight_gradient(met, two, b.input, size, b.grad_w_ih);
      weight_gradient(b.grad_gates, hidden, b.input, size, b.grad_w_ih + two * size);
    }
    if (b.grad_bias) {
      column_sums<T>(met, rows, two, b.grad_bias, par, stride);
      column_sums<T>(b.grad_gates, rows, hidden, b.grad_bias + two, par, stride);
    }
    if (b.grad_b_hh) column_sums<T>(met, rows, units, b.grad_b_hh, par, stride);
  }
  if (b.grad_w_hh) weight_gradient(met, units, b.h_before, hidden, b.grad_w_hh);
}

// ----------------------------------------------------------------------------------------------- lists

template <class Args>
bool always(const Args&) {
  return true;
}

template <class Args>
bool packed_applicable(const Args& args) {
  if constexpr (requires { args.projected; }) {
    if (args.projected) return false;
  }
  return args.p.batch >= kLeastRows && args.p.hidden_size > 0;
}

// `steps` has no function: the caller goes step by step.
template <class T, template <class> class Args, void (*packed)(const Args<T>&, const Parallel&)>
constexpr Implementation<Args<T>> kLayer[] = {
    {"packed", packed_applicable<Args<T>>, packed},
    {"steps", always<Args<T>>, nullptr},
};

template <class T>
constexpr RecurrentLayerKernels<T> kernels() {
  return {{kLayer<T, LstmLayerForward, forward_packed<T, LstmLayerForward>>, 2},
          {kLayer<T, LstmLayerBackward, backward_packed<T, LstmLayerBackward>>, 2},
          {kLayer<T, GruLayerForward, forward_packed<T, GruLayerForward>>, 2},
          {kLayer<T, GruLayerBackward, backward_packed<T, GruLayerBackward>>, 2},
          {kLayer<T, RnnLayerForward, forward_packed<T, RnnLayerForward>>, 2},
          {kLayer<T, RnnLayerBackward, backward_packed<T, RnnLayerBackward>>, 2}};
}

constexpr RecurrentLayerFamily kFamily = {kernels<float>(), kernels<double>()};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(recurrent_layer, RecurrentLayerFamily) { return &cisdl::kFamily; }
