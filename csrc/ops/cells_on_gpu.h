// GRU and RNN cells in bfloat16 and float16 on a GPU's tensor cores: what both share. Each of their functions
// gives nothing where tensor cores do not take the problem; then the cell goes by way of float32 copies.
#pragma once

#include "recurrent.h"
#include "tensor_cores.h"

#ifdef CISDL_WITH_CUDA
#include "../common/recurrent_cells.h"
#endif

namespace cisdl::ops {

inline bool may_be_cell_on_tensor_cores(const RecurrentInputs& in) {
  return is_reduced_precision(in.input.scalar_type()) && in.hx.numel() > 0 &&
         may_be_on_tensor_cores(in.input, false, in.input.size(-1)) &&
         may_be_on_tensor_cores(in.input, false, in.hx.size(-1));
}

// Runs the cell make(T{}), T the 16-bit element type of `on`, if it is one for tensor cores; else does nothing and
// is false.
template <class Make>
bool cell_on_tensor_cores(Op op, const Tensor& on, const Make& make) {
#ifdef CISDL_WITH_CUDA
  const auto run = [&](const auto& args) {
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
  };
  if (on.device().is_cuda() && on.scalar_type() == at::kBFloat16) return run(make(cuda::BFloat16{}));
  if (on.device().is_cuda() && on.scalar_type() == at::kHalf) return run(make(cuda::Float16{}));
#else
  (void)op, (void)on, (void)make;
#endif
  return false;
}

#ifdef CISDL_WITH_CUDA
// Calls run(T{}) with the 16-bit type of `on`.
template <class Run>
void with_16_bits(const Tensor& on, const Run& run) {
  on.scalar_type() == at::kBFloat16 ? run(cuda::BFloat16{}) : run(cuda::Float16{});
}

inline CellProblem cell_problem(const RecurrentInputs& in) {
  return {in.input.size(0), in.input.size(1), in.hx.size(1)};
}

// What follows from grad_part, the gradient of the product x weight^T + bias; those that are defined. Whether
// tensor cores take it.
inline bool part_gradients(const Tensor& grad_part, const Tensor& x, const Tensor& weight, const Tensor& grad_x,
                           const Tensor& grad_weight, const Tensor& grad_bias) {
  const LinearProblem p{x.size(0), weight.size(1), weight.size(0)};
  bool done = true;
  if (grad_weight.defined() || grad_bias.defined())
    done = on_tensor_cores(Op::linear_backward_weight, x, false, [&](auto t) {
      using T = decltype(t);
      return LinearBackwardWeight<T>{p, numbers_or_null<T>(grad_part), numbers_or_null<T>(x),
                                     mutable_numbers_or_null<T>(grad_weight),
                                     mutable_numbers_or_null<T>(grad_bias)};
    });
  if (done && grad_x.defined())
    done = on_tensor_cores(Op::linear_backward_input, x, false, [&](auto t) {
      using T = decltype(t);
      return LinearBackwardInput<T>{p, numbers_or_null<T>(grad_part), numbers_or_null<T>(weight),
                                    mutable_numbers_or_null<T>(grad_x)};
    });
  return done;
}
#endif

}  // namespace cisdl::ops
