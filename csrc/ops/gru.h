// What gru.cpp and gru_on_gpu.h share: the results and gradients of a GRU, checked and allocated.
#pragma once

#include "recurrent_autograd.h"

namespace cisdl::ops {
namespace {

using Grads = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // of the six inputs
using Mask6 = std::array<bool, 6>;                                         // which are wanted

constexpr int64_t kGates = 3;

struct Results {
  Tensor output, h_n, gates, h_part_n;  // output: of layers; the last two: in training
};

// Checks everything and allocates the results: all that there is to do for fake tensors.
template <class I>
Results check_forward(const char* op, const RecurrentInputs& in, const RecurrentOptions& options, bool training) {
  const auto& [form, batch_sizes, reverse, _] = options;
  const auto sizes = check_rows<I>(op, form, in.input, in.hx, batch_sizes);
  const I& hidden = sizes.state_size;
  check_weights<I>(op, in, sizes, hidden * kGates);
  const auto rows_of = [&](const I& features) { return empty_of<I>(sizes.with(features), in.input); };
  return {form == Form::layer ? rows_of(hidden) : Tensor(), empty_of<I>({sizes.batch, hidden}, in.input),
          training ? rows_of(hidden * kGates) : Tensor(), training ? rows_of(hidden) : Tensor()};
}

struct Saved {
  Tensor output, gates, h_part_n;  // output: of layers
};

template <class I>
Grads check_backward(const char* op, const Tensor& grad_output, const Tensor& grad_h_n, const RecurrentInputs& in,
                     const RecurrentOptions& options, const Saved& saved, const Mask6& mask) {
  const auto& [form, batch_sizes, reverse, _] = options;
  const auto sizes = check_rows<I>(op, form, in.input, in.hx, batch_sizes);
  const I& hidden = sizes.state_size;
  check_weights<I>(op, in, sizes, hidden * kGates);
  check_saved<I>(op, "grad_output", grad_output, in.input, sizes.with(hidden));
  check_saved<I>(op, form == Form::cell ? "grad_h" : "grad_h_n", grad_h_n, in.input, {sizes.batch, hidden});
  check_saved<I>(op, "output", saved.output, in.input, sizes.with(hidden));
  check_saved<I>(op, "gates", saved.gates, in.input, sizes.with(hidden * kGates));
  check_saved<I>(op, "h_part_n", saved.h_part_n, in.input, sizes.with(hidden));
  const auto grad_of = [&](int i, const Tensor& t) { return mask[i] ? empty_of<I>(sizes_of<I>(t), t) : Tensor(); };
  const auto of_bias = [&](int i) { return mask[i] ? empty_of<I>({hidden * kGates}, in.input) : Tensor(); };
  return {grad_of(0, in.input), grad_of(1, in.hx), grad_of(2, in.w_ih),
          grad_of(3, in.w_hh),  of_bias(4),        of_bias(5)};
}

}  // namespace
}  // namespace cisdl::ops
