// Checks that the ops for word vectors share. They train in place, so what they are given must be what they work
// on: float32, dense, on the CPU; nothing is copied behind the caller's back.
#pragma once

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>

#include "../cpu/word_vector_kernels.h"
#include "common.h"
#include "word_vector_functions.h"

namespace cisdl::ops {

// A vector of one type.
inline void check_vector(const char* op, const char* name, const Tensor& t, at::ScalarType type) {
  TORCH_CHECK(t.scalar_type() == type, op, ": ", name, ": expected dtype ", dtype_name(type), ", got ",
              dtype_name(t.scalar_type()));
  TORCH_CHECK(t.dim() == 1, op, ": ", name, ": expected one dimension, got ", t.dim());
  TORCH_CHECK(t.is_contiguous(), op, ": ", name, ": expected a contiguous tensor, got strides ", t.sym_strides());
}

// A matrix of vectors, one a row.
template <class I>
void check_rows(const char* op, const char* name, const Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat, op, ": ", name, ": expected dtype float32, got ",
              dtype_name(t.scalar_type()));
  TORCH_CHECK(t.dim() == 2, op, ": ", name, ": expected shape [words, dim], got ", sizes_of<I>(t));
  TORCH_CHECK(t.is_contiguous(), op, ": ", name, ": expected a contiguous tensor, got strides ", t.sym_strides());
  TORCH_CHECK(sizes_of<I>(t)[0] <= std::numeric_limits<int32_t>::max(), op, ": ", name, ": expected at most ",
              std::numeric_limits<int32_t>::max(), " words, got ", sizes_of<I>(t)[0]);
}

// Two numbers a record.
template <class I>
void check_pairs(const char* op, const char* name, const Tensor& t, at::ScalarType type) {
  TORCH_CHECK(t.scalar_type() == type, op, ": ", name, ": expected dtype ", dtype_name(type), ", got ",
              dtype_name(t.scalar_type()));
  TORCH_CHECK(t.dim() == 2 && sizes_of<I>(t)[1] == 2, op, ": ", name, ": expected shape [records, 2], got ",
              sizes_of<I>(t));
  TORCH_CHECK(t.is_contiguous(), op, ": ", name, ": expected a contiguous tensor, got strides ", t.sym_strides());
}

inline void check_from(const char* op, const char* name, int64_t value, int64_t least, int64_t most) {
  TORCH_CHECK(value >= least && value <= most, op, ": ", name, ": expected an integer from ", least, " to ", most,
              ", got ", value);
}

// Every number n of t: least <= n < end. The kernels use them as row numbers unseen.
inline void check_numbers(const char* op, const char* name, const Tensor& t, int64_t least, int64_t end) {
  const int32_t* p = t.const_data_ptr<int32_t>();
  int32_t low = std::numeric_limits<int32_t>::max(), high = std::numeric_limits<int32_t>::min();
  for (int64_t i = 0; i < t.numel(); ++i) {
    low = std::min(low, p[i]);
    high = std::max(high, p[i]);
  }
  if (t.numel() == 0) return;
  TORCH_CHECK(low >= least && high < end, op, ": ", name, ": expected numbers from ", least, " to ", end - 1,
              ", got ", low < least ? low : high);
}

// Written behind autograd's back: what was saved for a backward must notice.
inline void written(const Tensor& t) { t.unsafeGetTensorImpl()->bump_version(); }

}  // namespace cisdl::ops
