// Linear layers: the three products of a dense layer on the tiled matrix product of gemm.cuh, and the bias
// gradient on sums.cuh.
//
//   forward          output[batch][out]      = input[batch][in] weight[out][in]^T + bias
//   backward input   grad_input[batch][in]   = grad_output[batch][out] weight[out][in]
//   backward weight  grad_weight[out][in]    = grad_output[batch][out]^T input[batch][in]
//
// The three differ only in which index of each operand is dense in memory, which MatrixOperand's flag says: the
// reduced one (true) or the other (false).
#include "gemm.cuh"
#include "kernels.h"
#include "sums.cuh"

namespace cisdl::cuda {

template <class T>
const char* run(const LinearForward<T>& args, void* stream) {
  const LinearProblem& p = args.p;
  const Gemm<MatrixOperand<T, true>, MatrixOperand<T, true>, MatrixEpilogue<T>> gemm{
      1,
      p.batch,
      p.out_features,
      p.in_features,
      {args.input, p.in_features},
      {args.weight, p.in_features},
      {args.output, args.bias},
  };
  return launch_gemm(gemm, stream);
}

template <class T>
const char* run(const LinearBackwardInput<T>& args, void* stream) {
  const LinearProblem& p = args.p;
  const Gemm<MatrixOperand<T, true>, MatrixOperand<T, false>, MatrixEpilogue<T>> gemm{
      1,
      p.batch,
      p.in_features,
      p.out_features,
      {args.grad_output, p.out_features},
      {args.weight, p.in_features},
      {args.grad_input, nullptr},
  };
  return launch_gemm(gemm, stream);
}

template <class T>
const char* run(const LinearBackwardWeight<T>& args, void* stream) {
  const LinearProblem& p = args.p;
  if (args.grad_weight) {
    const Gemm<MatrixOperand<T, false>, MatrixOperand<T, false>, MatrixEpilogue<T>> gemm{
        1,
        p.out_features,
        p.in_features,
        p.batch,
        {args.grad_output, p.out_features},
        {args.input, p.in_features},
        {args.grad_weight, nullptr},
    };
    if (const char* error = launch_gemm(gemm, stream)) return error;
  }
  if (args.grad_bias) return launch_column_sums(args.grad_output, p.batch, p.out_features, args.grad_bias, stream);
  return nullptr;
}

template const char* run(const LinearForward<float>&, void*);
template const char* run(const LinearForward<double>&, void*);
template const char* run(const LinearBackwardInput<float>&, void*);
template const char* run(const LinearBackwardInput<double>&, void*);
template const char* run(const LinearBackwardWeight<float>&, void*);
template const char* run(const LinearBackwardWeight<double>&, void*);

}  // namespace cisdl::cuda
