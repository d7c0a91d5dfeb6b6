// The elementwise part of one step of an LSTM, GRU or plain recurrent layer, forward and backward, on the CPU; the
// products beside it are those of linear.cpp. A GRU or RNN cell is a layer of one step. The formulas are in
// common/recurrent_steps.h.
//
// lanes   a vector of hidden units at a time, with the exp and tanh of simd_math.h; parallel over rows where there
//         is work enough. At batch 1 the step is small beside reading W_hh, so one thread does it.
// plain   one hidden unit at a time, with the C library's exp and tanh
#include "gemm.h"
#include "kernels.h"
#include "recurrent_lanes.h"

namespace cisdl {
namespace {

template <class Args>
bool always(const Args&) {
  return true;
}

// Every row, M::kCount hidden units at a time.
template <class M, class Args>
void run_step(const Args& args, const Parallel& par) {
  constexpr int64_t kWork = 128;  // for one hidden unit; a multiply-add is 1
  const int64_t hidden = args.p.hidden_size;
  parallel_for(par, args.p.rows, grain_for(kWork * hidden), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t unit = 0; unit < hidden; unit += M::kCount) take_step<M>(args, row, unit, hidden - unit);
  });
}

template <class T, template <class> class Args>
constexpr Implementation<Args<T>> kStep[] = {
    {"lanes", always<Args<T>>, run_step<Lanes<T>, Args<T>>},
    {"plain", always<Args<T>>, run_step<Plain<T>, Args<T>>},
};

template <class T>
constexpr RecurrentKernels<T> kernels() {
  return {{kStep<T, LstmStepForward>, 2}, {kStep<T, LstmStepBackward>, 2}, {kStep<T, GruStepForward>, 2},
          {kStep<T, GruStepBackward>, 2}, {kStep<T, RnnStepForward>, 2},   {kStep<T, RnnStepBackward>, 2}};
}

constexpr RecurrentFamily kFamily = {kernels<float>(), kernels<double>()};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(recurrent, RecurrentFamily) { return &cisdl::kFamily; }
