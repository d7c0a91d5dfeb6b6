// cisdl::word2vec_train: one pass of skip-gram or CBOW over a stretch of text, in place.
#include <vector>

#include "common.h"
#include "word_vectors.h"

namespace cisdl::ops {
namespace {

constexpr const char* kOp = "word2vec_train";

struct Options {
  int64_t window, negative;
  double lr_begin, lr_end;
  bool cbow, shared_negatives;
};

// What holds for fake tensors, too.
template <class I>
void check(const Tensor& input_vectors, const Tensor& output_vectors, const Tensor& tokens,
           const optional<Tensor>& keep, const Tensor& threshold, const Tensor& alias, const Tensor& random_state,
           const Options& o) {
  check_rows<I>(kOp, "input_vectors", input_vectors);
  check_vector(kOp, "tokens", tokens, at::kInt);
  const auto sizes = sizes_of<I>(input_vectors);
  const I words = sizes[0];
  check_rows<I>(kOp, "output_vectors", output_vectors);
  check_shape<I>(kOp, "output_vectors", output_vectors, sizes);
  const std::array<I, 1> each_word = {words};
  const auto of_each_word = [&](const char* name, const Tensor& t, at::ScalarType type) {
    check_vector(kOp, name, t, type);
    check_shape<I>(kOp, name, t, each_word);
  };
  if (keep) of_each_word("keep", *keep, at::kFloat);
  of_each_word("threshold", threshold, at::kFloat);
  of_each_word("alias", alias, at::kInt);
  check_vector(kOp, "random_state", random_state, at::kLong);
  check_from(kOp, "window", o.window, 1, 1 << 10);
  check_from(kOp, "negative", o.negative, 1, 1 << 10);
  for (const double lr : {o.lr_begin, o.lr_end})
    TORCH_CHECK(lr >= 0 && lr <= std::numeric_limits<float>::max(), kOp,
                ": learning rate: expected a finite number that is not negative, got ", lr);
  TORCH_CHECK(!(o.cbow && o.shared_negatives), kOp,
              ": shared_negatives: expected False with cbow, which draws once for a window anyway, got True");
}

template <class I>
Tensor train(const Tensor& input_vectors, const Tensor& output_vectors, const Tensor& tokens,
             const optional<Tensor>& keep, const Tensor& threshold, const Tensor& alias,
             const Tensor& random_state, int64_t window, int64_t negative, double lr_begin, double lr_end,
             bool cbow, bool shared_negatives) {
  const Options o = {window, negative, lr_begin, lr_end, cbow, shared_negatives};
  check<I>(input_vectors, output_vectors, tokens, keep, threshold, alias, random_state, o);
  const Tensor report = at::empty({4}, tokens.options().dtype(at::kDouble));
  if constexpr (std::is_same_v<I, int64_t>) {
    const int64_t words = input_vectors.size(0), workers = random_state.numel();
    TORCH_CHECK(workers >= 1, kOp, ": random_state: expected a number for each worker, got none");
    check_numbers(kOp, "tokens", tokens, -1, words);
    check_numbers(kOp, "alias", alias, 0, words);
    std::vector<Word2VecReport> reports(static_cast<size_t>(workers));
    Word2VecTrain t{};
    t.vocabulary = words, t.dim = input_vectors.size(1), t.size = tokens.numel();
    t.window = window, t.negative = negative, t.workers = workers;
    t.cbow = cbow, t.shared_negatives = shared_negatives;
    t.lr_begin = static_cast<float>(lr_begin), t.lr_end = static_cast<float>(lr_end);
    t.tokens = tokens.const_data_ptr<int32_t>();
    t.keep = keep ? keep->const_data_ptr<float>() : nullptr;
    t.threshold = threshold.const_data_ptr<float>();
    t.alias = alias.const_data_ptr<int32_t>();
    t.input_vectors = input_vectors.mutable_data_ptr<float>();
    t.output_vectors = output_vectors.mutable_data_ptr<float>();
    t.random = reinterpret_cast<uint64_t*>(random_state.mutable_data_ptr<int64_t>());
    t.reports = reports.data();
    if (t.size > 0) word2vec_kernels().train(t, torch_threads());
    for (const Tensor& t : {input_vectors, output_vectors, random_state}) written(t);
    double* sums = report.mutable_data_ptr<double>();
    std::fill(sums, sums + 4, 0.0);
    for (const Word2VecReport& r : reports) {
      sums[0] += static_cast<double>(r.words);
      sums[1] += static_cast<double>(r.updates);
      sums[2] += r.loss;
      sums[3] += static_cast<double>(r.losses);
    }
  }
  return report;
}

}  // namespace

Tensor zero_rows(int64_t rows, int64_t cols) {
  check_from("zero_rows", "rows", rows, 0, std::numeric_limits<int32_t>::max());
  check_from("zero_rows", "cols", cols, 0, std::numeric_limits<int32_t>::max());
  constexpr int64_t kLine = 16;
  const Tensor all = on_huge_pages(at::empty({rows * cols + kLine}, at::TensorOptions().dtype(at::kFloat)));
  const auto place = reinterpret_cast<uintptr_t>(all.mutable_data_ptr<float>()) / sizeof(float);
  const int64_t shift = static_cast<int64_t>((kLine - place % kLine) % kLine);
  return all.zero_().narrow(0, shift, rows * cols).view({rows, cols});
}

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  m.def(
      "word2vec_train(Tensor(a!) input_vectors, Tensor(b!) output_vectors, Tensor tokens, Tensor? keep, "
      "Tensor threshold, Tensor alias, Tensor(c!) random_state, int window, int negative, float lr_begin, "
      "float lr_end, bool cbow=False, bool shared_negatives=False) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(cisdl, CPU, m) { m.impl("word2vec_train", train<int64_t>); }
TORCH_LIBRARY_IMPL(cisdl, Meta, m) { m.impl("word2vec_train", train<c10::SymInt>); }
TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("word2vec_train", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace cisdl::ops
