// The instructions behind hopper_gemm.cu, by name: tensors copied into shared memory by the copy engine (TMA,
// cp.async.bulk.tensor), mbarriers, and the products of a warpgroup (wgmma), as the PTX ISA defines them. They
// need compute capability 9.0 and code compiled for sm_90a: on no other GPU does it run.
//
// tests/cuda_emulation/hopper.h defines the same words for the CPU. What it cannot prove is this file itself: the
// spelling of the instructions, and that a matrix descriptor means what the PTX ISA's text is read here to say.
//
// A tile in shared memory consists of rows of 128 bytes, 64 numbers. Eight rows are an atom of 1024 aligned bytes,
// in which the 16-byte chunk c of row r lies at place c XOR r: swizzle mode 128B, which the copy engine writes and
// wgmma reads. A row is a line of the operand and holds 64 of its depth (K-major), or it is a depth and holds 64
// lines ("across", MN-major: wgmma transposes).
//
// Registers of C, 64 lines x n columns of a warpgroup, with lane = 4 g + t of its warp w: c[4 j + 2 h + e] is line
// 16 w + g + 8 h, column 8 j + 2 t + e.
#pragma once

#include "launch.cuh"
#include "scalars.h"

#ifdef __CUDACC__
#include <cuda.h>  // types alone: the driver's functions are asked for at run time
#endif

// Device code has these instructions only where it is compiled for sm_90a.
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CISDL_NO_WGMMA
#endif

namespace cisdl::cuda {

constexpr int kAtomBytes = 1024;   // eight rows of 128 bytes
constexpr int kAtomNumbers = 64;   // of 16 bits in such a row
constexpr int kWarpgroup = 128;    // threads
constexpr int kProductDepth = 16;  // of one wgmma, in numbers of 16 bits
constexpr int kMaxImageStep = 8;   // the longest step over an image that the copy engine makes

// Where a matrix in shared memory lies, for wgmma: its address, the bytes between groups of 64 lines (read only
// where rows are depths), the bytes between groups of eight rows, and the swizzle mode 128B.
__device__ inline uint64_t matrix_descriptor(uint32_t address, uint32_t leading, uint32_t stride) {
  const auto field = [](uint32_t bytes) { return uint64_t{(bytes & 0x3ffff) >> 4}; };
  return field(address) | field(leading) << 16 | field(stride) << 32 | uint64_t{1} << 62;
}

// What `bytes` more of the address add to a descriptor.
__device__ inline uint64_t descriptor_step(uint32_t bytes) { return bytes >> 4; }

#ifdef __CUDACC__

// ------------------------------------------------------------------------------------------------- tensor maps

using TensorMap = CUtensorMap;

// The driver's function of that name, or null. No link against libcuda: it is there only where a driver is.
inline void* driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &found);
#endif
  return error == cudaSuccess && found == cudaDriverEntryPointSuccess ? function : nullptr;
}

inline auto encode_tiled_function() {
  static const auto function =
      reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(driver_function("cuTensorMapEncodeTiled"));
  return function;
}

inline auto encode_im2col_function() {
  static const auto function =
      reinterpret_cast<decltype(&cuTensorMapEncodeIm2col)>(driver_function("cuTensorMapEncodeIm2col"));
  return function;
}

// Whether the current device is one whose code hopper_gemm.cu holds, with a driver that makes tensor maps.
inline bool has_hopper() {
#ifdef CISDL_NO_HOPPER  // this build has no code for sm_90a
  return false;
#else
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 &&
         minor == 0 && encode_tiled_function() && encode_im2col_function();
#endif
}

template <class T>
constexpr CUtensorMapDataType kTensorMapType =
    std::is_same_v<T, BFloat16> ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;

