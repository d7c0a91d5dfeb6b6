// bfloat16 and float16: InFloat32<f>::call runs an op's kernel function f on float32 copies and rounds its results
// once, so every sum is formed in float32.
//
// InFloat32<f, on_gpu>::call asks on_gpu first where the tensors are on a GPU, of float32 too: it has f's
// arguments and gives a result or nothing (tensor_cores.h).
//
// NativeOnGpu<f>::call is for an op whose CUDA kernels take 16 bits as they are: there f gets the tensors
// themselves and runs with run_native.
//
// Only tensors that all have the same reduced type are converted; anything else goes to f as it is, whose checks
// then refuse a mixture in the usual words.
#pragma once

#include "common.h"

namespace cisdl::ops {
namespace reduced_precision {

struct Kind {
  bool any = false, all_alike = true;
  at::ScalarType type = at::kFloat;
  bool on_gpu = false;
};

inline void collect(const Tensor& t, Kind& kind) {
  if (!t.defined() || !t.is_floating_point()) return;
  if (!kind.any) {
    kind.type = t.scalar_type();
    kind.on_gpu = t.device().is_cuda();
  }
  kind.any = true;
  kind.all_alike = kind.all_alike && t.scalar_type() == kind.type;
}
inline void collect(const optional<Tensor>& t, Kind& kind) {
  if (t) collect(*t, kind);
}
template <class Other>
void collect(const Other&, Kind&) {}

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

template <auto f, auto on_gpu = nullptr>
struct InFloat32;

template <class Result, class... Args, Result (*f)(Args...), auto on_gpu>
struct InFloat32<f, on_gpu> {
  static Result call(Args... args) {
    reduced_precision::Kind kind;
    (reduced_precision::collect(args, kind), ...);
    if constexpr (!std::is_null_pointer_v<decltype(on_gpu)>) {
      if (kind.on_gpu && kind.all_alike && kind.type != at::kDouble)
        if (optional<Result> result = on_gpu(args...)) return *std::move(result);
    }
    if (!kind.all_alike || !is_reduced_precision(kind.type)) return f(args...);
    return reduced_precision::cast(f(reduced_precision::cast(args, at::kFloat)...), kind.type);
  }
};

template <auto f>
struct NativeOnGpu;

template <class Result, class... Args, Result (*f)(Args...)>
struct NativeOnGpu<f> {
  static Result call(Args... args) {
#ifdef CISDL_WITH_CUDA
    reduced_precision::Kind kind;
    (reduced_precision::collect(args, kind), ...);
    if (kind.on_gpu) return f(args...);
#endif
    return InFloat32<f>::call(args...);
  }
};

// Runs the problem make(T{}) where `on` lives, T its element type: float and double by what list(kernels of T)
// names, 16 bits, which are only here on a GPU, by the CUDA kernel.
template <template <class> class Kernels, class List, class Make>
void run_native(Op op, const Tensor& on, const Family<Kernels>& family, const List& list, const Make& make) {
#ifdef CISDL_WITH_CUDA
  if (on.scalar_type() == at::kBFloat16) return run_on_gpu(op, on, make(cuda::BFloat16{}));
  if (on.scalar_type() == at::kHalf) return run_on_gpu(op, on, make(cuda::Float16{}));
#endif
  with_dtype(on.scalar_type(), [&](auto t) { run(op, on, list(of_type<decltype(t)>(family)), make(t)); });
}

}  // namespace cisdl::ops
