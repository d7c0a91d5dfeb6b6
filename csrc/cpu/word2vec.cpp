// Skip-gram and CBOW with negative sampling (Mikolov et al. 2013), in the order of word2vec.c.
//
// For a centre word w and a word c of its window, with negatives n drawn from the unigram distribution ^ 0.75:
//   maximise  log sigma(h v_w) + sum_n log sigma(-h v_n),     h = input vector of c (CBOW: mean of the window's)
//   g_t = lr (label_t - sigma(h v_t)),    h += sum_t g_t v_t,    v_t += g_t h
// A negative that is w itself is left out. In skip-gram every pair is an update of its own; in CBOW, a window.
//
// The work is two passes over rows of `dim` floats. The first forms up to kGroup = 6 products h v_t side by side
// (six chains of additions hide each other's latency, and one vector holds all six sigmoids); the second reads
// every element of h and of the v_t once and writes both back, so there is no buffer for the sum over t. Rows that
// appear twice must see each other's change: a group ends before a row that it has already.
//
// The rows are scattered over matrices larger than the cache, so the draws run ahead of the arithmetic: a ring of
// kAhead updates, and while one is computed the rows of the one drawn last are asked for, line by line
// (RowsAhead). The order of the random numbers is that of word2vec.c.
//
// Shared negatives (Ji et al. 2016) draw once for a centre, not once for a pair. Then all h of the window against
// all v_t is a small matrix product S = H V^T, and the updates are two more, H += G V and V += G^T H: the v_t are
// read once for a window, in tiles of 2 h by 6 v in registers. Scores are those before the window's update; with
// more than five negatives each group of six sees what the one before has done.
//
// Threads: each worker trains a stretch of the text of its own (Hogwild, Recht et al. 2011), all on the same two
// matrices without locks: racing updates of a row lose one another's, rarely. One worker is deterministic; several
// are not. Rows should begin on cache lines (dim a multiple of 16): nothing else is asked of them.
#include "simd_math.h"
#include "simd_shuffle.h"
#include "word_vector_kernels.h"

namespace cisdl {
namespace {

using V = Vec<float>;
constexpr int64_t W = kWidth<float>;
constexpr int kGroup = 6;
constexpr int64_t kMaxSentence = 1000;  // longer ones are cut, as in word2vec.c
constexpr int64_t kAhead = 3;
constexpr int64_t kLossEvery = 16, kLine = 16;

// ---------------------------------------------------------------------------------------------- one group

// f(k, n): columns k to k + n, n <= W; n is known to be W but for the last. Unrolled is k alone.
template <class F>
CISDL_INLINE void columns(int64_t dim, F&& f) {
  int64_t k = 0;
  for (; k + W <= dim; k += W) f(k, W);
  if (k < dim) f(k, dim - k);
}

// s[t] = h v_t
template <int N>
CISDL_INLINE void products(const float* h, float* const* v, int64_t dim, float* s) {
  V sum[N] = {};
  columns(dim, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
    const V x = load_up_to(h + k, n);
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t) sum[t] += x * load_up_to(v[t] + k, n);
  });
  sum_lanes_of<float, N>(sum, s);
}

// Rows that a later update will read and write: asked for one cache line of each at a time while this one
// computes. All at once they would have to wait for each other: a core waits for few lines (Zen 4: 24) at a time.
struct RowsAhead {
  float* const* rows;
  int n;

  CISDL_INLINE void line(int64_t k) const {
    if (k % kLine == 0)
      for (int t = 0; t < n; ++t) __builtin_prefetch(rows[t] + k, 1);
  }
};

// g = lr (label - sigma(s)) of `count` scores whose labels are 0, in place; s has room for whole vectors.
CISDL_INLINE void gradients(float* s, int64_t count, float lr) {
  const V minus = set1(-lr);
  for (int64_t i = 0; i < count; i += W) store(s + i, minus * sigmoid<float>(load(s + i)));
}

