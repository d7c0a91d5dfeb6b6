#include "dispatch.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>

#include "elementwise_kernels.h"
#include "word_vector_kernels.h"

// CISDL_FOR_EACH_ISA(X) comes from the build: X(baseline) X(avx2) X(avx512), the sets in this binary, least first.
#define CISDL_DECLARE(isa)                                                     \
  extern "C" const cisdl::LinearFamily* cisdl_linear_##isa();                  \
  extern "C" const cisdl::Conv2dFamily* cisdl_conv2d_##isa();                  \
  extern "C" const cisdl::Pool2dFamily* cisdl_pool2d_##isa();                  \
  extern "C" const cisdl::LstmCellFamily* cisdl_lstm_cell_##isa();             \
  extern "C" const cisdl::RecurrentFamily* cisdl_recurrent_##isa();            \
  extern "C" const cisdl::RecurrentLayerFamily* cisdl_recurrent_layer_##isa(); \
  extern "C" const cisdl::ElementwiseFamily* cisdl_elementwise_##isa();        \
  extern "C" const cisdl::Word2VecKernels* cisdl_word2vec_##isa();             \
  extern "C" const cisdl::GloveKernels* cisdl_glove_##isa();                   \
  extern "C" const cisdl::PeakKernels* cisdl_peak_##isa();
CISDL_FOR_EACH_ISA(CISDL_DECLARE)

