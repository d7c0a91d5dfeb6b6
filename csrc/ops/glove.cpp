// cisdl::cooccurrence, glove_blocks, glove_records and glove_train: counts of neighbours, their order for
// training, and one pass of GloVe in place.
#include <ATen/ops/zeros.h>

#include <cmath>
#include <vector>

#include "common.h"
#include "word_vectors.h"

namespace cisdl::ops {
namespace {

// words^2 << 8 has to fit in 64 bits.
constexpr int64_t kMostWords = int64_t{1} << 27;
// Enough to share out evenly, few enough that waiting for each other costs nothing; cisdl_ops.glove.TEAMS.
constexpr int64_t kTeams = 31;

// ----------------------------------------------------------------------------------------- co-occurrence

}  // namespace

std::tuple<Tensor, Tensor> cooccurrence(const Tensor& tokens, int64_t words, int64_t window) {
  constexpr const char* kOp = "cooccurrence";
  check_vector(kOp, "tokens", tokens, at::kInt);
  check_from(kOp, "words", words, 1, kMostWords);
  check_from(kOp, "window", window, 1, 255);
  check_numbers(kOp, "tokens", tokens, -1, words);
  const CooccurrenceCount c = {words, tokens.numel(), window, tokens.const_data_ptr<int32_t>()};
  const int64_t pairs = cooccurrence_pairs(c);
  const auto longs = tokens.options().dtype(at::kLong);
  Tensor sorted = on_huge_pages(at::empty({pairs}, longs));
  const auto data = [](const Tensor& t) { return reinterpret_cast<uint64_t*>(t.mutable_data_ptr<int64_t>()); };
  const int64_t different = cooccurrence_sort(c, data(sorted), data(on_huge_pages(at::empty({pairs}, longs))));
  const Tensor keys = at::empty({different}, longs), values = at::empty({different}, longs.dtype(at::kDouble));
  cooccurrence_sum(c, pairs, data(sorted), keys.mutable_data_ptr<int64_t>(), values.mutable_data_ptr<double>());
  return {keys, values};
}

namespace {

// ------------------------------------------------------------------------------------------------ blocks

struct Counts {
  const int64_t* keys;
  int64_t size, words, blocks;
};

Counts check_counts(const char* op, const Tensor& keys, int64_t words, int64_t blocks) {
  check_vector(op, "keys", keys, at::kLong);
  check_from(op, "words", words, 1, kMostWords);
  check_from(op, "blocks", blocks, 1, 1 << 15);
  const int64_t* p = keys.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < keys.numel(); ++i)
    TORCH_CHECK(p[i] >= 0 && p[i] < words * words, op, ": keys: expected numbers from 0 to ", words * words - 1,
                ", got ", p[i]);
  return {p, keys.numel(), words, blocks};
}

// f(word, context, block, index) for both entries of the symmetric matrix that a key stands for.
template <class F>
void each_entry(const Counts& c, F&& f) {
  for (int64_t n = 0; n < c.size; ++n) {
    const int64_t i = c.keys[n] / c.words, j = c.keys[n] % c.words;
    const int64_t r = i % c.blocks, s = j % c.blocks;
    f(i, j, r * c.blocks + s, n);
    if (i != j) f(j, i, s * c.blocks + r, n);
  }
}

}  // namespace

Tensor glove_blocks(const Tensor& keys, int64_t words, int64_t blocks) {
  const Counts c = check_counts("glove_blocks", keys, words, blocks);
  const Tensor sizes = at::zeros({blocks * blocks}, keys.options());
  int64_t* p = sizes.mutable_data_ptr<int64_t>();
  each_entry(c, [&](int64_t, int64_t, int64_t block, int64_t) { ++p[block]; });
  return sizes;
}

void glove_records(const Tensor& keys, const Tensor& values, int64_t words, int64_t blocks, double x_max,
                   double alpha, const Tensor& next, const Tensor& pairs, const Tensor& targets) {
  constexpr const char* kOp = "glove_records";
  const Counts c = check_counts(kOp, keys, words, blocks);
  check_vector(kOp, "values", values, at::kDouble);
  check_shape<int64_t>(kOp, "values", values, keys.sizes());
  check_vector(kOp, "next", next, at::kLong);
  check_shape<int64_t>(kOp, "next", next, {blocks * blocks});
  check_pairs<int64_t>(kOp, "pairs", pairs, at::kInt);
  check_pairs<int64_t>(kOp, "targets", targets, at::kFloat);
  check_shape<int64_t>(kOp, "targets", targets, pairs.sizes());
  TORCH_CHECK(x_max > 0, kOp, ": x_max: expected a number above 0, got ", x_max);
  TORCH_CHECK(alpha >= 0, kOp, ": alpha: expected a number that is not negative, got ", alpha);
  const double* x = values.const_data_ptr<double>();
  int64_t* at = next.mutable_data_ptr<int64_t>();
  int32_t* pair = pairs.mutable_data_ptr<int32_t>();
  float* target = targets.mutable_data_ptr<float>();
  const int64_t records = pairs.size(0);
  each_entry(c, [&](int64_t i, int64_t j, int64_t block, int64_t n) {
    TORCH_CHECK(x[n] > 0, kOp, ": values: expected numbers above 0, got ", x[n]);
    const int64_t record = at[block]++;
    TORCH_CHECK(record >= 0 && record < records, kOp, ": next: expected places below ", records, ", got ", record);
    pair[2 * record] = static_cast<int32_t>(i);
    pair[2 * record + 1] = static_cast<int32_t>(j);
    target[2 * record] = static_cast<float>(std::log(x[n]));
    target[2 * record + 1] = x[n] < x_max ? static_cast<float>(std::pow(x[n] / x_max, alpha)) : 1.0f;
  });
  for (const Tensor& t : {next, pairs, targets}) written(t);
}

