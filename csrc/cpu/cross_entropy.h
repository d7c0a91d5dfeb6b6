// Softmax cross-entropy on the CPU, forward and backward (formulas: ../common/elementwise.h).
//
// One row of scores at a time, lanes along the classes: its largest score, then the sum of exponentials while the
// row is in the cache. Nothing of the size of the scores is written but their gradient: torch writes the logarithm
// of the softmax and reads it again, twice. The backward forms the exponentials a second time, which costs less
// than to bring them from memory. Rows are shared out to the threads; each is summed by one of them.
//
// It wins where either the calls are what costs (a few classes: two ops instead of four) or the memory.
#pragma once

#include "../common/elementwise.h"
#include "../common/parallel.h"
#include "simd_math.h"

namespace cisdl {
namespace {

// Elements of scores worth a thread.
constexpr int64_t kCrossEntropyGrain = 1 << 12;

CISDL_INLINE float logarithm(float x) { return __builtin_logf(x); }
CISDL_INLINE double logarithm(double x) { return __builtin_log(x); }

// A row in vectors; in the last one, lanes past its end are `fill`.
template <class T>
struct ScoreRow {
  const T* x;
  int64_t size;

  template <class F>
  CISDL_INLINE void for_each(T fill, const F& f) const {
    constexpr int W = kWidth<T>;
    int64_t c = 0;
    for (; c + W <= size; c += W) f(c, load(x + c));
    if (c == size) return;
    alignas(kVecBytes) T last[W];
    store(last, set1(fill));
    for (int64_t i = c; i < size; ++i) last[i - c] = x[i];
    f(c, load(last));
  }

  CISDL_INLINE T largest() const {
    constexpr int W = kWidth<T>;
    const T lowest = static_cast<T>(-__builtin_huge_val());
    Vec<T> most = set1(lowest);
    for_each(lowest, [&](int64_t, Vec<T> v) __attribute__((always_inline)) { most = v > most ? v : most; });
    alignas(kVecBytes) T lanes[W];
    store(lanes, most);
    for (int step = W / 2; step > 0; step /= 2)
      for (int i = 0; i < step; ++i) lanes[i] = lanes[i] > lanes[i + step] ? lanes[i] : lanes[i + step];
    return lanes[0];
  }
};

template <class T>
T sum_of_weights(const CrossEntropyProblem& p, const T* weight) {
  if (!weight) return static_cast<T>(p.classes);
  double sum = 0;
  for (int64_t c = 0; c < p.classes; ++c) sum += weight[c];
  return static_cast<T>(sum);
}

// What a row adds to the loss, of the sums over it; `below` is sum_c w[c] (largest - x[c]).
template <class T>
struct RowLoss {
  const CrossEntropyForward<T>& f;
  T smoothing, all;

  explicit RowLoss(const CrossEntropyForward<T>& f)
      : f(f),
        smoothing(static_cast<T>(f.p.smoothing)),
        all(smoothing > 0 ? sum_of_weights(f.p, f.weight) : T(0)) {}

  CISDL_INLINE void finish(int64_t n, T largest, T sum, T below) const {
    const CrossEntropyProblem& p = f.p;
    if (f.kept) {
      f.kept[n] = largest;
      f.kept[p.rows + n] = sum;
    }
    const int64_t y = f.target[n];
    if (y == p.ignored) {
      f.losses[n] = 0;
      return;
    }
    // L - x as (largest - x) + log sum: no digits are lost to a large score.
    const T log_sum = logarithm(sum), of_target = (T(1) - smoothing) * (f.weight ? f.weight[y] : T(1));
    f.losses[n] = of_target * ((largest - f.scores[n * p.classes + y]) + log_sum) +
                  (smoothing > 0 ? smoothing / static_cast<T>(p.classes) * (below + all * log_sum) : T(0));
  }
};

// Up to so many classes rows lie side by side.
constexpr int64_t kFewClasses = 32;

// Rows [n, n + count), count <= W, as [class][row]; the other lanes are zero.
template <class T>
CISDL_INLINE void rows_to_lanes(const T* scores, int64_t classes, int64_t count, T* to) {
  constexpr int W = kWidth<T>;
  for (int64_t c = 0; c < classes; ++c) {
    for (int64_t i = 0; i < count; ++i) to[c * W + i] = scores[i * classes + c];
    for (int64_t i = count; i < W; ++i) to[c * W + i] = 0;
  }
}

template <class T>
void cross_entropy_lanes(const RowLoss<T>& loss, int64_t n, int64_t count) {
  constexpr int W = kWidth<T>;
  const CrossEntropyForward<T>& f = loss.f;
  alignas(kVecBytes) T x[kFewClasses * W], largest[W], sums[W], belows[W];
  rows_to_lanes(f.scores + n * f.p.classes, f.p.classes, count, x);
  Vec<T> most = load(x), exps = zero<T>(), below = zero<T>();
  for (int64_t c = 1; c < f.p.classes; ++c) {
    const Vec<T> v = load(x + c * W);
    most = v > most ? v : most;
  }
  for (int64_t c = 0; c < f.p.classes; ++c) {
    const Vec<T> v = load(x + c * W);
    exps += exp<T>(v - most);
    if (loss.smoothing > 0) below += (most - v) * set1(f.weight ? f.weight[c] : T(1));
  }
  store(largest, most);
  store(sums, exps);
  store(belows, below);
  for (int64_t i = 0; i < count; ++i) loss.finish(n + i, largest[i], sums[i], belows[i]);
}

template <class T>
void cross_entropy_row(const RowLoss<T>& loss, int64_t n) {
  const CrossEntropyForward<T>& f = loss.f;
  const ScoreRow<T> row{f.scores + n * f.p.classes, f.p.classes};
  const T largest = row.largest();
  Vec<T> exps = zero<T>(), below = zero<T>();
  row.for_each(static_cast<T>(-__builtin_huge_val()),
               [&](int64_t, Vec<T> v) __attribute__((always_inline)) { exps += exp<T>(v - set1(largest)); });
  if (loss.smoothing > 0)
    row.for_each(largest, [&](int64_t c, Vec<T> v) __attribute__((always_inline)) {
      const Vec<T> less = set1(largest) - v;
      below += f.weight ? less * load_up_to(f.weight + c, f.p.classes - c) : less;
    });
  loss.finish(n, largest, sum_lanes<T>(exps), sum_lanes<T>(below));
}

// Calls rows(n, count) for the rows in groups that lie side by side, or one by one.
template <class T, class F>
CISDL_INLINE void for_each_rows(const CrossEntropyProblem& p, const Parallel& par, const F& rows) {
  const int64_t step = p.classes <= kFewClasses ? kWidth<T> : 1, groups = (p.rows + step - 1) / step;
  parallel_for(par, groups, 1 + kCrossEntropyGrain / (p.classes * step), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin * step; n < end * step && n < p.rows; n += step)
      rows(n, step < p.rows - n ? step : p.rows - n);
  });
}

