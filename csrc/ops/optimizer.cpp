#include "optimizer.h"

#include <cmath>

#include "../cpu/elementwise_kernels.h"
#include "common.h"

namespace cisdl::ops {
namespace {

// Whether element i of every tensor lies at the same place of dense memory as that of the weight.
bool alike(const Tensor& weight, const Tensor& other) {
  return other.device() == weight.device() && other.layout() == at::kStrided &&
         other.scalar_type() == weight.scalar_type() && other.sizes() == weight.sizes() &&
         other.strides() == weight.strides();
}

bool has_kernels(const Tensor& weight) {
#ifdef CISDL_WITH_CUDA
  if (weight.device().is_cuda()) return true;
#endif
  return weight.device().is_cpu();
}

bool ours(const Tensor& weight, const Tensor& grad) {
  const auto type = weight.scalar_type();
  return has_kernels(weight) && weight.layout() == at::kStrided && (type == at::kFloat || type == at::kDouble) &&
         weight.is_non_overlapping_and_dense() && alike(weight, grad);
}

// Written behind autograd's back: what was saved for a backward must notice.
void written(const Tensor& t) { t.unsafeGetTensorImpl()->bump_version(); }

double counted_up(const Tensor& step) {
  double value = 0;
  if (step.scalar_type() == at::kFloat) {
    value = *step.mutable_data_ptr<float>() += 1;
  } else {
    value = *step.mutable_data_ptr<double>() += 1;
  }
  written(step);
  return value;
}

// Steps on GPUs wait here for others of the same device and type, with which they are launched.
template <template <class> class Step>
class OnGpus {
 public:
  explicit OnGpus(const char* op) : op_(op) {}

  template <class T>
  void add(const Tensor& weight, const Step<T>& step) {
    if (weight.device() != device_) launch();
    device_ = weight.device();
    if constexpr (sizeof(T) == sizeof(float)) {
      f32_.push_back(step);
    } else {
      f64_.push_back(step);
    }
  }

  void launch() {
    launch(f32_);
    launch(f64_);
  }

 private:
  template <class T>
  void launch(std::vector<Step<T>>& steps) {
    if (steps.empty()) return;
#ifdef CISDL_WITH_CUDA
    const c10::impl::VirtualGuardImpl impl(device_.type());
    const c10::DeviceGuard guard(device_);
    void* stream = impl.getStreamNativeHandle(impl.getStream(device_));
    const char* error = cuda::run(steps.data(), static_cast<int64_t>(steps.size()), stream);
    TORCH_CHECK(!error, op_, ": CUDA kernel on ", device_, " failed: ", error);
#endif
    steps.clear();
  }

  const char* op_;
  at::Device device_ = at::kCPU;
  std::vector<Step<float>> f32_;
  std::vector<Step<double>> f64_;
};

bool is_counter(const Tensor& step) {
  return step.device().is_cpu() && step.numel() == 1 &&
         (step.scalar_type() == at::kFloat || step.scalar_type() == at::kDouble);
}

}  // namespace

bool adam_step(const Tensors& weights, const Tensors& grads, const Tensors& m, const Tensors& v,
               const Tensors& largest_v, const Tensors& steps, const AdamOptions& o) {
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor& w = weights[i];
    if (!ours(w, grads[i]) || !alike(w, m[i]) || !alike(w, v[i]) || !is_counter(steps[i])) return false;
    if (o.amsgrad && !alike(w, largest_v[i])) return false;
  }
  OnGpus<AdamStep> on_gpus("Adam");
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor& w = weights[i];
    const double step = counted_up(steps[i]);
    with_dtype(w.scalar_type(), [&](auto t) {
      using T = decltype(t);
      const auto real = [](double x) { return static_cast<T>(x); };
      AdamStep<T> s;
      s.size = w.numel();
      s.beta1 = real(o.beta1), s.rest1 = real(1 - o.beta1);
      s.beta2 = real(o.beta2), s.rest2 = real(1 - o.beta2);
      s.eps = real(o.eps);
      s.decay = real(o.decoupled ? 0 : o.weight_decay);
      s.shrink = real(o.decoupled ? 1 - o.lr * o.weight_decay : 1);
      s.step_size = real(o.lr / (1 - std::pow(o.beta1, step)));
      s.sqrt_correction2 = real(std::sqrt(1 - std::pow(o.beta2, step)));
      s.maximize = o.maximize;
      s.weight = w.mutable_data_ptr<T>();
      s.grad = grads[i].const_data_ptr<T>();
      s.m = m[i].mutable_data_ptr<T>();
      s.v = v[i].mutable_data_ptr<T>();
      s.largest_v = o.amsgrad ? largest_v[i].mutable_data_ptr<T>() : nullptr;
      if (w.device().is_cpu()) {
        of_type<T>(elementwise_kernels()).adam(s, torch_threads());
      } else {
        on_gpus.add(w, s);
      }
    });
    written(w);
    written(m[i]);
    written(v[i]);
    if (o.amsgrad) written(largest_v[i]);
  }
  on_gpus.launch();
  return true;
}

bool sgd_step(const Tensors& weights, const Tensors& grads, const Tensors& buffers, const SgdOptions& o) {
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!ours(weights[i], grads[i])) return false;
    if (!buffers.empty() && !alike(weights[i], buffers[i])) return false;
  }
  OnGpus<SgdStep> on_gpus("SGD");
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor& w = weights[i];
    with_dtype(w.scalar_type(), [&](auto t) {
      using T = decltype(t);
      const auto real = [](double x) { return static_cast<T>(x); };
      const SgdStep<T> s = {w.numel(),
                            real(o.lr),
                            real(o.momentum),
                            real(o.dampening),
                            real(o.weight_decay),
                            o.nesterov,
                            o.maximize,
                            o.first,
                            w.mutable_data_ptr<T>(),
                            grads[i].const_data_ptr<T>(),
                            buffers.empty() ? nullptr : buffers[i].mutable_data_ptr<T>()};
      if (w.device().is_cpu()) {
        of_type<T>(elementwise_kernels()).sgd(s, torch_threads());
      } else {
        on_gpus.add(w, s);
      }
    });
    written(w);
    if (!buffers.empty()) written(buffers[i]);
  }
  on_gpus.launch();
  return true;
}

}  // namespace cisdl::ops
