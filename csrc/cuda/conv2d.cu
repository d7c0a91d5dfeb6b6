// Two-dimensional convolution: forward, gradient of the input, gradient of weight and bias. conv2d.cuh says how
// each becomes a matrix product, gemm.cuh how that is computed; here they are put together and launched.
#include "conv2d.cuh"
#include "kernels.h"
#include "split_depth.cuh"
#include "sums.cuh"

namespace cisdl::cuda {
namespace {

template <Layout layout, class T>
const char* forward(const Conv2dForward<T>& args, void* stream) {
  const Conv2dProblem& p = args.p;
  const Conv2dShape shape = conv2d_shape(p, layout);
  const int64_t depth = shape.group_in_channels * p.kernel_h * p.kernel_w;
  const Gemm<PatchByPixel<T, layout>, MatrixOperand<T, true>, ImageEpilogue<T, layout>> gemm{
      p.groups,
      p.batch * p.out_h * p.out_w,
      shape.group_out_channels,
      depth,
      {shape, args.input},
      {args.weight, depth, shape.group_out_channels * depth},
      {args.output, args.bias, shape.out, p.out_h, p.out_w, args.least},
  };
  return launch_gemm(gemm, stream);
}

template <Layout layout, class T>
const char* backward_input(const Conv2dBackwardInput<T>& args, void* stream) {
  const Conv2dProblem& p = args.p;
  const Conv2dShape shape = conv2d_shape(p, layout);
  const Gemm<GradientByPixel<T, layout>, WeightByInChannel<T, layout>, ImageEpilogue<T, layout>> gemm{
      p.groups,
      p.batch * p.in_h * p.in_w,
      shape.group_in_channels,
      shape.group_out_channels * p.kernel_h * p.kernel_w,
      {shape, args.grad_output},
      {shape, args.weight},
      {args.grad_input, nullptr, shape.in, p.in_h, p.in_w},
  };
  return launch_gemm(gemm, stream);
}

template <class T>
Slices weight_slices(const Conv2dProblem& p) {
  const int64_t rows = p.out_channels / p.groups, taps = p.in_channels / p.groups * p.kernel_h * p.kernel_w;
  return cut_depth(p.groups * divide_up(rows, kTile) * divide_up(taps, kTile),
                   p.out_channels * taps * static_cast<int64_t>(sizeof(T)), p.batch * p.out_h * p.out_w,
                   kTileDepth);
}

template <Layout layout, class T>
const char* backward_weight(const Conv2dBackwardWeight<T>& args, void* scratch, void* stream) {
  const Conv2dProblem& p = args.p;
  if (args.grad_weight) {
    const Conv2dShape shape = conv2d_shape(p, layout);
    const int64_t taps = shape.group_in_channels * p.kernel_h * p.kernel_w;
    const Gemm<GradientByChannel<T, layout>, PatchByTap<T, layout>, MatrixEpilogue<T>> gemm{
        p.groups,
        shape.group_out_channels,
        taps,
        p.batch * p.out_h * p.out_w,
        {shape, args.grad_output},
        {shape, args.input},
        {}};
    const Slices slices = scratch ? weight_slices<T>(p) : Slices{1, 0};
    if (const char* error = launch_sliced(gemm, slices, args.grad_weight, scratch, stream, kLaunchGemm))
      return error;
  }
  if (!args.grad_bias) return nullptr;
  if constexpr (layout == Layout::nchw)
    return launch_channel_sums(args.grad_output, p.batch, p.out_channels, p.out_h * p.out_w, args.grad_bias,
                               stream);
  else
    return launch_column_sums(args.grad_output, p.batch * p.out_h * p.out_w, p.out_channels, args.grad_bias,
                              stream);
}

}  // namespace

template <class T>
const char* run(const Conv2dForward<T>& args, void* stream) {
  return args.layout == Layout::nchw ? forward<Layout::nchw>(args, stream) : forward<Layout::nhwc>(args, stream);
}

template <class T>
const char* run(const Conv2dBackwardInput<T>& args, void* stream) {
  return args.layout == Layout::nchw ? backward_input<Layout::nchw>(args, stream)
                                     : backward_input<Layout::nhwc>(args, stream);
}

template <class T>
int64_t scratch_bytes(const Conv2dBackwardWeight<T>& args) {
  const Conv2dProblem& p = args.p;
  const int64_t size = p.out_channels * (p.in_channels / p.groups) * p.kernel_h * p.kernel_w;
  return args.grad_weight ? slices_scratch<T>(weight_slices<T>(p), size) : 0;
}

template <class T>
const char* run(const Conv2dBackwardWeight<T>& args, void* scratch, void* stream) {
  return args.layout == Layout::nchw ? backward_weight<Layout::nchw>(args, scratch, stream)
                                     : backward_weight<Layout::nhwc>(args, scratch, stream);
}

template const char* run(const Conv2dForward<float>&, void*);
template const char* run(const Conv2dForward<double>&, void*);
template const char* run(const Conv2dBackwardInput<float>&, void*);
template const char* run(const Conv2dBackwardInput<double>&, void*);
template int64_t scratch_bytes(const Conv2dBackwardWeight<float>&);
template int64_t scratch_bytes(const Conv2dBackwardWeight<double>&);
template const char* run(const Conv2dBackwardWeight<float>&, void*, void*);
template const char* run(const Conv2dBackwardWeight<double>&, void*, void*);

}  // namespace cisdl::cuda
