// cisdl::cross_entropy and its gradient: softmax cross-entropy of scores [N, C] against classes [N].
//
// On the CPU a class that there is not is refused. On a GPU that would mean to wait for it: there the kernels give
// NaN.
//
// Arguments and results are those of at::cross_entropy_loss, with the reduction as an integer: 0 none, 1 mean, 2
// sum. The kernels have the first derivative; where more is wanted, or a tangent, at::cross_entropy_loss itself
// serves. What it does with other targets (probabilities, images) is left to it: here they are refused.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>

#include "../cpu/elementwise_kernels.h"
#include "autograd.h"

namespace cisdl::ops {
namespace {

constexpr int64_t kNone = 0, kMean = 1, kSum = 2;

using Training = std::tuple<Tensor, Tensor>;  // the loss, and what the backward needs of each row

template <class I>
void check(const Tensor& scores, const Tensor& target, const Tensor& weight, int64_t reduction, double smoothing) {
  const char* op = "cross_entropy";
  const at::ScalarType type = scores.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble, op, ": input: expected dtype float32 or float64, got ",
              dtype_name(type));
  const auto x = sizes_of<I>(scores);
  TORCH_CHECK(x.size() == 2 && x[1] >= 1, op, ": input: expected shape [N, C] with at least one class, got ", x);
#ifdef CISDL_WITH_CUDA
  const bool has_kernels = scores.device().is_cpu() || scores.device().is_cuda();
#else
  const bool has_kernels = scores.device().is_cpu();
#endif
  TORCH_CHECK(has_kernels || scores.is_meta(), op, ": input: expected a tensor on a device that this build has ",
              "kernels for (cisdl env lists them), got ", scores.device());
  TORCH_CHECK(target.scalar_type() == at::kLong, op, ": target: expected classes of dtype int64, got ",
              dtype_name(target.scalar_type()));
  TORCH_CHECK(target.device() == scores.device(), op, ": target: expected device ", scores.device(), ", got ",
              target.device());
  check_shape<I>(op, "target", target, {x[0]});
  if (weight.defined()) {
    check_like(op, "weight", weight, "input", scores);
    check_shape<I>(op, "weight", weight, {x[1]});
  }
  TORCH_CHECK(reduction == kNone || reduction == kMean || reduction == kSum, op,
              ": reduction: expected 0 (none), 1 (mean) or 2 (sum), got ", reduction);
  TORCH_CHECK(smoothing >= 0 && smoothing <= 1, op, ": label_smoothing: expected a number from 0 to 1, got ",
              smoothing);
}

// Adds up the weights of the rows that count, and refuses a class that there is not.
template <class T>
double total_weight(const Tensor& target, int64_t classes, const T* weight, int64_t ignored) {
  const int64_t *y = target.const_data_ptr<int64_t>(), rows = target.numel();
  double total = 0;
  for (int64_t n = 0; n < rows; ++n) {
    if (y[n] == ignored) continue;
    TORCH_CHECK_INDEX(y[n] >= 0 && y[n] < classes, "cross_entropy: target: expected classes from 0 to ",
                      classes - 1, " or ignore_index = ", ignored, ", got ", y[n]);
    total += weight ? weight[y[n]] : T(1);
  }
  return total;
}

#ifdef CISDL_WITH_CUDA
// The two functions below on a GPU. Nothing here waits for it.
void loss_on_gpu(const Tensor& x, const Tensor& target, const Tensor& w, int64_t reduction, int64_t ignored,
                 double smoothing, const Tensor& kept, const Tensor& loss) {
  const Tensor losses = reduction == kNone ? loss : empty_of<int64_t>({x.size(0)}, x);
  with_dtype(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const CrossEntropyProblem p{x.size(0), x.size(1), ignored, smoothing};
    run_on_gpu("cross_entropy", x,
               CrossEntropyForward<T>{p, x.const_data_ptr<T>(), target.const_data_ptr<int64_t>(),
                                      data_or_null<T>(w), losses.mutable_data_ptr<T>(), mutable_or_null<T>(kept)});
    if (reduction != kNone)
      run_on_gpu(
          "cross_entropy", x,
          CrossEntropyReduction<T>{p, reduction == kMean, target.const_data_ptr<int64_t>(), data_or_null<T>(w),
                                   losses.const_data_ptr<T>(), loss.mutable_data_ptr<T>(), nullptr});
  });
}

