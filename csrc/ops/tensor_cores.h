// Matrix products on a GPU's tensor cores: bfloat16 and float16 as they are, float32 as TF32 where torch's flags
// allow that (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32). Each op tries its products
// here first; what tensor cores do not take (csrc/cuda/kernels.h, mma_scratch) goes the way of float32.
#pragma once

#include <ATen/Context.h>

#include "common.h"

namespace cisdl::ops {

inline bool tf32_in_products() { return at::globalContext().allowTF32CuBLAS(); }
inline bool tf32_in_convolutions() { return at::globalContext().allowTF32CuDNN(at::Float32Op::CONV); }

template <class T>
const T* numbers_or_null(const Tensor& t) {
  return t.defined() ? static_cast<const T*>(t.const_data_ptr()) : nullptr;
}

template <class T>
T* mutable_numbers_or_null(const Tensor& t) {
  return t.defined() ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}

#ifdef CISDL_WITH_CUDA
// Scratch memory comes from torch's allocator, so a CUDA graph can capture the call.
template <class Args>
bool run_on_tensor_cores(Op op, const Tensor& on, const Args& args) {
  const c10::impl::VirtualGuardImpl impl(on.device().type());
  const c10::DeviceGuard guard(on.device());
  const int64_t size = cuda::mma_scratch(args);
  if (size < 0) return false;
  const Tensor scratch = size > 0 ? at::empty({size}, on.options().dtype(at::kByte)) : Tensor();
  void* stream = impl.getStreamNativeHandle(impl.getStream(on.device()));
  const char* error = cuda::run_mma(args, size > 0 ? scratch.mutable_data_ptr() : nullptr, stream);
  TORCH_CHECK(!error, op_name(op), ": CUDA kernel on ", on.device(), " failed: ", error);
  record_implementation(op, "cuda_mma");
  return true;
}
#endif

// Runs the product make(T{}), T the element type of `on`, if it is one for tensor cores; else does nothing and is
// false.
template <class Make>
bool on_tensor_cores(Op op, const Tensor& on, bool tf32, const Make& make) {
#ifdef CISDL_WITH_CUDA
  if (on.device().is_cuda()) {
    if (on.scalar_type() == at::kBFloat16) return run_on_tensor_cores(op, on, make(cuda::BFloat16{}));
    if (on.scalar_type() == at::kHalf) return run_on_tensor_cores(op, on, make(cuda::Float16{}));
    if (on.scalar_type() == at::kFloat && tf32) return run_on_tensor_cores(op, on, make(float{}));
  }
#else
  (void)op, (void)on, (void)tf32, (void)make;
#endif
  return false;
}

// Whether it is worth preparing a product for tensor cores: its type, and whole chunks of 16 bytes in a dense
// dimension.
inline bool may_be_on_tensor_cores(const Tensor& on, bool tf32, int64_t dense) {
  return dense > 0 && dense % (16 / on.element_size()) == 0 && (on.scalar_type() != at::kFloat || tf32);
}

// What `channels` become in 16 bits so that they are whole chunks: padded with zeros, which change no sum. Only
// where there are no groups, whose channels lie between each other.
inline int64_t whole_chunks(const Tensor& on, int64_t channels, int64_t groups) {
  const int64_t chunk = 16 / on.element_size();
  return is_reduced_precision(on.scalar_type()) && groups == 1 ? (channels + chunk - 1) / chunk * chunk : channels;
}

// t, in channels_last, with `count` entries in a dimension: zeros behind its own.
inline Tensor padded(const Tensor& t, int64_t dim, int64_t count) {
  if (t.size(dim) == count) return t;
  IntVector sizes = owned(t.sizes());
  sizes[dim] = count;
  const Tensor whole = at::empty(sizes, t.options(), at::MemoryFormat::ChannelsLast).zero_();
  whole.narrow(dim, 0, t.size(dim)).copy_(t);
  return whole;
}

// An image as tensor cores take it: [N, H, W, C] in memory, a batch of one if it has no batch.
inline Tensor in_channels_last(const Tensor& t) {
  return (t.dim() == 3 ? t.unsqueeze(0) : t).contiguous(at::MemoryFormat::ChannelsLast);
}

// And back: without the batch, or in another layout.
inline Tensor out_of_channels_last(const Tensor& t, bool batched, at::MemoryFormat format) {
  return batched ? t.contiguous(format) : t.squeeze(0).contiguous();
}

}  // namespace cisdl::ops
