// What the vector kernels of pooling share: the running maximum with its index, moves between neighbouring
// lanes for stride 2, and window indices between bytes in memory and lanes in registers.
#pragma once

#include <limits>
#include <type_traits>

#include "kernels.h"
#include "simd.h"

namespace cisdl {
namespace {

// An index vector in memory: one byte, or one int64, for each lane of Vec<T>.
template <class T>
struct IndexLanes {
  typedef uint8_t bytes __attribute__((vector_size(kWidth<T>)));
  typedef int64_t longs __attribute__((vector_size(kWidth<T> * 8)));
};

template <class T>
CISDL_INLINE Mask<T> set1_code(int64_t x) {
  using Int = std::remove_reference_t<decltype(Mask<T>{}[0])>;
  return static_cast<Int>(x) - Mask<T>{};
}

// 0, 1, 2, ...
template <class T>
CISDL_INLINE Mask<T> iota() {
  Mask<T> v;
  for (int i = 0; i < kWidth<T>; ++i) v[i] = i;
  return v;
}

// The best value so far of each lane and its code. A greater value replaces it, an equal one does not; a NaN
// always does.
template <class T, bool WithCode>
struct RunningMax {
  Vec<T> best;
  Mask<T> code;

  CISDL_INLINE void start(Mask<T> first_code) {
    best = set1(-std::numeric_limits<T>::infinity());
    code = first_code;
  }

  CISDL_INLINE void update(Vec<T> v, Mask<T> v_code) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      const __m512 x = (__m512)v, b = (__m512)best;
      const __mmask16 better = _mm512_cmp_ps_mask(x, b, _CMP_GT_OQ) | _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
      best = (Vec<T>)_mm512_mask_mov_ps(b, better, x);
      if constexpr (WithCode) code = (Mask<T>)_mm512_mask_mov_epi32((__m512i)code, better, (__m512i)v_code);
    } else {
      const __m512d x = (__m512d)v, b = (__m512d)best;
      const __mmask8 better = _mm512_cmp_pd_mask(x, b, _CMP_GT_OQ) | _mm512_cmp_pd_mask(x, x, _CMP_UNORD_Q);
      best = (Vec<T>)_mm512_mask_mov_pd(b, better, x);
      if constexpr (WithCode) code = (Mask<T>)_mm512_mask_mov_epi64((__m512i)code, better, (__m512i)v_code);
    }
#else
    const Mask<T> better = (v > best) | (v != v);
    best = better ? v : best;
    if constexpr (WithCode) code = better ? v_code : code;
#endif
  }

  // max(0, best); a NaN stays. Where that is 0 the code becomes `none`.
  CISDL_INLINE void rectify(int64_t none) {
    const Mask<T> off = best <= zero<T>();
    best = off ? zero<T>() : best;
    if constexpr (WithCode) code = off ? set1_code<T>(none) : code;
  }
};

// acc + (index == code ? v : 0), lane by lane.
template <class T>
CISDL_INLINE Vec<T> add_where(Vec<T> acc, Mask<T> index, Mask<T> code, Vec<T> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const __mmask16 same = _mm512_cmpeq_epi32_mask((__m512i)index, (__m512i)code);
    return (Vec<T>)_mm512_mask_add_ps((__m512)acc, same, (__m512)acc, (__m512)v);
  } else {
    const __mmask8 same = _mm512_cmpeq_epi64_mask((__m512i)index, (__m512i)code);
    return (Vec<T>)_mm512_mask_add_pd((__m512d)acc, same, (__m512d)acc, (__m512d)v);
  }
#else
  return acc + (Vec<T>)((index == code) & (Mask<T>)v);
#endif
}

// Of the 2W values a, b: those at even and at odd places, and the other way round.
template <class T>
struct Pair {
  Vec<T> first, second;
};

template <class T>
CISDL_INLINE Vec<T> even_lanes(Vec<T> a, Vec<T> b) {
  if constexpr (kWidth<T> == 16)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  else if constexpr (kWidth<T> == 8)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
  else if constexpr (kWidth<T> == 4)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6);
  else
    return __builtin_shufflevector(a, b, 0, 2);
}

template <class T>
CISDL_INLINE Vec<T> odd_lanes(Vec<T> a, Vec<T> b) {
  if constexpr (kWidth<T> == 16)
    return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  else if constexpr (kWidth<T> == 8)
    return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  else if constexpr (kWidth<T> == 4)
    return __builtin_shufflevector(a, b, 1, 3, 5, 7);
  else
    return __builtin_shufflevector(a, b, 1, 3);
}

