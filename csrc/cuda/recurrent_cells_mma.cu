// GRU and RNN cells in bfloat16 and float16: one product on tensor cores over x and h laid end to end, with the
// cell as its epilogue, as in lstm_cell.cuh. Sums and activations are float, results are rounded once.
//
// A GRU multiplies its last gate's part of h by r before it adds the part of x, so those two need sums of their
// own: four columns a unit, r, z, n of x and n of h, interleaved like the gates of an LSTM. In the third the
// weights of h are zeros, in the fourth those of x, which costs a third more multiplications than two products
// would, on units that wait for memory, and saves two launches and the products' way through memory.
#include "../common/recurrent_cells.h"
#include "kernels.h"
#include "lstm_cell.cuh"
#include "mma_gemm.cuh"

namespace cisdl::cuda {
namespace {

// B of a GRU: rows of [W_ih, W_hh], of which one half may be zeros.
template <class T>
struct GruColumns : ConcatenatedRows<T> {
  using Line = typename ConcatenatedRows<T>::Line;
  int64_t hidden_size;

  __device__ Line line(int64_t group, int64_t index) const {
    const GateColumn<true> column(index);
    const int64_t part = column.gate < 3 ? column.gate : 2;
    Line line = ConcatenatedRows<T>::line(group, part * hidden_size + column.unit);
    if (column.gate == 2) line.second = nullptr;
    if (column.gate == 3) line.first = nullptr;
    return line;
  }
  __device__ const T* at(const Line& line, int64_t depth) const {
    if (depth < this->first_size) return line.first ? line.first + depth : nullptr;
    return line.second ? line.second + (depth - this->first_size) : nullptr;
  }
};

template <class T>
__device__ float bias_of(const T* bias, int64_t index) {
  return bias ? float(bias[index]) : 0.0f;
}

template <class T>
struct GruCellEpilogue {
  static constexpr int mma_values = 4;

  GruCellForward<T> args;

  __device__ void store(int64_t, int64_t row, int64_t column, int64_t, const float (&values)[4]) const {
    const int64_t hidden = args.p.hidden_size, unit = GateColumn<true>(column).unit, at = row * hidden + unit;
    const auto biases = [&](int64_t gate) {
      return bias_of(args.b_ih, gate * hidden + unit) + bias_of(args.b_hh, gate * hidden + unit);
    };
    const float r = sigmoid(values[0] + biases(0));
    const float z = sigmoid(values[1] + biases(1));
    const float h_part_n = values[3] + bias_of(args.b_hh, 2 * hidden + unit);
    const float n = std::tanh(values[2] + bias_of(args.b_ih, 2 * hidden + unit) + r * h_part_n);
    args.h[at] = T((1.0f - z) * n + z * float(args.hx[at]));
    if (args.gates) {
      T* gates = args.gates + row * 3 * hidden + unit;
      gates[0] = T(r);
      gates[hidden] = T(z);
      gates[2 * hidden] = T(n);
      args.h_part_n[at] = T(h_part_n);
    }
  }
};

template <class T>
struct RnnCellEpilogue {
  RnnCellForward<T> args;

  template <int n>
  __device__ void store(int64_t, int64_t row, int64_t column, int64_t columns, const float (&values)[n]) const {
    float results[n];
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float sum = values[j] + bias_of(args.b_ih, column + j) + bias_of(args.b_hh, column + j);
      // A NaN is not below zero: it stays, as in torch.
      results[j] = args.nonlinearity == Nonlinearity::tanh ? std::tanh(sum) : sum < 0 ? 0.0f : sum;
    }
    store_values(args.h + row * columns + column, columns - column, results);
  }
};

template <class T, class Args>
int64_t cell_scratch(const Args& args) {
  const CellProblem& p = args.p;
  const bool right = p.batch > 0 && p.input_size > 0 && p.hidden_size > 0 &&
                     aligned_chunks(args.input, p.input_size, args.w_ih, p.input_size) &&
                     aligned_chunks(args.hx, p.hidden_size, args.w_hh, p.hidden_size);
  return right && has_tensor_cores() ? 0 : -1;
}

// [x, h] times B, `columns` a unit.
template <class T, class B, class Epilogue, class Args>
const char* launch_cell(const Args& args, int64_t columns, const B& b, const Epilogue& epilogue, void* stream) {
  constexpr int kColumns = 64;  // of a tile: few rows, so many narrow tiles
  const CellProblem& p = args.p;
  const Gemm<ConcatenatedRows<T>, B, Epilogue> gemm{
      1,
      p.batch,
      columns * p.hidden_size,
      p.input_size + p.hidden_size,
      {args.input, args.hx, p.input_size, p.hidden_size},
      b,
      epilogue,
  };
  return launch(mma_gemm_kernel<Gemm<ConcatenatedRows<T>, B, Epilogue>, kColumns>,
                divide_up(gemm.rows, kMmaRows) * divide_up(gemm.columns, kColumns), stream, gemm);
}

}  // namespace

template <class T>
int64_t mma_scratch(const GruCellForward<T>& args) {
  return cell_scratch<T>(args);
}

template <class T>
int64_t mma_scratch(const RnnCellForward<T>& args) {
  return cell_scratch<T>(args);
}

template <class T>
const char* run_mma(const GruCellForward<T>& args, void*, void* stream) {
  const CellProblem& p = args.p;
  const GruColumns<T> weights{{args.w_ih, args.w_hh, p.input_size, p.hidden_size}, p.hidden_size};
  return launch_cell<T>(args, 4, weights, GruCellEpilogue<T>{args}, stream);
}

template <class T>
const char* run_mma(const RnnCellForward<T>& args, void*, void* stream) {
  const CellProblem& p = args.p;
  const ConcatenatedRows<T> weights{args.w_ih, args.w_hh, p.input_size, p.hidden_size};
  return launch_cell<T>(args, 1, weights, RnnCellEpilogue<T>{args}, stream);
}

#define CISDL_CELLS_MMA(T)                                              \
  template int64_t mma_scratch(const GruCellForward<T>&);               \
  template int64_t mma_scratch(const RnnCellForward<T>&);               \
  template const char* run_mma(const GruCellForward<T>&, void*, void*); \
  template const char* run_mma(const RnnCellForward<T>&, void*, void*);

CISDL_CELLS_MMA(BFloat16)
CISDL_CELLS_MMA(Float16)

}  // namespace cisdl::cuda
