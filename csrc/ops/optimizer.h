// The steps of our optimisers, for csrc/bindings.cpp: plain functions, no operators, for nothing differentiates
// them.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace cisdl::ops {

using Tensors = std::vector<at::Tensor>;

struct AdamOptions {
  double lr, beta1, beta2, eps, weight_decay;
  bool amsgrad, maximize, decoupled;
};

struct SgdOptions {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, maximize, first;
};

// One step of every weight, in place; `steps` are counted up, tensors of one element. False, with nothing changed,
// if a tensor is not for our kernels: those of one weight on one device, the CPU or a GPU that the build has
// kernels for (`steps` on the CPU), dense in the same order, float32 or float64.
bool adam_step(const Tensors& weights, const Tensors& grads, const Tensors& m, const Tensors& v,
               const Tensors& largest_v, const Tensors& steps, const AdamOptions& options);
// `buffers` is empty without momentum; with `first` they are new and are filled.
bool sgd_step(const Tensors& weights, const Tensors& grads, const Tensors& buffers, const SgdOptions& options);

}  // namespace cisdl::ops
