// Convolution in channels_last: the entries that csrc/cpu/conv2d.cpp lists as "indirect_gemm".
#pragma once

#include "conv2d_nhwc_backward_input.h"
#include "conv2d_nhwc_backward_weight.h"
#include "conv2d_nhwc_forward.h"

namespace cisdl {
namespace {

template <class Args>
bool conv2d_is_nhwc(const Args& args) {
  return args.layout == Layout::nhwc;
}

}  // namespace
}  // namespace cisdl
