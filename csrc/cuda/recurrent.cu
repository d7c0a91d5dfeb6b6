// Launches of the steps of recurrent layers (recurrent.cuh); the products between them are those of linear.cu.
#include "recurrent.cuh"

#include "kernels.h"

namespace cisdl::cuda {

template <class T, template <class> class Args>
const char* launch_step(const Args<T>& args, void* stream) {
  return launch_elements(recurrent_step_kernel<T, Args>, args.p.rows * args.p.hidden_size, stream, args);
}

#define CISDL_STEP_LAUNCHER(Args)                      \
  template <class T>                                   \
  const char* run(const Args<T>& args, void* stream) { \
    return launch_step(args, stream);                  \
  }                                                    \
  template const char* run(const Args<float>&, void*); \
  template const char* run(const Args<double>&, void*);

CISDL_STEP_LAUNCHER(LstmStepForward)
CISDL_STEP_LAUNCHER(LstmStepBackward)
CISDL_STEP_LAUNCHER(GruStepForward)
CISDL_STEP_LAUNCHER(GruStepBackward)
CISDL_STEP_LAUNCHER(RnnStepForward)
CISDL_STEP_LAUNCHER(RnnStepBackward)

// What cells in 16 bits need: their forward is one kernel (recurrent_cells_mma.cu).
template const char* run(const GruStepBackward<BFloat16>&, void*);
template const char* run(const GruStepBackward<Float16>&, void*);
template const char* run(const RnnStepBackward<BFloat16>&, void*);
template const char* run(const RnnStepBackward<Float16>&, void*);

}  // namespace cisdl::cuda
