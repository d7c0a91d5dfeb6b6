// Launches of max and average pooling, and of their adaptive forms; the kernels are in pool2d.cuh and
// adaptive_pool2d.cuh. One thread per element written: of the output forward, of grad_input backward.
#include "adaptive_pool2d.cuh"
#include "kernels.h"
#include "pool2d.cuh"

namespace cisdl::cuda {
namespace {

template <class Problem>
int64_t input_elements(const Problem& p) {
  return p.batch * p.channels * p.in_h * p.in_w;
}
template <class Problem>
int64_t output_elements(const Problem& p) {
  return p.batch * p.channels * p.out_h * p.out_w;
}

template <class Args>
ImageStrides input_strides(const Args& args) {
  return image_strides(args.layout, args.p.channels, args.p.in_h, args.p.in_w);
}

template <class Args>
ImageStrides output_strides(const Args& args) {
  return image_strides(args.layout, args.p.channels, args.p.out_h, args.p.out_w);
}

}  // namespace

template <class T>
const char* run(const MaxPool2dForward<T>& args, void* stream) {
  return launch_elements(max_pool2d_kernel<T>, output_elements(args.p), stream, args, input_strides(args));
}

template <class T>
const char* run(const MaxPool2dBackward<T>& args, void* stream) {
  return launch_elements(max_pool2d_backward_kernel<T>, input_elements(args.p), stream, args,
                         output_strides(args));
}

template <class T>
const char* run(const MaxPool2dGather<T>& args, void* stream) {
  return launch_elements(max_pool2d_gather_kernel<T>, output_elements(args.p), stream, args, input_strides(args));
}

template <class T>
const char* run(const AvgPool2dForward<T>& args, void* stream) {
  return launch_elements(avg_pool2d_kernel<T>, output_elements(args.p), stream, args, input_strides(args));
}

template <class T>
const char* run(const AvgPool2dBackward<T>& args, void* stream) {
  return launch_elements(avg_pool2d_backward_kernel<T>, input_elements(args.p), stream, args,
                         output_strides(args));
}

template <class T>
const char* run(const AdaptiveMaxPool2dForward<T>& args, void* stream) {
  return launch_elements(adaptive_max_pool2d_kernel<T>, output_elements(args.p), stream, args,
                         input_strides(args));
}

template <class T>
const char* run(const AdaptiveMaxPool2dBackward<T>& args, void* stream) {
  return launch_elements(adaptive_max_pool2d_backward_kernel<T>, input_elements(args.p), stream, args,
                         output_strides(args));
}

template <class T>
const char* run(const AdaptiveAvgPool2dForward<T>& args, void* stream) {
  return launch_elements(adaptive_avg_pool2d_kernel<T>, output_elements(args.p), stream, args,
                         input_strides(args));
}

template <class T>
const char* run(const AdaptiveAvgPool2dBackward<T>& args, void* stream) {
  return launch_elements(adaptive_avg_pool2d_backward_kernel<T>, input_elements(args.p), stream, args,
                         output_strides(args));
}

template const char* run(const MaxPool2dForward<float>&, void*);
template const char* run(const MaxPool2dForward<double>&, void*);
template const char* run(const MaxPool2dBackward<float>&, void*);
template const char* run(const MaxPool2dBackward<double>&, void*);
template const char* run(const MaxPool2dGather<float>&, void*);
template const char* run(const MaxPool2dGather<double>&, void*);
template const char* run(const AvgPool2dForward<float>&, void*);
template const char* run(const AvgPool2dForward<double>&, void*);
template const char* run(const AvgPool2dBackward<float>&, void*);
template const char* run(const AvgPool2dBackward<double>&, void*);
template const char* run(const AdaptiveMaxPool2dForward<float>&, void*);
template const char* run(const AdaptiveMaxPool2dForward<double>&, void*);
template const char* run(const AdaptiveMaxPool2dBackward<float>&, void*);
template const char* run(const AdaptiveMaxPool2dBackward<double>&, void*);
template const char* run(const AdaptiveAvgPool2dForward<float>&, void*);
template const char* run(const AdaptiveAvgPool2dForward<double>&, void*);
template const char* run(const AdaptiveAvgPool2dBackward<float>&, void*);
template const char* run(const AdaptiveAvgPool2dBackward<double>&, void*);

}  // namespace cisdl::cuda
