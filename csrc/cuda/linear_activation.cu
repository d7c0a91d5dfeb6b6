// y = f(x W^T + b): the products of linear.cu and linear_mma.cu with an activation in their epilogue, so that the
// output is written once and not read again. f is applied to the sums (float for 16-bit types) before they are
// rounded.
//
// The activation is chosen at run time, outside the loop over a thread's values: one kernel a product, not four.
#include <cmath>

#include "kernels.h"
#include "mma_gemm.cuh"

namespace cisdl::cuda {
namespace {

template <class S>
__device__ S sigmoid(S x) {
  return S(1) / (S(1) + std::exp(-x));
}

}  // namespace

template <class T>
struct ActivationEpilogue {
  using S = Sum<T>;
  static constexpr bool along_rows = false;

  T* output;
  const T* bias;  // [columns], or null
  Activation activation;
  S slope;  // of a leaky ReLU

  template <int n>
  __device__ void store(int64_t, int64_t row, int64_t column, int64_t columns, const S (&values)[n]) const {
    S y[n];
#pragma unroll
    for (int j = 0; j < n; ++j)
      y[j] = bias && CISDL_INSIDE(column + j < columns) ? values[j] + S(bias[column + j]) : values[j];
    if (activation == Activation::relu || activation == Activation::leaky_relu) {
      const bool leaky = activation == Activation::leaky_relu;
#pragma unroll
      for (int j = 0; j < n; ++j)
        if (y[j] < S(0)) y[j] = leaky ? y[j] * slope : S(0);  // a NaN stays
    } else if (activation == Activation::sigmoid) {
#pragma unroll
      for (int j = 0; j < n; ++j) y[j] = sigmoid(y[j]);
    } else {
#pragma unroll
      for (int j = 0; j < n; ++j) y[j] = std::tanh(y[j]);
    }
    store_values(output + row * columns + column, columns - column, y);
  }
};

namespace {

template <class T>
auto product_of(const LinearActivationForward<T>& args) {
  const LinearForward<T>& l = args.linear;
  return Gemm<MatrixOperand<T, true>, MatrixOperand<T, true>, ActivationEpilogue<T>>{
      1,
      l.p.batch,
      l.p.out_features,
      l.p.in_features,
      {l.input, l.p.in_features},
      {l.weight, l.p.in_features},
      {l.output, l.bias, args.activation, static_cast<Sum<T>>(args.slope)},
  };
}

}  // namespace

template <class T>
const char* run(const LinearActivationForward<T>& args, void* stream) {
  return launch_gemm(product_of(args), stream);
}

template <class T>
int64_t mma_scratch(const LinearActivationForward<T>& args) {
  return mma_scratch(args.linear);
}

template <class T>
const char* run_mma(const LinearActivationForward<T>& args, void*, void* stream) {
  return launch_mma_gemm(product_of(args), stream);
}

template const char* run(const LinearActivationForward<float>&, void*);
template const char* run(const LinearActivationForward<double>&, void*);

#define CISDL_LINEAR_ACTIVATION_MMA(T)                             \
  template int64_t mma_scratch(const LinearActivationForward<T>&); \
  template const char* run_mma(const LinearActivationForward<T>&, void*, void*);

CISDL_LINEAR_ACTIVATION_MMA(float)
CISDL_LINEAR_ACTIVATION_MMA(BFloat16)
CISDL_LINEAR_ACTIVATION_MMA(Float16)

}  // namespace cisdl::cuda
