// First layers of networks, and others with few channels, in float32: what conv2d.cpp lists before the kernels for
// any convolution. Each has a header of its own; the rules for when they are chosen are here.
#include "conv2d_lanes.h"

namespace cisdl {
namespace {

// The batch in vector lanes: one group, a batch that fills the lanes to 3/4.
template <class Args>
bool lanes_applies(const Args& args) {
  const Conv2dProblem& p = args.p;
  return p.groups == 1 && p.batch * 4 >= ceil_div(p.batch, kLanes) * kLanes * 3 && p.batch > 0 && p.out_h * p.out_w > 0 && p.in_channels > 0 && p.out_channels > 0 && p.in_h * p.in_w > 0;
}

constexpr StemKernels kKernels = {
    {lanes_applies<Conv2dForward<float>>, lanes_forward},
    {lanes_applies<Conv2dBackwardInput<float>>, lanes_backward_input},
    {lanes_applies<Conv2dBackwardWeight<float>>, lanes_backward_weight},
};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(conv2d_stems, StemKernels) { return &cisdl::kKernels; }
