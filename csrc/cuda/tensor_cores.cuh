// The instructions behind mma_gemm.cuh, by name: asynchronous copies into shared memory (cp.async), fragments out
// of it (ldmatrix) and the products of tensor cores (mma.sync), as the PTX ISA defines them. They need compute
// capability 8.0; kernels that use them have no body below (CISDL_NO_TENSOR_CORES).
//
// tests/cuda_emulation/cuda_emulation.h defines the same words for the CPU, with the same fragments, and there a
// warp's threads have to meet at each instruction that is the warp's.
//
// Fragments, with lane = 4 g + t of a warp; a register holds 4 bytes: two neighbours in depth of a 16-bit type, or
// one float:
//   A  16 lines x 32 bytes of depth    [0] line g, bytes 4t    [1] line g + 8    [2] line g, bytes 4t + 16    [3]
//   both
//   B  8 columns x 32 bytes of depth   [0] column g, bytes 4t  [1] column g, bytes 4t + 16
//   C  16 lines x 8 columns, float     [0] (g, 2t)  [1] (g, 2t + 1)  [2] (g + 8, 2t)  [3] (g + 8, 2t + 1)
#pragma once

#include "launch.cuh"
#include "scalars.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define CISDL_NO_TENSOR_CORES
#endif

namespace cisdl::cuda {

// What is copied at once, in shared memory.
struct alignas(16) Chunk {
  uint32_t word[4];
};

#ifdef __CUDACC__

__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Begins to copy 16 bytes from global to shared memory, or to write 16 zero bytes there; both aligned. `source` is
// an address in either case.
__device__ inline void copy_async(Chunk* target, const void* source, bool zero) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(target)), "l"(source),
               "r"(zero ? 0 : 16)
               : "memory");
}

// Ends a group of this thread's copies.
__device__ inline void end_copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for this thread's copies but for those of the last `groups` groups.
template <int groups>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

// Four 8 x 16 byte matrices; lane 8 m + i says where row i of matrix m lies. This lane gets of each matrix bytes
// 4t of row g, or, transposed as a matrix of 16-bit numbers, the numbers g of rows 2t and 2t + 1.
template <bool transposed>
__device__ inline void load_matrices(uint32_t (&to)[4], const Chunk* row) {
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

// float rounded to TF32 (10 bits of mantissa), ties away from zero.
__device__ inline uint32_t to_tf32(uint32_t value) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(value)));
  return rounded;
}

#define CISDL_MMA(instruction)                                                                \
  asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// C += A B; T says what a and b are. float: TF32.
template <class T>
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    CISDL_MMA("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32");
  } else if constexpr (std::is_same_v<T, Float16>) {
    CISDL_MMA("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32");
  } else {
    static_assert(std::is_same_v<T, float>);
    CISDL_MMA("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32");
  }
}

#undef CISDL_MMA
#endif

}  // namespace cisdl::cuda