namespace cisdl {
namespace {

constexpr const char* kOpNames[] = {"linear",
                                    "linear_backward_input",
                                    "linear_backward_weight",
                                    "conv2d",
                                    "conv2d_backward_input",
                                    "conv2d_backward_weight",
                                    "conv_transpose2d",
                                    "conv_transpose2d_backward_input",
                                    "conv_transpose2d_backward_weight",
                                    "max_pool2d",
                                    "max_pool2d_backward",
                                    "max_pool2d_gather",
                                    "avg_pool2d",
                                    "avg_pool2d_backward",
                                    "adaptive_max_pool2d",
                                    "adaptive_max_pool2d_backward",
                                    "adaptive_avg_pool2d",
                                    "adaptive_avg_pool2d_backward",
                                    "lstm_cell",
                                    "lstm_cell_backward",
                                    "lstm_step",
                                    "lstm_step_backward",
                                    "gru_cell",
                                    "gru_cell_backward",
                                    "rnn_tanh_cell",
                                    "rnn_tanh_cell_backward",
                                    "rnn_relu_cell",
                                    "rnn_relu_cell_backward",
                                    "lstm_layer",
                                    "lstm_layer_backward",
                                    "gru_layer",
                                    "gru_layer_backward",
                                    "rnn_layer",
                                    "rnn_layer_backward"};
static_assert(sizeof(kOpNames) / sizeof(*kOpNames) == static_cast<size_t>(Op::count));

struct Isa {
  const char* name;
  const LinearFamily* (*linear)();
  const Conv2dFamily* (*conv2d)();
  const Pool2dFamily* (*pool2d)();
  const LstmCellFamily* (*lstm_cell)();
  const RecurrentFamily* (*recurrent)();
  const RecurrentLayerFamily* (*recurrent_layer)();
  const ElementwiseFamily* (*elementwise)();
  const Word2VecKernels* (*word2vec)();
  const GloveKernels* (*glove)();
  const PeakKernels* (*peak)();
};

#define CISDL_ENTRY(isa)        \
  {#isa,                        \
   cisdl_linear_##isa,          \
   cisdl_conv2d_##isa,          \
   cisdl_pool2d_##isa,          \
   cisdl_lstm_cell_##isa,       \
   cisdl_recurrent_##isa,       \
   cisdl_recurrent_layer_##isa, \
   cisdl_elementwise_##isa,     \
   cisdl_word2vec_##isa,        \
   cisdl_glove_##isa,           \
   cisdl_peak_##isa},
constexpr Isa kIsas[] = {CISDL_FOR_EACH_ISA(CISDL_ENTRY)};

bool cpu_runs(const char* isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (same_name(isa, "avx512"))
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
  if (same_name(isa, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return same_name(isa, "baseline") || same_name(isa, "neon");
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const Isa& select_isa() {
  const char* wanted = std::getenv("CISDL_ISA");
  const Isa* best = nullptr;
  for (const Isa& isa : kIsas) {
    if (!cpu_runs(isa.name)) continue;
    if (wanted && *wanted && !same_name(isa.name, wanted)) continue;
    best = &isa;
  }
  if (!best)
    throw std::invalid_argument(std::string("CISDL_ISA: expected one of ") + join(isas_supported()) +
                                " on this CPU, got " + (wanted ? wanted : "nothing"));
  return *best;
}

const Isa& isa() {
  static const Isa& chosen = select_isa();
  return chosen;
}

struct OpState {
  std::atomic<const char*> forced{nullptr};
  std::atomic<const char*> last{""};
};
OpState g_ops[static_cast<int>(Op::count)];
std::mutex g_mutex;

OpState& state(Op op) { return g_ops[static_cast<int>(op)]; }

// A name that outlives every reader: the atomics hold bare pointers.
const char* intern(const std::string& name) {
  static std::set<std::string> names;
  const std::lock_guard<std::mutex> lock(g_mutex);
  return names.insert(name).first->c_str();
}

std::atomic<bool> g_strict{false};

// CISDL_STRICT=1, CISDL_IMPL=conv2d:plain,linear:dot
void read_environment() {
  const char* strict = std::getenv("CISDL_STRICT");
  if (strict && *strict) {
    if (!same_name(strict, "0") && !same_name(strict, "1"))
      throw std::invalid_argument(std::string("CISDL_STRICT: expected 0 or 1, got ") + strict);
    g_strict = same_name(strict, "1");
  }
  const char* text = std::getenv("CISDL_IMPL");
  if (!text) return;
  std::string rest = text;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string item = rest.substr(0, comma);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    const size_t colon = item.find(':');
    if (colon == std::string::npos)
      throw std::invalid_argument("CISDL_IMPL: expected op:implementation[,op:implementation], got " + item);
    force_implementation(op_from_name(item.substr(0, colon)), item.substr(colon + 1));
  }
}

bool is_for_gpu(const char* name) { return std::strncmp(name, "cuda", 4) == 0; }

template <class Args>
std::vector<std::string> names_of(const ImplementationList<Args>& list) {
  std::vector<std::string> names;
  for (int i = 0; i < list.size; ++i) names.emplace_back(list.items[i].name);
  return names;
}

}  // namespace

const char* op_name(Op op) { return kOpNames[static_cast<int>(op)]; }

Op op_from_name(const std::string& name) {
  std::vector<std::string> names;
  for (int i = 0; i < static_cast<int>(Op::count); ++i) {
    if (name == kOpNames[i]) return static_cast<Op>(i);
    names.emplace_back(kOpNames[i]);
  }
  throw std::invalid_argument("op: expected one of " + join(names) + ", got " + name);
}

const char* isa_name() {
  static const bool environment_read = (read_environment(), true);
  (void)environment_read;
  return isa().name;
}

std::vector<std::string> isas_built() {
  std::vector<std::string> names;
  for (const Isa& entry : kIsas) names.emplace_back(entry.name);
  return names;
}

std::vector<std::string> isas_supported() {
  std::vector<std::string> names;
  for (const Isa& entry : kIsas)
    if (cpu_runs(entry.name)) names.emplace_back(entry.name);
  return names;
}

const LinearFamily& linear_kernels() { return *isa().linear(); }
const Conv2dFamily& conv2d_kernels() { return *isa().conv2d(); }
const Pool2dFamily& pool2d_kernels() { return *isa().pool2d(); }
const LstmCellFamily& lstm_cell_kernels() { return *isa().lstm_cell(); }
const RecurrentFamily& recurrent_kernels() { return *isa().recurrent(); }
const RecurrentLayerFamily& recurrent_layer_kernels() { return *isa().recurrent_layer(); }
const ElementwiseFamily& elementwise_kernels() { return *isa().elementwise(); }
const Word2VecKernels& word2vec_kernels() { return *isa().word2vec(); }
const GloveKernels& glove_kernels() { return *isa().glove(); }
const PeakKernels& peak_kernels() { return *isa().peak(); }

std::vector<std::string> implementations(Op op) {
  switch (op) {
    case Op::linear:
      return names_of(linear_kernels().f32.forward);
    case Op::linear_backward_input:
      return names_of(linear_kernels().f32.backward_input);
    case Op::linear_backward_weight:
      return names_of(linear_kernels().f32.backward_weight);
    case Op::conv2d:
    case Op::conv_transpose2d_backward_input:
      return names_of(conv2d_kernels().f32.forward);
    case Op::conv2d_backward_input:
    case Op::conv_transpose2d:
      return names_of(conv2d_kernels().f32.backward_input);
    case Op::conv2d_backward_weight:
    case Op::conv_transpose2d_backward_weight:
      return names_of(conv2d_kernels().f32.backward_weight);
    case Op::max_pool2d:
      return names_of(pool2d_kernels().f32.max_forward);
    case Op::max_pool2d_backward:
      return names_of(pool2d_kernels().f32.max_backward);
    case Op::max_pool2d_gather:
      return names_of(pool2d_kernels().f32.max_gather);
    case Op::avg_pool2d:
      return names_of(pool2d_kernels().f32.avg_forward);
    case Op::avg_pool2d_backward:
      return names_of(pool2d_kernels().f32.avg_backward);
    case Op::adaptive_max_pool2d:
      return names_of(pool2d_kernels().f32.adaptive_max_forward);
    case Op::adaptive_max_pool2d_backward:
      return names_of(pool2d_kernels().f32.adaptive_max_backward);
    case Op::adaptive_avg_pool2d:
      return names_of(pool2d_kernels().f32.adaptive_avg_forward);
    case Op::adaptive_avg_pool2d_backward:
      return names_of(pool2d_kernels().f32.adaptive_avg_backward);
    case Op::lstm_cell:
      return names_of(lstm_cell_kernels().f32.forward);
    case Op::lstm_cell_backward:
      return names_of(lstm_cell_kernels().f32.backward);
    case Op::lstm_step:
      return names_of(recurrent_kernels().f32.lstm_forward);
    case Op::lstm_step_backward:
      return names_of(recurrent_kernels().f32.lstm_backward);
    case Op::lstm_layer:
      return names_of(recurrent_layer_kernels().f32.lstm_forward);
    case Op::lstm_layer_backward:
      return names_of(recurrent_layer_kernels().f32.lstm_backward);
    case Op::gru_layer:
      return names_of(recurrent_layer_kernels().f32.gru_forward);
    case Op::gru_layer_backward:
      return names_of(recurrent_layer_kernels().f32.gru_backward);
    case Op::rnn_layer:
      return names_of(recurrent_layer_kernels().f32.rnn_forward);
    case Op::rnn_layer_backward:
      return names_of(recurrent_layer_kernels().f32.rnn_backward);
    case Op::gru_cell:
      return names_of(recurrent_kernels().f32.gru_forward);
    case Op::gru_cell_backward:
      return names_of(recurrent_kernels().f32.gru_backward);
    case Op::rnn_tanh_cell:
    case Op::rnn_relu_cell:
      return names_of(recurrent_kernels().f32.rnn_forward);
    case Op::rnn_tanh_cell_backward:
    case Op::rnn_relu_cell_backward:
      return names_of(recurrent_kernels().f32.rnn_backward);
    case Op::count:
      break;
  }
  return {};
}

std::vector<std::string> gpu_implementations(Op op) {
  if (op > Op::conv_transpose2d_backward_weight) return {};
  return {"cuda_hopper", "cuda_mma", "cuda"};
}

void force_implementation(Op op, const std::string& name) {
  if (name.empty()) {
    state(op).forced = nullptr;
    return;
  }
  std::vector<std::string> names = implementations(op);
  for (const std::string& on_gpu : gpu_implementations(op)) names.push_back(on_gpu);
  for (const std::string& known : names) {
    if (known == name) {
      state(op).forced = intern(name);
      return;
    }
  }
  throw std::invalid_argument(std::string("implementation of ") + op_name(op) + ": expected one of " +
                              join(names) + ", got " + name);
}

std::string forced_implementation(Op op) {
  const char* name = state(op).forced;
  return name ? name : "";
}

std::string last_implementation(Op op) { return state(op).last.load(); }

void record_implementation(Op op, const char* name) { state(op).last.store(name, std::memory_order_relaxed); }

bool strict() { return g_strict.load(std::memory_order_relaxed); }

const char* forced_name(Op op) { return state(op).forced.load(std::memory_order_relaxed); }

const char* forced_on_gpu(Op op) {
  const char* name = forced_name(op);
  return name && is_for_gpu(name) ? name : nullptr;
}

bool same_name(const char* a, const char* b) { return std::strcmp(a, b) == 0; }

void cannot_force(Op op, const char* name, bool known) {
  const char* why = " is not in the list of this instruction set";
  if (known)
    why = " cannot run this problem (shape, layout or options); lift the force or choose another";
  else if (is_for_gpu(name))
    why = " runs on a GPU only; lift the force, choose another or move the tensors";
  throw std::invalid_argument(std::string("implementation of ") + op_name(op) + ": " + name + why);
}

}  // namespace cisdl
