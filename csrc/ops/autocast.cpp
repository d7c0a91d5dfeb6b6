// torch.autocast: which ops run in its lower precision, the same that torch runs there.
//
// One boxed kernel does for all: it casts every floating tensor that autocast may cast (weights once, through
// torch's cache) and calls the op again with autocast off. Ops that are not listed, pooling among them, take what
// they get, as in torch.
#include <ATen/autocast_mode.h>
#include <torch/library.h>

namespace cisdl::ops {
namespace {

constexpr const char* kLowerPrecision[] = {"linear", "conv2d", "conv_transpose2d", "lstm_cell"};

template <c10::DeviceType device>
void in_lower_precision(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard guard(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const at::ScalarType type = at::autocast::get_lower_precision_fp_from_device_type(device);
  const size_t count = op.schema().arguments().size();
  for (auto value = stack->end() - count; value != stack->end(); ++value)
    if (value->isTensor()) *value = at::autocast::cached_cast(type, value->toTensor(), device);
  op.callBoxed(stack);
}

template <c10::DeviceType device>
void register_for(torch::Library& m) {
  for (const char* name : kLowerPrecision)
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&in_lower_precision<device>>());
}

}  // namespace

TORCH_LIBRARY_IMPL(cisdl, AutocastCPU, m) { register_for<c10::DeviceType::CPU>(m); }
TORCH_LIBRARY_IMPL(cisdl, AutocastCUDA, m) { register_for<c10::DeviceType::CUDA>(m); }

}  // namespace cisdl::ops
