// What word vectors need beside their operators, for csrc/bindings.cpp: plain functions, for nothing traces them.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace cisdl::ops {

// Zeros [rows, cols] on huge pages, each row on cache lines of its own if `cols` is a multiple of 16. Rows are
// read in no order, and with pages of 4 KiB a tenth of the time would go into finding them.
at::Tensor zero_rows(int64_t rows, int64_t cols);

// (keys, values) of the neighbours in a text; cisdl_ops.glove.cooccurrence says what they are.
std::tuple<at::Tensor, at::Tensor> cooccurrence(const at::Tensor& tokens, int64_t words, int64_t window);

// How many records each block gets from such keys: [blocks^2].
at::Tensor glove_blocks(const at::Tensor& keys, int64_t words, int64_t blocks);

// Writes the records of these counts into `pairs` and `targets`, those of a block from next[block] on, which
// moves.
void glove_records(const at::Tensor& keys, const at::Tensor& values, int64_t words, int64_t blocks, double x_max,
                   double alpha, const at::Tensor& next, const at::Tensor& pairs, const at::Tensor& targets);

}  // namespace cisdl::ops
