// Kernels with one fault each, to see that the emulator notices. Most reverse the 256 numbers of every block
// through shared memory; `beyond` is kThreads, unknown to the compiler. The last four are for a sanitizer
// (tests/sanitize): the emulator by itself does not see them.
#include <cstring>

#include "published.cuh"

namespace cisdl::cuda {
namespace {

struct Line {
  float value[kThreads];
};

enum class Fault {
  none,
  missing_barrier,
  early_exit,
  two_barriers,
  shared_overrun,
  too_much_shared,
  zero_division,
  shared_read,
  read_before,
  local_array,
  signed_overflow
};

template <Fault fault>
__global__ void reverse_kernel(const float* input, float* output, int64_t n, int beyond) {
  CISDL_SHARED(Line, line);
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) line.value[threadIdx.x] = input[i];
  if (fault == Fault::shared_overrun && threadIdx.x == 7) line.value[beyond] = 1;
  if (fault == Fault::early_exit && threadIdx.x >= 250) return;
  if (fault == Fault::too_much_shared) {
    struct Large {
      char bytes[48 * 1024];
    };
    CISDL_SHARED(Large, large);
    large.bytes[threadIdx.x] = 0;
  }
  if (fault == Fault::two_barriers && threadIdx.x % 2) {
    __syncthreads();
  } else if (fault != Fault::missing_barrier) {
    __syncthreads();
  }
  if (fault == Fault::shared_read && threadIdx.x == 7) output[0] = line.value[beyond];
  if (fault == Fault::read_before && i == 0) output[0] = input[-n / beyond];
  if (fault == Fault::local_array && i == 0) {
    float cells[4] = {1, 2, 3, 4};
    output[0] = cells[beyond / 64];
  }
  if (fault == Fault::signed_overflow && i == 0) output[0] = static_cast<float>(INT64_MAX - 100 + beyond);
  const int64_t divisor = fault == Fault::zero_division ? beyond - kThreads : 1;
  if (i < n) output[i / divisor] = line.value[kThreads - 1 - threadIdx.x];
}

// `n` of the kernel may be larger than the tensors are: reads and writes behind their end.
template <Fault fault>
const char* reverse(const float* input, float* output, int64_t n) {
  return launch_elements(reverse_kernel<fault>, n, nullptr, input, output, n, kThreads);
}

__global__ void write_before_kernel(float* output) { output[-1] = 1; }

__global__ void write_input_kernel(const float* input) { const_cast<float*>(input)[threadIdx.x] = 1; }

// Each of two blocks copies its half and waits for the other's; with `leaves`, the second one leaves early.
template <bool leaves>
__global__ void exchange_kernel(const float* input, float* output, int64_t n) {
  const unsigned other = 1 - blockIdx.x;
  if (leaves && blockIdx.x == 1) return;
  auto* halves = reinterpret_cast<BFloat16*>(output);
  const auto* from = reinterpret_cast<const BFloat16*>(input);
  const int64_t begin = n * blockIdx.x, of_other = n * other;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) publish(halves + begin + i, from[begin + i]);
  while (await(has_unpublished<BFloat16>(load_published(halves + of_other + threadIdx.x / 8 * 8)))) {
  }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* emulation_faulty(const char* fault,
                                                                               const float* input, float* output,
                                                                               int64_t n) {
  const auto is = [fault](const char* other) { return std::strcmp(fault, other) == 0; };
  if (is("missing_barrier")) return reverse<Fault::missing_barrier>(input, output, n);
  if (is("early_exit")) return reverse<Fault::early_exit>(input, output, n);
  if (is("two_barriers")) return reverse<Fault::two_barriers>(input, output, n);
  if (is("shared_overrun")) return reverse<Fault::shared_overrun>(input, output, n);
  if (is("too_much_shared")) return reverse<Fault::too_much_shared>(input, output, n);
  if (is("zero_division")) return reverse<Fault::zero_division>(input, output, n);
  if (is("shared_read")) return reverse<Fault::shared_read>(input, output, n);
  if (is("read_before")) return reverse<Fault::read_before>(input, output, n);
  if (is("local_array")) return reverse<Fault::local_array>(input, output, n);
  if (is("signed_overflow")) return reverse<Fault::signed_overflow>(input, output, n);
  if (is("published") || is("never_published")) {
    const auto kernel = is("published") ? exchange_kernel<false> : exchange_kernel<true>;
    return emulation::launch<true>(kernel, 2, kThreads, nullptr, input, output, n);
  }
  if (is("write_before")) return launch(write_before_kernel, 1, nullptr, output);
  if (is("write_input")) return launch(write_input_kernel, 1, nullptr, input);
  return reverse<Fault::none>(input, output, n);
}

}  // namespace cisdl::cuda
