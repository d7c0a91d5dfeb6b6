// Fully connected layer, y = x W^T + b, and its gradients, on the CPU.
//
// All three are one matrix product each; what differs is which side lies contiguous along the sum:
//   forward          y  [batch, out] = x [batch, in]   W^T     sum over in:    both contiguous
//   backward_input   gx [batch, in]  = gy [batch, out] W       sum over out:   gy contiguous, W strided
//   backward_weight  gW [out, in]    = gy^T            x       sum over batch: both strided
// The bias is added where a tile is stored; its gradient is the column sums of gy.
//
// dot          forward, few rows of x: every weight is read once where it lies (gemm_dot.h)
// stream       backward, few rows of x: bound by reading or writing the weights, nothing packed (gemm_stream.h)
// packed_gemm  everything else (gemm.h)
// plain        three loops
#include "column_sums.h"
#include "gemm.h"
#include "gemm_dot.h"
#include "gemm_stream.h"
#include "kernels.h"

namespace cisdl {
namespace {

// Batches up to which `stream` wins (see its conditions). Those of 16 registers are their own.
constexpr int64_t kFewRows = kNumRegisters == 32 ? 3 : 8;
constexpr int64_t kShortSum = kNumRegisters == 32 ? 4 : 8;
// Weights that certainly come from memory, and the batches there.
constexpr int64_t kMemoryBytes = 32 << 20, kMemoryRows = 4;

template <class Args>
bool always(const Args&) {
  return true;
}

// ---------------------------------------------------------------------------------------------- forward

// Few rows; or, over a sum that is worth adding up lanes, so few rows or columns that lanes of packed_gemm's tile
// would idle. Measured with 32 registers: of 8 rows dot is 1.1 to 2.2 times as fast as packed_gemm, of 12
// rows 1.25 times (Zen 4), of 16 rows even, of 32 rows 0.7 (Intel) to 1 times; of 1024 features to 10 it is 1.7
// times as fast whatever the batch. Where packed_gemm has to pack weights whose rows collide, 16 rows are 1.6
// times as fast (Zen 4).
template <class T>
bool forward_dot_applicable(const LinearForward<T>& f) {
  constexpr int64_t W = kWidth<T>;
  const bool idle_lanes = f.p.batch < W || f.p.out_features < W;
  return f.p.batch <= 8 || (idle_lanes && f.p.in_features >= 16 * W) ||
         (f.p.batch <= W && rows_collide(lines_are_rows(f.weight, f.p.in_features)));
}

template <class T>
void forward_dot(const LinearForward<T>& f, const Parallel& par) {
  gemm_dot<T>(f.p.batch, f.p.out_features, f.p.in_features, f.input, f.p.in_features, f.weight, f.p.in_features,
              {f.output, f.p.out_features, false, nullptr, f.bias}, par);
}

template <class T>
void forward_packed(const LinearForward<T>& f, const Parallel& par) {
  gemm<T>({f.p.batch,
           f.p.out_features,
           f.p.in_features,
           lines_are_rows(f.input, f.p.in_features),
           lines_are_rows(f.weight, f.p.in_features),
           {f.output, f.p.out_features, false, nullptr, f.bias}},
          par);
}

template <class T>
void forward_plain(const LinearForward<T>& f, const Parallel& par) {
  const int64_t in = f.p.in_features, out = f.p.out_features;
  parallel_for(par, f.p.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t o = 0; o < out; ++o) {
        T sum = f.bias ? f.bias[o] : T(0);
        for (int64_t i = 0; i < in; ++i) sum += f.input[n * in + i] * f.weight[o * in + i];
        f.output[n * out + o] = sum;
      }
  });
}

// --------------------------------------------------------------------------------------- gradient of x

// One row; up to three where the weights stay in L2, up to kMemoryRows where they come from memory. Measured with
// 32 registers: else packed_gemm, which does not pack for so few rows either, is 1.1 to 1.7 times as fast. With 36
// to 144 MiB of weights stream is 1.0 to 1.2 times as fast for up to 4 rows (16 registers: 1.0 to 1.8),
// packed_gemm up to 1.7 times for 6 and 8.
template <class T>
bool backward_input_stream_applicable(const LinearBackwardInput<T>& f) {
  const int64_t bytes = f.p.in_features * f.p.out_features * static_cast<int64_t>(sizeof(T));
  const int64_t most = bytes <= kL2Bytes ? kFewRows : bytes >= kMemoryBytes ? kMemoryRows : 1;
  return f.p.out_features > 0 && f.p.batch <= most;
}

