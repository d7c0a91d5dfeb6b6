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
// Backward input is a forward convolution of the output's gradient with the filter turned around. Where the stride
// is 2, input pixels of even and of odd coordinates see different cells of the filter, each a convolution of its
// own with a stride of 1: two parts of the rows, or four, and one launch. A step of depth (in backward weight: 64
// columns) lies under one cell, so channels should nearly be a multiple of 64; 48 and 96 are enough of one, 16 are
// not. Positions, and cells from them, are limited by the fields of a tensor map: 128 beyond either side of the
// image, cells 255 apart, a stride of 8.
#include <numeric>

#include "hopper_gemm.h"
#include "kernels.h"

namespace cisdl::cuda {
namespace {

int32_t number(int64_t n) { return static_cast<int32_t>(n); }

// An image whose patches are an operand.
struct Patched {
  int64_t batch, height, width, channels;
  HopperPatches patches;

  // From the last position to the far side of the image, w first.
  int32_t upper(int i) const {
    return i == 0 ? patches.lower_w + (patches.width - 1) * patches.step_w - number(width - 1)
                  : patches.lower_h + (patches.height - 1) * patches.step_h - number(height - 1);
  }
};

bool fits(const Conv2dProblem& p) {
  const bool whole =
      hopper_size(p.batch) && hopper_size(p.batch * p.in_h) && hopper_size(p.batch * p.in_h * p.in_w);
  return whole && hopper_size(p.batch * p.out_h) && hopper_size(p.batch * p.out_h * p.out_w) &&
         hopper_size(p.in_channels) && hopper_size(p.out_channels) && p.groups == 1 &&
         (p.kernel_h - 1) * p.dilation_h <= 255 && (p.kernel_w - 1) * p.dilation_w <= 255 &&
         p.stride_h <= kMaxImageStep && p.stride_w <= kMaxImageStep && p.pad_top <= 128 && p.pad_left <= 128;
}

bool fits(const Patched& image) {
  const auto inside = [](int32_t corner) { return corner >= -128 && corner <= 127; };
  return inside(image.patches.lower_h) && inside(image.patches.lower_w) && inside(image.upper(0)) &&
         inside(image.upper(1));
}

// What goes through the filter forward; fits(p).
Patched input_of(const Conv2dProblem& p) {
  return {p.batch,
          p.in_h,
          p.in_w,
          p.in_channels,
          {number(p.out_h), number(p.out_w), number(-p.pad_top), number(-p.pad_left), number(p.stride_h),
           number(p.stride_w), number(p.kernel_w), number(p.dilation_h), number(p.dilation_w), false}};
}

// In one direction, the cells of a filter through which the input's pixels first, first + stride, ... were read,
// seen as a filter over the output's gradient.
struct Cells {
  int32_t first, step, count;
  int32_t pixels;           // of the input
  int32_t lower, dilation;  // where pixel `first` finds the last cell, and how far apart the others lie
};

Cells cells_of(int64_t first, int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  const int64_t step = stride / std::gcd(stride, dilation);
  int64_t r = 0;
  while (r < kernel && r < step && (first + pad - r * dilation) % stride != 0) ++r;
  const int64_t count = r < kernel && r < step ? divide_up(kernel - r, step) : 0;
  const int64_t apart = step * dilation / stride;
  const int64_t lower = count > 0 ? (first + pad - r * dilation) / stride - (count - 1) * apart : 0;
  return {number(r),     number(step), number(count), number(divide_up(in - first, stride)),
          number(lower), number(apart)};
}

// The rows of the input's gradient whose coordinates leave the remainders (h, w), and the output's gradient that
// they gather; all but the tensor map. None of it where there are no such rows.
Patched part_of(const Conv2dProblem& p, int64_t h, int64_t w, HopperPart& part) {
  part.rows = 0;
  if (h >= p.in_h || w >= p.in_w) return {};
  const Cells down = cells_of(h, p.in_h, p.kernel_h, p.stride_h, p.dilation_h, p.pad_top);
  const Cells across = cells_of(w, p.in_w, p.kernel_w, p.stride_w, p.dilation_w, p.pad_left);
  part.depth_taps = down.count * across.count;
  part.patches = {down.pixels,   across.pixels,   down.lower, across.lower, 1, 1, std::max(across.count, 1),
                  down.dilation, across.dilation, true};
  part.rows = p.batch * down.pixels * across.pixels;
  part.b_tap = down.first * number(p.kernel_w) + across.first;
  part.b_step_h = down.step * number(p.kernel_w);
  part.b_step_w = across.step;
  part.first_row = h * p.in_w + w;
  part.image_rows = p.in_h * p.in_w;
  part.row_step_h = p.stride_h * p.in_w;
  part.row_step_w = p.stride_w;
  return {p.batch, p.out_h, p.out_w, p.out_channels, part.patches};
}

// Calls f(part, image) for every part of the input's gradient while that is true; whether all were.
template <class F>
bool for_each_part(const Conv2dProblem& p, HopperGemm& gemm, const F& f) {
  gemm.parts = 0;
  for (int64_t h = 0; h < p.stride_h; ++h) {
    for (int64_t w = 0; w < p.stride_w; ++w) {
      HopperPart& part = gemm.part[gemm.parts];
      const Patched image = part_of(p, h, w, part);
      if (part.rows == 0) continue;
      if (part.depth_taps > 0 && !f(part, image)) return false;
      ++gemm.parts;
    }
  }
  return true;
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
  HopperGemm gemm = hopper_gemm(p.batch * p.out_h * p.out_w, p.out_channels, 1, p.in_channels, cells(p));
  gemm.part[0].b_step_h = number(p.kernel_w);
  gemm.part[0].b_step_w = 1;
  return gemm;
}
HopperGemm backward_input_gemm(const Conv2dProblem& p) {
  HopperGemm gemm = hopper_gemm(0, p.in_channels, 1, p.out_channels, 0);
  for_each_part(p, gemm, [](HopperPart&, const Patched&) { return true; });
  return gemm;
}
bool parts_fit(const Conv2dProblem& p) {
  if (p.stride_h * p.stride_w > kHopperParts) return false;
  HopperGemm gemm = hopper_gemm(0, p.in_channels, 1, p.out_channels, 0);
  return for_each_part(p, gemm, [](HopperPart&, const Patched& image) { return fits(image); });
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
  const bool right = args.layout == Layout::nhwc && fits(p) && parts_fit(p) && fills_steps(p.out_channels) &&
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
  gemm.part[0].patches = image.patches;
  gemm.output = args.output;
  gemm.bias = args.bias;
  gemm.least = float(args.least);
  const bool made =
      patches_map(gemm.part[0].a, image, args.input, kHopperRows) &&
      along_map(gemm.b, args.weight, p.out_channels, cells(p), p.in_channels, hopper_plan(gemm).columns);
  return made ? launch_hopper_gemm<T>(gemm, scratch, stream) : kNoTensorMap;
}

template <class T>
const char* run_hopper(const Conv2dBackwardInput<T>& args, void* scratch, void* stream) {
  const Conv2dProblem& p = args.p;
  HopperGemm gemm = backward_input_gemm(p);
  gemm.b_across = true;
  gemm.image = HopperImage::a;
  gemm.output = args.grad_input;
  const bool made = across_map(gemm.b, args.weight, p.out_channels, cells(p), p.in_channels) &&
                    for_each_part(p, gemm, [&](HopperPart& part, const Patched& image) {
                      return patches_map(part.a, image, args.grad_output, kHopperRows);
                    });
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
  gemm.part[0].patches = image.patches;
  gemm.output = args.grad_weight;
  const bool made = across_map(gemm.part[0].a, args.grad_output, positions, 1, p.out_channels) &&
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
