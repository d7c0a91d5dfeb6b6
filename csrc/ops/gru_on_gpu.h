// The GRU's own kernels on a GPU: a whole layer in one, and cells of 16 bits on tensor cores. Each function
// answers nothing where its kernel does not apply; then gru.cpp goes on.
#pragma once

#include "cells_on_gpu.h"
#include "gru.h"
#include "recurrence.h"

namespace cisdl::ops {
namespace {

// ------------------------------------------------------------------------- layers in one kernel on a GPU

optional<Results> forward_on_gpu(const RecurrentInputs& args, const RecurrentOptions& options, bool training) {
  const Results r = check_forward<int64_t>("gru_layer", args, options, training);
  const RecurrenceResults results{r.output, r.h_n, {}, r.gates, r.h_part_n};
  const bool done =
      forward_in_one_kernel(Op::gru_layer, RecurrentCell::gru, args.contiguous(), {}, options, results);
  return done ? optional<Results>(r) : std::nullopt;
}

optional<std::tuple<Tensor, Tensor>> layer_on_gpu(const Tensor& input, const Tensor& hx, const Tensor& w_ih,
                                                  const Tensor& w_hh, const Optional& b_ih, const Optional& b_hh,
                                                  const Optional& batch_sizes, bool reverse) {
  const auto r = forward_on_gpu(inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh),
                                {Form::layer, or_undefined(batch_sizes), reverse}, false);
  if (!r) return std::nullopt;
  return std::make_tuple(r->output, r->h_n);
}

optional<std::tuple<Tensor, Tensor, Tensor, Tensor>> layer_training_on_gpu(
    const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh, const Optional& b_ih,
    const Optional& b_hh, const Optional& batch_sizes, bool reverse) {
  const auto r = forward_on_gpu(inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh),
                                {Form::layer, or_undefined(batch_sizes), reverse}, true);
  if (!r) return std::nullopt;
  return std::make_tuple(r->output, r->h_n, r->gates, r->h_part_n);
}

optional<Grads> layer_backward_on_gpu(const Optional& grad_output, const Optional& grad_h_n, const Tensor& input,
                                      const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                                      const Optional& batch_sizes, bool reverse, const Tensor& output,
                                      const Tensor& gates, const Tensor& h_part_n, Mask6 mask) {
  const RecurrentInputs in = inputs_of(input, hx, w_ih, w_hh);
  const RecurrentOptions options{Form::layer, or_undefined(batch_sizes), reverse};
  Grads grads = check_backward<int64_t>("gru_layer_backward", or_undefined(grad_output), or_undefined(grad_h_n),
                                        in, options, {output, gates, h_part_n}, {false, mask[1]});
  auto& [grad_input, grad_hx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh] = grads;
  const auto given = backward_in_one_kernel(
      Op::gru_layer_backward, RecurrentCell::gru, in.contiguous(), options,
      {output.contiguous(), {}, {}, gates.contiguous(), h_part_n.contiguous()},
      {contiguous_or_undefined(grad_output), contiguous_or_undefined(grad_h_n), {}, grad_hx, {}},
      {mask[0], mask[2], mask[3], mask[4], mask[5]});
  if (!given) return std::nullopt;
  return Grads{given->input, grad_hx, given->w_ih, given->w_hh, given->b_ih, given->b_hh};
}

// ------------------------------------------------------------------------------- cells on tensor cores

optional<Results> cell_forward_on_gpu(const RecurrentInputs& args, bool training) {
  const Results results = check_forward<int64_t>("gru_cell", args, {Form::cell}, training);
  if (!may_be_cell_on_tensor_cores(args)) return std::nullopt;
#ifdef CISDL_WITH_CUDA
  const RecurrentInputs in = args.contiguous();
  const bool done = cell_on_tensor_cores(Op::gru_cell, in.input, [&](auto t) {
    using T = decltype(t);
    return GruCellForward<T>{cell_problem(in),
                             numbers_or_null<T>(in.input),
                             numbers_or_null<T>(in.hx),
                             numbers_or_null<T>(in.w_ih),
                             numbers_or_null<T>(in.w_hh),
                             numbers_or_null<T>(in.b_ih),
                             numbers_or_null<T>(in.b_hh),
                             mutable_numbers_or_null<T>(results.h_n),
                             mutable_numbers_or_null<T>(results.gates),
                             mutable_numbers_or_null<T>(results.h_part_n)};
  });
  if (done) return results;
#endif
  return std::nullopt;
}

optional<Tensor> cell_on_gpu(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                             const Optional& b_ih, const Optional& b_hh) {
  const auto r = cell_forward_on_gpu(inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh), false);
  return r ? optional<Tensor>(r->h_n) : std::nullopt;
}

optional<std::tuple<Tensor, Tensor, Tensor>> cell_training_on_gpu(const Tensor& input, const Tensor& hx,
                                                                  const Tensor& w_ih, const Tensor& w_hh,
                                                                  const Optional& b_ih, const Optional& b_hh) {
  const auto r = cell_forward_on_gpu(inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh), true);
  if (!r) return std::nullopt;
  return std::tuple(r->h_n, r->gates, r->h_part_n);
}

optional<Grads> cell_backward_on_gpu(const Tensor& grad_h_arg, const Tensor& input, const Tensor& hx,
                                     const Tensor& w_ih, const Tensor& w_hh, const Tensor& gates_arg,
                                     const Tensor& h_part_n_arg, Mask6 mask) {
  const RecurrentInputs args = inputs_of(input, hx, w_ih, w_hh);
  const Grads grads = check_backward<int64_t>("gru_cell_backward", {}, grad_h_arg, args, {Form::cell},
                                              {{}, gates_arg, h_part_n_arg}, mask);
  if (!may_be_cell_on_tensor_cores(args)) return std::nullopt;
#ifdef CISDL_WITH_CUDA
  const RecurrentInputs in = args.contiguous();
  const auto& [grad_input, grad_hx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh] = grads;
  const int64_t hidden = in.hx.size(1), units = kGates * hidden;
  const Tensor gates = gates_arg.contiguous(), h_part_n = h_part_n_arg.contiguous();
  const Tensor rest = state_gradient(grad_h_arg, in.hx, {}), none = at::zeros_like(in.hx);
  const Tensor grad_x_part = at::empty_like(gates), grad_h_part = at::empty_like(gates);
  with_16_bits(in.input, [&](auto t) {
    using T = decltype(t);
    T* da_x = mutable_numbers_or_null<T>(grad_x_part);
    run_on_gpu(Op::gru_cell_backward, in.input,
               GruStepBackward<T>{{in.hx.size(0), hidden},
                                  nullptr,
                                  numbers_or_null<T>(none),
                                  numbers_or_null<T>(gates),
                                  numbers_or_null<T>(h_part_n),
                                  numbers_or_null<T>(in.hx),
                                  mutable_numbers_or_null<T>(rest),
                                  mutable_numbers_or_null<T>(grad_h_part),
                                  da_x + 2 * hidden,
                                  da_x,
                                  units});
  });
  if (part_gradients(grad_x_part, in.input, in.w_ih, grad_input, grad_w_ih, grad_b_ih) &&
      part_gradients(grad_h_part, in.hx, in.w_hh, grad_hx, grad_w_hh, grad_b_hh)) {
    if (grad_hx.defined()) grad_hx.add_(rest);
    return grads;
  }
#endif
  return std::nullopt;
}

}  // namespace
}  // namespace cisdl::ops
