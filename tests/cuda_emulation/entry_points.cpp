// The problems of csrc/common/problems.h for Python, without mirroring every struct there: a call names the
// problem and passes its numbers and its tensors in two arrays, in the order in which problems.h declares them.
#include <cstring>
#include <vector>

#include "kernels.h"

using namespace cisdl;

extern "C" void* emulation_allocate(size_t size);
extern "C" size_t emulation_free(void* data);

namespace {

struct Numbers {
  const int64_t* next;
  int64_t operator()() { return *next++; }
  double real() {  // passed as its bits
    double number;
    std::memcpy(&number, next++, sizeof number);
    return number;
  }
  template <class Problem>
  Problem problem() {
    Problem p;
    std::memcpy(&p, next, sizeof p);  // nothing but int64_t, or the bits of a double
    next += sizeof p / sizeof(int64_t);
    return p;
  }
  Layout layout() { return static_cast<Layout>((*this)()); }
  Nonlinearity nonlinearity() { return static_cast<Nonlinearity>((*this)()); }
  // batch, hidden_size, steps, rows, reverse, packed; then, of packed sequences, their lengths.
  Sequences sequences() {
    Sequences s{(*this)(), (*this)(), (*this)(), (*this)(), (*this)() != 0, (*this)() != 0, {}};
    if (s.packed)
      for (int64_t i = 0; i < s.batch; ++i) s.lengths[i] = static_cast<int32_t>((*this)());
    return s;
  }
  PoolIndex pool_index() { return static_cast<PoolIndex>((*this)()); }
};

struct Tensors {
  void* const* next;
  template <class T>
  operator T*() {
    return static_cast<T*>(*next++);
  }
};

// Runs what wants `size` bytes of scratch memory, of which it gets no more.
template <class Run>
const char* with_scratch(int64_t size, const Run& run) {
  if (size == 0) return run(nullptr);
  void* scratch = emulation_allocate(static_cast<size_t>(size));
  const char* error = run(scratch);
  return emulation_free(scratch) ? "scratch memory was written before its beginning" : error;
}

template <class Args>
const char* run_with_scratch(const Args& args) {
  return with_scratch(cuda::scratch_bytes(args), [&](void* scratch) { return cuda::run(args, scratch, nullptr); });
}

template <class T>
LinearActivationForward<T> linear_activation(Numbers n, Tensors t) {
  LinearActivationForward<T> args{{n.problem<LinearProblem>(), t, t, t, t}, {}, {}};
  args.activation = static_cast<Activation>(n());
  args.slope = n.real();
  return args;
}

bool is_pool(const char* name) { return std::strstr(name, "pool2d"); }

// In braces, arguments are evaluated from left to right.
template <class T>
const char* call_pool(const char* name, Numbers n, Tensors t) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("max_pool2d_forward"))
    return cuda::run(
        MaxPool2dForward<T>{n.problem<Pool2dProblem>(), n.layout(), n.pool_index(), n() != 0, t, t, t}, nullptr);
  if (is("max_pool2d_backward"))
    return cuda::run(MaxPool2dBackward<T>{n.problem<Pool2dProblem>(), n.layout(), n.pool_index(), t, t, t},
                     nullptr);
  if (is("max_pool2d_gather"))
    return cuda::run(MaxPool2dGather<T>{n.problem<Pool2dProblem>(), n.layout(), n.pool_index(), t, t, t}, nullptr);
  if (is("avg_pool2d_forward"))
    return cuda::run(AvgPool2dForward<T>{n.problem<Pool2dProblem>(), n.layout(), n() != 0, n(), t, t}, nullptr);
  if (is("avg_pool2d_backward"))
    return cuda::run(AvgPool2dBackward<T>{n.problem<Pool2dProblem>(), n.layout(), n() != 0, n(), t, t}, nullptr);
  if (is("adaptive_max_pool2d_forward"))
    return cuda::run(AdaptiveMaxPool2dForward<T>{n.problem<AdaptivePool2dProblem>(), n.layout(), t, t, t},
                     nullptr);
  if (is("adaptive_max_pool2d_backward"))
    return cuda::run(AdaptiveMaxPool2dBackward<T>{n.problem<AdaptivePool2dProblem>(), n.layout(), t, t, t},
                     nullptr);
  if (is("adaptive_avg_pool2d_forward"))
    return cuda::run(AdaptiveAvgPool2dForward<T>{n.problem<AdaptivePool2dProblem>(), n.layout(), t, t}, nullptr);
  if (is("adaptive_avg_pool2d_backward"))
    return cuda::run(AdaptiveAvgPool2dBackward<T>{n.problem<AdaptivePool2dProblem>(), n.layout(), t, t}, nullptr);
  return "unknown problem";
}

