// What this instruction set can do at most: chains of fused multiply-adds that never leave the registers.
//
// An FMA takes four or five cycles and a core starts up to two a cycle, so ten independent chains or more keep it
// busy; twelve fit the smallest register file with room for the two factors. `cisdl bench` quotes every kernel as
// a share of this figure. Without FMA instructions a multiply and an add count the same two operations.
#include "kernels.h"
#include "simd.h"

namespace cisdl {
namespace {

template <class T>
double fma_peak(int64_t iterations) {
  constexpr int kChains = 12;
  // x <- x * a + b converges to b / (1 - a): no overflow, no denormals, nothing to fold. The compiler may not
  // know a and b, hence volatile, read once.
  volatile T factor = T(0.5), term = T(0.75);
  const Vec<T> a = set1(static_cast<T>(factor)), b = set1(static_cast<T>(term));
  Vec<T> x[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) x[i] = set1(static_cast<T>(i + 1));
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) x[i] = x[i] * a + b;
  }
  Vec<T> sum = zero<T>();
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum += x[i];
  volatile T result = sum_lanes<T>(sum);  // keeps the loop alive
  (void)result;
  return 2.0 * kChains * kWidth<T> * static_cast<double>(iterations);
}

constexpr PeakKernels kKernels = {fma_peak<float>, fma_peak<double>};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(peak, PeakKernels) { return &cisdl::kKernels; }
