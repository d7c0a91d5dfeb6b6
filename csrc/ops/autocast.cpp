// torch.autocast: which ops run in its lower precision, the same that torch runs there.
//
// One boxed kernel does for all: it casts every floating tensor that autocast may cast (weights once, through
// torch's cache) and calls the op again with autocast off. Ops that are not listed, pooling among them, take what
// they get, as in torch.
#include <ATen/autocast_mode.h>
#include <torch/library.h>

namespace cisdl::ops {
namespace {

// An op, and the argument whose type decides on the CPU, or -1. There torch takes a cell apart: its products run
// in lower precision, but the update of a float32 state gives float32. We then run the whole cell in float32.
// LSTM layers it takes apart only if they are given `packed`, the batch sizes of a PackedSequence.
struct Rule {
  const char* op;
  int state = -1;
  int packed = -1;
};
constexpr Rule kRules[] = {
    {"linear"},           {"linear_activation"}, {"conv2d"},           {"conv2d_activation"},
    {"conv_transpose2d"}, {"lstm_cell", 2},      {"gru_cell", 1},      {"gru_layer", 1},
    {"rnn_tanh_cell"},    {"rnn_relu_cell"},     {"lstm_layer", 2, 8}, {"rnn_layer"}};

template <c10::DeviceType device>
void autocast(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard guard(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto arguments = stack->end() - static_cast<int64_t>(op.schema().arguments().size());
  at::ScalarType type = at::autocast::get_lower_precision_fp_from_device_type(device);
  if constexpr (device == c10::DeviceType::CPU) {
    const std::string& name = op.schema().name();
    for (const Rule& rule : kRules)
      if (rule.state >= 0 && name == std::string("cisdl::") + rule.op &&
          arguments[rule.state].toTensor().scalar_type() == at::kFloat &&
          (rule.packed < 0 || !arguments[rule.packed].isNone()))
        type = at::kFloat;
  }
  for (auto value = arguments; value != stack->end(); ++value)
    if (value->isTensor()) *value = at::autocast::cached_cast(type, value->toTensor(), device);
  op.callBoxed(stack);
}

template <c10::DeviceType device>
void register_for(torch::Library& m) {
  for (const Rule& rule : kRules) m.impl(rule.op, torch::CppFunction::makeFromBoxedFunction<&autocast<device>>());
}

}  // namespace

TORCH_LIBRARY_IMPL(cisdl, AutocastCPU, m) { register_for<c10::DeviceType::CPU>(m); }
TORCH_LIBRARY_IMPL(cisdl, AutocastCUDA, m) { register_for<c10::DeviceType::CUDA>(m); }

}  // namespace cisdl::ops
