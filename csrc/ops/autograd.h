// How an op enters autograd: backward nodes written by hand, as torch's own generated code writes them.
//
// torch::autograd::Function would do for plain backward, but torch.func refuses it. A node of this file works
// everywhere an op of torch works: under torch.func.grad and vmap, with saved-tensor hooks, with create_graph
// (what a node calls goes through the dispatcher, so its own derivative is recorded), and beside forward-mode AD,
// whose tangents the ops set themselves.
#pragma once

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "common.h"

namespace cisdl::ops {

using Variables = torch::autograd::variable_list;
using Guard = at::AutoDispatchBelowADInplaceOrView;

// A node that keeps kSaved tensors. `gradients` gets the gradients of the recorded outputs (undefined: zero) and
// answers with those of the recorded inputs, in order (undefined: zero, or not wanted).
template <size_t kSaved>
class BackwardNode : public torch::autograd::Node {
 public:
  void save(size_t i, const Tensor& t) { saved_[i] = torch::autograd::SavedVariable(t, /*is_output=*/false); }
  void save_output(size_t i, const Tensor& t) { saved_[i] = torch::autograd::SavedVariable(t, true); }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& one : saved_) one.reset_data();
  }

 protected:
  virtual Variables gradients(const Variables& grads) = 0;

  Tensor saved(size_t i) const { return saved_[i].unpack(); }
  Tensor saved_output(size_t i) { return saved_[i].unpack(getptr()); }
  // Whether the gradient of recorded input i is wanted.
  bool wanted(size_t i) const { return task_should_compute_output(i); }

 private:
  Variables apply(Variables&& grads) final {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool any = std::any_of(grads.begin(), grads.end(), [](const Tensor& g) { return g.defined(); });
    return any ? gradients(grads) : Variables(num_outputs());
  }

  std::array<torch::autograd::SavedVariable, kSaved> saved_;
};

// A new node of type N with one edge for each input (undefined ones too, so that positions are kept), or null if
// no gradient is wanted. Releases of torch differ in the pointer that owns a node, shared_ptr or intrusive_ptr.
template <class N, class... Ts>
auto record(const Ts&... inputs) {
  using torch::autograd::Node;
  constexpr bool kShared = std::is_same_v<decltype(torch::autograd::Edge::function), std::shared_ptr<Node>>;
  const auto create = [] {
    if constexpr (kShared) {
      return std::shared_ptr<N>(new N, [](N* node) { deleteNode(node); });
    } else {
      return c10::make_intrusive<N>();
    }
  };
  decltype(create()) node{};
  if (torch::autograd::compute_requires_grad(inputs...)) {
    node = create();
    node->set_next_edges(torch::autograd::collect_next_edges(inputs...));
  }
  return node;
}

using torch::autograd::set_history;

// ----------------------------------------------------------------------------------- forward-mode tangents

inline bool has_tangent(const Tensor& t) { return t.defined() && t._fw_grad(0).defined(); }
inline Tensor tangent_of(const Tensor& t) { return t.defined() ? Tensor(t._fw_grad(0)) : Tensor(); }
inline Tensor primal_of(const Tensor& t) { return has_tangent(t) ? t._fw_primal(0) : t; }
inline void set_tangent(const Tensor& of, const Tensor& tangent) {
  if (of.defined() && tangent.defined()) of._set_fw_grad(tangent, /*level=*/0, /*is_inplace_op=*/false);
}

// Whether a call needs more than its plain kernel: a gradient or a tangent is wanted.
template <class... Ts>
bool needs_autograd(const Ts&... tensors) {
  return torch::autograd::compute_requires_grad(tensors...) || (... || has_tangent(tensors));
}

// a + b, where an undefined tensor is zero.
inline Tensor plus(const Tensor& a, const Tensor& b) {
  if (!a.defined()) return b;
  return b.defined() ? at::add(a, b) : a;
}

}  // namespace cisdl::ops
