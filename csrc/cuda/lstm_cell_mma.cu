// Launches of the LSTM cell in bfloat16 and float16: forward is one product on tensor cores with the cell as its
// epilogue (lstm_cell.cuh), backward the elementwise kernel and the products of linear layers (linear_mma.cu).
//
// Tiles are 64 columns wide, 16 hidden units: a cell has few rows, so many narrow tiles fill a GPU better.
#include "kernels.h"
#include "lstm_cell.cuh"
#include "mma_gemm.cuh"
#include "sums.cuh"

namespace cisdl::cuda {
namespace {

// Calls body(product) for those products of backward that are wanted, until it answers other than nullptr.
template <class T, class Body>
const char* for_each_product(const LstmCellBackward<T>& args, const Body& body) {
  const LstmCellProblem& p = args.p;
  const LinearProblem of_input{p.batch, p.input_size, 4 * p.hidden_size};
  const LinearProblem of_hidden{p.batch, p.hidden_size, 4 * p.hidden_size};
  const T* da = args.grad_gates;
  const char* stop = nullptr;
  if (args.grad_input) stop = body(LinearBackwardInput<T>{of_input, da, args.w_ih, args.grad_input});
  if (!stop && args.grad_hx) stop = body(LinearBackwardInput<T>{of_hidden, da, args.w_hh, args.grad_hx});
  if (!stop && args.grad_w_ih)
    stop = body(LinearBackwardWeight<T>{of_input, da, args.input, args.grad_w_ih, nullptr});
  if (!stop && args.grad_w_hh)
    stop = body(LinearBackwardWeight<T>{of_hidden, da, args.hx, args.grad_w_hh, nullptr});
  return stop;
}

}  // namespace

template <class T>
int64_t mma_scratch(const LstmCellForward<T>& args) {
  const LstmCellProblem& p = args.p;
  const bool right = p.batch > 0 && p.input_size > 0 && p.hidden_size > 0 &&
                     aligned_chunks(args.input, p.input_size, args.w_ih, p.input_size) &&
                     aligned_chunks(args.hx, p.hidden_size, args.w_hh, p.hidden_size);
  return right && has_tensor_cores() ? 0 : -1;
}

template <class T>
int64_t mma_scratch(const LstmCellBackward<T>& args) {
  int64_t most = args.p.batch > 0 && args.p.hidden_size > 0 && has_tensor_cores() ? 0 : -1;
  for_each_product(args, [&](const auto& product) -> const char* {
    const int64_t size = mma_scratch(product);
    most = size < 0 || most < 0 ? -1 : size > most ? size : most;
    return nullptr;
  });
  return most;
}

template <class T>
const char* run_mma(const LstmCellForward<T>& args, void*, void* stream) {
  const LstmCellProblem& p = args.p;
  using G = Gemm<ConcatenatedRows<T>, InterleavedGates<T, true>, LstmCellEpilogue<T, true>>;
  constexpr int kColumns = 64;
  const G gemm{
      1,
      p.batch,
      4 * p.hidden_size,
      p.input_size + p.hidden_size,
      {args.input, args.hx, p.input_size, p.hidden_size},
      {{args.w_ih, args.w_hh, p.input_size, p.hidden_size}, p.hidden_size},
      {args},
  };
  return launch(mma_gemm_kernel<G, kColumns>, divide_up(gemm.rows, kMmaRows) * divide_up(gemm.columns, kColumns),
                stream, gemm);
}

template <class T>
const char* run_mma(const LstmCellBackward<T>& args, void* scratch, void* stream) {
  const LstmCellProblem& p = args.p;
  const char* error = launch_elements(lstm_cell_backward_kernel<T>, p.batch * p.hidden_size, stream, args);
  if (!error)
    error = for_each_product(args, [&](const auto& product) { return run_mma(product, scratch, stream); });
  if (!error && args.grad_bias)
    error = launch_column_sums(static_cast<const T*>(args.grad_gates), p.batch, 4 * p.hidden_size, args.grad_bias,
                               stream);
  return error;
}

#define CISDL_LSTM_CELL_MMA(T)                                           \
  template int64_t mma_scratch(const LstmCellForward<T>&);               \
  template int64_t mma_scratch(const LstmCellBackward<T>&);              \
  template const char* run_mma(const LstmCellForward<T>&, void*, void*); \
  template const char* run_mma(const LstmCellBackward<T>&, void*, void*);

CISDL_LSTM_CELL_MMA(BFloat16)
CISDL_LSTM_CELL_MMA(Float16)

}  // namespace cisdl::cuda
