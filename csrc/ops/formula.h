// Derivatives of an op through its formula, for ops whose fast kernels have a first derivative only.
//
// The formula is a function of tensors that computes the op from ops that have every derivative (cisdl::linear and
// pointwise ones). It is slower and keeps more, so it runs only where the kernels cannot serve: for a backward
// that is itself differentiated (create_graph, and always under torch.func.grad), for forward-mode AD, whose
// tangents flow through it, and as the batching rule of torch.func.vmap.
#pragma once

#include <ATen/ops/alias.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>

#include "autograd.h"

namespace cisdl::ops {

// The gradients of formula(inputs), recorded so that they can be differentiated again; nothing where that is not
// asked for, or not possible: torch.func.jacrev takes gradients when its level has already ended, and then the
// backward op itself serves, which refuses a further derivative in words. `grads` belong to the formula's
// outputs, undefined ones being zero; the result has a tensor for each input that `wanted` names.
template <class Formula, size_t N>
optional<Variables> gradients_by_formula(const Formula& formula, const Variables& inputs, const Variables& grads,
                                         const std::array<bool, N>& wanted) {
  if (!at::GradMode::is_enabled()) return std::nullopt;
  // Aliases, because one input may have been computed from another: only what flows through the formula counts.
  Variables aliases(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].defined()) aliases[i] = at::alias(inputs[i]);
  Variables by;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!wanted[i] || !inputs[i].defined()) continue;
    if (!aliases[i].requires_grad()) return std::nullopt;
    by.push_back(aliases[i]);
  }
  const Variables outputs = formula(aliases);
  Variables of, weighted_by;
  for (size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].defined()) continue;
    of.push_back(outputs[i]);
    weighted_by.push_back(grads[i]);
  }
  const Variables found = torch::autograd::grad(of, by, weighted_by, /*retain_graph=*/true, /*create_graph=*/true,
                                                /*allow_unused=*/true);
  Variables result(inputs.size());
  for (size_t i = 0, next = 0; i < inputs.size(); ++i)
    if (wanted[i] && inputs[i].defined()) result[i] = found[next++];
  return result;
}

// y = x W^T + b through the dispatcher: a linear layer with all its derivatives.
inline Tensor linear_of(const Tensor& x, const Tensor& w, const Tensor& b) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&)>("cisdl::linear");
  return op.call(x, w, or_none(b));
}

}  // namespace cisdl::ops
