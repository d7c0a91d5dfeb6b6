// What a value of a recurrent step is (common/recurrent_steps.h) on the CPU: a vector of hidden units, or one.
#pragma once

#include "../common/recurrent_steps.h"
#include "lstm_cell_plain.h"
#include "simd_math.h"

namespace cisdl {
namespace {

template <class T>
struct Lanes {
  using Value = Vec<T>;
  static constexpr int64_t kCount = kWidth<T>;
  static CISDL_INLINE Value load(const T* p, int64_t count) { return load_up_to(p, count); }
  static CISDL_INLINE void store(T* p, Value v, int64_t count) { store_up_to(p, v, count); }
  static CISDL_INLINE Value sigmoid(Value x) { return cisdl::sigmoid<T>(x); }
  static CISDL_INLINE Value tanh(Value x) { return cisdl::tanh<T>(x); }
};

// Two vectors side by side: their chains of dependent operations overlap, so the functions take half the time.
template <class T>
struct LanePair {
  struct Value {
    Vec<T> a, b;
    friend CISDL_INLINE Value operator+(Value x, Value y) { return {x.a + y.a, x.b + y.b}; }
    friend CISDL_INLINE Value operator-(Value x, Value y) { return {x.a - y.a, x.b - y.b}; }
    friend CISDL_INLINE Value operator*(Value x, Value y) { return {x.a * y.a, x.b * y.b}; }
    friend CISDL_INLINE Value operator-(T x, Value y) { return {set1(x) - y.a, set1(x) - y.b}; }
  };
  static constexpr int64_t kCount = 2 * kWidth<T>;
  static CISDL_INLINE Value load(const T* p, int64_t) { return {cisdl::load(p), cisdl::load(p + kWidth<T>)}; }
  static CISDL_INLINE void store(T* p, Value v, int64_t) {
    cisdl::store(p, v.a);
    cisdl::store(p + kWidth<T>, v.b);
  }
  static CISDL_INLINE Value sigmoid(Value x) { return {cisdl::sigmoid<T>(x.a), cisdl::sigmoid<T>(x.b)}; }
  static CISDL_INLINE Value tanh(Value x) { return {cisdl::tanh<T>(x.a), cisdl::tanh<T>(x.b)}; }
};

template <class T>
struct Plain {
  using Value = T;
  static constexpr int64_t kCount = 1;
  static CISDL_INLINE Value load(const T* p, int64_t) { return *p; }
  static CISDL_INLINE void store(T* p, Value v, int64_t) { *p = v; }
  static CISDL_INLINE Value sigmoid(Value x) { return plain_sigmoid(x); }
  static CISDL_INLINE Value tanh(Value x) { return plain_tanh(x); }
};

}  // namespace
}  // namespace cisdl
