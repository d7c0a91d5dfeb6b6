// Recurrent layers on a GPU: the products over all steps by cisdl::linear, the steps by one kernel that keeps W_hh
// in registers (csrc/cuda/recurrence.cuh). Each layer tries this first; what does not fit goes step by step
// (recurrent.h), bfloat16 and float16 by way of float32.
#pragma once

#include "../common/recurrences.h"
#include "recurrent.h"
#include "tensor_cores.h"

namespace cisdl::ops {

// What a layer in training keeps, and what it gives; undefined where a cell or inference has none.
struct RecurrenceResults {
  Tensor output, h_n, c_n, gates, kept;  // kept: c_before of an LSTM, h_part_n of a GRU
};

// What arrives in backward, and which gradients of states are wanted: those that are defined, to be written.
struct RecurrenceGradients {
  Tensor grad_output, grad_h_n, grad_c_n;
  Tensor grad_hx, grad_cx;
};

// Gradients of w_ih, w_hh, b_ih and b_hh, and of the input.
struct LayerGradientsWanted {
  bool input, w_ih, w_hh, b_ih, b_hh;
};
struct LayerGradientsGiven {
  Tensor input, w_ih, w_hh, b_ih, b_hh;
};

inline Tensor contiguous_or_undefined(const Optional& t) { return t && t->defined() ? t->contiguous() : Tensor(); }

#ifdef CISDL_WITH_CUDA
namespace recurrence {

// The sequences of a layer; none if they are more than a kernel can tell apart.
inline optional<Sequences> sequences_of(const RecurrentInputs& in, const RecurrentOptions& options) {
  const int64_t batch = in.hx.size(0), hidden = in.hx.size(1);
  Sequences s{batch, hidden, in.input.size(0), 0, options.reverse, options.batch_sizes.defined(), {}};
  if (batch == 0 || hidden == 0) return std::nullopt;
  if (!s.packed) {
    s.rows = s.steps * batch;
    return s;
  }
  if (batch > kMaxPackedSequences) return std::nullopt;
  const auto sizes = options.batch_sizes.accessor<int64_t, 1>();
  s.rows = in.input.size(0);
  s.steps = sizes.size(0);
  int64_t sequence = 0;  // the longest ones come first
  for (int64_t t = s.steps - 1; t >= 0; --t)
    for (; sequence < sizes[t]; ++sequence) s.lengths[sequence] = static_cast<int32_t>(t + 1);
  return s;
}

inline void* stream_of(const Tensor& on) {
  const c10::impl::VirtualGuardImpl impl(on.device().type());
  return impl.getStreamNativeHandle(impl.getStream(on.device()));
}

template <class Args>
void run_whole(Op op, const Tensor& on, const Args& args) {
  const char* error = cuda::run(args, stream_of(on));
  TORCH_CHECK(!error, op_name(op), ": CUDA kernel on ", on.device(), " failed: ", error);
  record_implementation(op, "cuda_recurrence");
}

inline const auto& linear_op() {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&)>("cisdl::linear");
  return op;
}

inline const auto& linear_backward_op() {
  static const auto op = find_op<std::tuple<Tensor, Tensor, Tensor>(
      const Tensor&, const Tensor&, const Tensor&, std::array<bool, 3>)>("cisdl::linear_backward");
  return op;
}

// f(T{}) with T the kernel's name of the element type; false for float64, which it does not take.
template <class F>
bool with_kernel_dtype(at::ScalarType type, F&& f) {
  if (type == at::kBFloat16) return f(cuda::BFloat16{});
  if (type == at::kHalf) return f(cuda::Float16{});
  return type == at::kFloat && f(float{});
}

}  // namespace recurrence
#endif

