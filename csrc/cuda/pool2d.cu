// Launches of max and average pooling, and of their adaptive forms; the kernels are in pool2d.cuh and
// adaptive_pool2d.cuh. One thread per element written, of the output forward, of grad_input backward; or per 16
// bytes.
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

// The kernel for one element or, where channels lie side by side in whole 16 bytes, for as many as fit into those.
template <class T, class Args>
const char* launch_pool(void (*one)(Args, ImageStrides), void (*several)(Args, ImageStrides), const Args& args,
                        int64_t elements, const ImageStrides& strides, const T* from, const T* to,
                        const void* indices, void* stream) {
  constexpr int64_t kLanes = 16 / sizeof(T);
  const auto aligned = [](const void* pointer, size_t bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
  };
  const bool wide = args.layout == Layout::nhwc && args.p.channels % kLanes == 0 && aligned(from, 16) &&
                    aligned(to, 16) && aligned(indices, kLanes);
  return wide ? launch_elements(several, elements / kLanes, stream, args, strides)
              : launch_elements(one, elements, stream, args, strides);
}

}  // namespace

template <class T>
const char* run(const MaxPool2dForward<T>& args, void* stream) {
  return launch_pool(max_pool2d_kernel<T, 1>, max_pool2d_kernel<T, 16 / sizeof(T)>, args, output_elements(args.p),
                     input_strides(args), args.input, args.output, args.indices, stream);
}

template <class T>
const char* run(const MaxPool2dBackward<T>& args, void* stream) {
  return launch_pool(max_pool2d_backward_kernel<T, 1>, max_pool2d_backward_kernel<T, 16 / sizeof(T)>, args,
                     input_elements(args.p), output_strides(args), args.grad_output, args.grad_input, args.indices,
                     stream);
}

template <class T>
const char* run(const MaxPool2dGather<T>& args, void* stream) {
  return launch_elements(max_pool2d_gather_kernel<T>, output_elements(args.p), stream, args, input_strides(args));
}

template <class T>
const char* run(const AvgPool2dForward<T>& args, void* stream) {
  return launch_pool(avg_pool2d_kernel<T, 1>, avg_pool2d_kernel<T, 16 / sizeof(T)>, args, output_elements(args.p),
                     input_strides(args), args.input, args.output, nullptr, stream);
}

template <class T>
const char* run(const AvgPool2dBackward<T>& args, void* stream) {
  return launch_pool(avg_pool2d_backward_kernel<T, 1>, avg_pool2d_backward_kernel<T, 16 / sizeof(T)>, args,
                     input_elements(args.p), output_strides(args), args.grad_output, args.grad_input, nullptr,
                     stream);
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