// to = from + sum_t g_t v_t,  v_t += g_t h
template <int N>
CISDL_INLINE void update(const float* h, const float* from, float* to, float* const* v, const float* g,
                         const RowsAhead& ahead, int64_t dim) {
  V scale[N];
#pragma GCC unroll 8
  for (int t = 0; t < N; ++t) scale[t] = set1(g[t]);
  columns(dim, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
    const V x = load_up_to(h + k, n);
    V sum = load_up_to(from + k, n);
    ahead.line(k);
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t) {
      const V y = load_up_to(v[t] + k, n);
      sum += scale[t] * y;
      store_up_to(v[t] + k, y + scale[t] * x, n);
    }
    store_up_to(to + k, sum, n);
  });
}

// Calls f with n as a constant, 1 <= n <= kGroup.
template <int N>
struct Count {
  static constexpr int value = N;
};

template <class F>
CISDL_INLINE void with_count(int n, F&& f) {
  static_assert(kGroup == 6);
  switch (n) {
    case 1:
      return f(Count<1>{});
    case 2:
      return f(Count<2>{});
    case 3:
      return f(Count<3>{});
    case 4:
      return f(Count<4>{});
    case 5:
      return f(Count<5>{});
    default:
      return f(Count<6>{});
  }
}

// -log sigma(s) for the first of n scores, -log sigma(-s) for the others, without overflow.
CISDL_NOINLINE double loss_of(const float* s, int64_t n, bool first) {
  double loss = 0;
  for (int64_t t = 0; t < n; ++t) {
    const double x = first && t == 0 ? -double(s[t]) : double(s[t]);
    loss += __builtin_log1p(__builtin_exp(x > 0 ? -x : x)) + (x > 0 ? x : 0);
  }
  return loss;
}

// One group of h against n rows: the first has label 1 if `first`. loss: where to add it, or null.
CISDL_INLINE void train_group(const float* h, const float* from, float* to, float* const* v, int n, bool first,
                              float lr, const RowsAhead& ahead, int64_t dim, double* loss) {
  with_count(n, [&](auto count) {
    constexpr int N = decltype(count)::value;
    alignas(kVecBytes) float g[kGroup + W] = {};
    products<N>(h, v, dim, g);
    if (loss) *loss += loss_of(g, N, first);
    gradients(g, N, lr);
    if (first) g[0] += lr;
    update<N>(h, from, to, v, g, ahead, dim);
  });
}

// ------------------------------------------------------------------------------------------------ windows

// s[i, t] = h_i v_t for all i < m
template <int N>
CISDL_INLINE void window_products(float* const* h, int64_t m, float* const* v, int64_t dim, float* s) {
  int64_t i = 0;
  for (; i + 2 <= m; i += 2) {
    const float *h0 = h[i], *h1 = h[i + 1];
    V sum[2 * N] = {};
    columns(dim, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
      const V x0 = load_up_to(h0 + k, n), x1 = load_up_to(h1 + k, n);
#pragma GCC unroll 8
      for (int t = 0; t < N; ++t) {
        const V y = load_up_to(v[t] + k, n);
        sum[t] += x0 * y;
        sum[N + t] += x1 * y;
      }
    });
    sum_lanes_of<float, 2 * N>(sum, s + i * N);
  }
  if (i < m) products<N>(h[i], v, dim, s + i * N);
}

