// Launches of the LSTM cell. Forward is one kernel; backward is the kernel of lstm_cell.cuh that finds the
// gradient da of the pre-activations, followed by those products and sums of linear layers (linear.cu) that are
// wanted:
//   grad_input = da W_ih,  grad_hx = da W_hh,  grad_w_ih = da^T x,  grad_w_hh = da^T hx,  grad_bias = column sums.
#include "kernels.h"
#include "lstm_cell.cuh"

namespace cisdl::cuda {

template <class T>
const char* run(const LstmCellForward<T>& args, void* stream) {
  const LstmCellProblem& p = args.p;
  const Gemm<ConcatenatedRows<T>, InterleavedGates<T>, LstmCellEpilogue<T>> gemm{
      1,
      p.batch,
      4 * p.hidden_size,
      p.input_size + p.hidden_size,
      {args.input, args.hx, p.input_size, p.hidden_size},
      {{args.w_ih, args.w_hh, p.input_size, p.hidden_size}, p.hidden_size},
      {args},
  };
  return launch_gemm(gemm, stream);
}

template <class T>
const char* run(const LstmCellBackward<T>& args, void* stream) {
  const LstmCellProblem& p = args.p;
  const LinearProblem of_input{p.batch, p.input_size, 4 * p.hidden_size};
  const LinearProblem of_hidden{p.batch, p.hidden_size, 4 * p.hidden_size};
  const T* da = args.grad_gates;

  const char* error = launch_elements(lstm_cell_backward_kernel<T>, p.batch * p.hidden_size, stream, args);
  if (!error && args.grad_input)
    error = run(LinearBackwardInput<T>{of_input, da, args.w_ih, args.grad_input}, stream);
  if (!error && args.grad_hx) error = run(LinearBackwardInput<T>{of_hidden, da, args.w_hh, args.grad_hx}, stream);
  if (!error && (args.grad_w_ih || args.grad_bias))
    error =
        run(LinearBackwardWeight<T>{of_input, da, args.input, args.grad_w_ih, args.grad_bias}, nullptr, stream);
  if (!error && args.grad_w_hh)
    error = run(LinearBackwardWeight<T>{of_hidden, da, args.hx, args.grad_w_hh, nullptr}, nullptr, stream);
  return error;
}

template const char* run(const LstmCellForward<float>&, void*);
template const char* run(const LstmCellForward<double>&, void*);
template const char* run(const LstmCellBackward<float>&, void*);
template const char* run(const LstmCellBackward<double>&, void*);

}  // namespace cisdl::cuda
