// As faulty_kernel.cpp, with the flags of csrc/ops and its threads.
#include <cstring>

#include "../../csrc/ops/common.h"

#define CISDL_DECLARE(isa) extern "C" bool cisdl_faulty_kernel_##isa(const char* fault, float* data, int64_t n);
CISDL_FOR_EACH_ISA(CISDL_DECLARE)

namespace {

bool same(const char* a, const char* b) { return std::strcmp(a, b) == 0; }

// body(i) for 0 <= i < n, on all threads.
template <class F>
void share_out(int64_t n, F&& body) {
  cisdl::parallel_for(cisdl::ops::torch_threads(), n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace

extern "C" __attribute__((visibility("default"))) bool cisdl_faulty_op(const char* fault, float* data, int64_t n) {
  if (same(fault, "none")) {
    share_out(n, [&](int64_t i) { data[i] += 1; });
  } else if (same(fault, "race")) {
    share_out(n, [&](int64_t) { data[0] += 1; });
  } else if (same(fault, "write_behind")) {
    share_out(n, [&](int64_t i) { data[i + 1] = 1; });
  } else {
    // race_<isa>: a sound kernel, but all threads write to the same place, with masks.
#define CISDL_RACE(isa)                                                         \
  if (same(fault, "race_" #isa)) {                                              \
    share_out(n, [&](int64_t) { cisdl_faulty_kernel_##isa("none", data, n); }); \
    return true;                                                                \
  }
    CISDL_FOR_EACH_ISA(CISDL_RACE)
    return false;
  }
  return true;
}
