// Convolution on tensor cores, gradients of weight and bias: as conv2d_mma.cu. The depth is every output pixel of
// the batch and C but the weight, so the depth is split (mma_gemm.cuh).
#include "conv2d.cuh"
#include "kernels.h"
#include "mma_gemm.cuh"
#include "sums.cuh"

namespace cisdl::cuda {
namespace {

int64_t taps(const Conv2dProblem& p) { return p.in_channels / p.groups * p.kernel_h * p.kernel_w; }
int64_t pixels(const Conv2dProblem& p) { return p.batch * p.out_h * p.out_w; }

template <class T>
Slices weight_slices(const Conv2dProblem& p) {
  return mma_slices<T>(p.groups, p.out_channels / p.groups, taps(p), pixels(p));
}

}  // namespace

template <class T>
int64_t mma_scratch(const Conv2dBackwardWeight<T>& args) {
  const Conv2dProblem& p = args.p;
  const bool right =
      args.grad_weight && args.layout == Layout::nhwc && pixels(p) > 0 && taps(p) > 0 && p.out_channels > 0 &&
      coordinates_are_short(p) &&
      aligned_chunks(args.grad_output, p.out_channels / p.groups, args.input, p.in_channels / p.groups);
  if (!right || !has_tensor_cores()) return -1;
  return slices_scratch<T>(weight_slices<T>(p), p.out_channels * taps(p));
}

template <class T>
const char* run_mma(const Conv2dBackwardWeight<T>& args, void* scratch, void* stream) {
  const Conv2dProblem& p = args.p;
  const Conv2dShape shape = conv2d_shape(p, Layout::nhwc);
  const Gemm<GradientByChannel<T, Layout::nhwc>, PatchByTap<T, Layout::nhwc, int32_t>, MatrixEpilogue<float>> gemm{
      p.groups, shape.group_out_channels, taps(p), pixels(p), {shape, args.grad_output}, {shape, args.input}, {}};
  const char* error = launch_sliced(gemm, weight_slices<T>(p), args.grad_weight, scratch, stream, kLaunchMma);
  if (!error && args.grad_bias)
    error = launch_column_sums(args.grad_output, pixels(p), p.out_channels, args.grad_bias, stream);
  return error;
}

#define CISDL_CONV2D_MMA_WEIGHT(T)                              \
  template int64_t mma_scratch(const Conv2dBackwardWeight<T>&); \
  template const char* run_mma(const Conv2dBackwardWeight<T>&, void*, void*);

CISDL_CONV2D_MMA_WEIGHT(float)
CISDL_CONV2D_MMA_WEIGHT(BFloat16)
CISDL_CONV2D_MMA_WEIGHT(Float16)

}  // namespace cisdl::cuda
