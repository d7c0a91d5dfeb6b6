// What other ops need of conv2d.
#pragma once

#include "common.h"

namespace cisdl::ops {

// The kernel behind cisdl::conv2d, with every check: max(least, y). Of float32 and float64.
Tensor conv2d_at_least(const Tensor& input, const Tensor& weight, const Tensor& bias, at::IntArrayRef stride,
                       at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups, float least);

// The same on tensor cores, of float32 where TF32 is allowed, or nothing.
optional<Tensor> conv2d_on_tensor_cores(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                        at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                                        int64_t groups, float least);

}  // namespace cisdl::ops