template <class T>
void cross_entropy_forward(const CrossEntropyForward<T>& f, const Parallel& par) {
  const RowLoss<T> loss(f);
  for_each_rows<T>(f.p, par, [&](int64_t n, int64_t count) {
    if (f.p.classes <= kFewClasses)
      cross_entropy_lanes(loss, n, count);
    else
      cross_entropy_row(loss, n);
  });
}

template <class T>
struct RowGradient {
  const CrossEntropyBackward<T>& b;
  T smoothing, each, of_all;

  explicit RowGradient(const CrossEntropyBackward<T>& b)
      : b(b),
        smoothing(static_cast<T>(b.p.smoothing)),
        each(smoothing / static_cast<T>(b.p.classes)),
        of_all(smoothing > 0 ? each * sum_of_weights(b.p, b.weight) : T(0)) {}

  CISDL_INLINE bool counts(int64_t n) const { return b.target[n] != b.p.ignored; }
  CISDL_INLINE T grad(int64_t n) const { return b.scale * b.grad_losses[n * b.grad_step]; }
  CISDL_INLINE T of_target(int64_t n) const {
    return (T(1) - smoothing) * (b.weight ? b.weight[b.target[n]] : T(1));
  }
  CISDL_INLINE T factor(int64_t n) const { return grad(n) * (of_target(n) + of_all) / b.kept[b.p.rows + n]; }
};

template <class T>
void cross_entropy_lanes_backward(const RowGradient<T>& g, int64_t n, int64_t count) {
  constexpr int W = kWidth<T>;
  const CrossEntropyBackward<T>& b = g.b;
  const int64_t classes = b.p.classes;
  alignas(kVecBytes) T x[kFewClasses * W], largest[W] = {}, factors[W] = {}, rests[W] = {};
  rows_to_lanes(b.scores + n * classes, classes, count, x);
  for (int64_t i = 0; i < count; ++i) {
    largest[i] = b.kept[n + i];
    if (!g.counts(n + i)) continue;
    factors[i] = g.factor(n + i);
    rests[i] = g.grad(n + i) * g.each;
  }
  const Vec<T> most = load(largest), factor = load(factors), rest = load(rests);
  for (int64_t c = 0; c < classes; ++c)
    store(x + c * W, factor * exp<T>(load(x + c * W) - most) - (b.weight ? rest * set1(b.weight[c]) : rest));
  for (int64_t i = 0; i < count; ++i) {
    T* to = b.grad_scores + (n + i) * classes;
    const bool counts = g.counts(n + i);
    for (int64_t c = 0; c < classes; ++c) to[c] = counts ? x[c * W + i] : T(0);
    if (counts) to[b.target[n + i]] -= g.grad(n + i) * g.of_target(n + i);
  }
}

template <class T>
void cross_entropy_row_backward(const RowGradient<T>& g, int64_t n) {
  const CrossEntropyBackward<T>& b = g.b;
  const int64_t classes = b.p.classes;
  T* to = b.grad_scores + n * classes;
  if (!g.counts(n)) {
    std::memset(to, 0, static_cast<size_t>(classes) * sizeof(T));
    return;
  }
  const Vec<T> largest = set1(b.kept[n]), factor = set1(g.factor(n)), rest = set1(g.grad(n) * g.each);
  const bool weighted = g.smoothing > 0 && b.weight;
  const ScoreRow<T> row{b.scores + n * classes, classes};
  row.for_each(T(0), [&](int64_t c, Vec<T> v) __attribute__((always_inline)) {
    const int64_t lanes = classes - c;
    const Vec<T> less = weighted ? rest * load_up_to(b.weight + c, lanes) : rest;
    store_up_to(to + c, factor * exp<T>(v - largest) - less, lanes);
  });
  to[b.target[n]] -= g.grad(n) * g.of_target(n);
}

template <class T>
void cross_entropy_backward(const CrossEntropyBackward<T>& b, const Parallel& par) {
  const RowGradient<T> gradient(b);
  for_each_rows<T>(b.p, par, [&](int64_t n, int64_t count) {
    if (b.p.classes <= kFewClasses)
      cross_entropy_lanes_backward(gradient, n, count);
    else
      cross_entropy_row_backward(gradient, n);
  });
}

}  // namespace
}  // namespace cisdl
