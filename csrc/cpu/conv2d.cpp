// The conv2d lists of one instruction set: special entries first, the plain one last.
#include <type_traits>

#include "conv2d_direct.h"
#include "conv2d_direct_weight.h"
#include "conv2d_nhwc.h"
#include "conv2d_packed_gemm.h"
#include "conv2d_plain.h"
#include "conv2d_pointwise.h"
#include "conv2d_stems.h"
#include "conv2d_weight_gradient.h"

namespace cisdl {
namespace {

extern "C" const WinogradKernels* CISDL_CONCAT(cisdl_, winograd, CISDL_ISA)();

// Winograd pays from so many channels on, on both sides: measured against the other entries with planes of 28 to
// 224 pixels, three passes together (1.3 times as fast at 16 channels, 2.4 at 32; 5x5 even at 16, 1.4 at 32).
constexpr int64_t kWinogradThree = 16, kWinogradFive = 32;

template <class T>
bool winograd_applies(const Conv2dProblem& p) {
  const bool three = p.kernel_h == 3 && p.kernel_w == 3, five = p.kernel_h == 5 && p.kernel_w == 5;
  const int64_t least = five ? kWinogradFive : kWinogradThree;
  return std::is_same_v<T, float> && (three || five) && p.stride_h == 1 && p.stride_w == 1 && p.dilation_h == 1 &&
         p.dilation_w == 1 && p.groups == 1 && p.in_channels >= least && p.out_channels >= least;
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

// F(2x2, 2x2) for the 4x4 kernels of stride 2 in a DCGAN: see winograd_stride2.cpp.
extern "C" const WinogradKernels* CISDL_CONCAT(cisdl_, winograd_stride2, CISDL_ISA)();

// It wins from 32 channels on, with tiles (9 products each) enough full that 4 products a pixel are no fewer, and
// with enough of them to earn back what transforming the weights costs.
constexpr int64_t kWinogradStride2 = 32, kWinogradStride2Tiles = 32;

template <class T, class Args>
bool winograd_stride2_applies(const Args& args) {
  const Conv2dProblem& p = args.p;
  const int64_t tiles = ceil_div(p.out_h, 2) * ceil_div(p.out_w, 2);
  return p.batch * tiles >= kWinogradStride2Tiles && 10 * tiles <= 4 * p.out_h * p.out_w &&
         std::is_same_v<T, float> && args.layout == Layout::nhwc && p.kernel_h == 4 && p.kernel_w == 4 &&
         p.stride_h == 2 && p.stride_w == 2 && p.dilation_h == 1 && p.dilation_w == 1 && p.groups == 1 &&
         p.in_channels >= kWinogradStride2 && p.out_channels >= kWinogradStride2;
}
template <class T>
void winograd_stride2_forward(const Conv2dForward<T>& args, const Parallel& par) {
  if constexpr (std::is_same_v<T, float>) CISDL_CONCAT(cisdl_, winograd_stride2, CISDL_ISA)()->forward(args, par);
}
template <class T>
void winograd_stride2_backward_input(const Conv2dBackwardInput<T>& args, const Parallel& par) {
  if constexpr (std::is_same_v<T, float>)
    CISDL_CONCAT(cisdl_, winograd_stride2, CISDL_ISA)()->backward_input(args, par);
}
template <class T>
bool winograd_stride2_weight_applies(const Conv2dBackwardWeight<T>& args) {
  return args.grad_weight && winograd_stride2_applies<T>(args);
}
template <class T>
void winograd_stride2_backward_weight(const Conv2dBackwardWeight<T>& args, const Parallel& par) {
  if constexpr (std::is_same_v<T, float>)
    CISDL_CONCAT(cisdl_, winograd_stride2, CISDL_ISA)()->backward_weight(args, par);
}

extern "C" const LaneGroupFamily* CISDL_CONCAT(cisdl_, lane_groups, CISDL_ISA)();

template <class T>
const LaneGroupKernels<T>& lane_groups() {
  const LaneGroupFamily& family = *CISDL_CONCAT(cisdl_, lane_groups, CISDL_ISA)();
  if constexpr (std::is_same_v<T, float>)
    return family.f32;
  else
    return family.f64;
}
template <class Args, class T>
bool lane_groups_apply(const Args& args) {
  return lane_groups<T>().applies(args.p, args.layout);
}
template <class T>
void lane_groups_forward(const Conv2dForward<T>& args, const Parallel& par) {
  lane_groups<T>().forward(args, par);
}
template <class T>
void lane_groups_backward_input(const Conv2dBackwardInput<T>& args, const Parallel& par) {
  lane_groups<T>().backward_input(args, par);
}
template <class T>
void lane_groups_backward_weight(const Conv2dBackwardWeight<T>& args, const Parallel& par) {
  lane_groups<T>().backward_weight(args, par);
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

// A kernel as large as the image, with one output pixel, is a linear layer of channels * height * width features,
// whatever the layout: a classifier's last convolution, or a generator's first transposed one.
extern "C" const LinearFamily* CISDL_CONCAT(cisdl_, linear, CISDL_ISA)();

template <class T>
const LinearKernels<T>& linear_kernels() {
  const LinearFamily& family = *CISDL_CONCAT(cisdl_, linear, CISDL_ISA)();
  if constexpr (std::is_same_v<T, float>)
    return family.f32;
  else
    return family.f64;
}
template <class Args>
bool linear_applies(const Args& args) {
  const Conv2dProblem& p = args.p;
  return p.groups == 1 && p.out_h == 1 && p.out_w == 1 && p.pad_top == 0 && p.pad_left == 0 &&
         p.kernel_h == p.in_h && p.kernel_w == p.in_w && (p.dilation_h == 1 || p.kernel_h == 1) &&
         (p.dilation_w == 1 || p.kernel_w == 1) && p.in_channels > 0;
}
LinearProblem linear_problem(const Conv2dProblem& p) {
  return {p.batch, p.in_channels * p.in_h * p.in_w, p.out_channels};
}
template <class Args>
void run_first(const ImplementationList<Args>& list, const Args& args, const Parallel& par) {
  for (int i = 0; i < list.size; ++i)
    if (list.items[i].applicable(args)) return list.items[i].run(args, par);
}
template <class T>
void linear_forward(const Conv2dForward<T>& a, const Parallel& par) {
  run_first(linear_kernels<T>().forward, {linear_problem(a.p), a.input, a.weight, a.bias, a.output}, par);
  if (a.least > T(kNoLeast))
    for (int64_t i = 0; i < a.p.batch * a.p.out_channels; ++i)
      a.output[i] = a.output[i] < a.least ? a.least : a.output[i];
}
template <class T>
void linear_backward_input(const Conv2dBackwardInput<T>& a, const Parallel& par) {
  run_first(linear_kernels<T>().backward_input, {linear_problem(a.p), a.grad_output, a.weight, a.grad_input}, par);
}
template <class T>
void linear_backward_weight(const Conv2dBackwardWeight<T>& a, const Parallel& par) {
  run_first(linear_kernels<T>().backward_weight,
            {linear_problem(a.p), a.grad_output, a.input, a.grad_weight, a.grad_bias}, par);
}

template <class T>
constexpr Implementation<Conv2dForward<T>> kForward[] = {
    {"linear", linear_applies<Conv2dForward<T>>, linear_forward<T>},
    {"winograd", winograd_forward_applies<T>, winograd_forward<T>, false},
    {"winograd_stride2", winograd_stride2_applies<T, Conv2dForward<T>>, winograd_stride2_forward<T>, false},
    {"space_to_depth", stem_applies<Conv2dForward, T, &StemKernels::space_to_depth_forward>,
     stem_run<Conv2dForward, T, &StemKernels::space_to_depth_forward>, false},
    {"lanes", stem_applies<Conv2dForward, T, &StemKernels::lanes_forward>,
     stem_run<Conv2dForward, T, &StemKernels::lanes_forward>},
    {"rows", stem_applies<Conv2dForward, T, &StemKernels::rows_forward>,
     stem_run<Conv2dForward, T, &StemKernels::rows_forward>},
    {"lane_groups", lane_groups_apply<Conv2dForward<T>, T>, lane_groups_forward<T>},
    {"pointwise", pointwise_forward_applies<T>, pointwise_forward<T>},
    {"direct", conv2d_direct_forward_applies<T>, conv2d_direct_forward<T>},
    {"packed_gemm", conv2d_is_nchw<Conv2dForward<T>>, conv2d_packed_gemm_forward<T>},
    {"indirect_gemm", conv2d_is_nhwc<Conv2dForward<T>>, conv2d_nhwc_forward<T>},
    {"plain", conv2d_always<Conv2dForward<T>>, conv2d_plain_forward<T>},
};

template <class T>
constexpr Implementation<Conv2dBackwardInput<T>> kBackwardInput[] = {
    {"linear", linear_applies<Conv2dBackwardInput<T>>, linear_backward_input<T>},
    {"winograd", winograd_backward_input_applies<T>, winograd_backward_input<T>, false},
    {"winograd_stride2", winograd_stride2_applies<T, Conv2dBackwardInput<T>>, winograd_stride2_backward_input<T>,
     false},
    {"lanes", stem_applies<Conv2dBackwardInput, T, &StemKernels::lanes_backward_input>,
     stem_run<Conv2dBackwardInput, T, &StemKernels::lanes_backward_input>},
    {"lane_groups", lane_groups_apply<Conv2dBackwardInput<T>, T>, lane_groups_backward_input<T>},
    {"pointwise", pointwise_backward_input_applies<T>, pointwise_backward_input<T>},
    {"direct", conv2d_direct_backward_input_applies<T>, conv2d_direct_backward_input<T>},
    {"packed_gemm", conv2d_is_nchw<Conv2dBackwardInput<T>>, conv2d_packed_gemm_backward_input<T>},
    {"indirect_gemm", conv2d_is_nhwc<Conv2dBackwardInput<T>>, conv2d_nhwc_backward_input<T>},
    {"plain", conv2d_always<Conv2dBackwardInput<T>>, conv2d_plain_backward_input<T>},
};

template <class T>
constexpr Implementation<Conv2dBackwardWeight<T>> kBackwardWeight[] = {
    {"linear", linear_applies<Conv2dBackwardWeight<T>>, linear_backward_weight<T>},
    {"winograd", winograd_backward_weight_applies<T>, winograd_backward_weight<T>, false},
    {"winograd_stride2", winograd_stride2_weight_applies<T>, winograd_stride2_backward_weight<T>, false},
    {"space_to_depth", stem_applies<Conv2dBackwardWeight, T, &StemKernels::space_to_depth_backward_weight>,
     stem_run<Conv2dBackwardWeight, T, &StemKernels::space_to_depth_backward_weight>, false},
    {"lanes", stem_applies<Conv2dBackwardWeight, T, &StemKernels::lanes_backward_weight>,
     stem_run<Conv2dBackwardWeight, T, &StemKernels::lanes_backward_weight>},
    {"rows", stem_applies<Conv2dBackwardWeight, T, &StemKernels::rows_backward_weight>,
     stem_run<Conv2dBackwardWeight, T, &StemKernels::rows_backward_weight>},
    {"lane_groups", lane_groups_apply<Conv2dBackwardWeight<T>, T>, lane_groups_backward_weight<T>},
    {"direct", conv2d_direct_weight_applies<T>, conv2d_direct_backward_weight<T>},
    {"pointwise", pointwise_backward_weight_applies<T>, pointwise_backward_weight<T>},
    {"packed_gemm", conv2d_packed_gemm_backward_weight_applies<T>, conv2d_packed_gemm_backward_weight<T>},
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
