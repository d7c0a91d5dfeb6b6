// Launches of max and average pooling; the kernels are in pool2d.cuh. One thread per element written: of the
// output forward, of grad_input backward.
#include "kernels.h"
#include "pool2d.cuh"

namespace cisdl::cuda {
namespace {

int64_t input_elements(const Pool2dProblem& p) { return p.batch * p.channels * p.in_h * p.in_w; }
int64_t output_elements(const Pool2dProblem& p) { return p.batch * p.channels * p.out_h * p.out_w; }

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
const char* run(const AvgPool2dForward<T>& args, void* stream) {
  return launch_elements(avg_pool2d_kernel<T>, output_elements(args.p), stream, args, input_strides(args));
}

template <class T>
const char* run(const AvgPool2dBackward<T>& args, void* stream) {
  return launch_elements(avg_pool2d_backward_kernel<T>, input_elements(args.p), stream, args,
                         output_strides(args));
}

template const char* run(const MaxPool2dForward<float>&, void*);
template const char* run(const MaxPool2dForward<double>&, void*);
template const char* run(const MaxPool2dBackward<float>&, void*);
template const char* run(const MaxPool2dBackward<double>&, void*);
template const char* run(const AvgPool2dForward<float>&, void*);
template const char* run(const AvgPool2dForward<double>&, void*);
template const char* run(const AvgPool2dBackward<float>&, void*);
template const char* run(const AvgPool2dBackward<double>&, void*);

}  // namespace cisdl::cuda
