// The one way a kernel is launched, and the few words kernels are written in.
//
// Every kernel here walks its work with a grid-stride loop over int64 indices along grid.x alone, so a launch
// needs nothing but the number of blocks that would be ideal: `launch` leaves out empty work, keeps the grid
// within the hardware's limit and reports a launch that failed. tests/cuda_emulation compiles the same sources as
// plain C++; what differs there, shared memory and the launch, is in this file (tensor_cores.cuh, hopper.cuh).
#pragma once

#include <cstdint>
#include <cstring>

#include "../common/problems.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
// A variable in shared memory: CISDL_SHARED(Tiles, tiles);
#define CISDL_SHARED(Type, name) __shared__ Type name
// A condition that keeps a kernel within a tensor. Nothing more on a GPU; tests/cuda_emulation takes one after the
// other for true and sees whether the tests notice.
#define CISDL_INSIDE(condition) (condition)
#endif

namespace cisdl::cuda {

// Threads of a block, in every kernel.
constexpr int kThreads = 256;

// Blocks beyond this number take turns in the grid-stride loop. The hardware's limit for grid.x is 2^31 - 1.
constexpr int64_t kMaxBlocks = int64_t{1} << 30;

// Runs kernel(args...) in `blocks` blocks of kThreads threads. nullptr, or why it could not be launched.
template <class Kernel, class... Args>
const char* launch(Kernel* kernel, int64_t blocks, void* stream, const Args&... args) {
  if (blocks <= 0) return nullptr;
  const auto grid = static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
#ifdef __CUDACC__
  kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args...);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#else
  return emulation::launch(kernel, grid, kThreads, stream, args...);
#endif
}

// As `launch`, with all blocks on the device at once, so that they may wait for each other: no more than
// `resident_blocks`.
template <class Kernel, class Args>
const char* launch_cooperative(Kernel* kernel, int64_t blocks, void* stream, const Args& args) {
#ifdef __CUDACC__
  void* pointers[] = {const_cast<Args*>(&args)};
  const cudaError_t error =
      cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned>(blocks)),
                                  dim3(kThreads), pointers, 0, static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#else
  return emulation::launch<true>(kernel, static_cast<unsigned>(blocks), kThreads, stream, args);
#endif
}

// How many blocks of a kernel the current device holds at once; 0 where it cannot promise to.
template <class Kernel>
int64_t resident_blocks([[maybe_unused]] Kernel* kernel) {
#ifdef __CUDACC__
  int device = 0, cooperative = 0, processors = 0, each = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device) == cudaSuccess && cooperative &&
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) == cudaSuccess &&
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, kThreads, 0) == cudaSuccess)
    return int64_t{processors} * each;
  cudaGetLastError();  // it is no error of a launch
  return 0;
#else
  return emulation::kResidentBlocks;
#endif
}

// Fills memory with a byte, on the stream.
inline const char* fill(void* data, int byte, int64_t bytes, [[maybe_unused]] void* stream) {
#ifdef __CUDACC__
  const cudaError_t error =
      cudaMemsetAsync(data, byte, static_cast<size_t>(bytes), static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#else
  std::memset(data, byte, static_cast<size_t>(bytes));
  return nullptr;
#endif
}

__host__ __device__ constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How many multiprocessors the current device has.
inline int64_t multiprocessors() {
#ifdef __CUDACC__
  int device = 0, count = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) == cudaSuccess)
    return count;
  return 1;
#else
  return emulation::kMultiprocessors;
#endif
}

// Runs kernel(args...) with one thread for each of n elements.
template <class Kernel, class... Args>
const char* launch_elements(Kernel* kernel, int64_t n, void* stream, const Args&... args) {
  return launch(kernel, divide_up(n, kThreads), stream, args...);
}

// Calls body(i) for those i of [0, n) that fall to this thread; neighbouring threads get neighbouring i.
template <class Body>
__device__ void for_each_element(int64_t n, const Body& body) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; CISDL_INSIDE(i < n); i += step) body(i);
}

// Splits `index`, not negative: returns index / size and leaves index % size. (Where both fit in 32 bits, as they
// nearly always do, this is a fraction of the cost of a 64-bit division.)
__device__ inline int64_t divide_off(int64_t& index, int64_t size) {
  int64_t quotient;
  if (((index | size) >> 32) == 0) {
    quotient = static_cast<uint32_t>(index) / static_cast<uint32_t>(size);
  } else {
    quotient = index / size;
  }
  index -= quotient * size;
  return quotient;
}

__device__ inline int32_t divide_off(int32_t& index, int32_t size) {
  const auto quotient = static_cast<int32_t>(static_cast<uint32_t>(index) / static_cast<uint32_t>(size));
  index -= quotient * size;
  return quotient;
}

// The place of one element of an image tensor, and how far apart its elements lie.
struct ImageStrides {
  int64_t n, c, h, w;
};

inline ImageStrides image_strides(Layout layout, int64_t channels, int64_t height, int64_t width) {
  const int64_t cell = layout == Layout::nchw ? 1 : channels;
  const int64_t channel = layout == Layout::nchw ? height * width : 1;
  return {channels * height * width, channel, width * cell, cell};
}

}  // namespace cisdl::cuda