// ---------------------------------------------------------------------------------------------- training

namespace {

template <class I>
void check_glove_rows(const char* op, const char* name, const Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat, op, ": ", name, ": expected dtype float32, got ",
              dtype_name(t.scalar_type()));
  TORCH_CHECK(t.dim() == 3 && sizes_of<I>(t)[1] == 2, op, ": ", name, ": expected shape [words, 2, width], got ",
              sizes_of<I>(t));
  TORCH_CHECK(t.is_contiguous(), op, ": ", name, ": expected a contiguous tensor, got strides ", t.sym_strides());
}

template <class I>
Tensor glove_train(const Tensor& word_rows, const Tensor& context_rows, const Tensor& offsets, const Tensor& pairs,
                   const Tensor& targets, int64_t blocks, double lr, int64_t seed) {
  constexpr const char* kOp = "glove_train";
  check_glove_rows<I>(kOp, "word_rows", word_rows);
  check_glove_rows<I>(kOp, "context_rows", context_rows);
  check_shape<I>(kOp, "context_rows", context_rows, sizes_of<I>(word_rows));
  check_from(kOp, "blocks", blocks, 1, 1 << 15);
  check_vector(kOp, "offsets", offsets, at::kLong);
  const std::array<I, 1> ends = {I(blocks * blocks + 1)};
  check_shape<I>(kOp, "offsets", offsets, ends);
  check_pairs<I>(kOp, "pairs", pairs, at::kInt);
  check_pairs<I>(kOp, "targets", targets, at::kFloat);
  check_shape<I>(kOp, "targets", targets, sizes_of<I>(pairs));
  TORCH_CHECK(lr >= 0 && lr <= std::numeric_limits<float>::max(), kOp,
              ": lr: expected a finite number that is not negative, got ", lr);
  const Tensor loss = at::zeros({}, offsets.options().dtype(at::kDouble));
  if constexpr (std::is_same_v<I, int64_t>) {
    const int64_t words = word_rows.size(0), records = pairs.size(0);
    const int64_t* o = offsets.const_data_ptr<int64_t>();
    const int32_t* p = pairs.const_data_ptr<int32_t>();
    TORCH_CHECK(o[0] == 0 && o[blocks * blocks] == records, kOp, ": offsets: expected them to go from 0 to ",
                records, ", got ", o[0], " to ", o[blocks * blocks]);
    for (int64_t b = 0; b < blocks * blocks; ++b)
      TORCH_CHECK(o[b] <= o[b + 1], kOp, ": offsets: expected them in ascending order, got ", o[b], " before ",
                  o[b + 1]);
    at::parallel_for(0, blocks * blocks, 64, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b)
        for (int64_t n = o[b]; n < o[b + 1]; ++n) {
          const int64_t i = p[2 * n], j = p[2 * n + 1];
          TORCH_CHECK(
              i >= 0 && j >= 0 && i < words && j < words && i % blocks == b / blocks && j % blocks == b % blocks,
              kOp, ": pairs: expected words below ", words, " of block ", b, ", got ", i, " and ", j);
        }
    });
    const int64_t teams = blocks % kTeams ? blocks : kTeams;
    std::vector<double> losses(static_cast<size_t>(teams));
    const GloveTrain t = {words,
                          word_rows.size(2),
                          blocks,
                          teams,
                          static_cast<float>(lr),
                          static_cast<uint64_t>(seed),
                          o,
                          p,
                          targets.const_data_ptr<float>(),
                          word_rows.mutable_data_ptr<float>(),
                          context_rows.mutable_data_ptr<float>(),
                          losses.data()};
    glove_kernels().train(t, torch_threads());
    double sum = 0;
    for (const double one : losses) sum += one;
    *loss.mutable_data_ptr<double>() = sum;
    written(word_rows);
    written(context_rows);
  }
  return loss;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def(
      "glove_train(Tensor(a!) word_rows, Tensor(b!) context_rows, Tensor offsets, Tensor pairs, Tensor targets, "
      "int blocks, float lr, int seed) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cisdl, CPU, m) { m.impl("glove_train", glove_train<int64_t>); }
TORCH_LIBRARY_IMPL(cisdl, Meta, m) { m.impl("glove_train", glove_train<c10::SymInt>); }
TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("glove_train", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace cisdl::ops