// Columns k to k + U W (the last vector: n of them): h_i += sum_t g_it v_t,  v_t += sum_i g_it h_i
template <int N, int U>
CISDL_INLINE void window_columns(float* const* h, int64_t m, float* const* v, const float* g,
                                 const RowsAhead& ahead, int64_t k, int64_t n) {
#pragma GCC unroll 2
  for (int u = 0; u < U; ++u) ahead.line(k + u * W);
  V y[N][U], change[N][U];
#pragma GCC unroll 8
  for (int t = 0; t < N; ++t)
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) {
      y[t][u] = load_up_to(v[t] + k + u * W, n);
      change[t][u] = zero<float>();
    }
  for (int64_t i = 0; i < m; ++i) {
    V x[U], sum[U];
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) sum[u] = x[u] = load_up_to(h[i] + k + u * W, n);
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t) {
      const V scale = set1(g[i * N + t]);
#pragma GCC unroll 2
      for (int u = 0; u < U; ++u) {
        sum[u] += scale * y[t][u];
        change[t][u] += scale * x[u];
      }
    }
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) store_up_to(h[i] + k + u * W, sum[u], n);
  }
  // Read again: of two equal rows the second adds to what the first has written.
#pragma GCC unroll 8
  for (int t = 0; t < N; ++t)
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) {
      float* p = v[t] + k + u * W;
      store_up_to(p, load_up_to(p, n) + change[t][u], n);
    }
}

// All h of a window against n rows. g: room for m n scores and a vector.
CISDL_INLINE void train_window(float* const* h, int64_t m, float* const* v, int n, bool first, float lr,
                               const RowsAhead& ahead, int64_t dim, float* g, double* loss) {
  with_count(n, [&](auto count) {
    constexpr int N = decltype(count)::value;
    window_products<N>(h, m, v, dim, g);
    if (loss)
      for (int64_t i = 0; i < m; ++i) *loss += loss_of(g + i * N, N, first);
    gradients(g, m * N, lr);
    if (first)
      for (int64_t i = 0; i < m; ++i) g[i * N] += lr;
    constexpr int U = kNumRegisters == 32 ? 2 : 1;
    int64_t k = 0;
    for (; k + U * W <= dim; k += U * W) window_columns<N, U>(h, m, v, g, ahead, k, W);
    for (; k + W <= dim; k += W) window_columns<N, 1>(h, m, v, g, ahead, k, W);
    if (k < dim) window_columns<N, 1>(h, m, v, g, ahead, k, dim - k);
  });
}

// ----------------------------------------------------------------------------------------------- a worker

// An update that has been drawn and waits for its rows: contexts against targets, the first of which is the
// centre.
struct Item {
  int64_t contexts, targets;
  float lr;
  int32_t* context;  // [contexts]
  int32_t* target;   // [targets]
};

struct Worker {
  const Word2VecTrain& t;
  uint64_t random;
  Word2VecReport report;
  int32_t* sentence;  // [kMaxSentence]
  Item* ring;         // [kAhead]
  int64_t drawn, trained;
  float** rows;         // [2 window]
  float* scores;        // [2 window kGroup + W]
  float *mean, *error;  // [dim]

  uint64_t draw() { return random = next_random(random); }

  // Uniform on 0 .. n - 1; `rest`: what is left of the number, uniform on [0, 1) and independent of it.
  int64_t below(int64_t n, float* rest = nullptr) {
    const auto product = static_cast<unsigned __int128>(draw()) * static_cast<uint64_t>(n);
    if (rest) *rest = static_cast<float>(static_cast<uint64_t>(product) >> 40) * 0x1p-24f;
    return static_cast<int64_t>(product >> 64);
  }

  float* input(int64_t word) const { return t.input_vectors + word * t.dim; }
  float* output(int64_t word) const { return t.output_vectors + word * t.dim; }

  void prefetch(const float* row) const {
    const char* p = reinterpret_cast<const char*>(row);
    for (int64_t at = 0; at < t.dim * 4; at += 64) __builtin_prefetch(p + at, 1);
  }

  // The next free item of the ring; the oldest is trained if there is none.
  Item& claim() {
    if (drawn - trained == kAhead) train(ring[trained++ % kAhead]);
    return ring[drawn % kAhead];
  }