void gradient_on_gpu(const Tensor& grad, const Tensor& x, const Tensor& target, const Tensor& w,
                     const Tensor& kept, int64_t reduction, int64_t ignored, double smoothing,
                     const Tensor& result) {
  const Tensor totals = at::empty({2}, x.options().dtype(at::kDouble));
  with_dtype(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const CrossEntropyProblem p{x.size(0), x.size(1), ignored, smoothing};
    const int64_t* y = target.const_data_ptr<int64_t>();
    run_on_gpu("cross_entropy_backward", x,
               CrossEntropyReduction<T>{p, reduction == kMean, y, data_or_null<T>(w), nullptr, nullptr,
                                        totals.mutable_data_ptr<double>()});
    run_on_gpu("cross_entropy_backward", x,
               CrossEntropyBackward<T>{p, x.const_data_ptr<T>(), y, data_or_null<T>(w), kept.const_data_ptr<T>(),
                                       grad.const_data_ptr<T>(), reduction == kNone ? 1 : 0, T(1),
                                       result.mutable_data_ptr<T>(), totals.const_data_ptr<double>()});
  });
}
#endif

// The loss; writes to `kept` if it is defined.
Tensor loss_of(const Tensor& input, const Tensor& target_arg, const Tensor& weight, int64_t reduction,
               int64_t ignored, double smoothing, const Tensor& kept) {
  const Tensor x = input.contiguous(), target = target_arg.contiguous();
  const Tensor w = weight.defined() ? weight.contiguous() : weight;
  const int64_t rows = x.size(0), classes = x.size(1);
  Tensor loss = reduction == kNone ? empty_of<int64_t>({rows}, x) : empty_of<int64_t>({}, x);
#ifdef CISDL_WITH_CUDA
  if (x.device().is_cuda()) {
    loss_on_gpu(x, target, w, reduction, ignored, smoothing, kept, loss);
    return loss;
  }
#endif
  with_dtype(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const double total = total_weight<T>(target, classes, data_or_null<T>(w), ignored);
    T* losses = reduction == kNone
                    ? loss.mutable_data_ptr<T>()
                    : static_cast<T*>(scratch(Scratch::shared, rows * static_cast<int64_t>(sizeof(T))));
    of_type<T>(elementwise_kernels())
        .cross_entropy({{rows, classes, ignored, smoothing},
                        x.const_data_ptr<T>(),
                        target.const_data_ptr<int64_t>(),
                        data_or_null<T>(w),
                        losses,
                        mutable_or_null<T>(kept)},
                       torch_threads());
    if (reduction == kNone) return;
    double sum = 0;
    for (int64_t n = 0; n < rows; ++n) sum += losses[n];
    *loss.mutable_data_ptr<T>() = static_cast<T>(reduction == kMean ? sum / total : sum);
  });
  return loss;
}

Training training(const Tensor& input, const Tensor& target, const optional<Tensor>& weight_arg, int64_t reduction,
                  int64_t ignored, double smoothing) {
  const Tensor weight = or_undefined(weight_arg);
  check<int64_t>(input, target, weight, reduction, smoothing);
  const Tensor kept = empty_of<int64_t>({2, input.size(0)}, input);
  return {loss_of(input, target, weight, reduction, ignored, smoothing, kept), kept};
}

Tensor forward(const Tensor& input, const Tensor& target, const optional<Tensor>& weight_arg, int64_t reduction,
               int64_t ignored, double smoothing) {
  const Tensor weight = or_undefined(weight_arg);
  check<int64_t>(input, target, weight, reduction, smoothing);
  return loss_of(input, target, weight, reduction, ignored, smoothing, Tensor());
}

