// bfloat16 and float16: InFloat32<f>::call runs an op's kernel function f on float32 copies and rounds its results
// once, so every sum is formed in float32.
//
// Only tensors that all have the same reduced type are converted; anything else goes to f as it is, whose checks
// then refuse a mixture in the usual words.
#pragma once

#include "common.h"

namespace cisdl::ops {
namespace reduced_precision {

inline void collect(const Tensor& t, bool& any, bool& all_alike, at::ScalarType& type) {
  if (!t.defined() || !t.is_floating_point()) return;
  if (!any) type = t.scalar_type();
  any = true;
  all_alike = all_alike && t.scalar_type() == type;
}
inline void collect(const optional<Tensor>& t, bool& any, bool& all_alike, at::ScalarType& type) {
  if (t) collect(*t, any, all_alike, type);
}
template <class Other>
void collect(const Other&, bool&, bool&, at::ScalarType&) {}

inline Tensor cast(const Tensor& t, at::ScalarType type) {
  return t.defined() && t.is_floating_point() ? t.to(type) : t;
}
inline optional<Tensor> cast(const optional<Tensor>& t, at::ScalarType type) {
  return t ? optional<Tensor>(cast(*t, type)) : std::nullopt;
}
template <class Other>
const Other& cast(const Other& value, at::ScalarType) {
  return value;
}
template <class... Ts>
std::tuple<Ts...> cast(const std::tuple<Ts...>& values, at::ScalarType type) {
  return std::apply([&](const Ts&... each) { return std::tuple<Ts...>(cast(each, type)...); }, values);
}

}  // namespace reduced_precision

template <auto f>
struct InFloat32;

template <class Result, class... Args, Result (*f)(Args...)>
struct InFloat32<f> {
  static Result call(Args... args) {
    bool any = false, all_alike = true;
    at::ScalarType type = at::kFloat;
    (reduced_precision::collect(args, any, all_alike, type), ...);
    if (!all_alike || !is_reduced_precision(type)) return f(args...);
    return reduced_precision::cast(f(reduced_precision::cast(args, at::kFloat)...), type);
  }
};

}  // namespace cisdl::ops
