// One step of an LSTM, and its gradient, on the CPU.
//
//   a = x W_ih^T + b_ih + h W_hh^T + b_hh;   i, f, o = sigmoid, g = tanh;   c' = f c + i g;   h' = o tanh(c')
//
// Forward. The four gates of W hidden units (W: lanes of a vector) are computed together, for some rows of the
// batch, into a small buffer [row][i f g o][W] that stays in L1 or L2; as soon as the sums are complete the
// activations and the update of c and h follow on that buffer. The full matrix `a` never exists.
//   fused_dot          few rows: weights are read once where they lie, a tile being some rows x the four gates of
//                      one hidden unit (dot_tile); at batch 1 the speed is that of reading the weights
//   fused_turned       more rows: the product is turned round, so that nothing of the weights is packed
//                      (lstm_cell_turned.h)
//   fused_packed_gemm  many rows where registers are few: the weight rows i, f, g, o of W units are packed as two
//                      panels for outer_tile, so that packing also interleaves the gates
// Backward. One pass gives da, the gradient of a, and that of c; then four products and a column sum.
//   stream             few rows: bound by reading and writing weights, nothing packed (gemm_stream.h)
//   packed_gemm        everything else (gemm.h)
#include "column_sums.h"
#include "gemm.h"
#include "gemm_stream.h"
#include "kernels.h"
#include "lstm_cell_block.h"
#include "lstm_cell_plain.h"
#include "lstm_cell_turned.h"

