// Scratch memory for the kernels: grow-only buffers, one set per thread, freed when the thread ends.
#include <cstdlib>
#include <new>

#include "kernels.h"
#include "sanitizer.h"

namespace cisdl {
namespace {

struct Buffers {
  struct Buffer {
    void* data = nullptr;
    int64_t bytes = 0;
  };
  Buffer slots[static_cast<int>(Scratch::count)];
  ~Buffers() {
    for (Buffer& slot : slots) std::free(slot.data);
  }
};

}  // namespace

void* scratch(Scratch slot, int64_t bytes) {
  static thread_local Buffers buffers;
  Buffers::Buffer& buffer = buffers.slots[static_cast<int>(slot)];
  if (buffer.bytes < bytes) {
    std::free(buffer.data);
    const int64_t rounded = (bytes + 4095) / 4096 * 4096;
    buffer.data = std::aligned_alloc(4096, static_cast<size_t>(rounded));
    buffer.bytes = buffer.data ? rounded : 0;
    if (!buffer.data) throw std::bad_alloc();
  }
  limit_scratch(buffer.data, bytes, buffer.bytes);
  return buffer.data;
}

}  // namespace cisdl