bool is_step_backward(const char* name) {
  return std::strcmp(name, "gru_step_backward") == 0 || std::strcmp(name, "rnn_step_backward") == 0;
}

// The arrays of steps are dense here, though rows may lie apart.
template <class T>
const char* call_step_backward(const char* name, Numbers n, Tensors t) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("gru_step_backward")) {
    GruStepBackward<T> b{n.problem<RecurrentStep>(), t, t, t, t, t, t};
    b.grad_x_part = t;
    b.grad_h_part = t;
    b.grad_x_part_n = b.grad_x_part + 2 * b.p.hidden_size;
    b.grad_stride = 3 * b.p.hidden_size;
    return cuda::run(b, nullptr);
  }
  if (is("rnn_step_backward")) {
    const auto p = n.problem<RecurrentStep>();
    return cuda::run(RnnStepBackward<T>{p, n.nonlinearity(), t, t, t, t, p.hidden_size}, nullptr);
  }
  return "unknown problem";
}

// The arrays of a step, tensor after tensor of each; the first ones, the gradients, are read-only.
template <class T, class Step>
const char* take_steps(Step common, Numbers n, Tensors t, std::initializer_list<T * Step::*> arrays) {
  std::vector<Step> steps(static_cast<size_t>(n()), common);
  for (Step& step : steps) step.size = n();
  for (Step& step : steps) step.grad = t;
  for (T* Step::* const array : arrays)
    for (Step& step : steps) step.*array = t;
  return cuda::run(steps.data(), static_cast<int64_t>(steps.size()), nullptr);
}

template <class T>
const char* call_optimizer(const char* name, Numbers n, Tensors t) {
  const auto real = [&] { return static_cast<T>(n.real()); };
  if (std::strcmp(name, "adam_step") == 0) {
    AdamStep<T> s = {};
    for (T* number :
         {&s.beta1, &s.rest1, &s.beta2, &s.rest2, &s.eps, &s.decay, &s.shrink, &s.step_size, &s.sqrt_correction2})
      *number = real();
    s.maximize = n() != 0;
    using S = AdamStep<T>;
    return take_steps<T>(s, n, t, {&S::weight, &S::m, &S::v, &S::largest_v});
  }
  SgdStep<T> s = {};
  for (T* number : {&s.lr, &s.momentum, &s.dampening, &s.decay}) *number = real();
  s.nesterov = n() != 0, s.maximize = n() != 0, s.first = n() != 0;
  return take_steps<T>(s, n, t, {&SgdStep<T>::weight, &SgdStep<T>::buffer});
}