// A dense tensor [sizes[2]][sizes[1]][sizes[0]], of which boxes of box[2] x box[1] x box[0] are copied, zeros
// where they lie outside. False: the driver refuses.
template <class T>
bool tiled_map(TensorMap& map, const T* data, const int64_t (&sizes)[3], const int32_t (&box)[3]) {
  const cuuint64_t dims[3] = {cuuint64_t(sizes[0]), cuuint64_t(sizes[1]), cuuint64_t(sizes[2])};
  const cuuint64_t strides[2] = {dims[0] * sizeof(T), dims[0] * dims[1] * sizeof(T)};
  const cuuint32_t boxes[3] = {cuuint32_t(box[0]), cuuint32_t(box[1]), cuuint32_t(box[2])}, steps[3] = {1, 1, 1};
  return encode_tiled_function()(&map, kTensorMapType<T>, 3, const_cast<T*>(data), dims, strides, boxes, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// Images [n][h][w][c], sizes {c, w, h, n}, of which 64 channels of `pixels` pixels are copied, displaced by the
// offsets of a tap, zeros where they lie outside. The pixels go row by row and image by image through the box from
// lower {w, h} to (w - 1, h - 1) + upper, in steps {w, h}.
template <class T>
bool im2col_map(TensorMap& map, const T* data, const int64_t (&sizes)[4], const int32_t (&lower)[2],
                const int32_t (&upper)[2], const int32_t (&step)[2], int32_t pixels) {
  cuuint64_t dims[4], strides[3];
  for (int i = 0; i < 4; ++i) dims[i] = cuuint64_t(sizes[i]);
  for (int i = 0; i < 3; ++i) strides[i] = (i == 0 ? sizeof(T) : strides[i - 1]) * dims[i];
  const cuuint32_t steps[4] = {1, cuuint32_t(step[0]), cuuint32_t(step[1]), 1};
  return encode_im2col_function()(&map, kTensorMapType<T>, 4, const_cast<T*>(data), dims, strides, lower, upper,
                                  kAtomNumbers, cuuint32_t(pixels), steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                  CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// -------------------------------------------------------------------------------------- launch, shared memory

// As `launch`, with so many threads a block and so much dynamic shared memory (dynamic_shared).
template <class Kernel, class... Args>
const char* launch_with_shared(Kernel* kernel, int64_t blocks, int threads, int bytes, void* stream,
                               const Args&... args) {
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error == cudaSuccess) {
    kernel<<<static_cast<unsigned>(blocks), threads, bytes, static_cast<cudaStream_t>(stream)>>>(args...);
    error = cudaGetLastError();
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ unsigned char cisdl_dynamic_shared[];
  return cisdl_dynamic_shared;
}

__device__ inline uint32_t shared_place(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---------------------------------------------------------------------------------------------------- mbarriers

// A barrier of phases 0, 1, 2...: one ends when as many arrivals as it was made for have come, and all the bytes
// that were announced.
struct Barrier {
  uint64_t state;
};

__device__ inline void make_barrier(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_place(barrier)), "r"(arrivals) : "memory");
}

// What this thread wrote to shared memory so far, barriers too, the copy engine sees afterwards.
__device__ inline void show_to_copy_engine() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ inline void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_place(barrier)) : "memory");
}

// Arrives, and announces so many bytes of copies.
__device__ inline void arrive_expecting(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_place(barrier)), "r"(bytes)
               : "memory");
}

// Waits for the end of the phase whose number has this parity: no time at all for 1 while phase 0 lasts.
__device__ inline void wait_for_phase(Barrier* barrier, uint32_t parity) {
  uint32_t ended;
  do {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(ended)
        : "r"(shared_place(barrier)), "r"(parity)
        : "memory");
  } while (!ended);
}

// ------------------------------------------------------------------------------------------------------- copies

