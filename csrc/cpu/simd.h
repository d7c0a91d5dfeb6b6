// One thin vector type for every instruction set: GCC/Clang vector extensions, as wide as the ISA's registers.
//
// `Vec<T>` is W lanes of float or double; arithmetic operators work as they are, and a*b+c becomes one FMA
// (the build passes -ffp-contract=fast). Broadcast with set1, never `Vec{} + x`: adding zero is not free, signed
// zeros forbid the compiler to fold it. Everything has internal linkage, see kernels.h.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "sanitizer.h"

#define CISDL_INLINE inline __attribute__((always_inline))
// For arithmetic whose bits must not depend on who calls it: of two inlined copies the compiler may fuse different
// multiplications and additions.
#define CISDL_NOINLINE __attribute__((noinline))

namespace cisdl {
namespace {

#if defined(__AVX512F__)
constexpr int kVecBytes = 64;
constexpr int kNumRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVecBytes = 32;
constexpr int kNumRegisters = 16;
#elif defined(__ARM_NEON)
constexpr int kVecBytes = 16;
constexpr int kNumRegisters = 32;
#else
constexpr int kVecBytes = 16;
constexpr int kNumRegisters = 16;
#endif

template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(kVecBytes)));
  typedef int32_t mask __attribute__((vector_size(kVecBytes)));  // what a comparison gives: 0 or -1 a lane
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVecBytes)));
  typedef int64_t mask __attribute__((vector_size(kVecBytes)));
};

template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
using Mask = typename VecOf<T>::mask;
template <class T>
constexpr int kWidth = kVecBytes / static_cast<int>(sizeof(T));

template <class T>
CISDL_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
CISDL_INLINE void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}

template <class T>
CISDL_INLINE Vec<T> zero() {
  return Vec<T>{};
}

#if defined(__AVX512F__)
CISDL_INLINE Vec<float> set1(float x) { return (Vec<float>)_mm512_set1_ps(x); }
CISDL_INLINE Vec<double> set1(double x) { return (Vec<double>)_mm512_set1_pd(x); }
#elif defined(__AVX2__)
CISDL_INLINE Vec<float> set1(float x) { return (Vec<float>)_mm256_set1_ps(x); }
CISDL_INLINE Vec<double> set1(double x) { return (Vec<double>)_mm256_set1_pd(x); }
#elif defined(__SSE2__)
CISDL_INLINE Vec<float> set1(float x) { return (Vec<float>)_mm_set1_ps(x); }
CISDL_INLINE Vec<double> set1(double x) { return (Vec<double>)_mm_set1_pd(x); }
#elif defined(__ARM_NEON)
CISDL_INLINE Vec<float> set1(float x) { return (Vec<float>)vdupq_n_f32(x); }
CISDL_INLINE Vec<double> set1(double x) { return (Vec<double>)vdupq_n_f64(x); }
#else
CISDL_INLINE Vec<float> set1(float x) { return Vec<float>{x, x, x, x}; }
CISDL_INLINE Vec<double> set1(double x) { return Vec<double>{x, x}; }
#endif

// The first `bytes` of a vector, in pieces of fixed size: a memcpy of unknown size would be a call.
CISDL_INLINE void copy_partial(char* to, const char* from, int64_t bytes) {
#pragma GCC unroll 8
  for (int64_t piece = kVecBytes; piece >= 4; piece /= 2)
    if (bytes & piece) {
      std::memcpy(to, from, static_cast<size_t>(piece));
      to += piece;
      from += piece;
    }
}

// The first n lanes (0 <= n <= W) from memory, zero in the rest; touches no byte past them.
template <class T>
CISDL_INLINE Vec<T> load_partial(const T* p, int64_t n) {
  reads(p, n * static_cast<int64_t>(sizeof(T)));
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
  } else {
    return (Vec<T>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1u), p);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (Vec<T>)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane));
  } else {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return (Vec<T>)_mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), lane));
  }
#else
  Vec<T> v{};
  copy_partial(reinterpret_cast<char*>(&v), reinterpret_cast<const char*>(p), n * static_cast<int64_t>(sizeof(T)));
  return v;
#endif
}

template <class T>
CISDL_INLINE void store_partial(T* p, Vec<T> v, int64_t n) {
  writes(p, n * static_cast<int64_t>(sizeof(T)));
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), (__m512)v);
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1u), (__m512d)v);
  }
#else
  copy_partial(reinterpret_cast<char*>(p), reinterpret_cast<const char*>(&v), n * static_cast<int64_t>(sizeof(T)));
#endif
}

// The first n lanes, or all W if n is more.
template <class T>
CISDL_INLINE Vec<T> load_up_to(const T* p, int64_t n) {
  return n >= kWidth<T> ? load(p) : load_partial(p, n);
}

template <class T>
CISDL_INLINE void store_up_to(T* p, Vec<T> v, int64_t n) {
  if (n >= kWidth<T>)
    store(p, v);
  else
    store_partial(p, v, n);
}

// Lane by lane: mask ? a : b.
template <class T>
CISDL_INLINE Vec<T> select(Mask<T> mask, Vec<T> a, Vec<T> b) {
  return mask ? a : b;
}

// Lane by lane the larger of v and `least`, and the smaller of v and `most`; a NaN in v stays: on x86 that is what
// one instruction does whose second operand is v (masked: g++ 12 takes the operand that the plain one leaves open
// for an uninitialised variable).
template <class T>
CISDL_INLINE Vec<T> at_least(Vec<T> v, Vec<T> least) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_max_ps(static_cast<__mmask16>(-1), (__m512)least, (__m512)v);
  else
    return (Vec<T>)_mm512_maskz_max_pd(static_cast<__mmask8>(-1), (__m512d)least, (__m512d)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_max_ps((__m256)least, (__m256)v);
  else
    return (Vec<T>)_mm256_max_pd((__m256d)least, (__m256d)v);
#else
  return v < least ? least : v;
#endif
}

template <class T>
CISDL_INLINE Vec<T> at_most(Vec<T> v, Vec<T> most) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_min_ps(static_cast<__mmask16>(-1), (__m512)most, (__m512)v);
  else
    return (Vec<T>)_mm512_maskz_min_pd(static_cast<__mmask8>(-1), (__m512d)most, (__m512d)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_min_ps((__m256)most, (__m256)v);
  else
    return (Vec<T>)_mm256_min_pd((__m256d)most, (__m256d)v);
#else
  return v > most ? most : v;
#endif
}

template <class T>
CISDL_INLINE T sum_lanes(Vec<T> v) {  // in a fixed order
  alignas(kVecBytes) T lanes[kWidth<T>];
  store(lanes, v);
  for (int step = kWidth<T> / 2; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  return lanes[0];
}

}  // namespace
}  // namespace cisdl
