// The 16-bit number types of the tensor core kernels, as bits, and their conversions to float, which round to the
// nearest, ties to even. Plain C++ too: csrc/ops names the types, and the CPU emulation runs the conversions.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#define CISDL_BOTH __host__ __device__
#else
#define CISDL_BOTH
#endif

namespace cisdl::cuda {

CISDL_BOTH inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

CISDL_BOTH inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// float's upper half: 8 bits of exponent, 7 of mantissa.
struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  CISDL_BOTH BFloat16(float value) {
    const uint32_t u = bits_of(value);
    bits = static_cast<uint16_t>(value != value ? 0x7fc0 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  CISDL_BOTH operator float() const { return float_of(uint32_t{bits} << 16); }
};

// IEEE half precision: 5 bits of exponent, 10 of mantissa.
struct Float16 {
  uint16_t bits;

  Float16() = default;
  CISDL_BOTH Float16(float value) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    const uint32_t sign = bits_of(value) >> 16 & 0x8000, u = bits_of(value) & 0x7fffffff;
    uint32_t magnitude;
    if (value != value) {
      magnitude = 0x7e00;
    } else if (u >= bits_of(65520.0f)) {
      magnitude = 0x7c00;  // rounds to infinity
    } else if (u < bits_of(0x1p-14f)) {
      magnitude = bits_of(float_of(u) + 0.5f) - bits_of(0.5f);  // subnormal: the sum rounds to multiples of 2^-24
    } else {
      magnitude = ((u + 0xfff + (u >> 13 & 1)) >> 13) - (112 << 10);
    }
    bits = static_cast<uint16_t>(sign | magnitude);
#endif
  }
  CISDL_BOTH operator float() const {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    const uint32_t sign = uint32_t{bits} << 16 & 0x80000000, magnitude = bits & 0x7fff;
    if (magnitude < 0x400) return float_of(sign | bits_of(static_cast<float>(magnitude) * 0x1p-24f));
    if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | magnitude << 13);
    return float_of(sign | ((magnitude << 13) + (112 << 23)));
#endif
  }
};

// What products of a type are added up in.
template <class T>
using Sum = std::conditional_t<sizeof(T) == 8, double, float>;

}  // namespace cisdl::cuda
