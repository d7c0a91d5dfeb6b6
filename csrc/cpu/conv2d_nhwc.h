// Convolution in channels_last: the entries that csrc/cpu/conv2d.cpp lists, "depthwise" before "indirect_gemm".
#pragma once

#include "conv2d_nhwc_backward_input.h"
#include "conv2d_nhwc_backward_weight.h"
#include "conv2d_nhwc_depthwise.h"
#include "conv2d_nhwc_forward.h"

namespace cisdl {
namespace {

template <class Args>
bool conv2d_is_nhwc(const Args& args) {
  return args.layout == Layout::nhwc;
}

template <class Args>
bool conv2d_is_nhwc_depthwise(const Args& args) {
  const Conv2dProblem& p = args.p;
  return args.layout == Layout::nhwc && p.groups > 1 && p.in_channels == p.groups && p.out_channels == p.groups;
}

}  // namespace
}  // namespace cisdl
