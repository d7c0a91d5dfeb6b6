// The pybind11 module cisdl_ops._C: a fast typed entry for each op, and facts about the build.
//
// The entries end in the same dispatcher as torch.ops.cisdl.*, so autograd, devices, tracing and fake tensors
// behave alike; they only skip the parsing of a schema, which costs more than a small op itself.
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "cpu/tuning.h"
#include "ops/keep_memory.h"
#include "ops/optimizer.h"
#include "ops/word_vector_functions.h"

namespace py = pybind11;

namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;
using Ints = std::vector<int64_t>;
using cisdl::ops::Tensors;
using SymInts = std::vector<c10::SymInt>;
using Release = py::call_guard<py::gil_scoped_release>;

template <class Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

Tensor linear(const Tensor& input, const Tensor& weight, const OptTensor& bias) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const OptTensor&)>("cisdl::linear");
  return op.call(input, weight, bias);
}

Tensor linear_activation(const Tensor& input, const Tensor& weight, const OptTensor& bias,
                         const std::string& activation, double negative_slope) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const OptTensor&, std::string_view, double)>(
      "cisdl::linear_activation");
  return op.call(input, weight, bias, activation, negative_slope);
}

Tensor conv2d(const Tensor& input, const Tensor& weight, const OptTensor& bias, const Ints& stride,
              const Ints& padding, const Ints& dilation, int64_t groups) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const OptTensor&, at::IntArrayRef,
                                        at::IntArrayRef, at::IntArrayRef, int64_t)>("cisdl::conv2d");
  return op.call(input, weight, bias, stride, padding, dilation, groups);
}

Tensor conv2d_activation(const Tensor& input, const Tensor& weight, const OptTensor& bias, const Ints& stride,
                         const Ints& padding, const Ints& dilation, int64_t groups, const std::string& activation,
                         double negative_slope) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, const OptTensor&, at::IntArrayRef, at::IntArrayRef,
                     at::IntArrayRef, int64_t, std::string_view, double)>("cisdl::conv2d_activation");
  return op.call(input, weight, bias, stride, padding, dilation, groups, activation, negative_slope);
}

Tensor conv_transpose2d(const Tensor& input, const Tensor& weight, const OptTensor& bias, const Ints& stride,
                        const Ints& padding, const Ints& output_padding, int64_t groups, const Ints& dilation) {
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, const OptTensor&, at::IntArrayRef, at::IntArrayRef,
                     at::IntArrayRef, int64_t, at::IntArrayRef)>("cisdl::conv_transpose2d");
  return op.call(input, weight, bias, stride, padding, output_padding, groups, dilation);
}

Tensor cross_entropy(const Tensor& input, const Tensor& target, const OptTensor& weight, int64_t reduction,
                     int64_t ignore_index, double label_smoothing) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const OptTensor&, int64_t, int64_t, double)>(
      "cisdl::cross_entropy");
  return op.call(input, target, weight, reduction, ignore_index, label_smoothing);
}

Tensor max_pool2d(const Tensor& input, const Ints& kernel_size, const Ints& stride, const Ints& padding,
                  const Ints& dilation, bool ceil_mode, bool relu) {
  static const auto op = find_op<Tensor(const Tensor&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef,
                                        at::IntArrayRef, bool, bool)>("cisdl::max_pool2d");
  return op.call(input, kernel_size, stride, padding, dilation, ceil_mode, relu);
}

std::tuple<Tensor, Tensor> max_pool2d_with_indices(const Tensor& input, const Ints& kernel_size,
                                                   const Ints& stride, const Ints& padding, const Ints& dilation,
                                                   bool ceil_mode) {
  static const auto op =
      find_op<std::tuple<Tensor, Tensor>(const Tensor&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef,
                                         at::IntArrayRef, bool)>("cisdl::max_pool2d_with_indices");
  return op.call(input, kernel_size, stride, padding, dilation, ceil_mode);
}

