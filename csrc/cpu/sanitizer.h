// What a sanitizer cannot see by itself is told to it here; in an ordinary build there is nothing.
//
// Compilers instrument the loads and stores that they make, not those inside intrinsics with a mask: call
// `reads` or `writes` beside each of these with the bytes that it touches (tests/sanitize proves it for
// load_partial and store_partial). Scratch memory is larger than was asked for: `limit_scratch` forbids the rest.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#elif defined(__SANITIZE_THREAD__)
extern "C" void __tsan_read_range(void* begin, unsigned long bytes);
extern "C" void __tsan_write_range(void* begin, unsigned long bytes);
#endif

namespace cisdl {
namespace {

inline __attribute__((always_inline)) void reads([[maybe_unused]] const void* p, [[maybe_unused]] int64_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  // An instrumented access to the first forbidden byte ends in the usual report.
  if (void* bad = __asan_region_is_poisoned(const_cast<void*>(p), static_cast<size_t>(bytes)))
    (void)*static_cast<volatile char*>(bad);
#elif defined(__SANITIZE_THREAD__)
  __tsan_read_range(const_cast<void*>(p), static_cast<unsigned long>(bytes));
#endif
}

inline __attribute__((always_inline)) void writes([[maybe_unused]] void* p, [[maybe_unused]] int64_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  if (void* bad = __asan_region_is_poisoned(p, static_cast<size_t>(bytes))) *static_cast<volatile char*>(bad) = 0;
#elif defined(__SANITIZE_THREAD__)
  __tsan_write_range(p, static_cast<unsigned long>(bytes));
#endif
}

// Of a buffer of `size` bytes only the first `bytes` may be touched. They are filled with NaN: what a kernel
// reads without having written it shows in its results.
inline void limit_scratch([[maybe_unused]] void* buffer, [[maybe_unused]] int64_t bytes,
                          [[maybe_unused]] int64_t size) {
#if defined(__SANITIZE_ADDRESS__)
  if (!buffer) return;
  ASAN_UNPOISON_MEMORY_REGION(buffer, static_cast<size_t>(bytes));
  std::memset(buffer, 0xFF, static_cast<size_t>(bytes));
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(buffer) + bytes, static_cast<size_t>(size - bytes));
#endif
}

}  // namespace
}  // namespace cisdl
