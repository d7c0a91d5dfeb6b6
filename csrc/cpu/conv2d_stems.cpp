// First layers of networks, and others with few channels, in float32: what conv2d.cpp lists before the kernels for
// any convolution. Each has a header of its own; the rules for when they are chosen are here.
#include "conv2d_stems.h"
#include "conv2d_lanes.h"
#include "conv2d_lanes_weight.h"
#include "conv2d_rows.h"
#include "conv2d_rows_weight.h"
#include "conv2d_space_to_depth.h"

namespace cisdl {
namespace {

// Each rule below was measured with torch's layer lists and a grid of small shapes, against the entries that would
// run otherwise.

// No dimension is zero.
bool has_work(const Conv2dProblem& p) {
  return p.batch > 0 && p.in_channels > 0 && p.out_channels > 0 && p.in_h * p.in_w > 0 && p.out_h * p.out_w > 0;
}

// The batch fills the lanes to 3/4.
bool batch_fills_lanes(const Conv2dProblem& p) {
  return p.groups == 1 && has_work(p) && p.batch * 4 >= ceil_div(p.batch, kLanes) * kLanes * 3;
}

// The rows of the output fill the lanes to 3/4.
bool rows_fill_lanes(const Conv2dProblem& p) {
  return p.groups == 1 && has_work(p) && p.out_w * 4 >= ceil_div(p.out_w, kLanes) * kLanes * 3;
}

// Up to four channels: the images of first layers.
bool rows_forward_applies(const Conv2dForward<float>& a) {
  return a.layout == Layout::nchw && rows_fill_lanes(a.p) && a.p.in_channels <= 4 &&
         a.p.in_channels * a.p.kernel_h * a.p.kernel_w <= kMaxChain;
}
bool rows_backward_weight_applies(const Conv2dBackwardWeight<float>& a) {
  return a.layout == Layout::nchw && rows_fill_lanes(a.p) && a.p.in_channels <= 8;
}

// A 1x1 kernel in channels_last whose output channels fill vectors: its sums need no lanes of the batch, and it
// runs over memory in order (conv2d_nhwc_view.h). Measured with vectors of 256 bits on eight images.
bool pixels_run_in_order(const Conv2dProblem& p, Layout layout, int64_t outputs) {
  return layout == Layout::nhwc && p.kernel_h * p.kernel_w == 1 && outputs >= 2 * kLanes;
}

// Transposes cost about as much as 32 taps do. channels_last kernels need none, but leave lanes empty where there
// are few output channels.
bool lanes_forward_applies(const Conv2dForward<float>& a) {
  const Conv2dProblem& p = a.p;
  const int64_t taps = p.in_channels * p.kernel_h * p.kernel_w;
  if (!batch_fills_lanes(p) || taps > kMaxChain || rows_forward_applies(a)) return false;
  if (pixels_run_in_order(p, a.layout, p.out_channels)) return false;
  if (a.layout == Layout::nhwc) return taps >= 128 || 2 * p.out_channels <= kLanes;
  return taps >= 64 || p.out_channels <= kLanes;
}

// Wins up to rows of two vectors, in channels_last, where the other kernels leave most lanes empty, always.
bool lanes_backward_input_applies(const Conv2dBackwardInput<float>& a) {
  const Conv2dProblem& p = a.p;
  return batch_fills_lanes(p) && p.stride_h == 1 && p.stride_w == 1 &&
         p.out_channels * p.kernel_h * p.kernel_w <= kMaxChain &&
         !pixels_run_in_order(p, a.layout, p.in_channels) && (a.layout == Layout::nhwc || p.in_w <= 2 * kLanes);
}

// In channels_last the outer products of pixels need no transpose and win unless they leave most lanes empty; in
// NCHW they do with many channels.
bool lanes_backward_weight_applies(const Conv2dBackwardWeight<float>& a) {
  const Conv2dProblem& p = a.p;
  if (!batch_fills_lanes(p) || p.out_w > 2 * kLanes || rows_backward_weight_applies(a)) return false;
  return a.layout == Layout::nchw ? p.in_channels <= 24 : p.in_channels * p.out_channels <= kLanes;
}

// The kernel becomes 3x3, on enough channels for Winograd.
bool space_to_depth_applies(const Conv2dProblem& p) {
  const int64_t channels = p.in_channels * p.stride_h * p.stride_w;
  return p.groups == 1 && has_work(p) && p.dilation_h == 1 && p.dilation_w == 1 && p.stride_h * p.stride_w > 1 &&
         ceil_div(p.kernel_h, p.stride_h) == 3 && ceil_div(p.kernel_w, p.stride_w) == 3 && channels >= 32 &&
         channels <= 128 && p.out_channels >= 32;
}
bool space_to_depth_forward_applies(const Conv2dForward<float>& a) { return space_to_depth_applies(a.p); }
bool space_to_depth_backward_weight_applies(const Conv2dBackwardWeight<float>& a) {
  return space_to_depth_applies(a.p);
}

constexpr StemKernels kKernels = {
    .lanes_forward = {lanes_forward_applies, lanes_forward},
    .rows_forward = {rows_forward_applies, rows_forward},
    .space_to_depth_forward = {space_to_depth_forward_applies, space_to_depth_forward},
    .lanes_backward_input = {lanes_backward_input_applies, lanes_backward_input},
    .lanes_backward_weight = {lanes_backward_weight_applies, lanes_backward_weight},
    .rows_backward_weight = {rows_backward_weight_applies, rows_backward_weight},
    .space_to_depth_backward_weight = {space_to_depth_backward_weight_applies, space_to_depth_backward_weight},
};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(conv2d_stems, StemKernels) { return &cisdl::kKernels; }
