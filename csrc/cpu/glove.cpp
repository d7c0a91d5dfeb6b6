// GloVe (Pennington et al. 2014): weighted least squares on logarithms of counts, by AdaGrad as glove.c does it.
//
//   d = w_i c_j + b_i + b'_j - log x_ij,   minimise sum f(x_ij) d^2 / 2,   f(x) = min(1, (x / x_max)^alpha)
//   g = lr f(x) d c_j:   w_i -= g / sqrt(G_i),   G_i += g^2      (element by element; c_j likewise with w_i, G = 1
//   at first)
//
// A row holds a vector and its accumulators side by side, [w | G], so one update touches two stretches of memory.
// The biases are two columns of the vectors, (b_i, 1) against (1, b'_j): the product contains them and so do the
// gradients. What keeps a 1 at 1 is an enormous accumulator, a step divided by whose root is lost in rounding. The
// caller sets it; here no column is special. 1 / sqrt(G) is an estimate and a Newton step, right to 5e-6 or
// better: a division and a square root would take longer than all the rest. The next record's product comes before
// this one's update, unless they share a row: the steps that wait for a product would fill the processor's queue
// and nothing else could go on meanwhile.
//
// Order: a random record touches two random rows, 2 KB each way from memory. The matrix is cut into blocks whose
// rows fit in a core's cache together, words dealt out to the blocks in turn, so that all blocks hold about as
// many records. Blocks are joined in teams, again in turn. Teams (b, b + d) with one d share no row and no column:
// threads take them at the same time without any race, and the result does not depend on how many threads there
// are (Gemulla et al. 2011); they wait for each other once for a d, some dozens of times in a pass. The d come in
// another order in every pass. In a block, records are taken with a stride near the golden section of their
// number: neighbours in the sorted list, which share a row, end up far apart.
#include "simd_shuffle.h"
#include "word_vector_kernels.h"

namespace cisdl {
namespace {

using V = Vec<float>;
constexpr int64_t W = kWidth<float>;
constexpr int64_t kAhead = 3;  // records

// 1 / sqrt(x) for x > 0: the processor's estimate of 12 to 14 bits and one Newton step, or an integer guess and
// two.
CISDL_INLINE V reciprocal_root(V x) {
  const V half = x * set1(-0.5f), three_halves = set1(1.5f);
#if defined(__AVX512F__)
  V y = (V)_mm512_rsqrt14_ps((__m512)x);
#elif defined(__AVX2__)
  V y = (V)_mm256_rsqrt_ps((__m256)x);
#elif defined(__SSE2__)
  V y = (V)_mm_rsqrt_ps((__m128)x);
#else
  V y = (V)(0x5f375a86 - ((Mask<float>)x >> 1));
  y = y * (three_halves + half * y * y);
#endif
  return y * (three_halves + half * y * y);
}

// One step of w, whose gradient is scale c; its accumulators are g.
CISDL_INLINE void adagrad(float* w, float* g, V x, V y, V scale, int64_t n) {
  const V gradient = scale * y, sum = load_up_to(g, n);
  store_up_to(w, x - gradient * reciprocal_root(sum), n);
  store_up_to(g, sum + gradient * gradient, n);
}

CISDL_INLINE float product(const float* a, const float* b, int64_t width) {
  V sum[4] = {};
  int64_t k = 0;
  for (; k + 4 * W <= width; k += 4 * W)
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) sum[u] += load(a + k + u * W) * load(b + k + u * W);
  for (; k < width; k += W) sum[0] += load_up_to(a + k, width - k) * load_up_to(b + k, width - k);
  const V all[1] = {(sum[0] + sum[1]) + (sum[2] + sum[3])};
  float result;
  sum_lanes_of<float, 1>(all, &result);
  return result;
}

// A stride through n records that meets each once.
int64_t stride_of(int64_t n, uint64_t random) {
  int64_t stride =
      n < 4 ? 1 : static_cast<int64_t>(0.618 * static_cast<double>(n)) + static_cast<int64_t>(random % 64);
  for (;; ++stride) {
    int64_t a = n, b = stride;
    while (b) {
      const int64_t rest = a % b;
      a = b;
      b = rest;
    }
    if (a == 1) return stride % n;
  }
}

struct Block {
  const GloveTrain& t;
  const int32_t* pairs;
  const float* targets;
  int64_t row_floats, width;

