// One visible ordered list of implementations per operation.
//
// A list reads from special to general: the first entry that is applicable and preferred runs; the last is the
// plain one, always both. `applicable` says what an implementation can do, and rightly; `preferred` is the cost
// rule, written beside it from measurements. CISDL_IMPL=conv2d:plain forces an entry by name (csrc/cpu/dispatch.h)
// and cisdl_ops.tune() measures (csrc/cpu/tuning.h): both ask `applicable` only. CISDL_STRICT=1 leaves out
// those that do not add up what the definition adds up.
#pragma once

#include "parallel.h"

namespace cisdl {

template <class Args>
struct Implementation {
  const char* name;
  bool (*applicable)(const Args&);
  void (*run)(const Args&, const Parallel&);
  bool direct = true;                        // sums of the definition's own products, in whatever order
  bool (*preferred)(const Args&) = nullptr;  // null: wherever it is applicable
};

template <class Args>
struct ImplementationList {
  const Implementation<Args>* items;
  int size;
};

}  // namespace cisdl