template <class T>
const char* call(const char* name, Numbers n, Tensors t) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("linear_forward")) return cuda::run(LinearForward<T>{n.problem<LinearProblem>(), t, t, t, t}, nullptr);
  if (is("linear_activation_forward")) return cuda::run(linear_activation<T>(n, t), nullptr);
  if (is("linear_backward_input"))
    return cuda::run(LinearBackwardInput<T>{n.problem<LinearProblem>(), t, t, t}, nullptr);
  if (is("linear_backward_weight"))
    return run_with_scratch(LinearBackwardWeight<T>{n.problem<LinearProblem>(), t, t, t, t});
  if (is("conv2d_forward"))
    return cuda::run(
        Conv2dForward<T>{n.problem<Conv2dProblem>(), n.layout(), t, t, t, t, n() != 0 ? T(0) : T(kNoLeast)},
        nullptr);
  if (is("conv2d_backward_input"))
    return cuda::run(Conv2dBackwardInput<T>{n.problem<Conv2dProblem>(), n.layout(), t, t, t}, nullptr);
  if (is("conv2d_backward_weight"))
    return run_with_scratch(Conv2dBackwardWeight<T>{n.problem<Conv2dProblem>(), n.layout(), t, t, t, t});
  if (is_pool(name)) return call_pool<T>(name, n, t);
  if (is_step_backward(name)) return call_step_backward<T>(name, n, t);
  if (is("adam_step") || is("sgd_step")) return call_optimizer<T>(name, n, t);
  if (is("cross_entropy_forward"))
    return cuda::run(CrossEntropyForward<T>{n.problem<CrossEntropyProblem>(), t, t, t, t, t}, nullptr);
  if (is("cross_entropy_reduction"))
    return cuda::run(CrossEntropyReduction<T>{n.problem<CrossEntropyProblem>(), n() != 0, t, t, t, t, t}, nullptr);
  if (is("cross_entropy_backward"))
    return cuda::run(CrossEntropyBackward<T>{n.problem<CrossEntropyProblem>(), t, t, t, t, t, n(), T(1), t, t},
                     nullptr);
  if (is("lstm_cell_forward"))
    return cuda::run(LstmCellForward<T>{n.problem<LstmCellProblem>(), t, t, t, t, t, t, t, t, t, t}, nullptr);
  if (is("lstm_cell_backward"))
    return cuda::run(
        LstmCellBackward<T>{n.problem<LstmCellProblem>(), t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t},
        nullptr);
  // The arrays of steps are dense here, though rows may lie apart.
  if (is("lstm_step_forward")) {
    LstmStepForward<T> f{n.problem<RecurrentStep>(), t, t, t, t, t, t};
    f.sums = f.gates;
    f.sums_row = 4 * f.p.hidden_size;
    f.sums_part = f.p.hidden_size;
    return cuda::run(f, nullptr);
  }
  if (is("lstm_step_backward")) {
    const auto p = n.problem<RecurrentStep>();
    return cuda::run(LstmStepBackward<T>{p, t, t, t, t, t, t, 4 * p.hidden_size, t}, nullptr);
  }
  if (is("gru_step_forward")) {
    GruStepForward<T> f{n.problem<RecurrentStep>(), t, t, t, t, t, t};
    f.sums = f.gates;
    f.sums_row = 3 * f.p.hidden_size;
    f.sums_part = f.p.hidden_size;
    return cuda::run(f, nullptr);
  }
  if (is("rnn_step_forward")) {
    const auto p = n.problem<RecurrentStep>();
    return cuda::run(RnnStepForward<T>{p, n.nonlinearity(), t, t, t, t, p.hidden_size}, nullptr);
  }
  return "unknown problem";
}

// On mma.sync, or on Hopper's tensor cores.
template <bool hopper, class Args>
const char* call_mma(const Args& args) {
  int64_t size;
  if constexpr (hopper)
    size = cuda::hopper_scratch(args);
  else
    size = cuda::mma_scratch(args);
  if (size < 0) return "not for tensor cores";
  return with_scratch(size, [&](void* scratch) {
    if constexpr (hopper)
      return cuda::run_hopper(args, scratch, nullptr);
    else
      return cuda::run_mma(args, scratch, nullptr);
  });
}

template <class Args>
const char* run_if_it_fits(const Args& args) {
  return cuda::fits(args) ? cuda::run(args, nullptr) : "not for tensor cores";
}

