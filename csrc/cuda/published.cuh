// Words that blocks of one grid publish to each other, without a barrier.
//
// Memory that nobody has written yet holds kUnpublished in every number: a NaN of all ones, which no conversion to
// a 16-bit type gives. Who needs a number looks until it is there. So a number carries its own flag: no fence
// stands between value and flag, no order among numbers is assumed, and what a barrier of the grid would add (a
// flag behind the data, another read in front of it) is saved. Every block of the grid has to be alive
// (launch_cooperative).
//
// Accesses are relaxed ones of the whole device, which pass by the L1 cache. tests/cuda_emulation defines the same
// words for the CPU, where numbers arrive late and in any order, and where waiting for what never comes is an
// error.
#pragma once

#include "launch.cuh"
#include "scalars.h"
#include "tensor_cores.cuh"

namespace cisdl::cuda {

constexpr int kUnpublishedByte = 0xff;

// Whether one of the eight 16-bit numbers of a chunk is not there yet: a half of ~word that is zero.
__device__ inline bool has_unpublished(const Chunk& chunk) {
  uint32_t found = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) found |= (~chunk.word[i] - 0x00010001u) & chunk.word[i] & 0x80008000u;
  return found != 0;
}

#ifdef __CUDACC__

// 16 aligned bytes; each of its numbers is either there or not.
__device__ inline Chunk load_published(const void* from) {
  Chunk chunk;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(chunk.word[0]), "=r"(chunk.word[1]), "=r"(chunk.word[2]), "=r"(chunk.word[3])
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return chunk;
}

template <class T>
__device__ inline void publish(T* to, T value) {
  static_assert(sizeof(T) == 2);
  asm volatile("st.relaxed.gpu.global.u16 [%0], %1;" ::"l"(__cvta_generic_to_global(to)), "h"(value.bits)
               : "memory");
}

// Whether a lane of this warp misses something: then it is time to look again.
__device__ inline bool await(bool missing) { return __any_sync(0xffffffffu, missing); }

#endif

}  // namespace cisdl::cuda
