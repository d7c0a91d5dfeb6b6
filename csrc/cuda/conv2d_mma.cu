// Convolution on tensor cores, forward and gradient of the input: the products of conv2d.cuh on mma_gemm.cuh. In
// nhwc the channels of a pixel and of a tap are dense: a chunk of 16 bytes is a few channels under one tap, inside
// the image as a whole or a zero as a whole.
#include "conv2d.cuh"
#include "kernels.h"
#include "mma_gemm.cuh"

namespace cisdl::cuda {
namespace {

bool suitable(const Conv2dProblem& p, Layout layout) {
  const bool any_work =
      p.batch > 0 && p.out_h * p.out_w > 0 && p.in_h * p.in_w > 0 && p.in_channels > 0 && p.out_channels > 0;
  return layout == Layout::nhwc && any_work && coordinates_are_short(p);
}

}  // namespace

template <class T>
int64_t mma_scratch(const Conv2dForward<T>& args) {
  const int64_t channels = args.p.in_channels / args.p.groups;
  const bool right = suitable(args.p, args.layout) && aligned_chunks(args.input, channels, args.weight, channels);
  return right && has_tensor_cores() ? 0 : -1;
}

template <class T>
int64_t mma_scratch(const Conv2dBackwardInput<T>& args) {
  const Conv2dProblem& p = args.p;
  const bool right = suitable(p, args.layout) && aligned_chunks(args.grad_output, p.out_channels / p.groups,
                                                                args.weight, p.in_channels / p.groups);
  return right && has_tensor_cores() ? 0 : -1;
}

template <class T>
const char* run_mma(const Conv2dForward<T>& args, void*, void* stream) {
  const Conv2dProblem& p = args.p;
  const Conv2dShape shape = conv2d_shape(p, Layout::nhwc);
  const int64_t depth = shape.group_in_channels * p.kernel_h * p.kernel_w;
  const Gemm<PatchByPixel<T, Layout::nhwc, int32_t>, MatrixOperand<T, true>, ImageEpilogue<T, Layout::nhwc>> gemm{
      p.groups,
      p.batch * p.out_h * p.out_w,
      shape.group_out_channels,
      depth,
      {shape, args.input},
      {args.weight, depth, shape.group_out_channels * depth},
      {args.output, args.bias, shape.out, p.out_h, p.out_w, float(args.least)},
  };
  return launch_mma_gemm(gemm, stream);
}

template <class T>
const char* run_mma(const Conv2dBackwardInput<T>& args, void*, void* stream) {
  const Conv2dProblem& p = args.p;
  const Conv2dShape shape = conv2d_shape(p, Layout::nhwc);
  const Gemm<GradientByPixel<T, Layout::nhwc, int32_t>, WeightByInChannel<T, Layout::nhwc>,
             ImageEpilogue<T, Layout::nhwc>>
      gemm{
          p.groups,
          p.batch * p.in_h * p.in_w,
          shape.group_in_channels,
          shape.group_out_channels * p.kernel_h * p.kernel_w,
          {shape, args.grad_output},
          {shape, args.weight},
          {args.grad_input, nullptr, shape.in, p.in_h, p.in_w},
  };
  return launch_mma_gemm(gemm, stream);
}

#define CISDL_CONV2D_MMA(T)                                            \
  template int64_t mma_scratch(const Conv2dForward<T>&);               \
  template int64_t mma_scratch(const Conv2dBackwardInput<T>&);         \
  template const char* run_mma(const Conv2dForward<T>&, void*, void*); \
  template const char* run_mma(const Conv2dBackwardInput<T>&, void*, void*);

CISDL_CONV2D_MMA(float)
CISDL_CONV2D_MMA(BFloat16)
CISDL_CONV2D_MMA(Float16)

}  // namespace cisdl::cuda
