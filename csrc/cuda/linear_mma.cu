// Linear layers on tensor cores: the products of linear.cu on mma_gemm.cuh, the bias gradient on sums.cuh.
#include "kernels.h"
#include "mma_gemm.cuh"
#include "sums.cuh"

namespace cisdl::cuda {
namespace {

__global__ void probe_kernel() {}

template <class T>
Slices weight_slices(const LinearProblem& p) {
  return mma_slices<T>(1, p.out_features, p.in_features, p.batch);
}

}  // namespace

// What the driver translated from PTX of before 8.0 has empty kernels: the probe tells.
bool has_tensor_cores() {
#ifdef __CUDACC__
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, probe_kernel) == cudaSuccess && attributes.ptxVersion >= 80;
#else
  return true;
#endif
}

template <class T>
const char* run_bias_gradient(const T* grad_output, int64_t rows, int64_t channels, T* grad_bias, void* stream) {
  return launch_column_sums(grad_output, rows, channels, grad_bias, stream);
}

template <class T>
int64_t mma_scratch(const LinearForward<T>& args) {
  const LinearProblem& p = args.p;
  const bool right = p.batch > 0 && p.in_features > 0 && p.out_features > 0 &&
                     aligned_chunks(args.input, p.in_features, args.weight, p.in_features);
  return right && has_tensor_cores() ? 0 : -1;
}

template <class T>
int64_t mma_scratch(const LinearBackwardInput<T>& args) {
  const LinearProblem& p = args.p;
  const bool right = p.batch > 0 && p.in_features > 0 && p.out_features > 0 &&
                     aligned_chunks(args.grad_output, p.out_features, args.weight, p.in_features);
  return right && has_tensor_cores() ? 0 : -1;
}

template <class T>
int64_t mma_scratch(const LinearBackwardWeight<T>& args) {
  const LinearProblem& p = args.p;
  const bool right = args.grad_weight && p.batch > 0 && p.in_features > 0 && p.out_features > 0 &&
                     aligned_chunks(args.grad_output, p.out_features, args.input, p.in_features);
  if (!right || !has_tensor_cores()) return -1;
  return slices_scratch<T>(weight_slices<T>(p), p.out_features * p.in_features);
}

template <class T>
const char* run_mma(const LinearForward<T>& args, void*, void* stream) {
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
  return launch_mma_gemm(gemm, stream);
}

template <class T>
const char* run_mma(const LinearBackwardInput<T>& args, void*, void* stream) {
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
  return launch_mma_gemm(gemm, stream);
}

template <class T>
const char* run_mma(const LinearBackwardWeight<T>& args, void* scratch, void* stream) {
  const LinearProblem& p = args.p;
  const Gemm<MatrixOperand<T, false>, MatrixOperand<T, false>, MatrixEpilogue<float>> gemm{
      1, p.out_features, p.in_features, p.batch, {args.grad_output, p.out_features}, {args.input, p.in_features},
      {}};
  const char* error = launch_sliced(gemm, weight_slices<T>(p), args.grad_weight, scratch, stream, kLaunchMma);
  if (!error && args.grad_bias)
    error = launch_column_sums(args.grad_output, p.batch, p.out_features, args.grad_bias, stream);
  return error;
}

#define CISDL_LINEAR_MMA(T)                                                  \
  template int64_t mma_scratch(const LinearForward<T>&);                     \
  template int64_t mma_scratch(const LinearBackwardInput<T>&);               \
  template int64_t mma_scratch(const LinearBackwardWeight<T>&);              \
  template const char* run_mma(const LinearForward<T>&, void*, void*);       \
  template const char* run_mma(const LinearBackwardInput<T>&, void*, void*); \
  template const char* run_mma(const LinearBackwardWeight<T>&, void*, void*);

template const char* run_bias_gradient(const BFloat16*, int64_t, int64_t, BFloat16*, void*);
template const char* run_bias_gradient(const Float16*, int64_t, int64_t, Float16*, void*);

CISDL_LINEAR_MMA(float)
CISDL_LINEAR_MMA(BFloat16)
CISDL_LINEAR_MMA(Float16)

}  // namespace cisdl::cuda
