// Derivatives of recurrent cells and layers: the backward node, forward-mode AD, and the formula of a layer, which
// torch.func.vmap and everything beyond the first derivative go through (formula.h).
//
// Kind is a struct with
//   static constexpr const char* name;
//   static constexpr size_t kInputs, kStates, kSaved;   tensors in; states (h, or h and c); what training keeps
//   static Variables training(inputs, options);         the training op, through the dispatcher: output of all
//   steps
//                                                       (undefined for a cell), final states, what is kept
//   static Variables formula(inputs, options);          as in training, from ops that have every derivative
//   static Variables backward(grads, inputs, results, options, wanted);  the backward op, through the dispatcher;
//                                                       grads: of output and states; results(i): of run
#pragma once

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include "formula.h"
#include "recurrent.h"
#include "reduced_precision.h"

namespace cisdl::ops {

inline Variables variables_of(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                              const Optional& b_ih, const Optional& b_hh) {
  return {input, hx, w_ih, w_hh, or_undefined(b_ih), or_undefined(b_hh)};
}

// The typed handle of an op, name##_op(); `kernel` is one of its kernels, whose signature is the op's.
#define CISDL_OP(name, kernel)                                                                 \
  const auto& name##_op() {                                                                    \
    static const auto op = find_op<std::remove_pointer_t<decltype(&kernel)>>("cisdl::" #name); \
    return op;                                                                                 \
  }

template <class Kind>
class RecurrentBackward : public BackwardNode<Kind::kInputs + 1 + Kind::kStates + Kind::kSaved> {
 public:
  RecurrentOptions options;

  std::string name() const override { return std::string("Cisdl") + Kind::name + "Backward"; }

  void save_all(const Variables& inputs, const Variables& results) {
    for (size_t i = 0; i < Kind::kInputs; ++i) this->save(i, inputs[i]);
    for (size_t i = 0; i < results.size(); ++i) {
      if (i <= Kind::kStates)
        this->save_output(Kind::kInputs + i, results[i]);
      else
        this->save(Kind::kInputs + i, results[i]);
    }
  }

 protected:
  Variables gradients(const Variables& recorded) override {
    Variables grads = recorded;
    if (options.form == Form::cell) grads.insert(grads.begin(), Tensor());  // it has no output but the state
    Variables inputs(Kind::kInputs);
    std::array<bool, Kind::kInputs> wanted;
    for (size_t i = 0; i < Kind::kInputs; ++i) {
      inputs[i] = this->saved(i);
      wanted[i] = this->wanted(i) && inputs[i].defined();
    }
    const auto formula = [&](const Variables& in) { return Kind::formula(in, options); };
    if (const auto recorded = gradients_by_formula(formula, inputs, grads, wanted)) return *recorded;
    const auto results = [&](size_t i) {
      return i <= Kind::kStates ? this->saved_output(Kind::kInputs + i) : this->saved(Kind::kInputs + i);
    };
    return Kind::backward(grads, inputs, results, options, wanted);
  }
};

// What the Autograd kernels do: the results in training, with their history or tangents, ...
template <class Kind>
Variables training_autograd(const Variables& inputs, const RecurrentOptions& options) {
  if (std::any_of(inputs.begin(), inputs.end(), has_tangent)) return Kind::formula(inputs, options);
  const auto node = record<RecurrentBackward<Kind>>(inputs);
  const Variables results = [&] {
    const Guard guard;
    return Kind::run(inputs, options, /*training=*/true);
  }();
  if (node) {
    for (size_t i = options.form == Form::cell; i <= Kind::kStates; ++i) set_history(results[i], node);
    node->options = options;
    node->save_all(inputs, results);
  }
  return results;
}

// ... and these where they are wanted, else those of inference.
template <class Kind>
Variables inference_autograd(const Variables& inputs, const RecurrentOptions& options) {
  if (torch::autograd::compute_requires_grad(inputs) || std::any_of(inputs.begin(), inputs.end(), has_tangent))
    return training_autograd<Kind>(inputs, options);
  const Guard guard;
  return Kind::run(inputs, options, /*training=*/false);
}

// `count` of the results, the first one at `from`, as an op returns them.
template <size_t count, size_t... i>
auto pick(const Variables& results, size_t from, std::index_sequence<i...>) {
  return std::make_tuple(results[from + i]...);
}
template <size_t count>
auto pick(const Variables& results, size_t from = 0) {
  return pick<count>(results, from, std::make_index_sequence<count>());
}

// A layer by formula: `step(x_part, state)` gives the new state tensors, then whatever else a step gives, for the
// rows that take it. Returns h of all steps, the final state, and the rest for all steps. State 0 is h.
template <class StepFormula>
Variables layer_by_formula(const Tensor& x_part, Variables state, const RecurrentOptions& options,
                           const StepFormula& step) {
  const bool packed = options.batch_sizes.defined();
  const std::vector<Step> steps = steps_of(Form::layer, x_part, options.batch_sizes, options.reverse);
  const int64_t batch = state[0].sym_size(0).guard_int(__FILE__, __LINE__);
  const size_t count = steps.size();
  std::vector<std::vector<Tensor>> all;  // by result, then by time
  for (size_t i = 0; i < count; ++i) {
    const size_t time = options.reverse ? count - 1 - i : i;
    const int64_t rows = steps[i].rows;
    Variables before(state.size());
    for (size_t k = 0; k < state.size(); ++k) before[k] = state[k].narrow(0, 0, rows);
    const Tensor x = packed ? x_part.narrow(0, steps[i].row, rows) : x_part.select(0, static_cast<int64_t>(time));
    const Variables results = step(x, before);
    all.resize(results.size(), std::vector<Tensor>(count));
    for (size_t k = 0; k < results.size(); ++k) all[k][time] = results[k];
    for (size_t k = 0; k < state.size(); ++k)
      state[k] = rows < batch ? at::cat({results[k], state[k].narrow(0, rows, batch - rows)}) : results[k];
  }
  const auto joined = [&](size_t k) { return packed ? at::cat(all[k]) : at::stack(all[k]); };
  Variables whole{joined(0)};
  for (const Tensor& t : state) whole.push_back(t);
  for (size_t k = state.size(); k < all.size(); ++k) whole.push_back(joined(k));
  return whole;
}

}  // namespace cisdl::ops