namespace cisdl {
namespace {

template <class Args>
bool always(const Args&) {
  return true;
}

static_assert(kTileVectors == 2, "the gates of a block fill two panels");

// ------------------------------------------------------------------------------------------- fused_dot

constexpr int kDotBatch = kNumRegisters == 32 ? 6 : 2;  // rows x 4 gates of accumulators
constexpr int64_t kMaxDotBatch = kNumRegisters == 32 ? 64 : 8;

// Where more than a fifth of fused_turned's lanes would idle, for its panels are whole vectors, and the last but
// one or two vectors wide. Measured with 32 registers: of 8 rows it is 1.3 to 1.5 times as fast, of 12 1.1 to 1.2,
// of 16 0.9 to 1, of 20 1.1 to 1.2, of 24 1 to 1.1, of 32 0.75 to 0.85, of 64 0.8 times.
template <class T>
bool forward_dot_applicable(const LstmCellForward<T>& f) {
  constexpr int64_t W = kWidth<T>, N = kTileCols<T>;
  const int64_t rest = f.p.batch % N, lanes = f.p.batch - rest + (rest > W ? N : rest > 0 ? W : 0);
  return f.p.batch <= kMaxDotBatch && 5 * f.p.batch < 4 * lanes;
}

// The sums of one hidden unit for MR rows, into lane `lane` of their blocks.
template <class T, int MR>
void dot_gates(const LstmCellForward<T>& f, int64_t row, int64_t j, T* block) {
  const int64_t in = f.p.input_size, hidden = f.p.hidden_size;
  Vec<T> acc[MR * 4];
#pragma GCC unroll 32
  for (int i = 0; i < MR * 4; ++i) acc[i] = zero<T>();
  dot_accumulate<T, MR, 4>(acc, in, f.input + row * in, in, f.w_ih + j * in, hidden * in);
  dot_accumulate<T, MR, 4>(acc, hidden, f.hx + row * hidden, hidden, f.w_hh + j * hidden, hidden * hidden);
  T sums[MR * 4];
  sum_lanes_of<T, MR * 4>(acc, sums);
#pragma GCC unroll 32
  for (int i = 0; i < MR * 4; ++i) block[i * kWidth<T>] = sums[i];
}

template <class T, int MR = kDotBatch>
CISDL_INLINE void dot_gates_rows(int64_t rows, const LstmCellForward<T>& f, int64_t row, int64_t j, T* block) {
  if (rows == MR) {
    dot_gates<T, MR>(f, row, j, block);
  } else if constexpr (MR > 1) {
    dot_gates_rows<T, MR - 1>(rows, f, row, j, block);
  }
}

template <class T>
void forward_dot(const LstmCellForward<T>& f, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const int64_t hidden = f.p.hidden_size, batch = f.p.batch;
  if (batch == 0) return;
  const int64_t work = kGateBlock<T> * batch * (f.p.input_size + hidden);
  const Parts panels = split_evenly(batch, kDotBatch, 1);
  parallel_for(par, (hidden + W - 1) / W, grain_for(work), [&](int64_t begin, int64_t end) {
    T block[kMaxDotBatch * kGateBlock<T>] = {};
    for (int64_t j0 = begin * W; j0 < end * W && j0 < hidden; j0 += W) {
      for (int64_t j = j0; j < j0 + W && j < hidden; ++j)
        for (int64_t row = 0; row < batch; row += panels.size)
          dot_gates_rows<T>(smaller(panels.size, batch - row), f, row, j, block + row * kGateBlock<T> + (j - j0));
      finish_block<T>(f, block, 0, batch, j0, smaller(W, hidden - j0));
    }
  });
}

// ----------------------------------------------------------------------------------------- fused_turned

// Measured: with 32 registers always faster than fused_packed_gemm, 1.3 times with 32 rows and 1.05 with 256. With
// 16 registers its tile of 4 x 16 waits for loads: 1.1 times with 32 rows, 0.95 with 64.
template <class T>
bool forward_turned_applicable(const LstmCellForward<T>& f) {
  return kNumRegisters == 32 || f.p.batch <= 48;
}

// ----------------------------------------------------------------------------------- fused_packed_gemm

constexpr int64_t kMaxRowPanels = 32;  // of one item: its buffer stays in L2

// Packs the gates of hidden units [j, j + W), part [k0, k0 + length) of the sum, as panels [i f] and [g o].
template <class T>
void pack_gates(const T* w, int64_t hidden, int64_t size, int64_t j, int64_t k0, int64_t length, T* packed) {
  constexpr int W = kWidth<T>;
  for (int gate = 0; gate < 4; ++gate)
    pack_transposed<T, 1>(w + (gate * hidden + j) * size + k0, size, hidden - j, length,
                          packed + gate / 2 * length * kTileCols<T> + gate % 2 * W, kTileCols<T>);
}

template <class T>
void forward_packed(const LstmCellForward<T>& f, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const int64_t hidden = f.p.hidden_size, batch = f.p.batch;
  if (batch == 0 || hidden == 0) return;
  struct Source {
    int64_t size;
    const T* weight;
    PackedA<T> rows;
    Parts parts;
  } sources[2];
  sources[0] = {
      f.p.input_size, f.w_ih,
      pack_whole_a<T>(lines_are_rows(f.input, f.p.input_size), batch, f.p.input_size, Scratch::shared, par),
      split_evenly(f.p.input_size, kMaxChain, 8)};
  sources[1] = {hidden, f.w_hh,
                pack_whole_a<T>(lines_are_rows(f.hx, hidden), batch, hidden, Scratch::shared2, par),
                split_evenly(hidden, kMaxChain, 8)};
  const Parts panels = sources[0].rows.panels;  // of rows, the same for both

  // An item: W hidden units by a group of row panels; enough groups to occupy every thread.
  const int64_t unit_blocks = (hidden + W - 1) / W;
  const int64_t wanted = (2 * par.num_threads + unit_blocks - 1) / unit_blocks;
  const int64_t most = larger(1, smaller(kMaxRowPanels, panels.count / wanted));
  const Parts groups = split_evenly(panels.count, most, 1);
  const int64_t group_rows = groups.size * panels.size;
  const int64_t work = kGateBlock<T> * group_rows * (f.p.input_size + hidden);
  parallel_for(par, unit_blocks * groups.count, grain_for(work), [&](int64_t begin, int64_t end) {
    constexpr int64_t kBytes = sizeof(T);
    T* packed = static_cast<T*>(
        scratch(Scratch::local, larger(sources[0].parts.size, sources[1].parts.size) * kGateBlock<T> * kBytes));
    T* block = static_cast<T*>(scratch(Scratch::extra, group_rows * kGateBlock<T> * kBytes));
    for (int64_t item = begin; item < end; ++item) {
      const int64_t j = item / groups.count * W;
      const int64_t first = item % groups.count * groups.size, last = smaller(panels.count, first + groups.size);
      bool accumulate = false;
      for (const Source& s : sources) {
        for (int64_t k0 = 0; k0 < s.size; k0 += s.parts.size) {
          const int64_t length = smaller(s.parts.size, s.size - k0);
          pack_gates<T>(s.weight, hidden, s.size, j, k0, length, packed);
          for (int64_t p = first; p < last; ++p) {
            const int64_t rows = smaller(panels.size, batch - p * panels.size);
            T* c = block + (p - first) * panels.size * kGateBlock<T>;
            for (int half = 0; half < 2; ++half)
              outer_tile_rows<T, kTileVectors>(
                  rows, length, s.rows.data + p * s.rows.stride + k0 * rows, packed + half * length * kTileCols<T>,
                  {c + half * kTileCols<T>, kGateBlock<T>, accumulate, nullptr, nullptr}, kTileCols<T>);
          }
          accumulate = true;
        }
      }
      const int64_t row = first * panels.size;
      finish_block<T>(f, block, row, smaller(batch, last * panels.size) - row, j, smaller(W, hidden - j));
    }
  });
}

// -------------------------------------------------------------------------------------------- backward

template <class T>
void backward_gates(const LstmCellBackward<T>& b, const Parallel& par) {
  constexpr int W = kWidth<T>;
  const int64_t hidden = b.p.hidden_size;
  parallel_for(par, b.p.batch, grain_for(64 * hidden), [&](int64_t begin, int64_t end) {
    const Vec<T> one = set1(T(1));
    for (int64_t row = begin; row < end; ++row)
      for (int64_t j = 0; j < hidden; j += W) {
        const int64_t at = row * hidden + j, n = hidden - j;
        const T* gates = b.gates + row * 4 * hidden + j;
        T* da = b.grad_gates + row * 4 * hidden + j;
        const Vec<T> in = load_up_to(gates, n), forget = load_up_to(gates + hidden, n);
        const Vec<T> cell = load_up_to(gates + 2 * hidden, n), out = load_up_to(gates + 3 * hidden, n);
        const Vec<T> tanh_c = tanh<T>(load_up_to(b.c + at, n));
        const Vec<T> dh = b.grad_h ? load_up_to(b.grad_h + at, n) : zero<T>();
        Vec<T> dc = dh * out * (one - tanh_c * tanh_c);
        if (b.grad_c) dc += load_up_to(b.grad_c + at, n);
        store_up_to(da, dc * cell * in * (one - in), n);
        store_up_to(da + hidden, dc * load_up_to(b.cx + at, n) * forget * (one - forget), n);
        store_up_to(da + 2 * hidden, dc * in * (one - cell * cell), n);
        store_up_to(da + 3 * hidden, dh * tanh_c * out * (one - out), n);
        if (b.grad_cx) store_up_to(b.grad_cx + at, dc * forget, n);
      }
  });
}

// The four products; `data_gradient(weight, size, grad)` is grad = da W, `weight_gradient(data, size, grad)` is
// grad = da^T data.
template <class T, class DataGradient, class WeightGradient>
void backward_with(const LstmCellBackward<T>& b, const Parallel& par, const DataGradient& data_gradient,
                   const WeightGradient& weight_gradient) {
  backward_gates(b, par);
  if (b.grad_input) data_gradient(b.w_ih, b.p.input_size, b.grad_input);
  if (b.grad_hx) data_gradient(b.w_hh, b.p.hidden_size, b.grad_hx);
  if (b.grad_w_ih) weight_gradient(b.input, b.p.input_size, b.grad_w_ih);
  if (b.grad_w_hh) weight_gradient(b.hx, b.p.hidden_size, b.grad_w_hh);
  if (b.grad_bias) column_sums<T>(b.grad_gates, b.p.batch, 4 * b.p.hidden_size, b.grad_bias, par);
}

// Measured for linear layers with 32 registers, whose products these are: of 4 rows stream is as fast as
// packed_gemm or up to 1.2 times as fast, of 16 rows 0.8 times.
constexpr int64_t kMaxStreamBatch = kNumRegisters == 32 ? 4 : 8;

template <class T>
bool backward_stream_applicable(const LstmCellBackward<T>& b) {
  return b.p.batch > 0 && b.p.batch <= kMaxStreamBatch && b.p.hidden_size > 0;
}

template <class T>
void backward_stream(const LstmCellBackward<T>& b, const Parallel& par) {
  const int64_t batch = b.p.batch, rows = 4 * b.p.hidden_size;
  const T* da = b.grad_gates;
  backward_with(
      b, par,
      [&](const T* weight, int64_t size, T* grad) {
        gemm_few_rows<T>(batch, size, rows, lines_are_rows(da, rows), weight, size, {grad, size}, par);
      },
      [&](const T* data, int64_t size, T* grad) {
        gemm_short_sum<T>(rows, size, batch, lines_are_columns(da, rows), data, size, grad, size, par);
      });
}

template <class T>
void backward_packed(const LstmCellBackward<T>& b, const Parallel& par) {
  const int64_t batch = b.p.batch, rows = 4 * b.p.hidden_size;
  const T* da = b.grad_gates;
  backward_with(
      b, par,
      [&](const T* weight, int64_t size, T* grad) {
        gemm<T>({batch, size, rows, lines_are_rows(da, rows), lines_are_columns(weight, size), {grad, size}}, par);
      },
      [&](const T* data, int64_t size, T* grad) {
        gemm<T>({rows, size, batch, lines_are_columns(da, rows), lines_are_columns(data, size), {grad, size}},
                par);
      });
}

template <class T>
constexpr Implementation<LstmCellForward<T>> kForward[] = {
    {"fused_dot", forward_dot_applicable<T>, forward_dot<T>},
    {"fused_turned", forward_turned_applicable<T>, forward_turned<T>},
    {"fused_packed_gemm", always<LstmCellForward<T>>, forward_packed<T>},
    {"plain", always<LstmCellForward<T>>, lstm_forward_plain<T>},
};

template <class T>
constexpr Implementation<LstmCellBackward<T>> kBackward[] = {
    {"stream", backward_stream_applicable<T>, backward_stream<T>},
    {"packed_gemm", always<LstmCellBackward<T>>, backward_packed<T>},
    {"plain", always<LstmCellBackward<T>>, lstm_backward_plain<T>},
};

template <class T>
constexpr LstmCellKernels<T> kernels() {
  return {{kForward<T>, 4}, {kBackward<T>, 3}};
}

constexpr LstmCellFamily kFamily = {kernels<float>(), kernels<double>()};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(lstm_cell, LstmCellFamily) { return &cisdl::kFamily; }
