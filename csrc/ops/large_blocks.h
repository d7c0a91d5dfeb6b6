// Memory of large results, kept for the next one when it is freed.
#pragma once

#include <c10/core/Allocator.h>

namespace cisdl::ops {

// From this size on malloc takes memory from the system at every call and gives it back at every free, and the
// system clears it, page after page: writing 64 MiB takes 8 ms more than into memory that is there already. A
// training step that frees its gradients pays that for each large one. So what is freed is kept, up to
// kMostBytesKept in all, and handed out again for a result of about that size.
constexpr size_t kLargeBytes = 32 << 20;
constexpr size_t kMostBytesKept = 128 << 20;

c10::Allocator* large_blocks();

}  // namespace cisdl::ops
