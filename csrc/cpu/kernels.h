// What each CPU source exports: one table of implementation lists per op family.
//
// linear.cpp, conv2d.cpp, lane_groups.cpp, pool2d.cpp, lstm_cell.cpp, recurrent.cpp and others are compiled once
// per instruction set with -DCISDL_ISA=<name> and export a single symbol each, `cisdl_<family>_<isa>`, through
// CISDL_EXPORT. All else in those objects lies in anonymous namespaces: a linker that merged an inline function
// compiled for AVX-512 into the copy that old CPUs run would end in SIGILL. tests/packaging checks it with nm.
#pragma once

#include "../common/implementation.h"
#include "../common/problems.h"
#include "../common/recurrent_layers.h"

namespace cisdl {

template <class T>
struct LinearKernels {
  ImplementationList<LinearForward<T>> forward;
  ImplementationList<LinearBackwardInput<T>> backward_input;
  ImplementationList<LinearBackwardWeight<T>> backward_weight;
};

template <class T>
struct Conv2dKernels {
  ImplementationList<Conv2dForward<T>> forward;
  ImplementationList<Conv2dBackwardInput<T>> backward_input;
  ImplementationList<Conv2dBackwardWeight<T>> backward_weight;
};

// 3x3 and 5x5 convolutions in float32 (winograd.cpp), in an object of their own; conv2d.cpp lists them.
struct WinogradKernels {
  void (*forward)(const Conv2dForward<float>&, const Parallel&);
  void (*backward_input)(const Conv2dBackwardInput<float>&, const Parallel&);
  void (*backward_weight)(const Conv2dBackwardWeight<float>&, const Parallel&);
};

// Grouped convolutions whose groups fit in a vector (lane_groups.cpp), in an object of their own; conv2d.cpp lists
// them.
template <class T>
struct LaneGroupKernels {
  bool (*applies)(const Conv2dProblem&, Layout);
  void (*forward)(const Conv2dForward<T>&, const Parallel&);
  void (*backward_input)(const Conv2dBackwardInput<T>&, const Parallel&);
  void (*backward_weight)(const Conv2dBackwardWeight<T>&, const Parallel&);
};

template <class T>
struct Pool2dKernels {
  ImplementationList<MaxPool2dForward<T>> max_forward;
  ImplementationList<MaxPool2dBackward<T>> max_backward;
  ImplementationList<MaxPool2dGather<T>> max_gather;
  ImplementationList<AvgPool2dForward<T>> avg_forward;
  ImplementationList<AvgPool2dBackward<T>> avg_backward;
  ImplementationList<AdaptiveMaxPool2dForward<T>> adaptive_max_forward;
  ImplementationList<AdaptiveMaxPool2dBackward<T>> adaptive_max_backward;
  ImplementationList<AdaptiveAvgPool2dForward<T>> adaptive_avg_forward;
  ImplementationList<AdaptiveAvgPool2dBackward<T>> adaptive_avg_backward;
};

template <class T>
struct LstmCellKernels {
  ImplementationList<LstmCellForward<T>> forward;
  ImplementationList<LstmCellBackward<T>> backward;
};

// The elementwise part of one step of a recurrent layer.
template <class T>
struct RecurrentKernels {
  ImplementationList<LstmStepForward<T>> lstm_forward;
  ImplementationList<LstmStepBackward<T>> lstm_backward;
  ImplementationList<GruStepForward<T>> gru_forward;
  ImplementationList<GruStepBackward<T>> gru_backward;
  ImplementationList<RnnStepForward<T>> rnn_forward;
  ImplementationList<RnnStepBackward<T>> rnn_backward;
};

// A whole recurrent layer. An entry without a function leaves the layer to its caller, step by step.
template <class T>
struct RecurrentLayerKernels {
  ImplementationList<LstmLayerForward<T>> lstm_forward;
  ImplementationList<LstmLayerBackward<T>> lstm_backward;
  ImplementationList<GruLayerForward<T>> gru_forward;
  ImplementationList<GruLayerBackward<T>> gru_backward;
  ImplementationList<RnnLayerForward<T>> rnn_forward;
  ImplementationList<RnnLayerBackward<T>> rnn_backward;
};

// Measures what this instruction set can do, for `cisdl bench` (peak.cpp).
struct PeakKernels {
  double (*fma_f32)(int64_t iterations);  // runs independent FMAs in registers, returns how many flops it did
  double (*fma_f64)(int64_t iterations);
};

// A family's two tables, one per element type.
template <template <class> class Kernels>
struct Family {
  Kernels<float> f32;
  Kernels<double> f64;
};

using LinearFamily = Family<LinearKernels>;
using Conv2dFamily = Family<Conv2dKernels>;
using LaneGroupFamily = Family<LaneGroupKernels>;
using Pool2dFamily = Family<Pool2dKernels>;
using LstmCellFamily = Family<LstmCellKernels>;
using RecurrentFamily = Family<RecurrentKernels>;
using RecurrentLayerFamily = Family<RecurrentLayerKernels>;

// Grow-only scratch memory of the calling thread, 64-byte aligned, contents undefined. A pointer stays valid
// until the same thread asks for the same slot again. `shared` is for the thread that calls the kernel (packed
// operands that all threads read), `local` for the body of a parallel_for, `extra` for a second one there, `outer`
// for a kernel that calls another.
enum class Scratch : int { shared, shared2, local, extra, outer, count };
void* scratch(Scratch slot, int64_t bytes);

}  // namespace cisdl

#define CISDL_CONCAT_(a, b, c) a##b##_##c
#define CISDL_CONCAT(a, b, c) CISDL_CONCAT_(a, b, c)
// CISDL_EXPORT(linear, LinearFamily) { return {...}; }
#define CISDL_EXPORT(family, Type) extern "C" const cisdl::Type* CISDL_CONCAT(cisdl_, family, CISDL_ISA)()
