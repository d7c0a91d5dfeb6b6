// Launches of max and average pooling, and of their adaptive forms; the kernels are in pool2d.cuh and
// adaptive_pool2d.cuh, which say how many elements a thread makes.
#include "adaptive_pool2d.cuh"
#include "kernels.h"
#include "pool2d.cuh"

namespace cisdl::cuda {
namespace {

constexpr int kRows = 4;  // elements of a thread, one below another, where it has single channels

template <class Args>
PoolStrides strides_of(const Args& args) {
  const auto& p = args.p;
  return {image_strides(args.layout, p.channels, p.in_h, p.in_w),
          image_strides(args.layout, p.channels, p.out_h, p.out_w)};
}

template <class T>
constexpr int kWide = sizeof(T) == 8 ? 1 : 16 / sizeof(T);  // lanes; one kernel does for double

template <class T>
constexpr int kWideRows = kWide<T> == 1 ? kRows : 1;

// Whether channels lie side by side in whole 16 bytes.
template <class T, class Args>
bool is_wide(const Args& args, const T* from, const T* to, const void* windows = nullptr) {
  const auto aligned = [](const void* pointer, size_t bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
  };
  return kWide<T> > 1 && args.layout == Layout::nhwc && args.p.channels % kWide<T> == 0 && aligned(from, 16) &&
         aligned(to, 16) && aligned(windows, kWide<T>);
}

template <class Args>
using PoolKernel = void(Args, PoolStrides);

// One of two kernels for elements of height x width.
template <class T, class Args>
const char* launch_pool(PoolKernel<Args>* single, PoolKernel<Args>* wide, const Args& args, bool is_wide,
                        int64_t height, int64_t width, void* stream) {
  const auto& p = args.p;
  const PoolStrides strides = strides_of(args);
  if (kWide<T> > 1 && is_wide)
    return launch_elements(wide, strips_of<kWide<T>, 1>(p.batch, p.channels, height, width), stream, args,
                           strides);
  return launch_elements(single, strips_of<1, kRows>(p.batch, p.channels, height, width), stream, args, strides);
}

// Forward of adaptive pooling.
template <class T, class Args>
const char* launch_adaptive(void (*single)(Args, PoolStrides, int), void (*wide)(Args, PoolStrides, int),
                            const Args& args, void* stream) {
  constexpr int kLarge = 32;  // cells of a window that several threads share
  const auto& p = args.p;
  if (p.out_h == 0 || p.out_w == 0) return nullptr;
  const bool large = divide_up(p.in_h, p.out_h) * divide_up(p.in_w, p.out_w) >= kLarge;
  const int slices = !large ? 1 : args.layout == Layout::nchw ? 32 : 8;
  const bool by_16_bytes = is_wide<T>(args, args.input, args.output);
  const int64_t outputs = p.batch * p.channels * p.out_h * p.out_w / (by_16_bytes ? kWide<T> : 1);
  return launch(by_16_bytes ? wide : single, divide_up(outputs, kThreads / slices), stream, args, strides_of(args),
                slices);
}

template <class T, class Args>
const char* launch_adaptive_backward(const Args& args, void* stream) {
  const auto& p = args.p;
  if (args.layout == Layout::nchw && p.out_h == 1 && p.out_w == 1)
    return launch_elements(global_pool2d_backward_kernel<T, Args>,
                           divide_up(p.batch * p.channels * p.in_h * p.in_w, 16 / sizeof(T)), stream, args);
  const bool wide = is_wide<T>(args, args.grad_output, args.grad_input);
  const int64_t elements = p.batch * p.channels * p.in_h * p.in_w;
  if (wide)
    return launch_elements(adaptive_pool2d_backward_kernel<T, kWide<T>, Args>, elements / kWide<T>, stream, args,
                           strides_of(args));
  return launch_elements(adaptive_pool2d_backward_kernel<T, 1, Args>, elements, stream, args, strides_of(args));
}

}  // namespace

template <class T>
const char* run(const MaxPool2dForward<T>& args, void* stream) {
  const Pool2dProblem& p = args.p;
  const bool wide =
      p.kernel_h * p.kernel_w <= INT32_MAX &&
      is_wide<T>(args, args.input, args.output, args.index == PoolIndex::window ? args.indices : nullptr);
  return launch_pool<T>(max_pool2d_kernel<T, 1, kRows>, max_pool2d_kernel<T, kWide<T>, kWideRows<T>>, args, wide,
                        p.out_h, p.out_w, stream);
}

template <class T>
const char* run(const MaxPool2dBackward<T>& args, void* stream) {
  const bool wide = is_wide<T>(args, args.grad_output, args.grad_input, args.indices);
  return launch_pool<T>(max_pool2d_backward_kernel<T, 1, kRows>,
                        max_pool2d_backward_kernel<T, kWide<T>, kWideRows<T>>, args, wide, args.p.in_h,
                        args.p.in_w, stream);
}

template <class T>
const char* run(const MaxPool2dGather<T>& args, void* stream) {
  const Pool2dProblem& p = args.p;
  return launch_elements(max_pool2d_gather_kernel<T>, p.batch * p.channels * p.out_h * p.out_w, stream, args,
                         strides_of(args));
}

template <class T>
const char* run(const AvgPool2dForward<T>& args, void* stream) {
  return launch_pool<T>(avg_pool2d_kernel<T, 1, kRows>, avg_pool2d_kernel<T, kWide<T>, kWideRows<T>>, args,
                        is_wide<T>(args, args.input, args.output), args.p.out_h, args.p.out_w, stream);
}

template <class T>
const char* run(const AvgPool2dBackward<T>& args, void* stream) {
  return launch_pool<T>(avg_pool2d_backward_kernel<T, 1, kRows>,
                        avg_pool2d_backward_kernel<T, kWide<T>, kWideRows<T>>, args,
                        is_wide<T>(args, args.grad_output, args.grad_input), args.p.in_h, args.p.in_w, stream);
}

template <class T>
const char* run(const AdaptiveMaxPool2dForward<T>& args, void* stream) {
  return launch_adaptive<T>(adaptive_max_pool2d_kernel<T, 1>, adaptive_max_pool2d_kernel<T, kWide<T>>, args,
                            stream);
}

template <class T>
const char* run(const AdaptiveMaxPool2dBackward<T>& args, void* stream) {
  return launch_adaptive_backward<T>(args, stream);
}

template <class T>
const char* run(const AdaptiveAvgPool2dForward<T>& args, void* stream) {
  return launch_adaptive<T>(adaptive_avg_pool2d_kernel<T, 1>, adaptive_avg_pool2d_kernel<T, kWide<T>>, args,
                            stream);
}

template <class T>
const char* run(const AdaptiveAvgPool2dBackward<T>& args, void* stream) {
  return launch_adaptive_backward<T>(args, stream);
}

#define CISDL_POOLS(T)                                                  \
  template const char* run(const MaxPool2dForward<T>&, void*);          \
  template const char* run(const MaxPool2dBackward<T>&, void*);         \
  template const char* run(const MaxPool2dGather<T>&, void*);           \
  template const char* run(const AvgPool2dForward<T>&, void*);          \
  template const char* run(const AvgPool2dBackward<T>&, void*);         \
  template const char* run(const AdaptiveMaxPool2dForward<T>&, void*);  \
  template const char* run(const AdaptiveMaxPool2dBackward<T>&, void*); \
  template const char* run(const AdaptiveAvgPool2dForward<T>&, void*);  \
  template const char* run(const AdaptiveAvgPool2dBackward<T>&, void*);

CISDL_POOLS(float)
CISDL_POOLS(double)
CISDL_POOLS(BFloat16)
CISDL_POOLS(Float16)

}  // namespace cisdl::cuda