// In a row the cell, the nonlinearity and the sequences.
template <class T>
const char* call_recurrence(const char* name, bool tf32, Numbers n, Tensors t) {
  if (std::strcmp(name, "recurrence_forward") == 0)
    return run_if_it_fits(RecurrenceForward<T>{static_cast<RecurrentCell>(n()), n.nonlinearity(), tf32,
                                               n.sequences(), t, t, t, t, t, t, t, t, t, t});
  return run_if_it_fits(RecurrenceBackward<T>{static_cast<RecurrentCell>(n()), n.nonlinearity(), tf32,
                                              n.sequences(), t, t, t, t, t, t, t, t, t, t, t, t, t});
}

template <bool hopper, class T>
const char* call_mma(const char* name, Numbers n, Tensors t) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if constexpr (sizeof(T) == 2 && !hopper) {
    if (is_pool(name)) return call_pool<T>(name, n, t);
    if (is_step_backward(name)) return call_step_backward<T>(name, n, t);
    if (is("gru_cell_forward"))
      return call_mma<false>(GruCellForward<T>{n.problem<CellProblem>(), t, t, t, t, t, t, t, t, t});
    if (is("rnn_cell_forward"))
      return call_mma<false>(RnnCellForward<T>{n.problem<CellProblem>(), n.nonlinearity(), t, t, t, t, t, t, t});
    if (is("lstm_cell_forward"))
      return call_mma<false>(LstmCellForward<T>{n.problem<LstmCellProblem>(), t, t, t, t, t, t, t, t, t, t});
    if (is("lstm_cell_backward"))
      return call_mma<false>(
          LstmCellBackward<T>{n.problem<LstmCellProblem>(), t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t});
  }
  if (is("linear_forward")) return call_mma<hopper>(LinearForward<T>{n.problem<LinearProblem>(), t, t, t, t});
  if (is("linear_activation_forward")) return call_mma<false>(linear_activation<T>(n, t));
  if (is("linear_backward_input"))
    return call_mma<hopper>(LinearBackwardInput<T>{n.problem<LinearProblem>(), t, t, t});
  if (is("linear_backward_weight"))
    return call_mma<hopper>(LinearBackwardWeight<T>{n.problem<LinearProblem>(), t, t, t, t});
  if (is("conv2d_forward"))
    return call_mma<hopper>(
        Conv2dForward<T>{n.problem<Conv2dProblem>(), n.layout(), t, t, t, t, n() != 0 ? T(0.0f) : T(kNoLeast)});
  if (is("conv2d_backward_input"))
    return call_mma<hopper>(Conv2dBackwardInput<T>{n.problem<Conv2dProblem>(), n.layout(), t, t, t});
  if (is("conv2d_backward_weight"))
    return call_mma<hopper>(Conv2dBackwardWeight<T>{n.problem<Conv2dProblem>(), n.layout(), t, t, t, t});
  return "not for tensor cores";
}

}  // namespace

// nullptr, or what went wrong. `kind`: float, double, BFloat16, Float16 (products on tensor cores), float as TF32;
// on Hopper's BFloat16, Float16.
extern "C" __attribute__((visibility("default"))) const char* emulation_run(const char* problem, int kind,
                                                                            const int64_t* numbers,
                                                                            void* const* tensors) {
  if (std::strncmp(problem, "recurrence_", 11) == 0) {
    if (kind == 2) return call_recurrence<cuda::BFloat16>(problem, false, {numbers}, {tensors});
    if (kind == 3) return call_recurrence<cuda::Float16>(problem, false, {numbers}, {tensors});
    return call_recurrence<float>(problem, kind == 4, {numbers}, {tensors});
  }
  switch (kind) {
    case 0:
      return call<float>(problem, {numbers}, {tensors});
    case 1:
      return call<double>(problem, {numbers}, {tensors});
    case 2:
      return call_mma<false, cuda::BFloat16>(problem, {numbers}, {tensors});
    case 3:
      return call_mma<false, cuda::Float16>(problem, {numbers}, {tensors});
    case 5:
      return call_mma<true, cuda::BFloat16>(problem, {numbers}, {tensors});
    case 6:
      return call_mma<true, cuda::Float16>(problem, {numbers}, {tensors});
    default:
      return call_mma<false, float>(problem, {numbers}, {tensors});
  }
}
