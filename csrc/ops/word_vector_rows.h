// Memory for word vectors, for csrc/bindings.cpp: a plain function, no operator.
#pragma once

#include <ATen/core/Tensor.h>

namespace cisdl::ops {

// Zeros [rows, cols] on huge pages, each row on cache lines of its own if `cols` is a multiple of 16. Rows are
// read in no order, and with pages of 4 KiB a tenth of the time would go into finding them.
at::Tensor zero_rows(int64_t rows, int64_t cols);

}  // namespace cisdl::ops