  void draw_targets(Item& item, int32_t centre) {
    item.target[0] = centre;
    item.targets = 1;
    for (int64_t n = 0; n < t.negative; ++n) {
      float rest;
      const int64_t column = below(t.vocabulary, &rest);
      const int32_t word = rest < t.threshold[column] ? static_cast<int32_t>(column) : t.alias[column];
      if (word == centre) continue;
      item.target[item.targets++] = word;
    }
    ++drawn;
  }

  // Rows of the item drawn last, as many as a group takes. The centre's own row is there already.
  RowsAhead rows_ahead(int64_t begin, float** rows_of) const {
    if (trained + kAhead - 1 > drawn) return {};
    const Item& last = ring[(drawn - 1) % kAhead];
    int n = 0;
    for (int64_t i = begin + 1; n < kGroup && i < last.targets; ++i) rows_of[n++] = output(last.target[i]);
    return {rows_of, n};
  }

  // Splits the targets into groups without a repeated row; f(rows, n, first, rows ahead).
  template <class F>
  void groups(const Item& item, bool apart, F&& f) {
    float *rows_of[kGroup], *later[kGroup];
    int64_t begin = 0;
    while (begin < item.targets) {
      int n = 0;
      uint64_t seen = 0;
      for (; n < kGroup && begin + n < item.targets; ++n) {
        const int32_t word = item.target[begin + n];
        const uint64_t bit = uint64_t{1} << (word & 63);
        if (apart && (seen & bit)) {
          bool repeated = false;
          for (int64_t i = begin; i < begin + n; ++i) repeated |= item.target[i] == word;
          if (repeated) break;
        }
        seen |= bit;
        rows_of[n] = output(word);
      }
      f(rows_of, n, begin == 0, rows_ahead(begin, later));
      begin += n;
    }
  }

  void train(const Item& item) {
    double* loss = nullptr;
    report.updates += t.cbow ? 1 : item.contexts;
    if (trained % kLossEvery == 0) {
      loss = &report.loss;
      report.losses += t.cbow ? 1 : item.contexts;
    }
    if (t.cbow) {
      train_mean(item, loss);
    } else if (t.shared_negatives) {
      for (int64_t i = 0; i < item.contexts; ++i) rows[i] = input(item.context[i]);
      groups(item, false, [&](float* const* v, int n, bool first, const RowsAhead& ahead) {
        train_window(rows, item.contexts, v, n, first, item.lr, ahead, t.dim, scores, loss);
      });
    } else {
      float* h = input(item.context[0]);
      bool whole = false;
      groups(item, true, [&](float* const* v, int n, bool first, const RowsAhead& ahead) {
        whole = n == item.targets;
        if (first && !whole) std::memset(error, 0, sizeof(float) * static_cast<size_t>(t.dim));
        train_group(h, whole ? h : error, whole ? h : error, v, n, first, item.lr, ahead, t.dim, loss);
      });
      if (!whole) add(h, error);
    }
  }

