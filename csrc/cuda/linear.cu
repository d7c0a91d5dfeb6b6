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
#include "split_depth.cuh"
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

namespace {

template <class T>
Slices weight_slices(const LinearProblem& p) {
  return cut_depth(divide_up(p.out_features, kTile) * divide_up(p.in_features, kTile),
                   p.out_features * p.in_features * static_cast<int64_t>(sizeof(T)), p.batch, kTileDepth);
}

}  // namespace

template <class T>
int64_t scratch_bytes(const LinearBackwardWeight<T>& args) {
  return args.grad_weight ? slices_scratch<T>(weight_slices<T>(args.p), args.p.out_features * args.p.in_features)
                          : 0;
}

template <class T>
const char* run(const LinearBackwardWeight<T>& args, void* scratch, void* stream) {
  const LinearProblem& p = args.p;
  if (args.grad_weight) {
    const Gemm<MatrixOperand<T, false>, MatrixOperand<T, false>, MatrixEpilogue<T>> gemm{
        1, p.out_features, p.in_features, p.batch, {args.grad_output, p.out_features}, {args.input, p.in_features},
        {}};
    const Slices slices = scratch ? weight_slices<T>(p) : Slices{1, 0};
    if (const char* error = launch_sliced(gemm, slices, args.grad_weight, scratch, stream, kLaunchGemm))
      return error;
  }
  if (args.grad_bias) return launch_column_sums(args.grad_output, p.batch, p.out_features, args.grad_bias, stream);
  return nullptr;
}

template const char* run(const LinearForward<float>&, void*);
template const char* run(const LinearForward<double>&, void*);
template const char* run(const LinearBackwardInput<float>&, void*);
template const char* run(const LinearBackwardInput<double>&, void*);
template int64_t scratch_bytes(const LinearBackwardWeight<float>&);
template int64_t scratch_bytes(const LinearBackwardWeight<double>&);
template const char* run(const LinearBackwardWeight<float>&, void*, void*);
template const char* run(const LinearBackwardWeight<double>&, void*, void*);

}  // namespace cisdl::cuda
