// CISDL_KEEP_MEMORY.
#pragma once

namespace cisdl::ops {

// Whether freed memory is kept for what comes next, by this process's malloc (bindings.cpp) and of large results
// (large_blocks.h): not with CISDL_KEEP_MEMORY=0. Throws if that is neither 0 nor 1.
bool keeps_memory();

}  // namespace cisdl::ops