Tensor avg_pool2d(const Tensor& input, const Ints& kernel_size, const Ints& stride, const Ints& padding,
                  bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor_override) {
  static const auto op = find_op<Tensor(const Tensor&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, bool,
                                        bool, std::optional<int64_t>)>("cisdl::avg_pool2d");
  return op.call(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override);
}

Tensor adaptive_max_pool2d(const Tensor& input, const SymInts& output_size) {
  static const auto op = find_op<Tensor(const Tensor&, c10::SymIntArrayRef)>("cisdl::adaptive_max_pool2d");
  return op.call(input, output_size);
}

std::tuple<Tensor, Tensor> adaptive_max_pool2d_with_indices(const Tensor& input, const SymInts& output_size) {
  static const auto op = find_op<std::tuple<Tensor, Tensor>(const Tensor&, c10::SymIntArrayRef)>(
      "cisdl::adaptive_max_pool2d_with_indices");
  return op.call(input, output_size);
}

Tensor adaptive_avg_pool2d(const Tensor& input, const SymInts& output_size) {
  static const auto op = find_op<Tensor(const Tensor&, c10::SymIntArrayRef)>("cisdl::adaptive_avg_pool2d");
  return op.call(input, output_size);
}

std::tuple<Tensor, Tensor> lstm_cell(const Tensor& input, const Tensor& hx, const Tensor& cx, const Tensor& w_ih,
                                     const Tensor& w_hh, const OptTensor& b_ih, const OptTensor& b_hh) {
  static const auto op =
      find_op<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                         const OptTensor&, const OptTensor&)>("cisdl::lstm_cell");
  return op.call(input, hx, cx, w_ih, w_hh, b_ih, b_hh);
}

// A cell with one state: all have the signature of gru_cell.
using CellSignature = Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const OptTensor&,
                             const OptTensor&);

Tensor gru_cell(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                const OptTensor& b_ih, const OptTensor& b_hh) {
  static const auto op = find_op<CellSignature>("cisdl::gru_cell");
  return op.call(input, hx, w_ih, w_hh, b_ih, b_hh);
}

Tensor rnn_tanh_cell(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                     const OptTensor& b_ih, const OptTensor& b_hh) {
  static const auto op = find_op<CellSignature>("cisdl::rnn_tanh_cell");
  return op.call(input, hx, w_ih, w_hh, b_ih, b_hh);
}

Tensor rnn_relu_cell(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                     const OptTensor& b_ih, const OptTensor& b_hh) {
  static const auto op = find_op<CellSignature>("cisdl::rnn_relu_cell");
  return op.call(input, hx, w_ih, w_hh, b_ih, b_hh);
}

// GFLOP/s of multiply-adds in registers on `threads` threads: the ceiling that `cisdl bench` measures against.
// The best of repetitions, each long enough (10 ms a thread) that starting the threads does not count.
double measure_peak_gflops(bool is_double, int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); };
  const auto fma = is_double ? cisdl::peak_kernels().fma_f64 : cisdl::peak_kernels().fma_f32;
  int64_t iterations = 1 << 12;
  for (;; iterations *= 2) {
    const auto start = Clock::now();
    fma(iterations);
    if (since(start) > 0.01) break;
  }
  double best = 0;
  const auto start = Clock::now();
  do {
    std::vector<double> flops(threads);
    const auto round = Clock::now();
    at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) flops[i] = fma(iterations);
    });
    const double took = since(round);
    best = std::max(best, std::accumulate(flops.begin(), flops.end(), 0.0) / took * 1e-9);
  } while (since(start) < seconds);
  return best;
}