template <class T>
CISDL_INLINE Pair<T> interleave(Vec<T> even, Vec<T> odd) {
  if constexpr (kWidth<T> == 16)
    return {__builtin_shufflevector(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
            __builtin_shufflevector(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)};
  else if constexpr (kWidth<T> == 8)
    return {__builtin_shufflevector(even, odd, 0, 8, 1, 9, 2, 10, 3, 11),
            __builtin_shufflevector(even, odd, 4, 12, 5, 13, 6, 14, 7, 15)};
  else if constexpr (kWidth<T> == 4)
    return {__builtin_shufflevector(even, odd, 0, 4, 1, 5), __builtin_shufflevector(even, odd, 2, 6, 3, 7)};
  else
    return {__builtin_shufflevector(even, odd, 0, 2), __builtin_shufflevector(even, odd, 1, 3)};
}

// W values Stride apart from p on; reads nothing past the last of them. Stride 0: `stride`, known at run time.
template <class T, int Stride>
CISDL_INLINE Vec<T> load_strided(const T* p, int64_t stride) {
  if constexpr (Stride == 1) {
    return load(p);
  } else if constexpr (Stride == 2) {
    // the second load starts one early so that it ends on the last value wanted
    const Vec<T> a = load(p), b = load(p + kWidth<T> - 1);
    constexpr int W = kWidth<T>;
    if constexpr (W == 16)
      return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
    else if constexpr (W == 8)
      return __builtin_shufflevector(a, b, 0, 2, 4, 6, 9, 11, 13, 15);
    else if constexpr (W == 4)
      return __builtin_shufflevector(a, b, 0, 2, 5, 7);
    else
      return __builtin_shufflevector(a, b, 0, 3);
  } else {
    Vec<T> v;
    for (int i = 0; i < kWidth<T>; ++i) v[i] = p[i * stride];
    return v;
  }
}

// The W bytes at p, one in each lane; and back. (Compilers make scalar code of the general conversion.)
template <class T>
CISDL_INLINE Mask<T> widen_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Mask<T>)_mm512_maskz_cvtepu8_epi32(-1, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  else
    return (Mask<T>)_mm512_maskz_cvtepu8_epi64(-1, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Mask<T>)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  else
    return (Mask<T>)_mm256_cvtepu8_epi64(_mm_loadu_si32(p));
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) {
    const __m128i none = _mm_setzero_si128();
    return (Mask<T>)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_loadu_si32(p), none), none);
  } else {
    return Mask<T>{p[0], p[1]};
  }
#else
  typename IndexLanes<T>::bytes b;
  std::memcpy(&b, p, sizeof b);
  return __builtin_convertvector(b, Mask<T>);
#endif
}

template <class T>
CISDL_INLINE void narrow_to_bytes(uint8_t* p, Mask<T> v) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
    return;
  }
#elif defined(__SSE2__) && !defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m128i words = _mm_packs_epi32((__m128i)v, (__m128i)v);
    _mm_storeu_si32(p, _mm_packus_epi16(words, words));
    return;
  }
#endif
  const auto b = __builtin_convertvector(v, typename IndexLanes<T>::bytes);
  std::memcpy(p, &b, sizeof b);
}

// n window indices from bytes (n == W: all lanes), and to bytes.
template <class T>
CISDL_INLINE Mask<T> load_index(const uint8_t* p, int64_t n) {
  if (n == kWidth<T>) return widen_bytes<T>(p);
  uint8_t bytes[kWidth<T>] = {};
  for (int64_t i = 0; i < n; ++i) bytes[i] = p[i];
  return widen_bytes<T>(bytes);
}

template <class T>
CISDL_INLINE void store_index(uint8_t* p, Mask<T> code, int64_t n) {
  if (n == kWidth<T>) {
    narrow_to_bytes<T>(p, code);
    return;
  }
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    writes(p, n);
    _mm512_mask_cvtepi32_storeu_epi8(p, static_cast<__mmask16>((1u << n) - 1u), (__m512i)code);
    return;
  }
#endif
  uint8_t bytes[kWidth<T>];
  narrow_to_bytes<T>(bytes, code);
  for (int64_t i = 0; i < n; ++i) p[i] = bytes[i];
}

// The same for flat indices; a flat index is `base` plus the lane's code.
template <class T>
CISDL_INLINE Mask<T> load_index(const int64_t* p, int64_t n) {
  typename IndexLanes<T>::longs v{};
  if (n == kWidth<T>)
    std::memcpy(&v, p, sizeof v);
  else
    for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return __builtin_convertvector(v, Mask<T>);
}

template <class T>
CISDL_INLINE void store_index(int64_t* p, Mask<T> code, int64_t n) {
  const auto v = __builtin_convertvector(code, typename IndexLanes<T>::longs);
  if (n == kWidth<T>)
    std::memcpy(p, &v, sizeof v);
  else
    for (int64_t i = 0; i < n; ++i) p[i] = v[i];
}

// Codes left as they are in the lanes of Vec<float>.
template <class T>
CISDL_INLINE void store_index(int32_t* p, Mask<T> code, int64_t) {
  std::memcpy(p, &code, sizeof code);
}

template <PoolIndex Index>
struct IndexType {
  using type = uint8_t;
};
template <>
struct IndexType<PoolIndex::flat> {
  using type = int64_t;
};

// Lanes of float hold flat indices in 32 bits.
CISDL_INLINE bool plane_fits_lanes(const Pool2dProblem& p) {
  const int64_t limit = int64_t{1} << 30;
  return p.in_h * p.in_w < limit && p.kernel_h * p.dilation_h * p.in_w < limit;
}

}  // namespace
}  // namespace cisdl
