// A linear layer with an activation, in one kernel of a GPU. On the CPU the activation is a pass of its own over
// an output that is still in the cache.
#pragma once

#include "elementwise.h"
#include "problems.h"

namespace cisdl {

template <class T>
struct LinearActivationForward {
  LinearForward<T> linear;
  Activation activation;
  double slope;  // of a leaky ReLU
};

}  // namespace cisdl