  void add(float* to, const float* from) const {
    columns(t.dim, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
      store_up_to(to + k, load_up_to(to + k, n) + load_up_to(from + k, n), n);
    });
  }

  // CBOW: h is the mean of the window; each of its rows receives the whole of h's change, as in word2vec.c.
  void train_mean(const Item& item, double* loss) {
    const V share = set1(1.0f / static_cast<float>(item.contexts));
    columns(t.dim, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
      V sum = zero<float>();
      for (int64_t i = 0; i < item.contexts; ++i) sum += load_up_to(input(item.context[i]) + k, n);
      store_up_to(mean + k, sum * share, n);
      store_up_to(error + k, zero<float>(), n);
    });
    groups(item, true, [&](float* const* v, int n, bool first, const RowsAhead& ahead) {
      train_group(mean, error, error, v, n, first, item.lr, ahead, t.dim, loss);
    });
    for (int64_t i = 0; i < item.contexts; ++i) add(input(item.context[i]), error);
  }

  // Reads one sentence from `at` on, subsampled; returns where the next begins.
  int64_t read(int64_t at, int64_t end, int64_t* length) {
    int64_t n = 0;
    while (at < end && n < kMaxSentence) {
      const int32_t word = t.tokens[at++];
      if (word < 0) break;
      if (t.keep && t.keep[word] < static_cast<float>(draw() >> 40) * 0x1p-24f) continue;
      sentence[n++] = word;
    }
    *length = n;
    return at;
  }

  void run(int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end;) {
      const float done = static_cast<float>(at - begin) / static_cast<float>(end - begin);
      const float lr = t.lr_begin + (t.lr_end - t.lr_begin) * done;
      int64_t length;
      at = read(at, end, &length);
      report.words += length;
      for (int64_t i = 0; i < t.window && i < length; ++i) prefetch(input(sentence[i]));
      for (int64_t i = 0; i < length; ++i) {
        if (i + t.window < length) prefetch(input(sentence[i + t.window]));
        prefetch(output(sentence[i]));
        const int64_t reach = t.window - below(t.window);
        const int64_t from = i < reach ? 0 : i - reach, to = i + reach < length ? i + reach : length - 1;
        if (t.cbow || t.shared_negatives) {
          if (from == to) continue;
          Item& item = claim();
          item.lr = lr;
          item.contexts = 0;
          for (int64_t c = from; c <= to; ++c)
            if (c != i) item.context[item.contexts++] = sentence[c];
          draw_targets(item, sentence[i]);
        } else {
          for (int64_t c = from; c <= to; ++c) {
            if (c == i) continue;
            Item& item = claim();
            item.lr = lr;
            item.contexts = 1;
            item.context[0] = sentence[c];
            draw_targets(item, sentence[i]);
          }
        }
      }
    }
    while (trained < drawn) train(ring[trained++ % kAhead]);
  }
};

// ------------------------------------------------------------------------------------------------ threads

// Where stretch i of the tokens begins: after the end of a sentence, but for the first.
int64_t stretch(const Word2VecTrain& t, int64_t i) {
  int64_t at = t.size / t.workers * i;
  if (i == t.workers) return t.size;
  while (at > 0 && at < t.size && t.tokens[at - 1] >= 0) ++at;
  return at;
}

// Cuts scratch memory into arrays on cache lines.
struct Cutter {
  char* base;
  int64_t used = 0;
  template <class T>
  T* take(int64_t n) {
    T* found = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return found;
  }
};

void run_worker(const Word2VecTrain& t, int64_t index) {
  const bool windows = t.cbow || t.shared_negatives;
  const int64_t most = 2 * t.window;
  Worker worker{t, t.random[index], {}, nullptr, nullptr, 0, 0, nullptr, nullptr, nullptr, nullptr};
  const auto cut = [&](char* base) {
    Cutter cutter{base};
    worker.sentence = cutter.take<int32_t>(kMaxSentence);
    worker.ring = cutter.take<Item>(kAhead);
    worker.rows = cutter.take<float*>(most);
    worker.scores = cutter.take<float>(most * kGroup + 2 * W);
    worker.mean = cutter.take<float>(t.dim);
    worker.error = cutter.take<float>(t.dim);
    for (int64_t i = 0; i < kAhead; ++i) {
      int32_t* context = cutter.take<int32_t>(windows ? most : 1);
      int32_t* target = cutter.take<int32_t>(1 + t.negative);
      if (base) worker.ring[i] = {0, 0, 0, context, target};
    }
    return cutter.used;
  };
  cut(static_cast<char*>(scratch(Scratch::local, cut(nullptr))));
  worker.run(stretch(t, index), stretch(t, index + 1));
  t.random[index] = worker.random;
  t.reports[index] = worker.report;
}

void train(const Word2VecTrain& t, const Parallel& par) {
  parallel_for(par, t.workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) run_worker(t, i);
  });
}

constexpr Word2VecKernels kKernels = {train};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(word2vec, Word2VecKernels) { return &cisdl::kKernels; }
