// CUDA's words for g++: with `-x c++ -include cuda_emulation.h`, the .cu and .cuh files of csrc/cuda compile as
// plain C++ and run on the CPU. For tests only: it is made to find faults, not to be fast.
//
// Blocks run one after another, or side by side in a cooperative launch. A block's threads are fibers on one
// processor: each runs until its next __syncthreads or its end, in an order that can be chosen (forward, reverse,
// shuffled anew at every barrier), so a result that depends on which thread comes first differs between orders.
// emulator.h says what is noticed, and which file does what.
//
// A warp's instruction (ldmatrix, mma.sync; tensor_cores.h) waits for its 32 threads; the last to arrive executes
// it for all. An asynchronous copy (cp.async) arrives at once in forward order, as late as a wait allows in
// reverse order, and at either time in shuffled order: what reads too early or overwrites too early shows.
// hopper.cpp does the same for the copy engine and the products of a warpgroup.
//
// Not emulated: other warp intrinsics, atomics, more than one dimension. A kernel that uses them does not compile
// here, which is the moment to add them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __grid_constant__
#define __launch_bounds__(...)

// A variable in shared memory; csrc/cuda/launch.cuh defines this word for nvcc.
#define CISDL_SHARED(Type, name) \
  Type& name = *static_cast<Type*>(cisdl::emulation::shared_memory(sizeof(Type), alignof(Type)))

// A condition that keeps a kernel within a tensor, or true where it is the one left out; launch.cuh for nvcc.
#define CISDL_INSIDE(condition)                                                 \
  ([&] {                                                                        \
    static const int site = cisdl::emulation::bounds_check(__FILE__, __LINE__); \
    return (condition) || site == cisdl::emulation::skipped_bounds_check;       \
  }())

namespace cisdl::emulation {

constexpr int64_t kMultiprocessors = 4;
constexpr int64_t kResidentBlocks = 40;  // how many can live side by side

// The number of the bounds check at this place, and the one that is left out (-1: none).
int bounds_check(const char* file, unsigned line);
extern int skipped_bounds_check;

struct Index {
  unsigned x;
};

// The place of a variable of the running block in shared memory. Each thread declares the same ones in the same
// order.
void* shared_memory(size_t size, size_t alignment);

// The running thread waits here for all others of its block.
void barrier(const char* file, unsigned line);

// The running thread waits here for all others of its warp; the last calls body with what each of them brought.
void warp_together(const void* brought, void (*body)(const void* const* by_lane), const char* file, unsigned line);

// cp.async, cp.async.commit_group and cp.async.wait_group of the running thread.
void copy_async(void* target, const void* source, bool zero);
void end_copy_group();
void wait_for_copies(size_t groups, const char* file, unsigned line);

// Writes a value where threads of other blocks look for it. It arrives at once in forward order, when nobody can
// go on without it in reverse order, at either time in shuffled order; values in any order.
void publish(void* target, const void* value, size_t size);

// Whether a thread of the running one's warp still misses what others publish. If so, others have run meanwhile,
// and it is time to look again.
bool await(bool missing, const char* file, unsigned line);

// Stops the running thread if an address is not a multiple of `size`.
void check_aligned(const void* address, size_t size);

// Calls body(closure) once for every thread of every block; in a cooperative launch, all blocks are alive at the
// same time. nullptr, or what went wrong.
const char* run_grid(const char* kernel, int64_t blocks, unsigned threads, void (*body)(const void*),
                     const void* closure, bool cooperative);

}  // namespace cisdl::emulation

extern cisdl::emulation::Index threadIdx, blockIdx, blockDim, gridDim;

inline void __syncthreads(std::source_location here = std::source_location::current()) {
  cisdl::emulation::barrier(here.file_name(), here.line());
}

namespace cisdl::emulation {

// What csrc/cuda/launch.cuh calls in place of <<<>>> and of cudaLaunchCooperativeKernel.
template <bool cooperative = false, class Kernel, class... Args>
const char* launch(Kernel* kernel, unsigned blocks, unsigned threads, void* /*stream*/, const Args&... args) {
  const auto thread = [&] { kernel(args...); };
  return run_grid(
      __PRETTY_FUNCTION__, blocks, threads,
      [](const void* closure) { (*static_cast<decltype(thread)*>(closure))(); }, &thread, cooperative);
}

}  // namespace cisdl::emulation

#include "hopper.h"
#include "published.h"
#include "tensor_cores.h"