Training training_meta(const Tensor& input, const Tensor& target, const optional<Tensor>& weight,
                       int64_t reduction, int64_t, double smoothing) {
  check<c10::SymInt>(input, target, or_undefined(weight), reduction, smoothing);
  const c10::SymInt rows = input.sym_size(0);
  return {reduction == kNone ? empty_of<c10::SymInt>({rows}, input) : empty_of<c10::SymInt>({}, input),
          empty_of<c10::SymInt>({2, rows}, input)};
}

Tensor forward_meta(const Tensor& input, const Tensor& target, const optional<Tensor>& weight, int64_t reduction,
                    int64_t ignored, double smoothing) {
  return std::get<0>(training_meta(input, target, weight, reduction, ignored, smoothing));
}

template <class I>
void check_backward(const Tensor& grad, const Tensor& input, const Tensor& target, const Tensor& weight,
                    const Tensor& kept, int64_t reduction, double smoothing) {
  const char* op = "cross_entropy_backward";
  check<I>(input, target, weight, reduction, smoothing);
  const I rows = sizes_of<I>(input)[0];
  check_like(op, "grad_output", grad, "input", input);
  if (reduction == kNone)
    check_shape<I>(op, "grad_output", grad, {rows});
  else
    check_shape<I>(op, "grad_output", grad, {});
  check_like(op, "kept", kept, "input", input);
  check_shape<I>(op, "kept", kept, {I(2), rows});
}

Tensor backward(const Tensor& grad_output, const Tensor& input, const Tensor& target_arg,
                const optional<Tensor>& weight_arg, const Tensor& kept_arg, int64_t reduction, int64_t ignored,
                double smoothing) {
  const Tensor weight = or_undefined(weight_arg);
  check_backward<int64_t>(grad_output, input, target_arg, weight, kept_arg, reduction, smoothing);
  const Tensor x = input.contiguous(), target = target_arg.contiguous(), grad = grad_output.contiguous();
  const Tensor w = weight.defined() ? weight.contiguous() : weight;
  const Tensor kept = kept_arg.contiguous();
  const Tensor result = empty_of<int64_t>(x.sizes(), x);
#ifdef CISDL_WITH_CUDA
  if (x.device().is_cuda()) {
    if (result.numel() > 0) gradient_on_gpu(grad, x, target, w, kept, reduction, ignored, smoothing, result);
    return result;
  }
#endif
  with_dtype(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const double total = total_weight<T>(target, x.size(1), data_or_null<T>(w), ignored);
    of_type<T>(elementwise_kernels())
        .cross_entropy_backward({{x.size(0), x.size(1), ignored, smoothing},
                                 x.const_data_ptr<T>(),
                                 target.const_data_ptr<int64_t>(),
                                 data_or_null<T>(w),
                                 kept.const_data_ptr<T>(),
                                 grad.const_data_ptr<T>(),
                                 reduction == kNone ? 1 : 0,
                                 reduction == kMean ? static_cast<T>(1 / total) : T(1),
                                 result.mutable_data_ptr<T>()},
                                torch_threads());
  });
  return result;
}

Tensor backward_meta(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                     const optional<Tensor>& weight, const Tensor& kept, int64_t reduction, int64_t,
                     double smoothing) {
  check_backward<c10::SymInt>(grad_output, input, target, or_undefined(weight), kept, reduction, smoothing);
  return empty_of<c10::SymInt>(input.sym_sizes(), input);
}

