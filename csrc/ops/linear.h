// What cisdl::linear and cisdl::linear_activation share: the checks and the problem.
#pragma once

#include "common.h"

namespace cisdl::ops {

// The shape of the output, after every check.
template <class I>
c10::SmallVector<I, 4> check_linear(const Tensor& input, const Tensor& weight, const Tensor& bias) {
  const char* op = "linear";
  check_dtype(op, "input", input);
  check_like(op, "weight", weight, "input", input);
  const auto x = sizes_of<I>(input);
  const auto w = sizes_of<I>(weight);
  TORCH_CHECK(w.size() == 2, op, ": weight: expected shape [out_features, in_features], got ", w);
  TORCH_CHECK(!x.empty(), op, ": input: expected shape [..., ", w[1], "], got a scalar");
  TORCH_CHECK(x.back() == w[1], op, ": input: expected ", w[1], " features in the last dimension as weight ", w,
              " has, got shape ", x);
  if (bias.defined()) {
    check_like(op, "bias", bias, "input", input);
    check_shape<I>(op, "bias", bias, {w[0]});
  }
  c10::SmallVector<I, 4> shape(x.begin(), x.end());
  shape.back() = w[0];
  return shape;
}

inline LinearProblem linear_problem(const Tensor& input, const Tensor& weight) {
  int64_t batch = 1;
  for (int64_t d = 0; d + 1 < input.dim(); ++d) batch *= input.size(d);
  return {batch, weight.size(1), weight.size(0)};
}

}  // namespace cisdl::ops