// Whether forward has been done. All tensors contiguous, on a GPU, and checked.
inline bool forward_in_one_kernel([[maybe_unused]] Op op, [[maybe_unused]] RecurrentCell cell,
                                  [[maybe_unused]] const RecurrentInputs& in, [[maybe_unused]] const Tensor& cx,
                                  [[maybe_unused]] const RecurrentOptions& options,
                                  [[maybe_unused]] const RecurrenceResults& results) {
#ifdef CISDL_WITH_CUDA
  const c10::DeviceGuard guard(in.input.device());
  const auto sequences = recurrence::sequences_of(in, options);
  return sequences && recurrence::with_kernel_dtype(in.input.scalar_type(), [&](auto t) {
           using T = decltype(t);
           RecurrenceForward<T> f{cell,
                                  options.nonlinearity,
                                  tf32_in_recurrences(),
                                  *sequences,
                                  nullptr,
                                  numbers_or_null<T>(in.hx),
                                  numbers_or_null<T>(cx),
                                  numbers_or_null<T>(in.w_hh),
                                  numbers_or_null<T>(in.b_hh),
                                  mutable_numbers_or_null<T>(results.output),
                                  mutable_numbers_or_null<T>(results.h_n),
                                  mutable_numbers_or_null<T>(results.c_n),
                                  mutable_numbers_or_null<T>(results.gates),
                                  mutable_numbers_or_null<T>(results.kept)};
           if (!cuda::fits(f)) return false;
           const Tensor x_part = recurrence::linear_op().call(in.input, in.w_ih, or_none(in.b_ih));
           f.x_part = numbers_or_null<T>(x_part);
           recurrence::run_whole(op, in.input, f);
           return true;
         });
#else
  return false;
#endif
}

// The gradients, or nothing. All tensors contiguous, on a GPU, and checked.
inline optional<LayerGradientsGiven> backward_in_one_kernel(
    [[maybe_unused]] Op op, [[maybe_unused]] RecurrentCell cell, [[maybe_unused]] const RecurrentInputs& in,
    [[maybe_unused]] const RecurrentOptions& options, [[maybe_unused]] const RecurrenceResults& saved,
    [[maybe_unused]] const RecurrenceGradients& grads, [[maybe_unused]] const LayerGradientsWanted& wanted) {
#ifdef CISDL_WITH_CUDA
  const c10::DeviceGuard guard(in.input.device());
  const auto sequences = recurrence::sequences_of(in, options);
  if (!sequences) return std::nullopt;
  IntVector shape = owned(saved.output.sizes());
  shape.back() = gates_of(cell) * sequences->hidden_size;
  Tensor grad_h_part, grad_x_part, h_before;
  const bool done = recurrence::with_kernel_dtype(in.input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    RecurrenceBackward<T> b{cell,
                            options.nonlinearity,
                            tf32_in_recurrences(),
                            *sequences,
                            numbers_or_null<T>(grads.grad_output),
                            numbers_or_null<T>(grads.grad_h_n),
                            numbers_or_null<T>(grads.grad_c_n),
                            numbers_or_null<T>(in.w_hh),
                            numbers_or_null<T>(in.hx),
                            numbers_or_null<T>(saved.output),
                            numbers_or_null<T>(saved.gates),
                            numbers_or_null<T>(saved.kept),
                            nullptr,
                            nullptr,
                            nullptr,
                            mutable_numbers_or_null<T>(grads.grad_hx),
                            mutable_numbers_or_null<T>(grads.grad_cx)};
    if (!cuda::fits(b)) return false;
    grad_h_part = at::empty(shape, in.input.options());
    grad_x_part = cell == RecurrentCell::gru ? at::empty(shape, in.input.options()) : grad_h_part;
    if (wanted.w_hh) h_before = at::empty(saved.output.sizes(), in.input.options());
    b.grad_h_part = mutable_numbers_or_null<T>(grad_h_part);
    b.grad_x_part = mutable_numbers_or_null<T>(grad_x_part);
    b.h_before = mutable_numbers_or_null<T>(h_before);
    recurrence::run_whole(op, in.input, b);
    return true;
  });
  if (!done) return std::nullopt;
  LayerGradientsGiven given;
  const bool one_bias = cell != RecurrentCell::gru;  // both have the same gradient
  const std::array<bool, 3> of_x{wanted.input, wanted.w_ih, wanted.b_ih || (one_bias && wanted.b_hh)};
  const std::array<bool, 3> of_h{false, wanted.w_hh, !one_bias && wanted.b_hh};
  const auto& products = recurrence::linear_backward_op();
  if (of_x[0] || of_x[1] || of_x[2])
    std::tie(given.input, given.w_ih, given.b_ih) = products.call(grad_x_part, in.input, in.w_ih, of_x);
  if (of_h[1] || of_h[2])
    std::tie(std::ignore, given.w_hh, given.b_hh) =
        products.call(grad_h_part, h_before.defined() ? h_before : saved.output, in.w_hh, of_h);
  if (one_bias && wanted.b_hh) {
    given.b_hh = wanted.b_ih ? given.b_ih.clone() : given.b_ih;
    if (!wanted.b_ih) given.b_ih = Tensor();
  }
  return given;
#else
  return std::nullopt;
#endif
}

}  // namespace cisdl::ops
