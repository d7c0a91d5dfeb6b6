// What csrc/ops may ask of a CUDA GPU: one `run` per problem of csrc/common/problems.h.
//
// Plain C++, no CUDA header needed: a stream travels as `void*` (a cudaStream_t). All pointers of a problem are
// device pointers on the current device, which the caller has set. A call enqueues kernels on the stream and
// returns: it allocates nothing, waits for nothing and may be captured in a CUDA graph. Results are the same on
// every run (no floating-point atomics). Every `run` exists for float and double, those of pools for BFloat16 and
// Float16 too, and answers nullptr, or in words why a launch failed (the text of cudaGetErrorString). Some work
// faster with scratch memory, of as many bytes as `scratch_bytes` says (perhaps 0); it may be null.
#pragma once

#include "../common/elementwise.h"
#include "../common/linear_activation.h"
#include "../common/problems.h"
#include "../common/recurrences.h"
#include "../common/recurrent_cells.h"
#include "scalars.h"

namespace cisdl::cuda {

template <class T>
const char* run(const LinearForward<T>& args, void* stream);
template <class T>
const char* run(const LinearActivationForward<T>& args, void* stream);
template <class T>
const char* run(const LinearBackwardInput<T>& args, void* stream);
template <class T>
const char* run(const LinearBackwardWeight<T>& args, void* scratch, void* stream);
template <class T>
int64_t scratch_bytes(const LinearBackwardWeight<T>& args);

template <class T>
const char* run(const Conv2dForward<T>& args, void* stream);
template <class T>
const char* run(const Conv2dBackwardInput<T>& args, void* stream);
template <class T>
const char* run(const Conv2dBackwardWeight<T>& args, void* scratch, void* stream);
template <class T>
int64_t scratch_bytes(const Conv2dBackwardWeight<T>& args);

template <class T>
const char* run(const MaxPool2dForward<T>& args, void* stream);
template <class T>
const char* run(const MaxPool2dBackward<T>& args, void* stream);
template <class T>
const char* run(const MaxPool2dGather<T>& args, void* stream);
template <class T>
const char* run(const AvgPool2dForward<T>& args, void* stream);
template <class T>
const char* run(const AvgPool2dBackward<T>& args, void* stream);
template <class T>
const char* run(const AdaptiveMaxPool2dForward<T>& args, void* stream);
template <class T>
const char* run(const AdaptiveMaxPool2dBackward<T>& args, void* stream);
template <class T>
const char* run(const AdaptiveAvgPool2dForward<T>& args, void* stream);
template <class T>
const char* run(const AdaptiveAvgPool2dBackward<T>& args, void* stream);

template <class T>
const char* run(const LstmCellForward<T>& args, void* stream);
template <class T>
const char* run(const LstmCellBackward<T>& args, void* stream);

template <class T>
const char* run(const LstmStepForward<T>& args, void* stream);
template <class T>
const char* run(const LstmStepBackward<T>& args, void* stream);
template <class T>
const char* run(const GruStepForward<T>& args, void* stream);
template <class T>
const char* run(const GruStepBackward<T>& args, void* stream);
template <class T>
const char* run(const RnnStepForward<T>& args, void* stream);
template <class T>
const char* run(const RnnStepBackward<T>& args, void* stream);

template <class T>
const char* run(const CrossEntropyForward<T>& args, void* stream);
template <class T>
const char* run(const CrossEntropyReduction<T>& args, void* stream);
template <class T>
const char* run(const CrossEntropyBackward<T>& args, void* stream);

// One step of `count` tensors each.
template <class T>
const char* run(const AdamStep<T>* steps, int64_t count, void* stream);
template <class T>
const char* run(const SgdStep<T>* steps, int64_t count, void* stream);

// ----------------------------------------------------------------------------------------------- tensor cores
// Matrix products with T = BFloat16 or Float16 (sums in float, rounded once) or float (factors rounded to TF32,
// only for who allows that). `mma_scratch` says how many bytes of scratch memory a call wants (perhaps 0), or -1:
// not a problem for tensor cores (mma_gemm.cuh says which are; biases alone are none either), or this device has
// none that this build knows. Images have to be in Layout::nhwc.

bool has_tensor_cores();  // of the current device, and kernels for it in this build

template <class T>
int64_t mma_scratch(const LinearForward<T>& args);
template <class T>
int64_t mma_scratch(const LinearActivationForward<T>& args);
template <class T>
int64_t mma_scratch(const LinearBackwardInput<T>& args);
template <class T>
int64_t mma_scratch(const LinearBackwardWeight<T>& args);
template <class T>
int64_t mma_scratch(const Conv2dForward<T>& args);
template <class T>
int64_t mma_scratch(const Conv2dBackwardInput<T>& args);
template <class T>
int64_t mma_scratch(const Conv2dBackwardWeight<T>& args);

// Cells in 16 bits only.
template <class T>
int64_t mma_scratch(const LstmCellForward<T>& args);
template <class T>
int64_t mma_scratch(const LstmCellBackward<T>& args);
template <class T>
int64_t mma_scratch(const GruCellForward<T>& args);
template <class T>
int64_t mma_scratch(const RnnCellForward<T>& args);
template <class T>
const char* run_mma(const LstmCellForward<T>& args, void* scratch, void* stream);
template <class T>
const char* run_mma(const LstmCellBackward<T>& args, void* scratch, void* stream);
template <class T>
const char* run_mma(const GruCellForward<T>& args, void* scratch, void* stream);
template <class T>
const char* run_mma(const RnnCellForward<T>& args, void* scratch, void* stream);

template <class T>
const char* run_mma(const LinearForward<T>& args, void* scratch, void* stream);
template <class T>
const char* run_mma(const LinearActivationForward<T>& args, void* scratch, void* stream);
template <class T>
const char* run_mma(const LinearBackwardInput<T>& args, void* scratch, void* stream);
template <class T>
const char* run_mma(const LinearBackwardWeight<T>& args, void* scratch, void* stream);
template <class T>
const char* run_mma(const Conv2dForward<T>& args, void* scratch, void* stream);
template <class T>
const char* run_mma(const Conv2dBackwardInput<T>& args, void* scratch, void* stream);
template <class T>
const char* run_mma(const Conv2dBackwardWeight<T>& args, void* scratch, void* stream);

// The same with T = BFloat16 or Float16 by Hopper's own instructions (hopper_gemm.h): -1 for what they do not
// take, and on every GPU but one of compute capability 9.0.
template <class T>
int64_t hopper_scratch(const LinearForward<T>& args);
template <class T>
int64_t hopper_scratch(const LinearBackwardInput<T>& args);
template <class T>
int64_t hopper_scratch(const LinearBackwardWeight<T>& args);
template <class T>
int64_t hopper_scratch(const Conv2dForward<T>& args);
template <class T>
int64_t hopper_scratch(const Conv2dBackwardInput<T>& args);
template <class T>
int64_t hopper_scratch(const Conv2dBackwardWeight<T>& args);

template <class T>
const char* run_hopper(const LinearForward<T>& args, void* scratch, void* stream);
template <class T>
const char* run_hopper(const LinearBackwardInput<T>& args, void* scratch, void* stream);
template <class T>
const char* run_hopper(const LinearBackwardWeight<T>& args, void* scratch, void* stream);
template <class T>
const char* run_hopper(const Conv2dForward<T>& args, void* scratch, void* stream);
template <class T>
const char* run_hopper(const Conv2dBackwardInput<T>& args, void* scratch, void* stream);
template <class T>
const char* run_hopper(const Conv2dBackwardWeight<T>& args, void* scratch, void* stream);

// grad_bias[c] = sum over rows of grad_output[row][c], for T = BFloat16 and Float16.
template <class T>
const char* run_bias_gradient(const T* grad_output, int64_t rows, int64_t channels, T* grad_bias, void* stream);

// ------------------------------------------------------------------------------------------- recurrences
// All steps of a recurrent layer in one kernel (recurrence.cuh), for T = float, BFloat16 and Float16. `fits`:
// whether it is a problem for it, on the current device; else the steps above do the same.

template <class T>
bool fits(const RecurrenceForward<T>& args);
template <class T>
bool fits(const RecurrenceBackward<T>& args);

template <class T>
const char* run(const RecurrenceForward<T>& args, void* stream);
template <class T>
const char* run(const RecurrenceBackward<T>& args, void* stream);

}  // namespace cisdl::cuda
