// exp, sigmoid and tanh of a whole vector, float and double, for any instruction set.
//
// exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2 in two parts, |r| <= ln 2 / 2;
// exp(r) = 1 + r + r^2 p(r), p the Chebyshev fit of (exp(r) - 1 - r) / r^2 (error 2^-31 of exp(r) in float,
// 2^-61 in double). Every function is good over the whole range: infinities, NaN, denormal results, -0 for tanh.
// Largest errors found: exp 1 ulp, sigmoid 2.5 ulp, tanh 2.5 ulp.
#pragma once

#include "simd.h"

namespace cisdl {
namespace {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kLog2E = 1.44269504088896341f;
  static constexpr float kLn2High = 0.693145751953125f;  // 15 bits: n * kLn2High is exact
  static constexpr float kLn2Low = 1.4286068203094172e-6f;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  static constexpr int32_t kRoundBits = 0x4b400000;
  static constexpr int kMantissaBits = 23, kExponentBias = 127;
  static constexpr float kLowest = -104.0f, kHighest = 90.0f;  // beyond: exp is 0, infinite
  static constexpr float kTanhIsOne = 10.0f;
  static constexpr float kPoly[] = {0.50000000134658092f, 0.16666666681623231f, 0.041666464925285905f,
                                    0.00833331092548090f, 0.00139336499963093f, 0.000198909908246737f};
};

template <>
struct ExpConstants<double> {
  static constexpr double kLog2E = 1.44269504088896340736;
  static constexpr double kLn2High = 0.6931471805582987144589424;  // 38 bits
  static constexpr double kLn2Low = 1.646594958289708128098443e-12;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int64_t kRoundBits = 0x4338000000000000;
  static constexpr int kMantissaBits = 52, kExponentBias = 1023;
  static constexpr double kLowest = -746.0, kHighest = 710.0;
  static constexpr double kTanhIsOne = 22.0;
  static constexpr double kPoly[] = {0.5,
                                     0.16666666666666670991,
                                     0.041666666666666669755,
                                     0.0083333333333261351258,
                                     0.0013888888888883748305,
                                     0.00019841269874820625271,
                                     0.000024801587325547741216,
                                     2.755725540020642443e-6,
                                     2.7557273643110295328e-7,
                                     2.5105217004720745164e-8,
                                     2.0914686968086877233e-9};
};

// x = n ln 2 + r; `expm1_r` is exp(r) - 1 with a small relative error.
template <class T>
struct ExpParts {
  Vec<T> n;
  Vec<T> expm1_r;
};

template <class T>
CISDL_INLINE ExpParts<T> exp_parts(Vec<T> x) {
  using C = ExpConstants<T>;
  const Vec<T> round = set1(C::kRound);
  const Vec<T> n = (x * set1(C::kLog2E) + round) - round;
  const Vec<T> r = (x - n * set1(C::kLn2High)) - n * set1(C::kLn2Low);
  constexpr int kTerms = sizeof(C::kPoly) / sizeof(T);
  Vec<T> p = set1(C::kPoly[kTerms - 1]);
#pragma GCC unroll 16
  for (int i = kTerms - 2; i >= 0; --i) p = p * r + set1(C::kPoly[i]);
  return {n, (r * r) * p + r};
}

// 2^n for an integer n with a normal result.
template <class T>
CISDL_INLINE Vec<T> exp2_integer(Vec<T> n) {
  using C = ExpConstants<T>;
  const Mask<T> bits = (Mask<T>)(n + set1(C::kRound)) - C::kRoundBits;  // n as an integer
  return (Vec<T>)((bits + C::kExponentBias) << C::kMantissaBits);
}

// v * 2^n, rounded once even where the result is denormal.
template <class T>
CISDL_INLINE Vec<T> scale_by_exp2(Vec<T> v, Vec<T> n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm512_maskz_scalef_ps(static_cast<__mmask16>(-1), (__m512)v, (__m512)n);
  } else {
    return (Vec<T>)_mm512_maskz_scalef_pd(static_cast<__mmask8>(-1), (__m512d)v, (__m512d)n);
  }
#else
  // In two factors, for 2^n itself may be out of range. Halving in floating point: n/2 rounds to an integer.
  using C = ExpConstants<T>;
  const Vec<T> round = set1(C::kRound);
  const Vec<T> half = (n * set1(T(0.5)) + round) - round;
  return v * exp2_integer<T>(half) * exp2_integer<T>(n - half);
#endif
}

template <class T>
CISDL_INLINE Vec<T> exp(Vec<T> x) {
  using C = ExpConstants<T>;
  const ExpParts<T> e = exp_parts<T>(at_most<T>(at_least<T>(x, set1(C::kLowest)), set1(C::kHighest)));
  return scale_by_exp2<T>(e.expm1_r + set1(T(1)), e.n);
}

template <class T>
CISDL_INLINE Vec<T> abs(Vec<T> x) {
  return (Vec<T>)((Mask<T>)x & ~(Mask<T>)set1(T(-0.0)));
}

// n / d for 1 <= d < 2^60 and |n| <= d, to 1 ulp: where the division is slow, an approximate reciprocal that one
// step of Newton's makes exact to 28 bits, and the remainder divided by it once more.
template <class T>
CISDL_INLINE Vec<T> quotient(Vec<T> n, Vec<T> d) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> r0 = (Vec<T>)_mm512_maskz_rcp14_ps(static_cast<__mmask16>(-1), (__m512)d);
    const Vec<T> r = r0 + r0 * (set1(T(1)) - d * r0);
    const Vec<T> q = n * r;
    return q + r * (n - q * d);
  }
#endif
  return n / d;
}

// 1 / (1 + exp(-x)), through exp(-|x|), which cannot overflow and keeps small results accurate.
template <class T>
CISDL_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> one = set1(T(1));
  const Vec<T> z = exp<T>(-abs<T>(x));
  return quotient<T>(x < zero<T>() ? z : one, one + z);
}

// With e = exp(2|x|) - 1: tanh |x| = e / (e + 2). As e has a small relative error, so has tanh near 0.
template <class T>
CISDL_INLINE Vec<T> tanh(Vec<T> x) {
  const Vec<T> largest = set1(ExpConstants<T>::kTanhIsOne);
  const Vec<T> y = at_most<T>(abs<T>(x), largest);
  const ExpParts<T> parts = exp_parts<T>(y + y);
  const Vec<T> s = exp2_integer<T>(parts.n);
  const Vec<T> e = s * parts.expm1_r + (s - set1(T(1)));
  const Vec<T> t = quotient<T>(e, e + set1(T(2)));
  const Mask<T> sign = (Mask<T>)x & (Mask<T>)set1(T(-0.0));
  return (Vec<T>)((Mask<T>)t | sign);
}

}  // namespace
}  // namespace cisdl
