// One visible ordered list of implementations per operation.
//
// A list reads from special to general: the first applicable entry runs; the last is the plain one, applicable
// always. `applicable` says where an implementation is right and, by a cost rule written beside it from
// measurements, where it is worth running. CISDL_IMPL=conv2d:plain forces an entry by name (csrc/cpu/dispatch.h),
// cisdl_ops.tune() measures the applicable ones (csrc/cpu/tuning.h), CISDL_STRICT=1 leaves out those that do not
// add up what the definition adds up.
#pragma once

#include "parallel.h"

namespace cisdl {

template <class Args>
struct Implementation {
  const char* name;
  bool (*applicable)(const Args&);
  void (*run)(const Args&, const Parallel&);
  bool direct = true;  // sums of the definition's own products, in whatever order
};

template <class Args>
struct ImplementationList {
  const Implementation<Args>* items;
  int size;
};

}  // namespace cisdl
