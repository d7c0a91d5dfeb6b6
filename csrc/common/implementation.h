// One visible ordered list of implementations per operation.
//
// A list reads from special to general: the first entry whose `applicable` says yes runs; the last is the plain
// one and always applies. CISDL_IMPL=conv2d:plain forces an entry by name, CISDL_STRICT=1 leaves out those that do
// not add up what the definition adds up (csrc/cpu/dispatch.cpp).
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