// The gradient by ops with every derivative: scale (softmax(x) sum_c B - B), B what the classes weigh in a row.
Tensor gradient_by_formula(const Tensor& grad, const Tensor& x, const Tensor& target, const Tensor& weight,
                           int64_t reduction, int64_t ignored, double smoothing) {
  const Tensor counts = target.ne(ignored), y = target.masked_fill(counts.logical_not(), 0);
  const Tensor ones = weight.defined() ? Tensor() : at::zeros_like(x.detach()).select(0, 0).add(1);
  const Tensor w = weight.defined() ? weight : ones, factor = counts.to(w.scalar_type());
  const Tensor of_target = w.index_select(0, y) * factor;
  const Tensor hot =
      at::zeros_like(x.detach()).scatter(1, y.unsqueeze(1), (of_target * (1 - smoothing)).unsqueeze(1));
  const Tensor b = hot + factor.unsqueeze(1) * w * (smoothing / static_cast<double>(x.size(1)));
  const Tensor difference = at::softmax(x, 1) * b.sum(1, /*keepdim=*/true) - b;
  if (reduction == kNone) return grad.unsqueeze(1) * difference;
  return (reduction == kMean ? grad / of_target.sum() : grad) * difference;
}

class CrossEntropyBackwardNode : public BackwardNode<4> {
 public:
  int64_t reduction = kMean, ignored = 0;
  double smoothing = 0;

  std::string name() const override { return "CisdlCrossEntropyBackward"; }

 protected:
  Variables gradients(const Variables& grads) override {
    using Signature = Tensor(const Tensor&, const Tensor&, const Tensor&, const optional<Tensor>&, const Tensor&,
                             int64_t, int64_t, double);
    static const auto op = find_op<Signature>("cisdl::cross_entropy_backward");
    const Tensor x = saved(0), target = saved(1), weight = saved(2);
    if (at::GradMode::is_enabled() && x.numel() > 0)
      return {gradient_by_formula(grads[0], x, target, weight, reduction, ignored, smoothing)};
    return {op.call(grads[0], x, target, or_none(weight), saved(3), reduction, ignored, smoothing)};
  }
};

Tensor forward_autograd(const Tensor& input, const Tensor& target, const optional<Tensor>& weight_arg,
                        int64_t reduction, int64_t ignored, double smoothing) {
  using Arguments = Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, int64_t, int64_t, double);
  using TrainingArguments =
      Training(const Tensor&, const Tensor&, const optional<Tensor>&, int64_t, int64_t, double);
  static const auto op = find_op<Arguments>("cisdl::cross_entropy");
  static const auto training_op = find_op<TrainingArguments>("cisdl::cross_entropy_training");
  const Tensor weight = or_undefined(weight_arg);
  TORCH_CHECK(!needs_autograd(weight), "cross_entropy: weight: expected a tensor that needs no gradient");
  if (has_tangent(input)) return at::cross_entropy_loss(input, target, weight_arg, reduction, ignored, smoothing);
  const auto node = record<CrossEntropyBackwardNode>(input);
  const Guard guard;
  if (!node) return op.call(input, target, weight_arg, reduction, ignored, smoothing);
  const auto [loss, kept] = training_op.call(input, target, weight_arg, reduction, ignored, smoothing);
  node->reduction = reduction;
  node->ignored = ignored;
  node->smoothing = smoothing;
  node->save(0, input);
  node->save(1, target);
  node->save(2, weight);
  node->save(3, kept);
  set_history(loss, node);
  return loss;
}

void register_kernels(torch::Library& m) {
  m.impl("cross_entropy", forward);
  m.impl("cross_entropy_training", training);
  m.impl("cross_entropy_backward", backward);
}

}  // namespace

#define CISDL_OPTIONS "int reduction, int ignore_index, float label_smoothing)"

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def("cross_entropy(Tensor input, Tensor target, Tensor? weight, " CISDL_OPTIONS " -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("cross_entropy_training(Tensor input, Tensor target, Tensor? weight, " CISDL_OPTIONS
        " -> (Tensor, Tensor)",
        {at::Tag::pt2_compliant_tag});
  m.def(
      "cross_entropy_backward(Tensor grad_output, Tensor input, Tensor target, Tensor? weight, Tensor "
      "kept, " CISDL_OPTIONS " -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("cross_entropy", forward_meta);
  m.impl("cross_entropy_training", training_meta);
  m.impl("cross_entropy_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("cross_entropy", forward_autograd);
  m.impl("cross_entropy_training", torch::autograd::autogradNotImplementedFallback());
  m.impl("cross_entropy_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace cisdl::ops
