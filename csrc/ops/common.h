// What every op needs around its kernel: checks that name the argument, sizes that may be symbolic, threads and
// the device. Derivatives are in autograd.h, float16 and bfloat16 in reduced_precision.h.
//
// An op is written once for three callers. `check_*` and the shape formulas are templates over the integer:
// int64_t for real tensors, c10::SymInt for the Meta kernel, which torch.compile and FakeTensor run with
// symbolic sizes. So a fake tensor is refused for the same reasons, with the same words, as a real one.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/SymInt.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <tuple>
#include <type_traits>
#ifdef CISDL_STD_THREADS
#include <thread>
#include <vector>
#endif

#include "../common/problems.h"
#include "../cpu/tuning.h"
#include "large_blocks.h"
#ifdef CISDL_WITH_CUDA
#include "../cuda/kernels.h"
#endif

namespace cisdl::ops {

using at::Tensor;
using std::optional;
using IntVector = c10::SmallVector<int64_t, 4>;

inline IntVector owned(at::IntArrayRef v) { return {v.begin(), v.end()}; }

inline Tensor or_undefined(const optional<Tensor>& t) { return t.value_or(Tensor()); }
inline optional<Tensor> or_none(const Tensor& t) { return t.defined() ? optional<Tensor>(t) : std::nullopt; }

// ------------------------------------------------------------------------------------------------ sizes

template <class I>
c10::ArrayRef<I> sizes_of(const Tensor& t) {
  if constexpr (std::is_same_v<I, c10::SymInt>) {
    return t.sym_sizes();
  } else {
    return t.sizes();
  }
}

// Asks for huge pages under a large tensor that is about to be written. Memory of this size comes fresh from the
// system at every call, and its page faults cost more than what is written into it: 2.7 times faster with pages of
// 2 MiB (33 to 151 MiB). A hint, of no effect where it is unknown, refused or given twice.
inline const Tensor& on_huge_pages(const Tensor& t) {
#ifdef MADV_HUGEPAGE
  constexpr size_t kLeast = 4 << 20, kPage = 4096;
  const size_t bytes = t.nbytes();
  if (bytes >= kLeast && t.device().is_cpu()) {
    const auto begin = (reinterpret_cast<uintptr_t>(t.mutable_data_ptr()) + kPage - 1) / kPage * kPage;
    const auto end = (reinterpret_cast<uintptr_t>(t.mutable_data_ptr()) + bytes) / kPage * kPage;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
  return t;
}

template <class I>
Tensor empty_of(c10::ArrayRef<I> sizes, const Tensor& like,
                at::MemoryFormat format = at::MemoryFormat::Contiguous) {
  if constexpr (std::is_same_v<I, c10::SymInt>) {
    return at::empty_symint(sizes, like.options(), format);
  } else {
    size_t bytes = like.element_size();
    for (const int64_t size : sizes) bytes *= static_cast<size_t>(size);
    if (bytes >= kLargeBytes && like.device().is_cpu())
      return at::detail::empty_generic(sizes, large_blocks(), c10::DispatchKeySet(c10::DispatchKey::CPU),
                                       like.scalar_type(), format);
    return on_huge_pages(at::empty(sizes, like.options(), format));
  }
}

// An image tensor [N, C, H, W], or [C, H, W] taken as a batch of one.
template <class I>
struct ImageSizes {
  I n, c, h, w;
  bool batched;

  // The same kind of tensor (batched or not) with other channels and size.
  c10::SmallVector<I, 4> with(const I& channels, const I& height, const I& width) const {
    if (batched) return {n, channels, height, width};
    return {channels, height, width};
  }
};

template <class I>
ImageSizes<I> image_sizes(const char* op, const char* name, c10::ArrayRef<I> s) {
  TORCH_CHECK(s.size() == 4 || s.size() == 3, op, ": ", name, ": expected shape [N, C, H, W] or [C, H, W], got ",
              s);
  if (s.size() == 4) return {s[0], s[1], s[2], s[3], true};
  return {I(1), s[0], s[1], s[2], false};
}

// A tensor [channels] as one of y's shape, [N, C, H, W] or [C, H, W].
inline Tensor spread_channels(const Tensor& channels, const Tensor& y) {
  return channels.view({-1, 1, 1}).expand_as(y);
}

inline bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && t.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
}

inline at::MemoryFormat memory_format(bool channels_last) {
  return channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

inline Layout layout_of(bool channels_last) { return channels_last ? Layout::nhwc : Layout::nchw; }

// ----------------------------------------------------------------------------------------------- checks

inline const char* dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kLong:
      return "int64";
    case at::kInt:
      return "int32";
    case at::kShort:
      return "int16";
    case at::kChar:
      return "int8";
    case at::kByte:
      return "uint8";
    case at::kBool:
      return "bool";
    case at::kComplexFloat:
      return "complex64";
    case at::kComplexDouble:
      return "complex128";
    default:
      return c10::toString(type);
  }
}

inline bool is_reduced_precision(at::ScalarType type) { return type == at::kHalf || type == at::kBFloat16; }

inline void check_dtype(const char* op, const char* name, const Tensor& t) {
  const at::ScalarType type = t.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble || is_reduced_precision(type), op, ": ", name,
              ": expected dtype float32, float64, bfloat16 or float16, got ", dtype_name(type));
}