  float* word(int64_t record) const { return t.word_rows + pairs[2 * record] * row_floats; }
  float* context(int64_t record) const { return t.context_rows + pairs[2 * record + 1] * row_floats; }

  void prefetch(int64_t record) const {
    const char *a = reinterpret_cast<const char*>(word(record)),
               *b = reinterpret_cast<const char*>(context(record));
    for (int64_t at = 0; at < row_floats * 4; at += 64) {
      __builtin_prefetch(a + at, 1);
      __builtin_prefetch(b + at, 1);
    }
  }

  float product_of(int64_t record) const { return product(word(record), context(record), width); }

  bool share_a_row(int64_t a, int64_t b) const {
    return pairs[2 * a] == pairs[2 * b] || pairs[2 * a + 1] == pairs[2 * b + 1];
  }

  // Returns the record's loss before the update.
  double update(int64_t record, float product) const {
    float *w = word(record), *c = context(record);
    const float d = product - targets[2 * record], weighted = targets[2 * record + 1] * d;
    const V scale = set1(t.lr * weighted);
    const auto columns = [&](int64_t k, int64_t n) __attribute__((always_inline)) {
      const V x = load_up_to(w + k, n), y = load_up_to(c + k, n);
      adagrad(w + k, w + width + k, x, y, scale, n);
      adagrad(c + k, c + width + k, y, x, scale, n);
    };
    int64_t k = 0;
    for (; k + W <= width; k += W) columns(k, W);
    if (k < width) columns(k, width - k);
    return 0.5 * static_cast<double>(weighted * d);
  }
};

double train_block(const GloveTrain& t, int64_t row, int64_t column, uint64_t random) {
  const int64_t begin = t.offsets[row * t.blocks + column], n = t.offsets[row * t.blocks + column + 1] - begin;
  if (n == 0) return 0;
  const Block block{t, t.pairs + 2 * begin, t.targets + 2 * begin, 2 * t.width, t.width};
  const int64_t stride = stride_of(n, random >> 32);
  const auto next = [&](int64_t i) { return i + stride >= n ? i + stride - n : i + stride; };
  double loss = 0;
  int64_t at = static_cast<int64_t>((random >> 16) % static_cast<uint64_t>(n)), ahead = at;
  for (int64_t i = 0; i < kAhead; ++i) ahead = next(ahead);
  float product = block.product_of(at);
  for (int64_t i = 0; i < n; ++i) {
    block.prefetch(ahead);
    const int64_t following = next(at);
    const bool apart = !block.share_a_row(at, following);
    const float early = apart ? block.product_of(following) : 0;
    loss += block.update(at, product);
    product = apart ? early : block.product_of(following);
    at = following;
    ahead = next(ahead);
  }
  return loss;
}

// All blocks of a team's rows and another's columns, row after row: the words of a row stay in the cache.
double train_teams(const GloveTrain& t, int64_t rows, int64_t columns, uint64_t random) {
  double loss = 0;
  for (int64_t row = rows; row < t.blocks; row += t.teams)
    for (int64_t column = columns; column < t.blocks; column += t.teams) {
      random = next_random(random);
      loss += train_block(t, row, column, random);
    }
  return loss;
}

void train(const GloveTrain& t, const Parallel& par) {
  uint64_t random = next_random(next_random(t.seed));
  const int64_t stride = stride_of(t.teams, random >> 32);
  int64_t diagonal = static_cast<int64_t>((random >> 16) % static_cast<uint64_t>(t.teams));
  for (int64_t team = 0; team < t.teams; ++team) t.losses[team] = 0;
  for (int64_t i = 0; i < t.teams; ++i, diagonal = (diagonal + stride) % t.teams) {
    random = next_random(random);
    parallel_for(par, t.teams, 1, [&](int64_t begin, int64_t end) {
      for (int64_t team = begin; team < end; ++team)
        t.losses[team] += train_teams(t, team, (team + diagonal) % t.teams, random + static_cast<uint64_t>(team));
    });
  }
}

constexpr GloveKernels kKernels = {train};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(glove, GloveKernels) { return &cisdl::kKernels; }
