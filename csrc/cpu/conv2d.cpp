// The conv2d lists of one instruction set: special entries first, the plain one last.
#include <type_traits>

#include "conv2d_direct.h"
#include "conv2d_direct_weight.h"
#include "conv2d_nhwc.h"
#include "conv2d_packed_gemm.h"
#include "conv2d_plain.h"
#include "conv2d_stems.h"
#include "conv2d_weight_gradient.h"

namespace cisdl {
namespace {

extern "C" const WinogradKernels* CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)();

// Winograd pays from so many channels on, on both sides.
constexpr int64_t kWinogradChannels = 32;

template <class T>
bool winograd_applies(const Conv2dProblem& p) {
  return std::is_same_v<T, float> && p.kernel_h == p.kernel_w && (p.kernel_h == 3 || p.kernel_h == 5) &&
         p.stride_h == 1 && p.stride_w == 1 && p.dilation_h == 1 && p.dilation_w == 1 && p.groups == 1 &&
         p.in_channels >= kWinogradChannels && p.out_channels >= kWinogradChannels;
}
template <class T>
bool winograd_forward_applies(const Conv2dForward<T>& args) {
  return winograd_applies<T>(args.p);
}
template <class T>
void winograd_forward(const Conv2dForward<T>& args, const Parallel& par) {
  if constexpr (std::is_same_v<T, float>) CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)()->forward(args, par);
}
template <class T>
bool winograd_backward_input_applies(const Conv2dBackwardInput<T>& args) {
  return winograd_applies<T>(args.p);
}
template <class T>
void winograd_backward_input(const Conv2dBackwardInput<T>& args, const Parallel& par) {
  if constexpr (std::is_same_v<T, float>) CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)()->backward_input(args, par);
}

template <class T>
bool winograd_backward_weight_applies(const Conv2dBackwardWeight<T>& args) {
  return args.grad_weight && winograd_applies<T>(args.p);
}
template <class T>
void winograd_backward_weight(const Conv2dBackwardWeight<T>& args, const Parallel& par) {
  if constexpr (std::is_same_v<T, float>) CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)()->backward_weight(args, par);
}

extern "C" const StemKernels* CISDL_CONCAT(cisdl_, conv2d_stems, CISDL_ISA)();

// An entry of the list that is a kernel of conv2d_stems.cpp.
template <template <class> class Args, class T, StemKernel<Args<float>> StemKernels::* kKernel>
bool stem_applies(const Args<T>& args) {
  if constexpr (std::is_same_v<T, float>)
    return (CISDL_CONCAT(cisdl_, conv2d_stems, CISDL_ISA)()->*kKernel).applicable(args);
  return false;
}
template <template <class> class Args, class T, StemKernel<Args<float>> StemKernels::* kKernel>
void stem_run(const Args<T>& args, const Parallel& par) {
  if constexpr (std::is_same_v<T, float>)
    (CISDL_CONCAT(cisdl_, conv2d_stems, CISDL_ISA)()->*kKernel).run(args, par);
}

template <class T>
constexpr Implementation<Conv2dForward<T>> kForward[] = {
    {"winograd", winograd_forward_applies<T>, winograd_forward<T>, false},
    {"space_to_depth", stem_applies<Conv2dForward, T, &StemKernels::space_to_depth_forward>,
     stem_run<Conv2dForward, T, &StemKernels::space_to_depth_forward>, false},
    {"lanes", stem_applies<Conv2dForward, T, &StemKernels::lanes_forward>,
     stem_run<Conv2dForward, T, &StemKernels::lanes_forward>},
    {"rows", stem_applies<Conv2dForward, T, &StemKernels::rows_forward>,
     stem_run<Conv2dForward, T, &StemKernels::rows_forward>},
    {"direct", conv2d_direct_forward_applies<T>, conv2d_direct_forward<T>},
    {"packed_gemm", conv2d_is_nchw<Conv2dForward<T>>, conv2d_packed_gemm_forward<T>},
    {"depthwise", conv2d_is_nhwc_depthwise<Conv2dForward<T>>, conv2d_depthwise_forward<T>},
    {"indirect_gemm", conv2d_is_nhwc<Conv2dForward<T>>, conv2d_nhwc_forward<T>},
    {"plain", conv2d_always<Conv2dForward<T>>, conv2d_plain_forward<T>},
};

template <class T>
constexpr Implementation<Conv2dBackwardInput<T>> kBackwardInput[] = {
    {"winograd", winograd_backward_input_applies<T>, winograd_backward_input<T>, false},
    {"lanes", stem_applies<Conv2dBackwardInput, T, &StemKernels::lanes_backward_input>,
     stem_run<Conv2dBackwardInput, T, &StemKernels::lanes_backward_input>},
    {"direct", conv2d_direct_backward_input_applies<T>, conv2d_direct_backward_input<T>},
    {"packed_gemm", conv2d_is_nchw<Conv2dBackwardInput<T>>, conv2d_packed_gemm_backward_input<T>},
    {"depthwise", conv2d_is_nhwc_depthwise<Conv2dBackwardInput<T>>, conv2d_depthwise_backward_input<T>},
    {"indirect_gemm", conv2d_is_nhwc<Conv2dBackwardInput<T>>, conv2d_nhwc_backward_input<T>},
    {"plain", conv2d_always<Conv2dBackwardInput<T>>, conv2d_plain_backward_input<T>},
};

template <class T>
constexpr Implementation<Conv2dBackwardWeight<T>> kBackwardWeight[] = {
    {"winograd", winograd_backward_weight_applies<T>, winograd_backward_weight<T>, false},
    {"space_to_depth", stem_applies<Conv2dBackwardWeight, T, &StemKernels::space_to_depth_backward_weight>,
     stem_run<Conv2dBackwardWeight, T, &StemKernels::space_to_depth_backward_weight>, false},
    {"lanes", stem_applies<Conv2dBackwardWeight, T, &StemKernels::lanes_backward_weight>,
     stem_run<Conv2dBackwardWeight, T, &StemKernels::lanes_backward_weight>},
    {"rows", stem_applies<Conv2dBackwardWeight, T, &StemKernels::rows_backward_weight>,
     stem_run<Conv2dBackwardWeight, T, &StemKernels::rows_backward_weight>},
    {"direct", conv2d_direct_weight_applies<T>, conv2d_direct_backward_weight<T>},
    {"packed_gemm", conv2d_is_nchw<Conv2dBackwardWeight<T>>, conv2d_packed_gemm_backward_weight<T>},
    {"depthwise", conv2d_is_nhwc_depthwise<Conv2dBackwardWeight<T>>, conv2d_depthwise_backward_weight<T>},
    {"indirect_gemm", conv2d_is_nhwc<Conv2dBackwardWeight<T>>, conv2d_nhwc_backward_weight<T>},
    {"plain", conv2d_always<Conv2dBackwardWeight<T>>, conv2d_plain_backward_weight<T>},
};

template <class Args, int N>
constexpr ImplementationList<Args> list(const Implementation<Args> (&items)[N]) {
  return {items, N};
}

template <class T>
constexpr Conv2dKernels<T> kernels() {
  return {list(kForward<T>), list(kBackwardInput<T>), list(kBackwardWeight<T>)};
}

constexpr Conv2dFamily kFamily = {kernels<float>(), kernels<double>()};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(conv2d, Conv2dFamily) { return &cisdl::kFamily; }