template <class T>
void backward_input_stream(const LinearBackwardInput<T>& f, const Parallel& par) {
  gemm_few_rows<T>(f.p.batch, f.p.in_features, f.p.out_features, lines_are_rows(f.grad_output, f.p.out_features),
                   f.weight, f.p.in_features, {f.grad_input, f.p.in_features}, par);
}

template <class T>
void backward_input_packed(const LinearBackwardInput<T>& f, const Parallel& par) {
  gemm<T>({f.p.batch,
           f.p.in_features,
           f.p.out_features,
           lines_are_rows(f.grad_output, f.p.out_features),
           lines_are_columns(f.weight, f.p.in_features),
           {f.grad_input, f.p.in_features}},
          par);
}

template <class T>
void backward_input_plain(const LinearBackwardInput<T>& f, const Parallel& par) {
  const int64_t in = f.p.in_features, out = f.p.out_features;
  parallel_for(par, f.p.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t i = 0; i < in; ++i) {
        T sum = T(0);
        for (int64_t o = 0; o < out; ++o) sum += f.grad_output[n * out + o] * f.weight[o * in + i];
        f.grad_input[n * in + i] = sum;
      }
  });
}

// ------------------------------------------------------------------------------ gradients of W and b

// Sums so short that writing the weights is all the work. Measured with 32 registers: of 4 rows stream is even
// to 1.2 times as fast as packed_gemm, of 16 rows 0.8 times.
template <class T>
bool backward_weight_stream_applicable(const LinearBackwardWeight<T>& f) {
  return f.p.batch > 0 && f.p.batch <= kShortSum;
}

template <class T>
void backward_weight_stream(const LinearBackwardWeight<T>& f, const Parallel& par) {
  if (f.grad_weight)
    gemm_short_sum<T>(f.p.out_features, f.p.in_features, f.p.batch,
                      lines_are_columns(f.grad_output, f.p.out_features), f.input, f.p.in_features, f.grad_weight,
                      f.p.in_features, par);
  if (f.grad_bias) column_sums<T>(f.grad_output, f.p.batch, f.p.out_features, f.grad_bias, par);
}

template <class T>
void backward_weight_packed(const LinearBackwardWeight<T>& f, const Parallel& par) {
  if (f.grad_weight)
    gemm<T>({f.p.out_features,
             f.p.in_features,
             f.p.batch,
             lines_are_columns(f.grad_output, f.p.out_features),
             lines_are_columns(f.input, f.p.in_features),
             {f.grad_weight, f.p.in_features}},
            par);
  if (f.grad_bias) column_sums<T>(f.grad_output, f.p.batch, f.p.out_features, f.grad_bias, par);
}

template <class T>
void backward_weight_plain(const LinearBackwardWeight<T>& f, const Parallel& par) {
  const int64_t in = f.p.in_features, out = f.p.out_features, batch = f.p.batch;
  parallel_for(par, out, 1, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      if (f.grad_bias) {
        T sum = T(0);
        for (int64_t n = 0; n < batch; ++n) sum += f.grad_output[n * out + o];
        f.grad_bias[o] = sum;
      }
      for (int64_t i = 0; f.grad_weight && i < in; ++i) {
        T sum = T(0);
        for (int64_t n = 0; n < batch; ++n) sum += f.grad_output[n * out + o] * f.input[n * in + i];
        f.grad_weight[o * in + i] = sum;
      }
    }
  });
}

template <class T>
constexpr Implementation<LinearForward<T>> kForward[] = {
    {"dot", forward_dot_applicable<T>, forward_dot<T>},
    {"packed_gemm", always<LinearForward<T>>, forward_packed<T>},
    {"plain", always<LinearForward<T>>, forward_plain<T>},
};

template <class T>
constexpr Implementation<LinearBackwardInput<T>> kBackwardInput[] = {
    {"stream", backward_input_stream_applicable<T>, backward_input_stream<T>},
    {"packed_gemm", always<LinearBackwardInput<T>>, backward_input_packed<T>},
    {"plain", always<LinearBackwardInput<T>>, backward_input_plain<T>},
};

template <class T>
constexpr Implementation<LinearBackwardWeight<T>> kBackwardWeight[] = {
    {"stream", backward_weight_stream_applicable<T>, backward_weight_stream<T>},
    {"packed_gemm", always<LinearBackwardWeight<T>>, backward_weight_packed<T>},
    {"plain", always<LinearBackwardWeight<T>>, backward_weight_plain<T>},
};

template <class T>
constexpr LinearKernels<T> kernels() {
  return {{kForward<T>, 3}, {kBackwardInput<T>, 3}, {kBackwardWeight<T>, 3}};
}

constexpr LinearFamily kFamily = {kernels<float>(), kernels<double>()};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(linear, LinearFamily) { return &cisdl::kFamily; }
