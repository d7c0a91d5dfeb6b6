// The words of csrc/cuda/tensor_cores.cuh for the CPU, with the fragments of the PTX ISA (written down there).
#pragma once

#include <cstring>
#include <type_traits>

namespace cisdl::emulation {

struct MatrixLoad {
  uint32_t* to;
  const void* row;
};

template <bool transposed>
void load_warp(const void* const* by_lane) {
  const auto lane = [&](int i) { return *static_cast<const MatrixLoad*>(by_lane[i]); };
  for (int i = 0; i < 32; ++i) {
    const int g = i / 4, t = i % 4;
    for (int m = 0; m < 4; ++m) {
      if constexpr (transposed) {
        uint16_t pair[2];
        for (int e = 0; e < 2; ++e)
          std::memcpy(&pair[e], static_cast<const char*>(lane(m * 8 + 2 * t + e).row) + 2 * g, 2);
        lane(i).to[m] = uint32_t{pair[1]} << 16 | pair[0];
      } else {
        std::memcpy(&lane(i).to[m], static_cast<const char*>(lane(m * 8 + g).row) + 4 * t, 4);
      }
    }
  }
}

struct Product {
  float* c;
  const uint32_t *a, *b;
};

// Number e of a register.
template <class T>
float number(uint32_t word, int e) {
  if constexpr (std::is_same_v<T, float>) {
    const uint32_t seen = word & ~uint32_t{0x1fff};  // tensor cores see no more of a float
    float value;
    std::memcpy(&value, &seen, 4);
    return value;
  } else {
    T value;
    value.bits = static_cast<uint16_t>(word >> 16 * e);
    return value;
  }
}

template <class T>
void multiply_warp(const void* const* by_lane) {
  constexpr int kEach = 4 / sizeof(T), kDepth = 8 * kEach;
  float a[16][kDepth], b[kDepth][8];
  const auto lane = [&](int i) { return *static_cast<const Product*>(by_lane[i]); };
  for (int i = 0; i < 32; ++i) {
    const int g = i / 4, t = i % 4;
    for (int e = 0; e < kEach; ++e) {
      for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][(t + r / 2 * 4) * kEach + e] = number<T>(lane(i).a[r], e);
      for (int r = 0; r < 2; ++r) b[(t + r * 4) * kEach + e][g] = number<T>(lane(i).b[r], e);
    }
  }
  for (int i = 0; i < 32; ++i) {
    for (int r = 0; r < 4; ++r) {
      float& sum = lane(i).c[r];
      for (int k = 0; k < kDepth; ++k) sum += a[i / 4 + r / 2 * 8][k] * b[k][i % 4 * 2 + r % 2];
    }
  }
}

}  // namespace cisdl::emulation

namespace cisdl::cuda {

inline void copy_async(void* target, const void* source, bool zero) {
  emulation::copy_async(target, source, zero);
}

inline void end_copy_group() { emulation::end_copy_group(); }

template <int groups>
void wait_for_copies(std::source_location here = std::source_location::current()) {
  emulation::wait_for_copies(groups, here.file_name(), here.line());
}

template <bool transposed>
void load_matrices(uint32_t (&to)[4], const void* row,
                   std::source_location here = std::source_location::current()) {
  const emulation::MatrixLoad brought{to, row};
  emulation::warp_together(&brought, emulation::load_warp<transposed>, here.file_name(), here.line());
}

inline uint32_t to_tf32(uint32_t value) {
  const bool is_nan = (value & 0x7fffffff) > 0x7f800000;
  return is_nan ? 0x7fffffff & ~uint32_t{0x1fff} : (value + 0x1000) & ~uint32_t{0x1fff};
}

template <class T>
void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  std::source_location here = std::source_location::current()) {
  const emulation::Product brought{c, a, b};
  emulation::warp_together(&brought, emulation::multiply_warp<T>, here.file_name(), here.line());
}

}  // namespace cisdl::cuda
