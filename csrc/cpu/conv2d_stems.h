// What conv2d_stems.cpp exports: kernels for first layers and others with few channels, in float32. conv2d.cpp
// lists them.
#pragma once

#include "kernels.h"

namespace cisdl {

template <class Args>
struct StemKernel {
  bool (*applicable)(const Args&);
  void (*run)(const Args&, const Parallel&);
};

struct StemKernels {
  StemKernel<Conv2dForward<float>> lanes_forward, rows_forward, space_to_depth_forward;
  StemKernel<Conv2dBackwardInput<float>> lanes_backward_input;
  StemKernel<Conv2dBackwardWeight<float>> lanes_backward_weight, rows_backward_weight,
      space_to_depth_backward_weight;
};

}  // namespace cisdl
