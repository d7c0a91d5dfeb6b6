// Every derivative of an op y = A x that is linear in its only differentiable tensor, and whose adjoint A* is an
// op too: pooling, with its windows or, for a maximum, its places held fixed.
//
// From <g, A x> = <A* g, x>: the gradient of A is A* and that of A* is A, and a tangent goes through the op
// itself. So each derivative, of any order and in either mode, is a call of one of the two.
//
// Map is a struct that holds what the op needs besides its tensors, owning its memory:
//   using Adjoint = ...;                           the map of A*
//   static constexpr const char* backward_name;    of the node in which this map is the backward
//   Tensor operator()(x, places) const;            the dispatcher's entry; `places` is an index tensor that A
//                                                  depends on, undefined where there is none
//   Adjoint adjoint(x) const;                      the map back to tensors of x's shape
#pragma once

#include "autograd.h"

namespace cisdl::ops {

template <class Map>
class MapBackward : public BackwardNode<1> {
 public:
  Map map;

  std::string name() const override { return std::string("Cisdl") + Map::backward_name; }

 protected:
  Variables gradients(const Variables& grads) override { return {map(grads[0], saved(0))}; }
};

// The Autograd kernel of the op of `map`.
template <class Map>
Tensor map_autograd(const Tensor& x, const Tensor& places, const Map& map) {
  const auto node = record<MapBackward<typename Map::Adjoint>>(x);
  if (node) {
    node->save(0, places);
    node->map = map.adjoint(x);
  }
  const Tensor y = [&] {
    const Guard guard;
    return map(x, places);
  }();
  if (node) set_history(y, node);
  if (has_tangent(x)) set_tangent(y, map(tangent_of(x), places));
  return y;
}

inline bool needs_derivative(const Tensor& x) {
  return torch::autograd::compute_requires_grad(x) || has_tangent(x);
}

// The Autograd kernel of an op (y, places) = select(x) that takes each y from a place of x that it chooses: near x
// it is the linear `map` that takes y from these places. The places are integers and have no derivative.
template <class Map, class Select>
std::tuple<Tensor, Tensor> selection_autograd(const Tensor& x, const Map& map, Select&& select) {
  const auto node = record<MapBackward<typename Map::Adjoint>>(x);
  const auto [y, places] = [&] {
    const Guard guard;
    return select();
  }();
  if (node) {
    node->save(0, places);
    node->map = map.adjoint(x);
    set_history(y, node);
  }
  if (has_tangent(x)) set_tangent(y, map(tangent_of(x), places));
  return {y, places};
}

}  // namespace cisdl::ops
