// Which instruction set runs, and which implementation of an op.
//
// The instruction set is chosen once, by cpuid; CISDL_ISA=baseline|avx2|avx512|neon forces another that this CPU
// has. An implementation is chosen per call: the first applicable entry of the op's list, unless CISDL_IMPL or
// force_implementation() names one, which then runs or fails loudly. With CISDL_STRICT=1 only direct entries
// count, unless one is named.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace cisdl {

// Every operation that has a list; the names are those of CISDL_IMPL.
enum class Op : int {
  linear,
  linear_backward_input,
  linear_backward_weight,
  conv2d,
  conv2d_backward_input,
  conv2d_backward_weight,
  conv_transpose2d,
  conv_transpose2d_backward_input,
  conv_transpose2d_backward_weight,
  max_pool2d,
  max_pool2d_backward,
  max_pool2d_gather,
  avg_pool2d,
  avg_pool2d_backward,
  adaptive_max_pool2d,
  adaptive_max_pool2d_backward,
  adaptive_avg_pool2d,
  adaptive_avg_pool2d_backward,
  lstm_cell,
  lstm_cell_backward,
  lstm_step,  // the elementwise part of a step; that of a GRU or RNN layer is the cell's
  lstm_step_backward,
  gru_cell,
  gru_cell_backward,
  rnn_tanh_cell,
  rnn_tanh_cell_backward,
  rnn_relu_cell,
  rnn_relu_cell_backward,
  lstm_layer,
  lstm_layer_backward,
  gru_layer,
  gru_layer_backward,
  rnn_layer,
  rnn_layer_backward,
  count
};

const char* op_name(Op op);
Op op_from_name(const std::string& name);  // throws std::invalid_argument that lists the names

// The instruction set in use; throws std::invalid_argument if CISDL_ISA asks for one that is not there.
const char* isa_name();
std::vector<std::string> isas_built();      // those in this binary
std::vector<std::string> isas_supported();  // those of them that this CPU runs

const LinearFamily& linear_kernels();
const Conv2dFamily& conv2d_kernels();
const Pool2dFamily& pool2d_kernels();
const LstmCellFamily& lstm_cell_kernels();
const RecurrentFamily& recurrent_kernels();
const RecurrentLayerFamily& recurrent_layer_kernels();
const PeakKernels& peak_kernels();

template <class T, template <class> class Kernels>
const Kernels<T>& of_type(const Family<Kernels>& family) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return family.f32;
  } else {
    return family.f64;
  }
}

std::vector<std::string> implementations(Op op);
// Those on a GPU of an op that is a matrix product, most special first; csrc/ops/tensor_cores.h chooses.
std::vector<std::string> gpu_implementations(Op op);
void force_implementation(Op op, const std::string& name);  // one of either list; "" lifts it
std::string forced_implementation(Op op);
// What ran last in this process, on any thread: an implementation's name, "cuda", or "" if the op has not run.
std::string last_implementation(Op op);
void record_implementation(Op op, const char* name);

// Whether CISDL_STRICT asks for direct sums.
bool strict();

// The name forced for op, or nullptr; the latter only if it is one for a GPU. The string lives as long as the
// process.
const char* forced_name(Op op);
const char* forced_on_gpu(Op op);
[[noreturn]] void cannot_force(Op op, const char* name, bool known);
bool same_name(const char* a, const char* b);

template <class Args>
const Implementation<Args>& choose(Op op, const ImplementationList<Args>& list, const Args& args) {
  const Implementation<Args>* found = nullptr;
  const char* forced = forced_name(op);
  bool known = false;
  for (int i = 0; i < list.size && !found; ++i) {
    const Implementation<Args>& entry = list.items[i];
    if (forced ? !same_name(entry.name, forced) : strict() && !entry.direct) continue;
    known = true;
    if (entry.applicable(args)) found = &entry;
  }
  if (!found) cannot_force(op, forced ? forced : "(none)", known);
  record_implementation(op, found->name);
  return *found;
}

}  // namespace cisdl
