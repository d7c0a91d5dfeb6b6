// The words of csrc/cuda/published.cuh for the CPU.
#pragma once

#include <cstring>

namespace cisdl::cuda {

struct Chunk;
template <class T>
T publishable(T value);

template <class Result = Chunk>
Result load_published(const void* from) {
  emulation::check_aligned(from, sizeof(Result));
  Result chunk;
  std::memcpy(&chunk, from, sizeof chunk);
  return chunk;
}

template <class T>
void publish(T* to, T value) {
  (void)*reinterpret_cast<const volatile char*>(
      to);  // faults here if it is outside, though the value may arrive later
  value = publishable(value);
  emulation::publish(to, &value, sizeof value);
}

inline bool await(bool missing, std::source_location here = std::source_location::current()) {
  return emulation::await(missing, here.file_name(), here.line());
}

}  // namespace cisdl::cuda