// glibc gives memory back to the system at every free above a threshold, and raises that threshold only when it
// first frees a large block. A process that never did (a small network's training) faults its outputs in again at
// every step: a quarter of a LeNet step's time. This is that block; it is not touched, so it costs nothing.
void keep_freed_memory() {
  constexpr size_t kMostThatCounts = 32 << 20;
  void* volatile block = std::malloc(kMostThatCounts - (64 << 10));
  std::free(block);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of cisdl_ops; use cisdl_ops.functional.";
  cisdl::isa_name();  // refuses a wrong CISDL_ISA or CISDL_IMPL at import, not in the middle of a training
  if (cisdl::ops::keeps_memory()) keep_freed_memory();

  m.def("linear", linear, Release());
  m.def("linear_activation", linear_activation, Release());
  m.def("conv2d", conv2d, Release());
  m.def("conv2d_activation", conv2d_activation, Release());
  m.def("conv_transpose2d", conv_transpose2d, Release());
  m.def("cross_entropy", cross_entropy, Release());
  m.def("max_pool2d", max_pool2d, Release());
  m.def("max_pool2d_with_indices", max_pool2d_with_indices, Release());
  m.def("avg_pool2d", avg_pool2d, Release());
  m.def("adaptive_max_pool2d", adaptive_max_pool2d, Release());
  m.def("adaptive_max_pool2d_with_indices", adaptive_max_pool2d_with_indices, Release());
  m.def("adaptive_avg_pool2d", adaptive_avg_pool2d, Release());
  m.def("lstm_cell", lstm_cell, Release());
  m.def("gru_cell", gru_cell, Release());
  m.def("rnn_tanh_cell", rnn_tanh_cell, Release());
  m.def("rnn_relu_cell", rnn_relu_cell, Release());

  m.def(
      "adam_step",
      [](const Tensors& weights, const Tensors& grads, const Tensors& m, const Tensors& v,
         const Tensors& largest_v, const Tensors& steps, double lr, double beta1, double beta2, double eps,
         double weight_decay, bool amsgrad, bool maximize, bool decoupled) {
        return cisdl::ops::adam_step(weights, grads, m, v, largest_v, steps,
                                     {lr, beta1, beta2, eps, weight_decay, amsgrad, maximize, decoupled});
      },
      Release());
  m.def(
      "sgd_step",
      [](const Tensors& weights, const Tensors& grads, const Tensors& buffers, double lr, double momentum,
         double dampening, double weight_decay, bool nesterov, bool maximize, bool first) {
        return cisdl::ops::sgd_step(weights, grads, buffers,
                                    {lr, momentum, dampening, weight_decay, nesterov, maximize, first});
      },
      Release());

  m.def("zero_rows", cisdl::ops::zero_rows, Release());
  m.def("cooccurrence", cisdl::ops::cooccurrence, Release());
  m.def("glove_blocks", cisdl::ops::glove_blocks, Release());
  m.def("glove_records", cisdl::ops::glove_records, Release());

  m.def("isa", cisdl::isa_name);
  m.def("isas_built", cisdl::isas_built);
  m.def("isas_supported", cisdl::isas_supported);
  m.def("op_names", [] {
    std::vector<std::string> names;
    for (int i = 0; i < static_cast<int>(cisdl::Op::count); ++i)
      names.emplace_back(cisdl::op_name(static_cast<cisdl::Op>(i)));
    return names;
  });
  m.def("implementations", [](const std::string& op) { return cisdl::implementations(cisdl::op_from_name(op)); });
  m.def("last_implementation",
        [](const std::string& op) { return cisdl::last_implementation(cisdl::op_from_name(op)); });
  m.def("forced_implementation",
        [](const std::string& op) { return cisdl::forced_implementation(cisdl::op_from_name(op)); });
  m.def("force_implementation", [](const std::string& op, const std::string& name) {
    cisdl::force_implementation(cisdl::op_from_name(op), name);
  });
  m.def("enable_tuning", cisdl::tuning::enable);
  m.def("tuning_enabled", cisdl::tuning::enabled);
  m.def("tuned_choices", cisdl::tuning::choices);
  m.def("remember_choice", cisdl::tuning::remember);
  m.def("forget_choices", cisdl::tuning::forget);
  m.def("measure_peak_gflops", measure_peak_gflops, py::arg("is_double"), py::arg("threads"),
        py::arg("seconds") = 0.3, Release());
}