// t must have the dtype and device of `like`.
inline void check_like(const char* op, const char* name, const Tensor& t, const char* like_name,
                       const Tensor& like) {
  TORCH_CHECK(t.scalar_type() == like.scalar_type(), op, ": ", name, ": expected dtype ",
              dtype_name(like.scalar_type()), " as ", like_name, ", got ", dtype_name(t.scalar_type()));
  TORCH_CHECK(t.device() == like.device(), op, ": ", name, ": expected device ", like.device(), " as ", like_name,
              ", got ", t.device());
}

template <class I>
void check_shape(const char* op, const char* name, const Tensor& t, c10::ArrayRef<I> expected) {
  const auto got = sizes_of<I>(t);
  TORCH_CHECK(got.equals(expected), op, ": ", name, ": expected shape ", expected, ", got ", got);
}

// Two integers, each at least `least`: stride, dilation, kernel_size, padding. The upper limit keeps the sums and
// products of the shape formulas within int64.
inline void check_pair(const char* op, const char* name, at::IntArrayRef v, int64_t least) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TORCH_CHECK(v.size() == 2 && std::min(v[0], v[1]) >= least && std::max(v[0], v[1]) <= kMost, op, ": ", name,
              ": expected two integers from ", least, " to ", kMost, ", got ", v);
}

// As check_pair bounds its numbers: channels times groups must not overflow, not even where there are none.
inline void check_groups(const char* op, int64_t groups) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TORCH_CHECK(groups >= 1 && groups <= kMost, op, ": groups: expected an integer from 1 to ", kMost, ", got ",
              groups);
}

// ---------------------------------------------------------------------------------------------- running

#ifdef CISDL_STD_THREADS
// For the thread sanitizer, which cannot see that OpenMP's barriers order anything: the same ranges as
// at::parallel_for's, each on a thread that starts and ends here.
inline Parallel torch_threads() {
  return {at::get_num_threads(), [](int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* arg) {
            const int64_t most = std::max<int64_t>(1, (n + grain - 1) / std::max<int64_t>(1, grain));
            const int64_t threads = std::min<int64_t>(at::get_num_threads(), most);
            const int64_t chunk = (n + threads - 1) / threads;
            std::vector<std::thread> others;
            for (int64_t begin = chunk; begin < n; begin += chunk)
              others.emplace_back(body, arg, begin, std::min(begin + chunk, n));
            body(arg, 0, std::min(chunk, n));
            for (std::thread& other : others) other.join();
          }};
}
#else
inline Parallel torch_threads() {
  return {at::in_parallel_region() ? 1 : at::get_num_threads(),
          [](int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* arg) {
            at::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { body(arg, begin, end); });
          }};
}
#endif

#ifdef CISDL_WITH_CUDA
// Enqueues our CUDA kernel on the current stream of the device of `on`.
template <class Args>
void run_on_gpu(const char* op, const Tensor& on, const Args& args) {
  const c10::impl::VirtualGuardImpl impl(on.device().type());
  const c10::DeviceGuard guard(on.device());
  void* stream = impl.getStreamNativeHandle(impl.getStream(on.device()));
  const char* error = nullptr;
  if constexpr (requires { cuda::scratch_bytes(args); }) {
    const int64_t bytes = cuda::scratch_bytes(args);
    const Tensor scratch = bytes > 0 ? at::empty({bytes}, on.options().dtype(at::kByte)) : Tensor();
    error = cuda::run(args, bytes > 0 ? scratch.mutable_data_ptr() : nullptr, stream);
  } else {
    error = cuda::run(args, stream);
  }
  TORCH_CHECK(!error, op, ": CUDA kernel on ", on.device(), " failed: ", error);
}

template <class Args>
void run_on_gpu(Op op, const Tensor& on, const Args& args) {
  if (const char* forced = forced_on_gpu(op); forced && !same_name(forced, "cuda")) cannot_force(op, forced, true);
  run_on_gpu(op_name(op), on, args);
  record_implementation(op, "cuda");
}
#endif

// Runs a kernel where `on` lives: on the CPU the chosen implementation of `list`, on a GPU our CUDA kernel.
template <class Args>
void run(Op op, const Tensor& on, const ImplementationList<Args>& list, const Args& args) {
  if (on.device().is_cpu()) {
    const Parallel threads = torch_threads();
    tuning::choose_tuned(op, list, args, threads).run(args, threads);
    return;
  }
#ifdef CISDL_WITH_CUDA
  run_on_gpu(op, on, args);
#else
  TORCH_CHECK(false, op_name(op), ": expected a tensor on the cpu, got ", on.device(),
              " (this build has no CUDA kernels; install nvcc and rebuild with: pip install --no-build-isolation "
              "--no-deps -e .)");
#endif
}

// Calls f(T{}) with T the element type.
template <class F>
void with_dtype(at::ScalarType type, F&& f) {
  if (type == at::kFloat) {
    f(float{});
  } else {
    f(double{});
  }
}

template <class T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.const_data_ptr<T>() : nullptr;
}

template <class T>
T* mutable_or_null(const Tensor& t) {
  return t.defined() ? t.mutable_data_ptr<T>() : nullptr;
}

// Typed handle of an op, looked up once.
template <class Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace cisdl::ops

// Registers the same functions for every device: they reach it through run(), which refuses a GPU in a sentence
// where the build has no CUDA kernels.
#define CISDL_REGISTER_KERNELS(register_with)             \
  TORCH_LIBRARY_IMPL(cisdl, CPU, m) { register_with(m); } \
  TORCH_LIBRARY_IMPL(cisdl, CUDA, m) { register_with(m); }
