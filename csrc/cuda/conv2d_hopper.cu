// Convolution on Hopper's tensor cores, channels_last and without groups: implicit products on hopper_gemm.cu. The
// copy engine unfolds the image itself (im2col mode): it is told a position of the filter and a cell of it, and
// brings 64 channels under that cell for as many positions as a tile has rows, zeros where the cell lies outside
// of the image.
//
//                     rows                   columns                depth
//   forward           positions (n, p, q)    filters                cells (r, s) x channels
//   backward input    input pixels           channels               cells, from the last to the first, x filters
//   backward weight   filters                cells x channels       positions
//
// Backward input is a forward convolution of the output's gradient with the filter turned around, as long as the
// stride is 1. A step of depth (in backward weight: 64 columns) lies under one cell, so channels should nearly be
// a multiple of 64; 48 and 96 are enough of one, 16 are not. Positions, and cells from them, are limited by the
// fields of a tensor map: 128 beyond either side of the image, cells 255 apart, a stride of 8.
#include "hopper_gemm.h"
#include "kernels.h"

namespace cisdl::cuda {
namespace {

// An image whose patches are an operand.
struct Patched {
  int64_t batch, height, width, channels;
  HopperPatches patches;

  // From the last position to the far side of the image, w first.
  int32_t upper(int i) const {
    return i == 0 ? patches.lower_w + (patches.width - 1) * patches.step_w - static_cast<int32_t>(width - 1)
                  : patches.lower_h + (patches.height - 1) * patches.step_h - static_cast<int32_t>(height - 1);
  }
};

bool fits(const Conv2dProblem& p) {
  const bool whole =
      hopper_size(p.batch) && hopper_size(p.batch * p.in_h) && hopper_size(p.batch * p.in_h * p.in_w);
  return whole && hopper_size(p.batch * p.out_h) && hopper_size(p.batch * p.out_h * p.out_w) &&
         hopper_size(p.in_channels) && hopper_size(p.out_channels) && p.groups == 1 &&
         (p.kernel_h - 1) * p.dilation_h <= 255 && (p.kernel_w - 1) * p.dilation_w <= 255 &&
         p.stride_h <= kMaxChannelStep && p.stride_w <= kMaxChannelStep && p.pad_top <= 128 && p.pad_left <= 128;
}

bool fits(const Patched& image) {
  const auto inside = [](int32_t corner) { return corner >= -128 && corner <= 127; };
  return inside(image.patches.lower_h) && inside(image.patches.lower_w) && inside(image.upper(0)) &&
         inside(image.upper(1));
}

// What goes through the filter forward; fits(p).
Patched input_of(const Conv2dProblem& p) {
  const auto number = [](int64_t n) { return static_cast<int32_t>(n); };
  return {p.batch,
          p.in_h,
          p.in_w,
          p.in_channels,
          {number(p.out_h), number(p.out_w), number(-p.pad_top), number(-p.pad_left), number(p.stride_h),
           number(p.stride_w), number(p.kernel_w), number(p.dilation_h), number(p.dilation_w), false}};
}

// And back, where the stride is 1.
Patched grad_output_of(const Conv2dProblem& p) {
  const auto number = [](int64_t n) { return static_cast<int32_t>(n); };
  return {p.batch,
          p.out_h,
          p.out_w,
          p.out_channels,
          {number(p.in_h), number(p.in_w), number(p.pad_top - (p.kernel_h - 1) * p.dilation_h),
           number(p.pad_left - (p.kernel_w - 1) * p.dilation_w), 1, 1, number(p.kernel_w), number(p.dilation_h),
           number(p.dilation_w), true}};
}

// Whether channels, in steps of 64, are not more than a quarter zeros.
bool fills_steps(int64_t channels) { return 3 * divide_up(channels, kHopperDepth) * kHopperDepth <= 4 * channels; }

template <class T>
bool patches_map(TensorMap& map, const Patched& image, const T* data, int32_t pixels) {
  return im2col_map(map, data, {image.channels, image.width, image.height, image.batch},
                    {image.patches.lower_w, image.patches.lower_h}, {image.upper(0), image.upper(1)},
                    {image.patches.step_w, image.patches.step_h}, pixels);
}

int64_t cells(const Conv2dProblem& p) { return p.kernel_h * p.kernel_w; }

HopperGemm forward_gemm(const Conv2dProblem& p) {
  return hopper_gemm(p.batch * p.out_h * p.out_w, p.out_channels, 1, p.in_channels, cells(p));
}
HopperGemm backward_input_gemm(const Conv2dProblem& p) {
  return hopper_gemm(p.batch * p.in_h * p.in_w, p.in_channels, 1, p.out_channels, cells(p));
}
HopperGemm backward_weight_gemm(const Conv2dProblem& p) {
  return hopper_gemm(p.out_channels, p.in_channels, cells(p), p.batch * p.out_h * p.out_w, 1);
}

}  // namespace

template <class T>
int64_t hopper_scratch(const Conv2dForward<T>& args) {
  const Conv2dProblem& p = args.p;
  const bool right = args.layout == Layout::nhwc && fits(p) && fits(input_of(p)) && fills_steps(p.in_channels) &&
                     copy_engine_takes(args.input, p.in_channels) &&
                     copy_engine_takes(args.weight, p.in_channels) && stores_pairs(args.output, p.out_channels);
  return right && has_hopper() ? hopper_plan(forward_gemm(p)).scratch : -1;
}

template <class T>
int64_t hopper_scratch(const Conv2dBackwardInput<T>& args) {
  const Conv2dProblem& p = args.p;
  const bool right = args.layout == Layout::nhwc && fits(p) && p.stride_h == 1 && p.stride_w == 1 &&
                     fits(grad_output_of(p)) && fills_steps(p.out_channels) &&
                     copy_engine_takes(args.grad_output, p.out_channels) &&
                     copy_engine_takes(args.weight, p.in_channels) && stores_pairs(args.grad_input, p.in_channels);
  return right && has_hopper() ? hopper_plan(backward_input_gemm(p)).scratch : -1;
}

template <class T>
int64_t hopper_scratch(const Conv2dBackwardWeight<T>& args) {
  const Conv2dProblem& p = args.p;
  const bool right = args.grad_weight && args.layout == Layout::nhwc && fits(p) && fits(input_of(p)) &&
                     fills_steps(p.in_channels) && hopper_size(p.in_channels * cells(p)) &&
                     copy_engine_takes(args.grad_output, p.out_channels) &&
                     copy_engine_takes(args.input, p.in_channels) && stores_pairs(args.grad_weight, p.in_channels);
  return right && has_hopper() ? hopper_plan(backward_weight_gemm(p)).scratch : -1;
}

template <class T>
const char* run_hopper(const Conv2dForward<T>& args, void* scratch, void* stream) {
  const Conv2dProblem& p = args.p;
  HopperGemm gemm = forward_gemm(p);
  const Patched image = input_of(p);
  gemm.image = HopperImage::a;
  gemm.patches = image.patches;
  gemm.output = args.output;
  gemm.bias = args.bias;
  gemm.least = float(args.least);
  const bool made =
      patches_map(gemm.a, image, args.input, kHopperRows) &&
      along_map(gemm.b, args.weight, p.out_channels, cells(p), p.in_channels, hopper_plan(gemm).columns);
  return made ? launch_hopper_gemm<T>(gemm, scratch, stream) : kNoTensorMap;
}

template <class T>
const char* run_hopper(const Conv2dBackwardInput<T>& args, void* scratch, void* stream) {
  const Conv2dProblem& p = args.p;
  HopperGemm gemm = backward_input_gemm(p);
  const Patched image = grad_output_of(p);
  gemm.b_across = true;
  gemm.image = HopperImage::a;
  gemm.patches = image.patches;
  gemm.output = args.grad_input;
  const bool made = patches_map(gemm.a, image, args.grad_output, kHopperRows) &&
                    across_map(gemm.b, args.weight, p.out_channels, cells(p), p.in_channels);
  return made ? launch_hopper_gemm<T>(gemm, scratch, stream) : kNoTensorMap;
}

template <class T>
const char* run_hopper(const Conv2dBackwardWeight<T>& args, void* scratch, void* stream) {
  const Conv2dProblem& p = args.p;
  const int64_t positions = p.batch * p.out_h * p.out_w;
  HopperGemm gemm = backward_weight_gemm(p);
  const Patched image = input_of(p);
  gemm.a_across = gemm.b_across = true;
  gemm.image = HopperImage::b;
  gemm.patches = image.patches;
  gemm.output = args.grad_weight;
  const bool made = across_map(gemm.a, args.grad_output, positions, 1, p.out_channels) &&
                    patches_map(gemm.b, image, args.input, kHopperDepth);
  const char* error = made ? launch_hopper_gemm<T>(gemm, scratch, stream) : kNoTensorMap;
  if (!error && args.grad_bias)
    error = run_bias_gradient(args.grad_output, positions, p.out_channels, args.grad_bias, stream);
  return error;
}

#define CISDL_CONV2D_HOPPER(T)                                                  \
  template int64_t hopper_scratch(const Conv2dForward<T>&);                     \
  template int64_t hopper_scratch(const Conv2dBackwardInput<T>&);               \
  template int64_t hopper_scratch(const Conv2dBackwardWeight<T>&);              \
  template const char* run_hopper(const Conv2dForward<T>&, void*, void*);       \
  template const char* run_hopper(const Conv2dBackwardInput<T>&, void*, void*); \
  template const char* run_hopper(const Conv2dBackwardWeight<T>&, void*, void*);

CISDL_CONV2D_HOPPER(BFloat16)
CISDL_CONV2D_HOPPER(Float16)

}  // namespace cisdl::cuda
