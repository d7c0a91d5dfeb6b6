// Linear layers on Hopper's tensor cores: the products of linear.cu on hopper_gemm.cu. Each is a product of dense
// matrices, of which the copy engine takes any whose rows are whole chunks of 16 bytes.
#include "hopper_gemm.h"
#include "kernels.h"

namespace cisdl::cuda {
namespace {

// Bytes of scratch memory for C of rows x columns; -1: not for this kernel.
template <class T>
int64_t product_scratch(const T* a, int64_t a_dense, const T* b, int64_t b_dense, const T* output, int64_t rows,
                        int64_t columns, int64_t depth) {
  const bool right = hopper_size(rows) && hopper_size(columns) && hopper_size(depth) &&
                     copy_engine_takes(a, a_dense) && copy_engine_takes(b, b_dense) &&
                     stores_pairs(output, columns);
  return right && has_hopper() ? hopper_plan(hopper_gemm(rows, columns, 1, depth, 1)).scratch : -1;
}

// C = A B; A is [rows][depth], or [depth][rows] across the depth, B is [columns][depth] or [depth][columns].
template <class T>
const char* product(const T* a, bool a_across, const T* b, bool b_across, int64_t rows, int64_t columns,
                    int64_t depth, const T* bias, T* output, void* scratch, void* stream) {
  HopperGemm gemm = hopper_gemm(rows, columns, 1, depth, 1);
  gemm.a_across = a_across;
  gemm.b_across = b_across;
  gemm.bias = bias;
  gemm.output = output;
  const int width = hopper_plan(gemm).columns;
  const bool made =
      (a_across ? across_map(gemm.part[0].a, a, depth, 1, rows)
                : along_map(gemm.part[0].a, a, rows, 1, depth, kHopperRows)) &&
      (b_across ? across_map(gemm.b, b, depth, 1, columns) : along_map(gemm.b, b, columns, 1, depth, width));
  return made ? launch_hopper_gemm<T>(gemm, scratch, stream) : kNoTensorMap;
}

}  // namespace

template <class T>
int64_t hopper_scratch(const LinearForward<T>& args) {
  const LinearProblem& p = args.p;
  return product_scratch(args.input, p.in_features, args.weight, p.in_features, args.output, p.batch,
                         p.out_features, p.in_features);
}

template <class T>
int64_t hopper_scratch(const LinearBackwardInput<T>& args) {
  const LinearProblem& p = args.p;
  return product_scratch(args.grad_output, p.out_features, args.weight, p.in_features, args.grad_input, p.batch,
                         p.in_features, p.out_features);
}

template <class T>
int64_t hopper_scratch(const LinearBackwardWeight<T>& args) {
  const LinearProblem& p = args.p;
  if (!args.grad_weight) return -1;
  return product_scratch(args.grad_output, p.out_features, args.input, p.in_features, args.grad_weight,
                         p.out_features, p.in_features, p.batch);
}

template <class T>
const char* run_hopper(const LinearForward<T>& args, void* scratch, void* stream) {
  const LinearProblem& p = args.p;
  return product(args.input, false, args.weight, false, p.batch, p.out_features, p.in_features, args.bias,
                 args.output, scratch, stream);
}

template <class T>
const char* run_hopper(const LinearBackwardInput<T>& args, void* scratch, void* stream) {
  const LinearProblem& p = args.p;
  return product(args.grad_output, false, args.weight, true, p.batch, p.in_features, p.out_features,
                 static_cast<const T*>(nullptr), args.grad_input, scratch, stream);
}

template <class T>
const char* run_hopper(const LinearBackwardWeight<T>& args, void* scratch, void* stream) {
  const LinearProblem& p = args.p;
  const char* error = product(args.grad_output, true, args.input, true, p.out_features, p.in_features, p.batch,
                              static_cast<const T*>(nullptr), args.grad_weight, scratch, stream);
  if (!error && args.grad_bias)
    error = run_bias_gradient(args.grad_output, p.batch, p.out_features, args.grad_bias, stream);
  return error;
}

#define CISDL_LINEAR_HOPPER(T)                                                  \
  template int64_t hopper_scratch(const LinearForward<T>&);                     \
  template int64_t hopper_scratch(const LinearBackwardInput<T>&);               \
  template int64_t hopper_scratch(const LinearBackwardWeight<T>&);              \
  template const char* run_hopper(const LinearForward<T>&, void*, void*);       \
  template const char* run_hopper(const LinearBackwardInput<T>&, void*, void*); \
  template const char* run_hopper(const LinearBackwardWeight<T>&, void*, void*);

CISDL_LINEAR_HOPPER(BFloat16)
CISDL_LINEAR_HOPPER(Float16)

}  // namespace cisdl::cuda
