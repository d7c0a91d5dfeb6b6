// Code with one fault each, compiled with the flags of the kernels, for every instruction set, into the module
// that a sanitizer watches. `make sanitize` runs each fault first and fails if one goes unnoticed.
//
// `n` is the number of elements of `data`; no fault goes further than the address sanitizer's red zone.
#include <cstring>

#include "../../csrc/cpu/kernels.h"
#include "../../csrc/cpu/simd.h"

namespace cisdl {
namespace {

CISDL_INLINE bool same(const char* a, const char* b) { return std::strcmp(a, b) == 0; }

// Does what a kernel would do that is wrong by one element. Whether there is such a fault.
bool run(const char* fault, float* data, int64_t n) {
  constexpr int W = kWidth<float>;
  if (same(fault, "none")) {
    store_partial(data, load_partial(data, n < W ? n : W), n < W ? n : W);
  } else if (same(fault, "read_behind")) {
    data[0] = data[n];
  } else if (same(fault, "write_before")) {
    data[-1] = 1;
  } else if (same(fault, "read_vector")) {
    store(data, load(data + n - W + 1));
  } else if (same(fault, "write_vector")) {
    store(data + n - W + 1, set1(1.0f));
  } else if (same(fault, "read_partial")) {
    store(data, load_partial(data + n - 1, 2));
  } else if (same(fault, "write_partial")) {
    store_partial(data + n - 1, set1(1.0f), 2);
  } else if (same(fault, "read_scratch")) {
    data[0] = static_cast<const float*>(scratch(Scratch::local, 4000))[1000];
  } else if (same(fault, "local_array")) {
    volatile int64_t at = 4;
    float cells[4] = {1, 2, 3, 4};
    data[0] = cells[at];
  } else if (same(fault, "signed_overflow")) {
    volatile int64_t large = INT64_MAX;
    data[0] = static_cast<float>(large + n);
  } else if (same(fault, "misaligned")) {
    data[0] = *reinterpret_cast<const float*>(reinterpret_cast<const char*>(data) + 1);
  } else if (same(fault, "float_to_integer")) {
    data[0] = static_cast<float>(static_cast<int64_t>(1e30 * static_cast<double>(n)));
  } else {
    return false;
  }
  return true;
}

}  // namespace
}  // namespace cisdl

#define CISDL_FAULTY_KERNEL(isa) CISDL_CONCAT(cisdl_, faulty_kernel, isa)

extern "C" __attribute__((visibility("default"))) bool CISDL_FAULTY_KERNEL(CISDL_ISA)(const char* fault,
                                                                                      float* data, int64_t n) {
  return cisdl::run(fault, data, n);
}