// Begins to copy the box at x (dense), y, z; `barrier` counts its bytes.
__device__ inline void copy_box(void* target, const TensorMap& map, Barrier* barrier, int32_t x, int32_t y,
                                int32_t z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(shared_place(target)),
      "l"(&map), "r"(shared_place(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// Begins to copy pixels from (w, h) of image n on, channels from c on, displaced by the offsets.
__device__ inline void copy_patches(void* target, const TensorMap& map, Barrier* barrier, int32_t c, int32_t w,
                                    int32_t h, int32_t n, uint16_t offset_w, uint16_t offset_h) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(shared_place(target)),
      "l"(&map), "r"(shared_place(barrier)), "r"(c), "r"(w), "r"(h), "r"(n), "h"(offset_w), "h"(offset_h)
      : "memory");
}

// ----------------------------------------------------------------------------------------------------- products

// Keeps the compiler from moving what reads or writes these registers over what stands here.
template <int n>
__device__ inline void pin(float (&c)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// Before the first product that uses registers which the warpgroup has read or written.
template <int n>
__device__ inline void fence_products(float (&c)[n]) {
  pin(c);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Ends a group of products.
__device__ inline void end_product_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits for this warp's products but for those of the last `groups` groups. Registers that none of those use may
// be read then.
template <int groups, int n>
__device__ inline void wait_for_products(float (&c)[n]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups) : "memory");
  pin(c);
}

// Two numbers of 16 bits, rounded to the nearest, the first in the lower half.
template <class T>
__device__ inline uint32_t packed(float low, float high) {
  uint32_t pair;
  if constexpr (std::is_same_v<T, BFloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
}

#define CISDL_REGISTERS_8(i)                                                                                  \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), \
      "+f"(c[i + 7])
#define CISDL_REGISTERS_32(i) \
  CISDL_REGISTERS_8(i), CISDL_REGISTERS_8(i + 8), CISDL_REGISTERS_8(i + 16), CISDL_REGISTERS_8(i + 24)
#define CISDL_NAMES_64                                                                                        \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, " \
  "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define CISDL_NAMES_128                                                                                          \
  CISDL_NAMES_64                                                                                                 \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, "  \
  "%85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, "    \
  "%105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, " \
  "%123, %124, %125, %126, %127"
#define CISDL_WGMMA_128(type)                                                          \
  asm volatile(                                                                        \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                     \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" CISDL_NAMES_64 \
      "}, "                                                                            \
      "%64, %65, p, 1, 1, %67, %68;\n}"                                                \
      : CISDL_REGISTERS_32(0), CISDL_REGISTERS_32(32)                                  \
      : "l"(a), "l"(b), "r"(1), "n"(int{a_across}), "n"(int{b_across}))
#define CISDL_WGMMA_256(type)                                                                         \
  asm volatile(                                                                                       \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                                                   \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {" CISDL_NAMES_128               \
      "}, "                                                                                           \
      "%128, %129, p, 1, 1, %131, %132;\n}"                                                           \
      : CISDL_REGISTERS_32(0), CISDL_REGISTERS_32(32), CISDL_REGISTERS_32(64), CISDL_REGISTERS_32(96) \
      : "l"(a), "l"(b), "r"(1), "n"(int{a_across}), "n"(int{b_across}))

// Begins C += A B: 64 lines of A, 2 n columns, a depth of 16, by a warpgroup.
template <class T, bool a_across, bool b_across, int n>
__device__ inline void multiply_async(float (&c)[n], uint64_t a, uint64_t b) {
  static_assert(n == 64 || n == 128);
#ifndef CISDL_NO_WGMMA
  if constexpr (n == 64) {
    if constexpr (std::is_same_v<T, BFloat16>) {
      CISDL_WGMMA_128("bf16");
    } else {
      CISDL_WGMMA_128("f16");
    }
  } else {
    if constexpr (std::is_same_v<T, BFloat16>) {
      CISDL_WGMMA_256("bf16");
    } else {
      CISDL_WGMMA_256("f16");
    }
  }
#endif
}

#undef CISDL_REGISTERS_8
#undef CISDL_REGISTERS_32
#undef CISDL_NAMES_64
#undef CISDL_NAMES_128
#undef CISDL_WGMMA_128
#undef CISDL_WGMMA_256
#endif

}  // namespace cisdl::cuda
