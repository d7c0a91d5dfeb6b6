// Words that blocks of one grid publish to each other, without a barrier.
//
// Memory that nobody has written yet holds a NaN of all ones in every number, which nobody publishes: conversions
// to 16-bit types do not give it, and a float that is NaN is published as another NaN. Who needs a number looks
// until it is there. So a number carries its own flag: no fence stands between value and flag, no order among
// numbers is assumed, and what a barrier of the grid would add (a flag behind the data, another read in front of
// it) is saved. Every block of the grid has to be alive (launch_cooperative).
//
// Accesses are relaxed ones of the whole device, which pass by the L1 cache. A 16-bit number is stored by itself
// and read as half of a 32-bit word; that it is there as a whole or not at all is what hardware does, while PTX's
// memory model has words only for accesses of one size. tests/cuda_emulation defines the same words for the CPU,
// where numbers arrive late and in any order, and where waiting for what never comes is an error.
#pragma once

#include "launch.cuh"
#include "scalars.h"
#include "tensor_cores.cuh"

namespace cisdl::cuda {

constexpr int kUnpublishedByte = 0xff;

// Whether a number of T in a chunk is not there yet: a word of ones, or, of 16 bits, a half of ~word that is zero.
template <class T>
__device__ bool has_unpublished(const Chunk& chunk) {
  uint32_t found = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = chunk.word[i];
    if constexpr (sizeof(T) == 4) {
      found |= word == 0xffffffffu;
    } else {
      found |= (~word - 0x00010001u) & word & 0x80008000u;
    }
  }
  return found != 0;
}

// A value that is not what unpublished memory holds.
template <class T>
__device__ T publishable(T value) {
  if constexpr (sizeof(T) == 4) return value != value ? float_of(0x7fc00000u) : value;
  return value;
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
  if constexpr (sizeof(T) == 2) {
    asm volatile("st.relaxed.gpu.global.u16 [%0], %1;" ::"l"(__cvta_generic_to_global(to)), "h"(value.bits)
                 : "memory");
  } else {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(to)),
                 "r"(bits_of(publishable(value)))
                 : "memory");
  }
}

// Whether a lane of this warp misses something: then it is time to look again.
__device__ inline bool await(bool missing) { return __any_sync(0xffffffffu, missing); }

#endif

}  // namespace cisdl::cuda
