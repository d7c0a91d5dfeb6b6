// Activations that an op applies to its own output: by our kernel on the CPU, by torch's pointwise ops elsewhere
// and wherever a derivative of the activation is wanted.
#pragma once

#include <ATen/ops/empty_like.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/leaky_relu_backward.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sigmoid_backward.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tanh_backward.h>
#include <ATen/ops/threshold_backward.h>

#include <string_view>

#include "../cpu/elementwise_kernels.h"
#include "common.h"

namespace cisdl::ops {

struct ActivationOptions {
  Activation kind;
  double slope;
};

inline ActivationOptions activation_options(const char* op, std::string_view name, double slope) {
  TORCH_CHECK(slope >= 0, op, ": negative_slope: expected a number that is not negative, got ", slope);
  if (name == "relu") return {Activation::relu, slope};
  if (name == "leaky_relu") return {Activation::leaky_relu, slope};
  if (name == "sigmoid") return {Activation::sigmoid, slope};
  if (name == "tanh") return {Activation::tanh, slope};
  TORCH_CHECK(false, op, ": activation: expected relu, leaky_relu, sigmoid or tanh, got ", name);
}

// f(x), by an op with every derivative.
inline Tensor activated(const Tensor& x, const ActivationOptions& f) {
  switch (f.kind) {
    case Activation::relu:
      return at::relu(x);
    case Activation::leaky_relu:
      return at::leaky_relu(x, f.slope);
    case Activation::sigmoid:
      return at::sigmoid(x);
    default:
      return at::tanh(x);
  }
}

// g f'(x) from y = f(x), by an op with every derivative.
inline Tensor through_activation(const Tensor& g, const Tensor& y, const ActivationOptions& f) {
  switch (f.kind) {
    case Activation::relu:
      return at::threshold_backward(g, y, 0);
    case Activation::leaky_relu:
      return at::leaky_relu_backward(g, y, f.slope, /*self_is_result=*/true);
    case Activation::sigmoid:
      return at::sigmoid_backward(g, y);
    default:
      return at::tanh_backward(g, y);
  }
}

// f(y), in place if it is on the CPU; y is dense.
inline Tensor activate(const Tensor& y, const ActivationOptions& f) {
  if (!y.device().is_cpu()) return activated(y, f);
  with_dtype(y.scalar_type(), [&](auto t) {
    using T = decltype(t);
    of_type<T>(elementwise_kernels())
        .activation({f.kind, static_cast<T>(f.slope), y.numel(), y.mutable_data_ptr<T>()}, torch_threads());
  });
  return y;
}

}  // namespace cisdl::ops
