// The words of csrc/cuda/hopper.cuh for the CPU, as the PTX ISA defines them; hopper.cpp says how.
#pragma once

#include <type_traits>

namespace cisdl::cuda {
struct BFloat16;
}

namespace cisdl::emulation {

using Here = std::source_location;

// A tensor map, as the driver's two functions make it; no more of it than csrc/cuda/hopper.cuh asks for.
struct alignas(64) TensorMap {
  bool made = false, im2col = false;
  const unsigned char* data = nullptr;
  int rank = 0;
  int64_t size[4] = {};    // x first
  int64_t stride[4] = {};  // bytes
  int32_t box[3] = {};     // tiled
  int32_t lower[2] = {};   // im2col: the box of positions, w first, both ends inside
  int32_t upper[2] = {};
  int32_t step[2] = {1, 1};
  int32_t pixels = 0;
};

// False where the driver would refuse.
bool make_tiled_map(TensorMap& map, const void* data, const int64_t* sizes, const int32_t* box);
bool make_im2col_map(TensorMap& map, const void* data, const int64_t* sizes, const int32_t* lower,
                     const int32_t* upper, const int32_t* step, int32_t pixels);

// What a block may have of dynamic shared memory from now on.
void allow_dynamic_shared(size_t bytes);
unsigned char* dynamic_shared();
uint32_t shared_place(const void* pointer);

void make_barrier(uint64_t* barrier, int arrivals, Here here);
void show_to_copy_engine(Here here);
void arrive(uint64_t* barrier, int bytes, Here here);
void wait_for_phase(const uint64_t* barrier, uint32_t parity, Here here);

// Coordinates and, for im2col, offsets; x (channels, w) first.
void copy_tensor(void* target, const TensorMap& map, uint64_t* barrier, const int32_t (&at)[4],
                 const uint16_t (&offset)[2], Here here);

// What each thread of a warp brings to a product.
struct AsyncProduct {
  float* c;
  int registers;
  uint64_t a, b;
  bool a_across, b_across, is_bfloat16;
};
void fence_products(Here here);
void multiply_async(const AsyncProduct& product, Here here);
void end_product_group(Here here);
void wait_for_products(size_t groups, Here here);

}  // namespace cisdl::emulation

namespace cisdl::cuda {

using emulation::Here;
using TensorMap = emulation::TensorMap;

struct Barrier {
  uint64_t state;
};

inline bool has_hopper() { return true; }

template <class T>
bool tiled_map(TensorMap& map, const T* data, const int64_t (&sizes)[3], const int32_t (&box)[3]) {
  return emulation::make_tiled_map(map, data, sizes, box);
}

template <class T>
bool im2col_map(TensorMap& map, const T* data, const int64_t (&sizes)[4], const int32_t (&lower)[2],
                const int32_t (&upper)[2], const int32_t (&step)[2], int32_t pixels) {
  return emulation::make_im2col_map(map, data, sizes, lower, upper, step, pixels);
}

template <class Kernel, class... Args>
const char* launch_with_shared(Kernel* kernel, int64_t blocks, int threads, int bytes, void* stream,
                               const Args&... args) {
  emulation::allow_dynamic_shared(static_cast<size_t>(bytes));
  return emulation::launch(kernel, static_cast<unsigned>(blocks), static_cast<unsigned>(threads), stream, args...);
}

using emulation::dynamic_shared;
using emulation::shared_place;

inline void make_barrier(Barrier* barrier, int arrivals, Here here = Here::current()) {
  emulation::make_barrier(&barrier->state, arrivals, here);
}
inline void show_to_copy_engine(Here here = Here::current()) { emulation::show_to_copy_engine(here); }
inline void arrive(Barrier* barrier, Here here = Here::current()) { emulation::arrive(&barrier->state, 0, here); }
inline void arrive_expecting(Barrier* barrier, int bytes, Here here = Here::current()) {
  emulation::arrive(&barrier->state, bytes, here);
}
inline void wait_for_phase(Barrier* barrier, uint32_t parity, Here here = Here::current()) {
  emulation::wait_for_phase(&barrier->state, parity, here);
}

inline void copy_box(void* target, const TensorMap& map, Barrier* barrier, int32_t x, int32_t y, int32_t z,
                     Here here = Here::current()) {
  emulation::copy_tensor(target, map, &barrier->state, {x, y, z, 0}, {0, 0}, here);
}
inline void copy_patches(void* target, const TensorMap& map, Barrier* barrier, int32_t c, int32_t w, int32_t h,
                         int32_t n, uint16_t offset_w, uint16_t offset_h, Here here = Here::current()) {
  emulation::copy_tensor(target, map, &barrier->state, {c, w, h, n}, {offset_w, offset_h}, here);
}

template <int n>
void fence_products(float (&)[n], Here here = Here::current()) {
  emulation::fence_products(here);
}
inline void end_product_group(Here here = Here::current()) { emulation::end_product_group(here); }
template <int groups, int n>
void wait_for_products(float (&)[n], Here here = Here::current()) {
  emulation::wait_for_products(groups, here);
}

template <class T, bool a_across, bool b_across, int n>
void multiply_async(float (&c)[n], uint64_t a, uint64_t b, Here here = Here::current()) {
  emulation::multiply_async({c, n, a, b, a_across, b_across, std::is_same_v<T, BFloat16>}, here);
}

template <class T>
uint32_t packed(float low, float high) {
  return uint32_t{T(high).bits} << 16 | T(low).bits;
}

}  // namespace cisdl::cuda
