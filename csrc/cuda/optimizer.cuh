// Steps of Adam, AdamW and SGD for many tensors in one kernel, in float and double (formulas:
// common/elementwise.h).
//
// A network has many small parameters: a kernel for each would be all launches. So the steps of up to kTensors
// tensors travel as a table in the kernel's parameters, nothing is copied to the GPU before, and the
// hyper-parameters, as numbers, are in it. A block takes a piece of 4096 elements of one tensor, found in the
// table by the number of pieces before each. A thread moves 16 bytes of every array at once where all arrays of
// the tensor are aligned to them.
//
// Traffic of Adam: weight, both moments read and written, gradient read: 28 bytes an element in float; SGD with
// momentum: 20, without 12. There is hardly any arithmetic; expected is the rate of a copy.
//
// Limits: what is in the table is what a CUDA graph replays. A step whose numbers change in a graph (torch's
// `capturable`) is torch's own.
#pragma once

#include <cmath>

#include "../common/elementwise.h"
#include "pool2d.cuh"

namespace cisdl::cuda {

constexpr int kTensors = 24;      // of a launch: the table fits into 4 KB of parameters
constexpr int64_t kPiece = 4096;  // elements of a block

template <class Step>
struct StepTable {
  Step step[kTensors];
  int64_t first_piece[kTensors];  // of each tensor
  int64_t pieces;
  int tensors;
};

// What the arrays of a step are: their elements at i, read, updated, written.
template <class T, int lanes>
__device__ void take_step_at(const AdamStep<T>& s, int64_t i) {
  auto w = load_lanes<lanes>(s.weight + i), m = load_lanes<lanes>(s.m + i), v = load_lanes<lanes>(s.v + i);
  const auto grad = load_lanes<lanes>(static_cast<const T*>(s.grad) + i);
  Lanes<T, lanes> largest = {};
  if (s.largest_v) largest = load_lanes<lanes>(s.largest_v + i);
  const T scale = T(1) / s.sqrt_correction2;
#pragma unroll
  for (int l = 0; l < lanes; ++l) {
    const T g = (s.maximize ? -grad.value[l] : grad.value[l]) + s.decay * w.value[l];
    m.value[l] = s.beta1 * m.value[l] + s.rest1 * g;
    v.value[l] = s.beta2 * v.value[l] + s.rest2 * g * g;
    T used = v.value[l];
    if (s.largest_v) {
      used = largest.value[l] > used ? largest.value[l] : used;
      largest.value[l] = used;
    }
    w.value[l] = w.value[l] * s.shrink - s.step_size * m.value[l] / (std::sqrt(used) * scale + s.eps);
  }
  store_lanes(s.weight + i, w);
  store_lanes(s.m + i, m);
  store_lanes(s.v + i, v);
  if (s.largest_v) store_lanes(s.largest_v + i, largest);
}

template <class T, int lanes>
__device__ void take_step_at(const SgdStep<T>& s, int64_t i) {
  auto w = load_lanes<lanes>(s.weight + i);
  const auto grad = load_lanes<lanes>(static_cast<const T*>(s.grad) + i);
  Lanes<T, lanes> buffer = {};
  if (s.buffer && !s.first) buffer = load_lanes<lanes>(s.buffer + i);
#pragma unroll
  for (int l = 0; l < lanes; ++l) {
    const T g = (s.maximize ? -grad.value[l] : grad.value[l]) + s.decay * w.value[l];
    T change = g;
    if (s.buffer) {
      const T b = s.first ? g : s.momentum * buffer.value[l] + (T(1) - s.dampening) * g;
      buffer.value[l] = b;
      change = s.nesterov ? g + s.momentum * b : b;
    }
    w.value[l] -= s.lr * change;
  }
  store_lanes(s.weight + i, w);
  if (s.buffer) store_lanes(s.buffer + i, buffer);
}

template <class T>
__device__ bool aligned_to_16_bytes(const AdamStep<T>& s) {
  const auto bits = reinterpret_cast<uintptr_t>(s.weight) | reinterpret_cast<uintptr_t>(s.grad) |
                    reinterpret_cast<uintptr_t>(s.m) | reinterpret_cast<uintptr_t>(s.v) |
                    reinterpret_cast<uintptr_t>(s.largest_v);
  return bits % 16 == 0;
}

template <class T>
__device__ bool aligned_to_16_bytes(const SgdStep<T>& s) {
  const auto bits = reinterpret_cast<uintptr_t>(s.weight) | reinterpret_cast<uintptr_t>(s.grad) |
                    reinterpret_cast<uintptr_t>(s.buffer);
  return bits % 16 == 0;
}

template <class T, template <class> class Step>
__global__ void __launch_bounds__(kThreads) optimizer_kernel(const __grid_constant__ StepTable<Step<T>> table) {
  constexpr int kLanes = 16 / sizeof(T);
  for (int64_t piece = blockIdx.x; piece < table.pieces; piece += gridDim.x) {
    int tensor = 0;
    while (tensor + 1 < table.tensors && piece >= table.first_piece[tensor + 1]) ++tensor;
    const Step<T>& s = table.step[tensor];
    const int64_t begin = (piece - table.first_piece[tensor]) * kPiece;
    const int64_t end = CISDL_INSIDE(begin + kPiece <= s.size) ? begin + kPiece : s.size;
    int64_t rest = begin;  // where elements one by one begin
    if (aligned_to_16_bytes(s)) {
      rest = begin + (end - begin) / kLanes * kLanes;
#pragma unroll 2
      for (int64_t i = begin + int64_t{threadIdx.x} * kLanes; CISDL_INSIDE(i < rest); i += kThreads * kLanes)
        take_step_at<T, kLanes>(s, i);
    }
    for (int64_t i = rest + threadIdx.x; CISDL_INSIDE(i < end); i += kThreads) take_step_at<T, 1>(s, i);
  }
}

}  // namespace cisdl::cuda
